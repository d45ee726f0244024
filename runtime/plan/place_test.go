package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/spec"
)

// moved is a snapshot in which job j is about to leave node a for b.
func moved(t *testing.T, v *spec.JobVersion) plan.Snapshot {
	s := running(v)
	s.Nodes = []spec.Node{{Name: "a", Labels: map[string]string{"disk": "hdd"}}, {Name: "b", Labels: map[string]string{"disk": "ssd"}}}
	return s
}

func TestAMoveSaysFromWhereAndWhy(t *testing.T) {
	v := next(t, nil, apply(job("j", process("db", 1))))
	onSSD := process("db", 1)
	onSSD.Placing = &spec.Placing{Constraints: []spec.Constraint{{Label: "disk", Is: "ssd"}}}
	other := process("db", 1)
	other.Restart.Attempts = 7
	draining, gone := moved(t, v), moved(t, v)
	draining.Nodes[0].Draining = true
	gone.Nodes = gone.Nodes[1:]
	for name, test := range map[string]struct {
		s    plan.Snapshot
		p    spec.Process
		want spec.InstancePlan
	}{
		"constraint": {moved(t, v), onSSD, spec.InstancePlan{Action: spec.ActionMove, From: "a", Node: "b", Reason: `a is without label disk = "ssd"`}},
		"draining":   {draining, other, spec.InstancePlan{Action: spec.ActionMove, From: "a", Node: "b", Reason: "a is draining"}},
		"gone":       {gone, other, spec.InstancePlan{Action: spec.ActionStart, Node: "b", Reason: "a is gone"}},
		"neither":    {moved(t, v), other, spec.InstancePlan{Action: spec.ActionUpdate, Node: "a", Reason: "restart.attempts 3 → 7 (live)"}},
	} {
		p, err := plan.Compute(test.s, []plan.Wanted{{Job: "j", Apply: job("j", test.p), Source: v.Source}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		test.want.ID = spec.InstanceID{Job: "j", Process: "db"}
		if got := p.Jobs[0].Instances; len(got) != 1 || got[0] != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func TestAPlacementThatFitsTouchesNothing(t *testing.T) {
	v := next(t, nil, apply(job("j", process("db", 2))))
	s := moved(t, v)
	onHDD := process("db", 2)
	onHDD.Placing = &spec.Placing{
		Constraints: []spec.Constraint{{Label: "disk", Is: "hdd"}}, Spreads: []spec.Spread{{Label: "zone"}},
	}
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", onHDD), Source: v.Source}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range p.Jobs[0].Instances {
		if i.Action != spec.ActionKeep || i.Node != "a" {
			t.Errorf("%+v", i)
		}
	}
}

func TestWhatCannotBeAsWantedIsWarnedOf(t *testing.T) {
	fitting, slow := process("fits", 1), process("slow", 3)
	slow.Exclusive = true
	slow.Placing = &spec.Placing{Constraints: []spec.Constraint{{Label: "disk", Is: "tape"}}}
	s := plan.Snapshot{Nodes: []spec.Node{{Name: "a"}}, Grace: 2 * time.Second}
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", fitting, slow)}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`cannot place 3 of the 3 shards of j/slow (0-2): no eligible node (1 without label disk = "tape")`,
		`process "slow" of job "j" may take 10s to stop, but has at most 2s when its node loses the cluster: then it is killed`,
	}
	if !slices.Equal(p.Warnings, want) {
		t.Errorf("warned %q", p.Warnings)
	}
	s.Grace = 0 // there is no cluster to lose
	if p, err = plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", fitting, slow)}}, noon); err != nil || len(p.Warnings) != 1 {
		t.Errorf("warned %q, %v", p.Warnings, err)
	}
}

func TestJobsOfOnePlanShareTheRoom(t *testing.T) {
	v := next(t, nil, apply(job("j", process("db", 2))))
	s := running(v)
	s.Nodes[0].Capacity = 3
	s.Placements["j"] = plan.Stored[spec.Placement]{Value: spec.Placement{
		Job: "j", Version: v.Version, Processes: map[string]map[string]spec.ShardSet{"db": {"a": {0, 1}}},
	}}
	s.Jobs["late"] = plan.Stored[spec.JobVersion]{Value: spec.JobVersion{Version: 1, Job: *job("late", process("p", 1))}}
	s.Placements["late"] = plan.Stored[spec.Placement]{Value: spec.Placement{Job: "late", Version: 1, Unplaced: []spec.Unplaced{{Process: "p", Reason: "full"}}}}
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Remove: true}, {Job: "k", Apply: job("k", process("p", 1))}, {Job: "b", Apply: job("b", process("p", 1))}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range p.Jobs {
		for _, i := range j.Instances {
			if i.Action == spec.ActionRefuse {
				t.Errorf("%+v", i)
			}
		}
	}
	if want := []string{`job "late" gets room for 1 of its shards that had no node`}; !slices.Equal(p.Warnings, want) {
		t.Errorf("warned %q", p.Warnings)
	}
}

func TestAPlanMovesWhatHasUsedUpItsRestarts(t *testing.T) {
	db := process("db", 1)
	db.Restart.Exhausted = spec.ExhaustedReschedule
	v := next(t, nil, apply(job("j", db, process("web", 1))))
	s := running(v)
	s.Nodes = []spec.Node{{Name: "a"}, {Name: "b"}}
	s.Placements["j"] = plan.Stored[spec.Placement]{Index: 8, Value: spec.Placement{Job: "j", Version: v.Version, Processes: map[string]map[string]spec.ShardSet{
		"db": {"a": {0}}, "web": {"a": {0}},
	}}}
	for _, o := range s.Observed["j"] {
		for i := range o.Instances {
			if in := &o.Instances[i]; in.ID.Process == "db" {
				in.Phase = spec.PhaseFailed
			}
		}
	}
	web := process("web", 1)
	web.Restart.Attempts = 7
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", db, web), Source: v.Source}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.InstancePlan{
		ID: spec.InstanceID{Job: "j", Process: "db"}, Action: spec.ActionMove, From: "a", Node: "b", Reason: "its restarts are used up on a",
	}
	if got := p.Jobs[0].Instances[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	db.Command = []spec.Template{"better"} // which may be tried where it was
	if p, err = plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", db, web), Source: v.Source}}, noon); err != nil {
		t.Fatal(err)
	}
	if got := p.Jobs[0].Instances[0]; got.Action != spec.ActionStart || got.Node != "a" {
		t.Errorf("another definition: %+v", got)
	}
}
