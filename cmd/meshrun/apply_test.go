package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestPlanTellsByItsExitCode(t *testing.T) {
	file := jobFile(t, webJob)
	for want, plan := range map[int]spec.Plan{0: emptyPlan(), 2: changingPlan()} {
		var asked api.PlanRequest
		b := &apitest.Backend{PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return plan, nil }}
		stdout, stderr, code := meshrun(t, b, "plan", file)
		if code != want || !strings.Contains(stdout, "stay") && !strings.Contains(stdout, "No changes") {
			t.Errorf("exit %d, want %d: %s%s", code, want, stdout, stderr)
		}
		if !reflect.DeepEqual(asked.Paths, []string{file}) || len(asked.Jobs) != 1 || asked.Jobs[0].Source != file || asked.Jobs[0].Job.Name != "web" {
			t.Errorf("asked %+v", asked)
		}
	}
	broken := jobFile(t, "job \"x\" {\n  process \"p\" { comand = 1 }\n}\n")
	_, stderr, code := meshrun(t, &apitest.Backend{}, "plan", broken)
	if code != 1 || !strings.Contains(stderr, "comand") || !strings.Contains(stderr, "line 2") {
		t.Errorf("a broken file: exit %d, %s", code, stderr)
	}
	_, stderr, code = meshrun(t, nil, "plan", file)
	if code != 1 || !strings.Contains(stderr, "meshrun agent") {
		t.Errorf("no agent: exit %d, %s", code, stderr)
	}
}

func TestASavedPlanIsAppliedAsItIs(t *testing.T) {
	saved := filepath.Join(t.TempDir(), "saved.plan")
	plan := changingPlan()
	plan.Jobs[0].Sealed = []byte("sealed")
	var applied spec.Plan
	b := &apitest.Backend{
		PlanFunc: func(context.Context, api.PlanRequest) (spec.Plan, error) { return plan, nil },
		ApplyFunc: func(_ context.Context, p spec.Plan) (api.ApplyResult, error) {
			applied = p
			return api.ApplyResult{Index: 8, Applied: []string{"web"}}, nil
		},
	}
	stdout, stderr, code := meshrun(t, b, "plan", "-json", "-out", saved, jobFile(t, webJob))
	var printed spec.Plan
	if err := json.Unmarshal([]byte(stdout), &printed); err != nil || code != 2 || !reflect.DeepEqual(printed, plan) {
		t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the saved plan: %v, %v", info.Mode(), err)
	}
	_, stderr, code = meshrun(t, b, "apply", "-yes", saved)
	acted := changingPlan() // without what is only shown
	acted.Jobs[0].Sealed, acted.Jobs[0].Wanted, acted.Jobs[0].Changes = []byte("sealed"), nil, nil
	if code != 0 || !reflect.DeepEqual(applied, acted) {
		t.Errorf("exit %d: %s; applied %+v", code, stderr, applied)
	}
	b.ApplyFunc = func(context.Context, spec.Plan) (api.ApplyResult, error) { return api.ApplyResult{}, api.ErrStale }
	if _, stderr, code := meshrun(t, b, "apply", "-yes", saved); code != 1 || !strings.Contains(stderr, "plan again") {
		t.Errorf("a stale plan: exit %d, %s", code, stderr)
	}
	if err := os.WriteFile(saved, []byte(`{"format": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := meshrun(t, b, "apply", "-yes", saved); code != 1 || !strings.Contains(stderr, "format 99") {
		t.Errorf("a plan of another version: exit %d, %s", code, stderr)
	}
}

func TestWhoWaitsIsToldWhatHasNoPlace(t *testing.T) {
	plan := changingPlan()
	plan.Jobs[0].Instances = []spec.InstancePlan{
		{ID: spec.InstanceID{Job: "web", Process: "app", Shard: 3}, Action: spec.ActionRefuse, Reason: "no eligible node (1 full)"},
		{ID: spec.InstanceID{Job: "web", Process: "app", Shard: 4}, Action: spec.ActionRefuse, Reason: "no eligible node (1 full)"},
	}
	b := &apitest.Backend{
		DoneFunc:      func(context.Context, api.PlanRequest) (api.Done, error) { return api.Done{Plan: plan}, nil },
		InstancesFunc: func(context.Context, uint64) ([]spec.Instance, uint64, error) { return nil, 1, nil },
	}
	_, stderr, code := meshrun(t, b, "apply", "-yes", "-wait", jobFile(t, webJob))
	if code != 1 || !strings.Contains(stderr, "cannot place 2 shards, the first is web/app/3: no eligible node (1 full)") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

func TestWhoAgreesUnseenIsShownWhatWasDone(t *testing.T) {
	calls := 0
	b := &apitest.Backend{DoneFunc: func(context.Context, api.PlanRequest) (api.Done, error) {
		calls++
		return api.Done{Plan: changingPlan(), Result: api.ApplyResult{Index: 8, Applied: []string{"web"}}}, nil
	}}
	stdout, stderr, code := meshrun(t, b, "apply", "-yes", jobFile(t, webJob))
	if code != 0 || calls != 1 || !strings.Contains(stdout, "web/app/1") || !strings.Contains(stderr, "Applied:") {
		t.Errorf("exit %d after %d calls: %s%s", code, calls, stdout, stderr)
	}
	stdout, _, code = meshrun(t, b, "apply", "-yes", "-json", jobFile(t, webJob))
	var result api.ApplyResult
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 || result.Index != 8 {
		t.Errorf("as JSON: exit %d, %v: %s", code, err, stdout)
	}
	b.DoneFunc = func(context.Context, api.PlanRequest) (api.Done, error) { return api.Done{}, api.ErrStale }
	if _, stderr, code := meshrun(t, b, "apply", "-yes", jobFile(t, webJob)); code != 1 || !strings.Contains(stderr, "plan again") {
		t.Errorf("a state that moved: exit %d, %s", code, stderr)
	}
}

func TestApplyAsksOnlyATerminal(t *testing.T) {
	applies := 0
	b := &apitest.Backend{
		PlanFunc:  func(context.Context, api.PlanRequest) (spec.Plan, error) { return changingPlan(), nil },
		ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) { applies++; return api.ApplyResult{}, nil },
	}
	file := jobFile(t, webJob)
	if _, stderr, code := meshrun(t, b, "apply", file); code != 1 || !strings.Contains(stderr, "-yes") || applies != 0 {
		t.Errorf("without a terminal: exit %d, %d applies, %s", code, applies, stderr)
	}
	for answer, want := range map[string]int{"yes\n": 1, "no\n": 0, "": 0, "maybe\n": 0} {
		applies = 0
		term, out, _ := testTerm(map[string]string{"MESHRUN_DATA_DIR": apitest.Serve(t, b)})
		term.interactive, term.in = true, strings.NewReader(answer)
		code := run(t.Context(), []string{"apply", file}, term)
		if applies != want || code != 1-want {
			t.Errorf("answer %q: exit %d, %d applies", answer, code, applies)
		}
		if !strings.Contains(out.String(), "web/app/1") {
			t.Errorf("the plan was not shown: %s", out)
		}
	}
}

func TestOrdersAreDoneAtOnce(t *testing.T) {
	for line, want := range map[string]api.PlanRequest{
		"restart web/app/1 db": {Orders: []api.Order{{Op: spec.OpRestart, Target: "web/app/1"}, {Op: spec.OpRestart, Target: "db"}}},
		"stop web/app":         {Orders: []api.Order{{Op: spec.OpStop, Target: "web/app"}}},
		"stop -yes web/app":    {Orders: []api.Order{{Op: spec.OpStop, Target: "web/app"}}},
		"stop -purge web":      {Remove: []string{"web"}},
		"scale web/app 5":      {Orders: []api.Order{{Op: spec.OpScale, Target: "web/app", Count: 5}}},
		"rollback -yes web":    {Rollbacks: []api.Rollback{{Job: "web"}}},
		"rollback -yes web 2":  {Rollbacks: []api.Rollback{{Job: "web", Version: 2}}},
	} {
		var asked api.PlanRequest
		tries := 0
		b := &apitest.Backend{
			PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return changingPlan(), nil },
			ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) {
				if tries++; tries == 1 && !strings.HasPrefix(line, "rollback") {
					return api.ApplyResult{}, api.ErrStale // an order means the same on a newer state
				}
				return api.ApplyResult{Applied: []string{"web"}}, nil
			},
		}
		stdout, stderr, code := meshrun(t, b, strings.Fields(line)...)
		asked.Who = ""
		if code != 0 || !reflect.DeepEqual(asked, want) {
			t.Errorf("%s: exit %d, asked %+v: %s", line, code, asked, stderr)
		}
		if !strings.Contains(stdout, "web/app/1") {
			t.Errorf("%s does not tell what it does: %s", line, stdout)
		}
	}
	b := &apitest.Backend{PlanFunc: func(context.Context, api.PlanRequest) (spec.Plan, error) { return emptyPlan(), nil }}
	if stdout, _, code := meshrun(t, b, "stop", "web"); code != 0 || stdout != "No changes.\n" {
		t.Errorf("nothing to do: exit %d, %s", code, stdout)
	}
}

func TestSignalIsReadInEveryForm(t *testing.T) {
	for _, name := range []string{"HUP", "sighup", "SIGHUP"} {
		var got spec.Signal
		b := &apitest.Backend{SignalFunc: func(_ context.Context, target string, s spec.Signal) (int, error) { got = s; return 2, nil }}
		stdout, stderr, code := meshrun(t, b, "signal", name, "web/app", "db")
		if code != 0 || got != "SIGHUP" || !strings.Contains(stdout, "4 instances") {
			t.Errorf("%s: exit %d, %q, %s%s", name, code, got, stdout, stderr)
		}
	}
}

// node is a backend with what bigStatus shows.
