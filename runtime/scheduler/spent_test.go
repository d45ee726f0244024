package scheduler

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// rescheduled returns version 1 of job j, of one process that is to be tried on
// other nodes.
func rescheduled(shards int) *spec.JobVersion {
	p := spec.DefaultProcess("p")
	p.Shards, p.Restart.Exhausted = shards, spec.ExhaustedReschedule
	return &spec.JobVersion{Version: 1, Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
}

// failing returns a shard of p as it is seen once it has used up its restarts.
func failing(v *spec.JobVersion, shard int) spec.Instance {
	return spec.Instance{
		ID: spec.InstanceID{Job: "j", Process: "p", Shard: shard}, Phase: spec.PhaseFailed, Hash: spec.ReplaceHash(&v.Job.Processes[0]),
		Epoch: v.Order("p", shard).Epoch, Reason: "3 restarts within 5m are used up", LastExit: &spec.Exit{Code: 1},
	}
}

// seenOn returns what Note asks of the nodes.
func seenOn(seen map[string][]spec.Instance) func(string) []spec.Instance {
	return func(node string) []spec.Instance { return seen[node] }
}

// exhaust lets shards of p use up their restarts where they are, and places the
// job again.
func exhaust(v *spec.JobVersion, nodes []spec.Node, placed spec.Placement, shards ...int) spec.Placement {
	seen := map[string][]spec.Instance{}
	for _, shard := range shards {
		if node := placed.Place("p", shard); node != "" {
			seen[node] = append(seen[node], failing(v, shard))
		}
	}
	return Place(v, nodes, nil, Note(v, &placed, seenOn(seen)))
}

func TestAShardGoesFromNodeToNodeUntilAllHaveFailedIt(t *testing.T) {
	v, nodes := rescheduled(1), []spec.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	placed := Place(v, nodes, nil, nil)
	been := map[string]bool{}
	for range nodes {
		at := placed.Place("p", 0)
		if at == "" || been[at] {
			t.Fatalf("it is on %q and was on %v", at, been)
		}
		been[at] = true
		placed = exhaust(v, nodes, placed, 0)
	}
	last := placed.Place("p", 0)
	if spent := placed.SpentOn("p", 0); !slices.Equal(spent, []string{"a", "b", "c"}) || last == "" || len(placed.Unplaced) > 0 {
		t.Fatalf("it stays down where it was last, and has failed everywhere: %+v", placed)
	}
	if again := exhaust(v, nodes, placed, 0); !reflect.DeepEqual(again, placed) {
		t.Errorf("that is the end of it: %+v", again)
	}
	nodes = append(nodes, spec.Node{Name: "d"})
	if placed = Place(v, nodes, nil, &placed); placed.Place("p", 0) != "d" {
		t.Errorf("a new node is tried: %+v", placed)
	}
}

func TestWhatEndsTheMemoryOfASpentShard(t *testing.T) {
	nodes := []spec.Node{{Name: "a"}, {Name: "b"}}
	for name, test := range map[string]struct {
		change func(v *spec.JobVersion)
		nodes  []spec.Node
		ends   bool
	}{
		"nothing":                         {func(*spec.JobVersion) {}, nodes, false},
		"a version that is the same":      {func(v *spec.JobVersion) { v.Version++ }, nodes, false},
		"another limit":                   {func(v *spec.JobVersion) { v.Job.Processes[0].Restart.Attempts++ }, nodes, false},
		"another command":                 {func(v *spec.JobVersion) { v.Job.Processes[0].Command = []spec.Template{"x"} }, nodes, true},
		"an ordered restart":              {func(v *spec.JobVersion) { v.Orders = map[string]spec.Order{"p/0": {Epoch: 1}} }, nodes, true},
		"an ordered restart of another":   {func(v *spec.JobVersion) { v.Orders = map[string]spec.Order{"p/1": {Epoch: 1}} }, nodes, false},
		"fail in the place of reschedule": {func(v *spec.JobVersion) { v.Job.Processes[0].Restart.Exhausted = spec.ExhaustedFail }, nodes, true},
		"no such shard":                   {func(v *spec.JobVersion) { v.Job.Processes[0].Shards = 0 }, nodes, true},
		"no such process":                 {func(v *spec.JobVersion) { v.Job.Processes[0].Name = "q" }, nodes, true},
		"a node that leaves":              {func(*spec.JobVersion) {}, nil, true},
	} {
		v := rescheduled(2)
		placed := Place(v, nodes, nil, nil)
		from := placed.Place("p", 0)
		placed = exhaust(v, nodes, placed, 0)
		if placed.Place("p", 0) == from {
			t.Fatalf("%s: it stays on %s", name, from)
		}
		if test.nodes == nil {
			test.nodes = slices.DeleteFunc(slices.Clone(nodes), func(n spec.Node) bool { return n.Name == from })
		}
		test.change(v)
		after := Place(v, test.nodes, nil, &placed)
		if ended := len(after.Spent) == 0; ended != test.ends {
			t.Errorf("%s: %+v", name, after.Spent)
		}
		if to := placed.Place("p", 0); v.Job.Processes[0].Shards > 0 && v.Job.Processes[0].Name == "p" && after.Place("p", 0) != to {
			t.Errorf("%s moves it from %s to %s", name, to, after.Place("p", 0))
		}
	}
}

func TestOnlyWhatFailedAsItIsWantedIsNoted(t *testing.T) {
	v := rescheduled(2)
	v.Orders = map[string]spec.Order{"p/1": {Stopped: true}}
	placed := Place(v, []spec.Node{{Name: "a"}}, nil, nil)
	note := func(node string, change func(in *spec.Instance)) bool {
		in := failing(v, 0)
		change(&in)
		return Note(v, &placed, seenOn(map[string][]spec.Instance{node: {in}})) != &placed
	}
	for name, test := range map[string]struct {
		node   string
		change func(in *spec.Instance)
		want   bool
	}{
		"used up":                {"a", func(*spec.Instance) {}, true},
		"between two tries":      {"a", func(in *spec.Instance) { in.Phase = spec.PhaseBackoff }, false},
		"completed":              {"a", func(in *spec.Instance) { in.Phase = spec.PhaseCompleted }, false},
		"an old definition":      {"a", func(in *spec.Instance) { in.Hash = "old" }, false},
		"before a restart":       {"a", func(in *spec.Instance) { in.Epoch = 7 }, false},
		"cannot be launched":     {"a", func(in *spec.Instance) { in.Refused = 1 }, false},
		"stopped by an operator": {"a", func(in *spec.Instance) { in.ID.Shard = 1 }, false},
		"where it was before":    {"b", func(*spec.Instance) {}, false},
	} {
		if got := note(test.node, test.change); got != test.want {
			t.Errorf("%s: noted is %v", name, got)
		}
	}
	v.Job.Processes[0].Restart.Exhausted = spec.ExhaustedFail
	if note("a", func(*spec.Instance) {}) {
		t.Error("a process that stays down where it is needs no note")
	}
}

func TestASpentShardWithoutAPlaceSaysWhy(t *testing.T) {
	v, nodes := rescheduled(1), []spec.Node{{Name: "a"}, {Name: "b"}}
	placed := Place(v, nodes, nil, nil)
	from := placed.Place("p", 0)
	placed = exhaust(v, nodes, placed, 0)
	for i := range nodes {
		nodes[i].Draining = nodes[i].Name != from
	}
	placed = Place(v, nodes, nil, &placed)
	want := "no eligible node (1 draining, 1 where its restarts are used up)"
	if len(placed.Unplaced) != 1 || placed.Unplaced[0].Reason != want {
		t.Errorf("got %+v, want %q", placed, want)
	}
}

// Whatever uses up its restarts where it is, again and again: each shard has one
// place or a reason, none is on a node that it is spent on while another one
// would take it, nothing moves but for that and for the room that it leaves, and
// what is placed stays so.
func TestOnlyWhatIsSpentMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, rapid.Bool().Draw(t, "capacities"))
		taken := drawTaken(t, nodes)
		for i := range v.Job.Processes {
			if rapid.IntRange(0, 3).Draw(t, "reschedule") > 0 {
				v.Job.Processes[i].Restart.Exhausted = spec.ExhaustedReschedule
			}
		}
		placed := Place(v, nodes, taken, nil)
		for range rapid.IntRange(1, 5).Draw(t, "times") {
			fails := map[spec.InstanceID]bool{}
			seen := map[string][]spec.Instance{}
			for i := range v.Job.Processes {
				p := &v.Job.Processes[i]
				for _, node := range slices.Sorted(maps.Keys(placed.Processes[p.Name])) {
					for _, shard := range placed.Processes[p.Name][node] {
						if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
							id := spec.InstanceID{Job: "j", Process: p.Name, Shard: shard}
							fails[id] = p.Restart.Reschedules()
							seen[node] = append(seen[node], spec.Instance{ID: id, Phase: spec.PhaseFailed, Hash: spec.ReplaceHash(p)})
						}
					}
				}
			}
			noted := Note(v, &placed, seenOn(seen))
			if again := Note(v, noted, seenOn(seen)); again != noted {
				t.Fatalf("noted twice: %+v", again)
			}
			after := Place(v, nodes, taken, noted)
			if again := Place(v, nodes, taken, &after); !reflect.DeepEqual(again, after) {
				t.Fatalf("placing again moves something:\n%+v\n%+v", after, again)
			}
			checkSpent(t, v, nodes, taken, placed, after, fails)
			placed = after
		}
	})
}

// checkSpent demands the laws of a placement after another one, in between which
// shards have used up their restarts.
func checkSpent(t *rapid.T, v *spec.JobVersion, nodes []spec.Node, taken map[string]Load, before, after spec.Placement, fails map[spec.InstanceID]bool) {
	was, is := places(t, before), places(t, after)
	o := &outcome{job: v, nodes: nodes, taken: taken, p: after, where: is, unplaced: map[string]bool{}, used: maps.Clone(taken), listens: map[string]string{}}
	for _, u := range after.Unplaced {
		o.unplaced[fmt.Sprintf("%s/%d", u.Process, u.Shard)] = true
	}
	for i := range v.Job.Processes {
		o.checkShards(t, &v.Job.Processes[i])
	}
	for i := range v.Job.Processes {
		p := &v.Job.Processes[i]
		may, _ := eligible(p, nodes)
		for shard := range p.Shards {
			id := fmt.Sprintf("%s/%d", p.Name, shard)
			failed := fails[spec.InstanceID{Job: "j", Process: p.Name, Shard: shard}]
			spent := after.SpentOn(p.Name, shard)
			if failed && !slices.Contains(spent, was[id]) {
				t.Fatalf("%s has used up its restarts on %s, and that is not known: %v", id, was[id], spent)
			}
			// Room that is left may be for others, and of what can't be divided by two
			// labels another value may get the rest.
			steady := !Bounded(nodes) && len(p.Ports) == 0 && len(p.Placing.Spreads) < 2
			if steady && was[id] != "" && !slices.Contains(spent, was[id]) && is[id] != was[id] {
				t.Fatalf("%s moves from %s to %s, and is spent on %v", id, was[id], is[id], spent)
			}
			if is[id] != was[id] && slices.Contains(spent, is[id]) {
				t.Fatalf("%s moves from %q to %s, where it is spent", id, was[id], is[id])
			}
			if is[id] != "" && !slices.Contains(spent, is[id]) {
				continue
			}
			for _, n := range may {
				if !slices.Contains(spent, n.Name) && !o.full(p, n) {
					t.Fatalf("%s is on %q and spent on %v, and %s has room", id, is[id], spent, n.Name)
				}
			}
		}
	}
}

// One that joins, and one whose drain is ended, get the same: what is above the
// others' bounds.
func TestTheEndOfADrainMovesWhatAJoinMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, true)
		n := drawNode(t, "new", true)
		n.Draining = true
		without, drained := Place(v, nodes, nil, nil), Place(v, append(slices.Clone(nodes), n), nil, nil)
		n.Draining = false
		with := append(slices.Clone(nodes), n)
		if a, b := Place(v, with, nil, &without), Place(v, with, nil, &drained); !reflect.DeepEqual(a, b) {
			t.Fatalf("joined %+v\nback from its drain %+v", a, b)
		}
	})
}
