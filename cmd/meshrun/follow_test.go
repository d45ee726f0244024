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

func TestOnlyANewProcessIsARestart(t *testing.T) {
	old := seen("app", 0, spec.PhaseRunning)
	with := func(change func(*spec.Instance)) []spec.Instance {
		i := old
		change(&i)
		return []spec.Instance{i}
	}
	plan := func(action spec.InstanceAction, epoch uint64, effect spec.Effect) *spec.Plan {
		return &spec.Plan{Jobs: []spec.JobPlan{{
			Job: "web", Action: spec.JobUpdate, To: 5,
			Changes:   []spec.Change{{Process: "app", Path: "x", Effect: effect}},
			Wanted:    &spec.JobVersion{Orders: map[string]spec.Order{"app": {Epoch: epoch}}},
			Instances: []spec.InstancePlan{{ID: id("app", 0), Action: action}},
		}}}
	}
	restart := plan(spec.ActionRestart, 0, spec.EffectReplace)
	batch := plan(spec.ActionRestart, 0, spec.EffectReplace)
	batch.Jobs[0].Ends = []string{"app"}
	for name, c := range map[string]struct {
		plan              *spec.Plan
		now               []spec.Instance
		done, failed, way int
	}{
		"the old process still runs":        {restart, []spec.Instance{old}, 0, 0, 1},
		"a new process runs":                {restart, with(func(i *spec.Instance) { i.PID++ }), 1, 0, 0},
		"the job's new version runs":        {restart, with(func(i *spec.Instance) { i.Version = 5 }), 1, 0, 0},
		"it starts":                         {restart, with(func(i *spec.Instance) { i.PID++; i.Phase = spec.PhaseStarting }), 0, 0, 1},
		"it failed before":                  {plan(spec.ActionStart, 0, ""), with(func(i *spec.Instance) {}), 0, 0, 1},
		"the new one has failed":            {restart, with(func(i *spec.Instance) { i.Version = 5; i.Phase = spec.PhaseFailed }), 0, 1, 0},
		"it is gone for a moment":           {restart, nil, 0, 0, 1},
		"the ordered restart was done":      {plan(spec.ActionRestart, 2, ""), with(func(i *spec.Instance) { i.Epoch = 2 }), 1, 0, 0},
		"the ordered restart is to come":    {plan(spec.ActionRestart, 2, ""), with(func(i *spec.Instance) { i.Epoch = 0 }), 0, 0, 1},
		"what stays need not be new":        {plan(spec.ActionKeep, 0, ""), []spec.Instance{old}, 1, 0, 0},
		"what completed is there":           {plan(spec.ActionKeep, 0, ""), with(func(i *spec.Instance) { i.Phase = spec.PhaseCompleted }), 1, 0, 0},
		"what stops has not stopped":        {plan(spec.ActionStop, 0, ""), with(func(i *spec.Instance) { i.Phase = spec.PhaseStopping }), 0, 0, 1},
		"what stops is gone":                {plan(spec.ActionStop, 0, ""), nil, 1, 0, 0},
		"what stops would still come back":  {plan(spec.ActionStop, 0, ""), with(func(i *spec.Instance) { i.Phase = spec.PhaseBackoff }), 0, 0, 1},
		"a batch process runs":              {batch, with(func(i *spec.Instance) { i.Version = 5 }), 0, 0, 1},
		"a batch process is tried again":    {batch, with(func(i *spec.Instance) { i.Version = 5; i.Phase = spec.PhaseBackoff }), 0, 0, 1},
		"a batch process has completed":     {batch, with(func(i *spec.Instance) { i.Version = 5; i.Phase = spec.PhaseCompleted }), 1, 0, 0},
		"a batch process has failed":        {batch, with(func(i *spec.Instance) { i.Version = 5; i.Phase = spec.PhaseFailed }), 0, 1, 0},
		"what is refused is not waited for": {plan(spec.ActionRefuse, 0, ""), nil, 0, 0, 0},
	} {
		done, failed, waiting := progress(goalsOf(c.plan, []spec.Instance{old}), c.now)
		if done != c.done || len(failed) != c.failed || len(waiting) != c.way {
			t.Errorf("%s: %d done, %d failed, %d on their way", name, done, len(failed), len(waiting))
		}
	}
}

// replay is a backend whose instances are one list after the other.
func replay(lists ...[]spec.Instance) *apitest.Backend {
	return &apitest.Backend{
		PlanFunc:  func(context.Context, api.PlanRequest) (spec.Plan, error) { return changingPlan(), nil },
		ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) { return api.ApplyResult{}, nil },
		InstancesFunc: func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
			if after >= uint64(len(lists)) {
				<-ctx.Done()
				return nil, 0, ctx.Err()
			}
			return lists[after], after + 1, nil
		},
	}
}

func TestWaitingFollowsUntilAllIsThereOrSaysWhatToLookAt(t *testing.T) {
	app0, starting, running := seen("app", 0, spec.PhaseRunning), seen("app", 1, spec.PhaseStarting), seen("app", 1, spec.PhaseRunning)
	failed := seen("app", 1, spec.PhaseFailed)
	failed.LastExit = &spec.Exit{Code: 3}
	file := jobFile(t, webJob)
	_, stderr, code := meshrun(t, replay([]spec.Instance{app0}, []spec.Instance{app0, starting}, []spec.Instance{app0, running}), "apply", "-yes", "-wait", file)
	if code != 0 || !strings.Contains(stderr, "web/app/1  starting") || !strings.Contains(stderr, "web/app/1  running") || !strings.Contains(stderr, "Done.") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	_, stderr, code = meshrun(t, replay([]spec.Instance{app0}, []spec.Instance{app0, failed}), "apply", "-yes", "-wait", file)
	if code != 1 || !strings.Contains(stderr, "meshrun logs web/app/1") || !strings.Contains(stderr, "exit 3") {
		t.Errorf("a failure: exit %d\n%s", code, stderr)
	}
	_, stderr, code = meshrun(t, replay([]spec.Instance{app0}, []spec.Instance{app0, starting}), "apply", "-yes", "-wait", "-timeout", "50ms", file)
	if code != 1 || !strings.Contains(stderr, "web/app/1 is starting") || !strings.Contains(stderr, "-timeout") {
		t.Errorf("no end: exit %d\n%s", code, stderr)
	}
}

func TestAnAgentThatStaysAwayIsStartedAgain(t *testing.T) {
	revived, told := 0, []string{}
	a := &absence{
		revive: func(context.Context) error { revived++; return nil },
		begun:  func() { told = append(told, "begun") },
		over:   func() { told = append(told, "over") },
	}
	if err := a.wait(t.Context(), api.ErrNoAgent); err != nil || revived != 0 {
		t.Errorf("at first: %v, revived %d", err, revived)
	}
	a.since = time.Now().Add(-time.Minute)
	if err := a.wait(t.Context(), api.ErrUnavailable); err != nil || revived != 0 {
		t.Errorf("one that is only busy: %v, revived %d", err, revived)
	}
	if err := a.wait(t.Context(), api.ErrNoAgent); err != nil || revived != 1 {
		t.Errorf("one that is gone: %v, revived %d", err, revived)
	}
	a.ended()
	a.ended()
	if got := strings.Join(told, " "); got != "begun over" {
		t.Errorf("told %q", got)
	}
	a = &absence{since: time.Now().Add(-time.Minute)}
	if err := a.wait(t.Context(), api.ErrNoAgent); err == nil {
		t.Error("the wait for an agent that nobody starts has no end")
	}
}
