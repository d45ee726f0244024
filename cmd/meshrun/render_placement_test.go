package main

import (
	"context"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

func TestStatusSaysOfWhatUsedUpItsRestartsWhereItIsNow(t *testing.T) {
	p := spec.DefaultProcess("app")
	p.Shards, p.Restart.Exhausted = 4, spec.ExhaustedReschedule
	b := rollout()
	b.InfoFunc = func(context.Context) (api.Info, error) { return api.Info{Node: "alpha"}, nil }
	b.InstancesFunc = func(context.Context, uint64) ([]spec.Instance, uint64, error) {
		return []spec.Instance{seen("app", 0, spec.PhaseRunning)}, 1, nil
	}
	b.JobsFunc = func(context.Context) ([]spec.JobVersion, error) {
		return []spec.JobVersion{{Version: 1, When: testNow(), Job: spec.Job{Name: "web", Processes: []spec.Process{p}}}}, nil
	}
	b.PlacementsFunc = func(context.Context) ([]spec.Placement, error) {
		return []spec.Placement{{Job: "other", Spent: []spec.Spent{{Process: "x"}}}, {
			Job: "web", Processes: map[string]map[string]spec.ShardSet{"app": {"alpha": {0}, "beta": {1, 2}}},
			Spent: []spec.Spent{{Process: "app", Nodes: map[string]spec.ShardSet{"alpha": {0, 1, 2, 3}, "beta": {0}}}},
		}}, nil
	}
	stdout, stderr, code := meshrun(t, b, "status")
	for _, want := range []string{
		"! app/0 stays down: its restarts are used up on alpha, beta, and no other node can take it; meshrun restart web/app tries again\n",
		"! app/1-2 was moved to beta: its restarts are used up on alpha\n",
		"! app/3 stays down: its restarts are used up on alpha, and no other node can take it",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("without %q: exit %d\n%s%s", want, code, stdout, stderr)
		}
	}
	if stdout, _, _ := meshrun(t, b, "status", "web/app/1"); !strings.Contains(stdout, "! app/1 was moved") || strings.Contains(stdout, "app/0 stays") {
		t.Errorf("of one shard alone:\n%s", stdout)
	}
}
