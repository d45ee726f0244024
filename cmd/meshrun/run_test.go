package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// running returns a backend of which a run is asked, and that has these runs.
func running(runs ...spec.Run) *apitest.Backend {
	return &apitest.Backend{
		InstancesFunc: func(context.Context, uint64) ([]spec.Instance, uint64, error) { return nil, 1, nil },
		RunsFunc:      func(context.Context, string) ([]spec.Run, error) { return runs, nil },
		PlanFunc: func(context.Context, api.PlanRequest) (spec.Plan, error) {
			p := changingPlan()
			p.Jobs[0].Wanted = &spec.JobVersion{Version: 4, Job: spec.Job{Name: "web"}, Orders: map[string]spec.Order{"app": {Runs: 2}}}
			return p, nil
		},
		ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) {
			return api.ApplyResult{Applied: []string{"web"}}, nil
		},
	}
}

func endedRun(id string, state spec.RunState, code int) spec.Run {
	return spec.Run{
		Job: "web", Process: "app", ID: id, Tick: testNow().Add(-time.Hour), State: state, Node: "a",
		Began: testNow().Add(-time.Hour), Ended: testNow().Add(-59 * time.Minute), Exit: &spec.Exit{Code: code},
	}
}

func TestRunWaitsForItsRunAndExitsAsItDid(t *testing.T) {
	for _, c := range []struct {
		state spec.RunState
		exit  int
		code  int
		says  string
	}{
		{spec.RunSucceeded, 0, 0, "The run has succeeded."},
		{spec.RunFailed, 3, 1, "run manual-2 of web/app has failed: exit 3: see `meshrun logs web/app`"},
		{spec.RunSkipped, 0, 1, "run manual-2 of web/app was skipped"},
	} {
		_, stderr, code := meshrun(t, running(endedRun("manual-1", spec.RunFailed, 9), endedRun("manual-2", c.state, c.exit)), "run", "-wait", "web/app")
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit code %d, %s", c.state, code, stderr)
		}
	}
}

func TestRunsListsHowRunsEnded(t *testing.T) {
	other := endedRun("manual-1", spec.RunSucceeded, 0)
	other.Process = "other"
	skipped := spec.Run{Job: "web", Process: "app", ID: "20261124T113000Z", Tick: testNow().Add(-30 * time.Minute), State: spec.RunSkipped, Reason: "run manual-1 is still under way", Ticks: 3}
	stdout, _, code := meshrun(t, running(endedRun("manual-1", spec.RunFailed, 9), skipped, other), "runs", "web/app")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	golden(t, "runs", stdout)
}

func TestRunsOfWhatHasNoScheduleAreNeverDue(t *testing.T) {
	b := running()
	b.JobFunc = func(context.Context, string) (spec.JobVersion, error) {
		nightly := spec.DefaultProcess("nightly")
		nightly.Schedule = &spec.Schedule{Cron: "0 3 * * *"}
		return spec.JobVersion{Job: spec.Job{Name: "web", Processes: []spec.Process{spec.DefaultProcess("app"), nightly}}}, nil
	}
	for target, c := range map[string]struct {
		says string
		code int
	}{
		"web":         {"when the next one is due", 0},
		"web/nightly": {"when the next one is due", 0},
		"web/app":     {"web/app has no schedule, so there are no runs", 0},
		"web/nope":    {`no process named "web/nope"`, 1},
	} {
		stdout, stderr, code := meshrun(t, b, "runs", target)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s: exit %d\n%s%s", target, code, stdout, stderr)
		}
	}
}

func TestHelpOfRunIsAboutItsRun(t *testing.T) {
	if stdout, _, code := meshrun(t, nil, "run", "-help"); code != 0 || !strings.Contains(stdout, "follow the run to its end") || strings.Contains(stdout, "rollout") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
}
