package scheduler

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// start runs a loop on a store that holds something, in a bubble of virtual time.
func start(t *testing.T, before ...state.Op) state.Store {
	store := local.OpenMemory(local.Options{})
	for _, op := range before {
		write(t, store, op)
	}
	session, err := store.CreateSession(t.Context(), state.SessionConfig{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	write(t, store, set(state.NodeKey("me"), spec.Node{Name: "me"}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(store, "me", func() string { return session }, hclog.NewNullLogger()).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		store.Close()
	})
	return store
}

func write(t *testing.T, store state.Store, op state.Op) {
	t.Helper()
	if _, err := store.Txn(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func set(key string, v any) state.Op {
	return state.Op{Kind: state.OpSet, Key: key, Value: state.Encode(v)}
}

// worker returns a node that may have what processes of workers run.
func worker(name string) spec.Node {
	return spec.Node{Name: name, Labels: map[string]string{"work": "yes"}}
}

// forWorkers returns version 1 of job j, of one process that only workers may have.
func forWorkers(shards int) spec.JobVersion {
	p := spec.DefaultProcess("p")
	p.Shards, p.Placing = shards, &spec.Placing{Constraints: []spec.Constraint{{Label: "work", Is: "yes"}}}
	return spec.JobVersion{Version: 1, Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
}

func TestTheLoopPlacesMovesAndForgetsJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		write(t, store, set(state.JobKey("j"), forWorkers(2)))
		placed := func() spec.Placement {
			t.Helper()
			p, _, err := state.GetAs[spec.Placement](t.Context(), store, state.PlacementKey("j"))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if got := placed(); len(got.Unplaced) != 2 || got.Unplaced[0].Reason != `no eligible node (1 without label work = "yes")` {
			t.Errorf("without nodes: %+v", got)
		}
		write(t, store, set(state.NodeKey("a"), worker("a")))
		if got := placed(); got.Processes["p"]["a"].String() != "0-1" || len(got.Unplaced) != 0 {
			t.Errorf("with node a: %+v", got)
		}
		write(t, store, set(state.NodeKey("b"), worker("b")))
		draining := worker("a")
		draining.Draining = true
		write(t, store, set(state.NodeKey("a"), draining))
		if got := placed(); got.Processes["p"]["b"].String() != "0-1" {
			t.Errorf("with a draining: %+v", got)
		}
		write(t, store, state.Op{Kind: state.OpDelete, Key: state.JobKey("j")})
		if _, err := store.Get(t.Context(), state.PlacementKey("j")); err == nil {
			t.Error("the job is gone, and its placement is not")
		}
		events, err := state.Events(t.Context(), store)
		if err != nil || len(state.Replay(events, time.Now()).Placements) != 0 || len(events) < 4 {
			t.Errorf("%d events, %v", len(events), err)
		}
	})
}

func TestAPlacementAndItsEventAreOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		write(t, store, set(state.JobKey("j"), forWorkers(1)))
		placement, err := store.Get(t.Context(), state.PlacementKey("j"))
		if err != nil {
			t.Fatal(err)
		}
		entries, _, err := store.List(t.Context(), state.EventsPrefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if ev, err := state.Decode[spec.Event](e); err != nil || (ev.Type == spec.EventPlaced) != (e.CreateIndex == placement.ModifyIndex) {
				t.Errorf("event %+v, %v, is of %d; the placement is of %d", ev, err, e.CreateIndex, placement.ModifyIndex)
			}
		}
	})
}

func TestWhatUsesItsRestartsUpMovesIsToldOnceAndStaysWhereNoneFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		v := forWorkers(1)
		v.Job.Processes[0].Restart.Exhausted = spec.ExhaustedReschedule
		write(t, store, set(state.NodeKey("a"), worker("a")))
		write(t, store, set(state.JobKey("j"), v))
		write(t, store, set(state.NodeKey("b"), worker("b")))
		placed := func() (spec.Placement, uint64) {
			t.Helper()
			p, entry, err := state.GetAs[spec.Placement](t.Context(), store, state.PlacementKey("j"))
			if err != nil {
				t.Fatal(err)
			}
			return p, entry.ModifyIndex
		}
		told := func() (all []string) {
			t.Helper()
			events, err := state.Events(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range events {
				if ev.Type == spec.EventRescheduled {
					all = append(all, string(ev.Severity)+": "+ev.Message)
				}
			}
			return all
		}
		fail := func(node string) {
			write(t, store, set(state.ObservedKey(node, "j"), spec.Observed{Job: "j", Node: node, Instances: []spec.Instance{failing(&v, 0)}}))
		}
		want := []string{}
		for i, step := range []struct{ fails, then, told string }{
			{"a", "b", "warning: p/0 moves to b: its restarts are used up on a (exit 1)"},
			{"a", "b", ""}, // it is still there, and ends
			{"b", "b", "critical: p/0 stays down on b: its restarts are used up on a, b, and no other node can take it (exit 1)"},
			{"b", "b", ""},
		} {
			_, before := placed()
			fail(step.fails)
			p, after := placed()
			if step.told != "" {
				want = append(want, step.told)
			} else if before != after {
				t.Errorf("step %d writes though nothing is new", i)
			}
			if got := told(); p.Place("p", 0) != step.then || !slices.Equal(got, want) {
				t.Errorf("step %d: %+v, told %q, want %q", i, p, got, want)
			}
		}
		write(t, store, set(state.NodeKey("c"), worker("c")))
		if p, _ := placed(); p.Place("p", 0) != "c" {
			t.Errorf("a node that joins is tried: %+v", p)
		}
	})
}

func TestAJobThatCannotBeReadKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := start(t)
		write(t, store, set(state.NodeKey("a"), worker("a")))
		write(t, store, set(state.JobKey("j"), forWorkers(1)))
		before, err := store.Get(t.Context(), state.PlacementKey("j"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, store, state.Op{Kind: state.OpSet, Key: state.JobKey("j"), Value: []byte("{")})
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		after, err := store.Get(t.Context(), state.PlacementKey("j"))
		if err != nil || after.ModifyIndex != before.ModifyIndex {
			t.Fatalf("the placement went from %d to %d, %v", before.ModifyIndex, after.ModifyIndex, err)
		}
	})
}

func TestAPlacementThatCannotBeReadIsWrittenAnewOrRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		garbled := func(job string) state.Op {
			return state.Op{Kind: state.OpSet, Key: state.PlacementKey(job), Value: []byte("{")}
		}
		store := start(t, set(state.JobKey("j"), forWorkers(1)), garbled("j"), garbled("gone"))
		check := func(when string) {
			t.Helper()
			if p, _, err := state.GetAs[spec.Placement](t.Context(), store, state.PlacementKey("j")); err != nil || p.Job != "j" {
				t.Errorf("%s: the placement of a job is %+v, %v", when, p, err)
			}
			if _, err := store.Get(t.Context(), state.PlacementKey("gone")); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("%s: the placement of a job that is gone: %v", when, err)
			}
		}
		time.Sleep(time.Minute)
		check("when it starts")
		write(t, store, garbled("j"))
		write(t, store, garbled("gone"))
		time.Sleep(time.Minute)
		check("later")
	})
}
