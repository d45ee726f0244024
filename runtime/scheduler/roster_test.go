package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

func TestEachNodeIsToldOfOnce(t *testing.T) {
	type row struct {
		nodes  []spec.Node
		placed map[string]Load
		seen   string
		want   []string
	}
	a, draining := spec.Node{Name: "a"}, spec.Node{Name: "a", Draining: true}
	var r spec.Roster
	for i, row := range []row{
		{[]spec.Node{a, {Name: "b"}}, nil, "", []string{"node.joined a info", "node.joined b info"}},
		{[]spec.Node{a, {Name: "b"}}, nil, "", nil},
		{[]spec.Node{draining, {Name: "b"}}, map[string]Load{"a": {Instances: 1}}, "a", nil},
		{[]spec.Node{draining, {Name: "b"}}, nil, "a", nil}, // its instances are still stopping
		{[]spec.Node{draining, {Name: "b"}}, nil, "", []string{"node.drained a info"}},
		{[]spec.Node{draining, {Name: "b"}}, nil, "", nil},
		{[]spec.Node{a, {Name: "b"}}, nil, "", nil},
		{[]spec.Node{draining, {Name: "b"}}, nil, "", []string{"node.drained a info"}},
		{nil, map[string]Load{"b": {Instances: 3}}, "", []string{"node.left a info", "node.left b critical"}},
		{nil, nil, "", nil},
	} {
		var events []spec.Event
		r, events = roll(r, row.nodes, row.placed, func(node string) bool { return node == row.seen })
		var got []string
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %s", e.Type, e.Node, e.Severity))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("row %d: told %q, want %q", i, got, row.want)
		}
	}
}

// told returns the types of the events of a node, in their order.
func told(t *testing.T, store state.Store, node string) []string {
	events, err := state.Events(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		if e.Node == node {
			out = append(out, string(e.Type)+" "+string(e.Severity))
		}
	}
	return out
}

func placedOn(t *testing.T, store state.Store, job string) spec.Placement {
	t.Helper()
	p, _, err := state.GetAs[spec.Placement](t.Context(), store, state.PlacementKey(job))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatAGoneNodeObservedIsForgottenOnceItsShardsHaveMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		write(t, store, set(state.NodeKey("a"), worker("a")))
		write(t, store, set(state.NodeKey("b"), worker("b")))
		write(t, store, set(state.JobKey("j"), forWorkers(4)))
		write(t, store, set(state.ObservedKey("a", "j"), spec.Observed{Job: "j", Node: "a"}))
		write(t, store, set(state.ObservedKey("b", "j"), spec.Observed{Job: "j", Node: "b"}))
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.NodeKey("a")})
		if p := placedOn(t, store, "j"); p.Processes["p"]["b"].String() != "0-3" {
			t.Errorf("a is gone, and placed is %+v", p)
		}
		if _, err := store.Get(t.Context(), state.ObservedKey("a", "j")); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("what a observed is still there: %v", err)
		}
		if _, err := store.Get(t.Context(), state.ObservedKey("b", "j")); err != nil {
			t.Errorf("what b observed: %v", err)
		}
		if got := told(t, store, "a"); !slices.Equal(got, []string{"node.joined info", "node.left critical"}) {
			t.Errorf("told %q", got)
		}
	})
}

func TestADrainedNodeIsToldOfOnceNothingRunsOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		write(t, store, set(state.NodeKey("a"), worker("a")))
		write(t, store, set(state.JobKey("j"), forWorkers(2)))
		write(t, store, set(state.ObservedKey("a", "j"), spec.Observed{Job: "j", Node: "a"}))
		write(t, store, set(state.NodeKey("b"), worker("b")))
		draining := worker("a")
		draining.Draining = true
		write(t, store, set(state.NodeKey("a"), draining))
		if got := told(t, store, "a"); !slices.Equal(got, []string{"node.joined info"}) {
			t.Errorf("its instances run, and told is %q", got)
		}
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.ObservedKey("a", "j")})
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.NodeKey("a")})
		if got := told(t, store, "a"); !slices.Equal(got, []string{"node.joined info", "node.drained info", "node.left info"}) {
			t.Errorf("told %q", got)
		}
	})
}

// After a fault that took all nodes away, the first that is back is not given
// everything.
func TestMostNodesHaveGraceWhenTheyAreGoneTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		for _, n := range []string{"a", "b", "c"} {
			write(t, store, set(state.NodeKey(n), worker(n)))
		}
		write(t, store, set(state.JobKey("j"), forWorkers(12)))
		before := placedOn(t, store, "j")
		for _, n := range []string{"a", "b", "c"} {
			if before.Processes["p"][n].String() == "" {
				t.Fatalf("placed %+v", before)
			}
		}
		gone := func(names ...string) {
			var ops []state.Op
			for _, n := range names {
				ops = append(ops, state.Op{Kind: state.OpDelete, Key: state.NodeKey(n)})
			}
			if _, err := store.Txn(t.Context(), ops...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(massGrace / 2) // virtual
			synctest.Wait()
		}
		gone("a", "b", "c")
		for _, n := range []string{"a", "b", "c"} {
			write(t, store, set(state.NodeKey(n), worker(n)))
		}
		if now := placedOn(t, store, "j"); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Fatalf("they came back, and placed is %+v, not %+v", now, before)
		}
		gone("a", "b", "c")
		write(t, store, set(state.NodeKey("c"), worker("c")))
		time.Sleep(massGrace) // virtual
		synctest.Wait()
		if now := placedOn(t, store, "j"); now.Processes["p"]["c"].String() != "0-11" {
			t.Fatalf("a and b stay away, and placed is %+v", now)
		}
		if got := told(t, store, "a"); !slices.Equal(got, []string{"node.joined info", "node.left critical"}) {
			t.Errorf("told %q", got)
		}
	})
}

func TestANewPrimaryMovesWhatWasOnMostNodesWhenTheirGraceIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		placement := spec.Placement{Job: "j", Version: 1, Processes: map[string]map[string]spec.ShardSet{"p": {"a": {0}, "b": {1}}}}
		store := start(t,
			set(state.RosterKey, spec.Roster{Nodes: map[string]spec.NodeState{"me": spec.NodeHere, "a": spec.NodeHere, "b": spec.NodeHere, "c": spec.NodeHere, "d": spec.NodeHere}}),
			set(state.NodeKey("c"), worker("c")),
			set(state.JobKey("j"), forWorkers(2)), set(state.PlacementKey("j"), placement))
		time.Sleep(massGrace / 2) // virtual
		synctest.Wait()
		if now := placedOn(t, store, "j"); fmt.Sprint(now) != fmt.Sprint(placement) {
			t.Errorf("within the grace placed is %+v", now)
		}
		time.Sleep(massGrace) // virtual
		synctest.Wait()
		if now := placedOn(t, store, "j"); now.Processes["p"]["c"].String() != "0-1" {
			t.Errorf("after the grace placed is %+v", now)
		}
	})
}

// All sessions were lost at once, and the primary's comes back when only a
// minority is still missing.
func TestNodesThatAreJustBackCountWithThoseThatAreStillMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := time.Now().Add(-time.Hour)
		placement := spec.Placement{Job: "j", Version: 1, Processes: map[string]map[string]spec.ShardSet{"p": {"c": {0}, "d": {1}}}}
		r := spec.Roster{Nodes: map[string]spec.NodeState{}, Since: map[string]time.Time{}}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			r.Nodes[name], r.Since[name] = spec.NodeHere, before
		}
		back := func(name string, since time.Time) state.Op {
			n := worker(name)
			n.Since = since
			return set(state.NodeKey(name), n)
		}
		store := start(t, set(state.RosterKey, r),
			back("a", time.Now()), back("b", time.Now()), back("e", before),
			set(state.JobKey("j"), forWorkers(2)), set(state.PlacementKey("j"), placement))
		time.Sleep(massGrace / 2) // virtual
		synctest.Wait()
		if now := placedOn(t, store, "j"); fmt.Sprint(now) != fmt.Sprint(placement) {
			t.Fatalf("two are back and two are missing, and placed is %+v", now)
		}
		write(t, store, back("c", time.Now()))
		write(t, store, back("d", time.Now()))
		time.Sleep(massGrace)
		synctest.Wait()
		if now := placedOn(t, store, "j"); fmt.Sprint(now) != fmt.Sprint(placement) {
			t.Errorf("they are back, and placed is %+v", now)
		}
		// What was long ago does not count when a single node is lost later.
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.NodeKey("c")})
		if now := placedOn(t, store, "j"); now.Processes["p"]["c"].String() != "" {
			t.Errorf("c is lost, and placed is %+v", now)
		}
	})
}

// Somebody deletes the record of a node that is well.
func TestADeletedRecordMovesNothingIfTheNodePutsItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		session, err := store.CreateSession(t.Context(), state.SessionConfig{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		hold := state.Op{Kind: state.OpLock, Key: state.NodeKey("a"), Session: session, Value: state.Encode(worker("a"))}
		remove := state.Op{Kind: state.OpDelete, Key: state.NodeKey("a")}
		write(t, store, hold)
		write(t, store, set(state.JobKey("j"), forWorkers(2)))
		write(t, store, set(state.NodeKey("b"), worker("b")))
		before := placedOn(t, store, "j")
		write(t, store, remove)
		time.Sleep(time.Second) // virtual
		write(t, store, hold)
		time.Sleep(time.Minute)
		synctest.Wait()
		if now := placedOn(t, store, "j"); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Errorf("the record is back, and placed is %+v", now)
		}
		if got := told(t, store, "a"); !slices.Equal(got, []string{"node.joined info"}) {
			t.Errorf("told %q", got)
		}
		// One who does not put it back has no longer than that.
		write(t, store, remove)
		time.Sleep(2 * recordGrace)
		synctest.Wait()
		if now := placedOn(t, store, "j"); now.Processes["p"]["b"].String() != "0-1" {
			t.Errorf("a does not come back, and placed is %+v", now)
		}
		// One who leaves has none.
		write(t, store, hold)
		write(t, store, set(state.JobKey("j"), func() spec.JobVersion { j := forWorkers(8); j.Version = 2; return j }()))
		if now := placedOn(t, store, "j"); now.Processes["p"]["a"].String() == "" {
			t.Fatalf("a is back, and placed is %+v", now)
		}
		write(t, store, remove)
		if err := store.DestroySession(t.Context(), session); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * recordLook)
		synctest.Wait()
		if now := placedOn(t, store, "j"); now.Processes["p"]["b"].String() != "0-7" {
			t.Errorf("a has left, and placed is %+v", now)
		}
	})
}

func TestRoomThatAJobLeavesIsGivenToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		a := worker("a")
		a.Capacity = 3
		write(t, store, set(state.NodeKey("a"), a))
		first, second := forWorkers(2), forWorkers(2)
		first.Job.Name, second.Job.Name = "z", "b"
		write(t, store, set(state.JobKey("z"), first))
		write(t, store, set(state.JobKey("b"), second))
		if p := placedOn(t, store, "b"); len(p.Unplaced) != 1 {
			t.Fatalf("three fit, and placed is %+v", p)
		}
		first.Job.Processes[0].Shards, first.Version = 1, 2
		write(t, store, set(state.JobKey("z"), first))
		if p := placedOn(t, store, "b"); len(p.Unplaced) != 0 {
			t.Errorf("one has left, and placed is %+v", p)
		}
		second.Job.Processes[0].Shards, second.Version = 9, 2
		write(t, store, set(state.JobKey("b"), second))
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.JobKey("z")})
		if p := placedOn(t, store, "b"); len(p.Unplaced) != 6 {
			t.Errorf("the other is gone, and placed is %+v", p)
		}
	})
}
