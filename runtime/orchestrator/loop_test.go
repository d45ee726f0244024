package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// started is a loop on a store, in a bubble of virtual time.
type started struct {
	t     *testing.T
	store state.Store
	stop  func() // ends the loop, as if its node had died; set by startAs
}

func start(t *testing.T) *started {
	s := &started{t: t, store: local.OpenMemory(local.Options{})}
	session, err := s.store.CreateSession(t.Context(), state.SessionConfig{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s.set(state.NodeKey("a"), state.Encode(spec.Node{Name: "a"}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(s.store, "a", func() string { return session }, hclog.NewNullLogger()).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.store.Close()
	})
	return s
}

func (s *started) set(key string, value []byte) {
	s.t.Helper()
	if _, err := s.store.Txn(s.t.Context(), state.Op{Kind: state.OpSet, Key: key, Value: value}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *started) want(v *spec.JobVersion) {
	s.set(state.JobKey("j"), state.Encode(v))
	s.set(state.PlacementKey("j"), state.Encode(onNode(v, "a")))
	synctest.Wait()
}

func (s *started) index() uint64 {
	_, index, err := s.store.List(s.t.Context(), state.Root)
	if err != nil {
		s.t.Fatal(err)
	}
	return index
}

func TestAnAssignmentAndItsEventAreOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, process("p")))
		a, entry, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j"))
		if err != nil || len(a.Processes) != 1 {
			t.Fatalf("assigned %+v, %v", a, err)
		}
		events, _, err := s.store.List(t.Context(), state.EventsPrefix)
		if err != nil || len(events) != 1 || events[0].CreateIndex != entry.ModifyIndex {
			t.Fatalf("events %v, %v; the assignment is of %d", events, err, entry.ModifyIndex)
		}
	})
}

func TestNothingIsWrittenWhileNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, process("db"), process("web", "db")))
		before := s.index()
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if after := s.index(); after != before {
			t.Fatalf("an idle hour took the store from %d to %d", before, after)
		}
	})
}

func TestAHeldProcessIsReleasedByWhatIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, process("db"), process("web", "db")))
		held := func() int {
			a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j"))
			if err != nil {
				t.Fatal(err)
			}
			return len(a.Processes[1].Held)
		}
		if held() != 1 {
			t.Fatal("web is not held")
		}
		s.set(state.ObservedKey("a", "j"), state.Encode(spec.Observed{Job: "j", Node: "a", Instances: []spec.Instance{
			{ID: spec.InstanceID{Job: "j", Process: "db"}, Phase: spec.PhaseRunning, Version: 1},
		}}))
		synctest.Wait()
		if held() != 0 {
			t.Fatal("db runs, and web is still held")
		}
	})
}

// Every change of the other job is one for those that depend on it, whichever
// has which control shard, and however settled either of them was.
func TestAJobIsRolledOutAnewWhenOneThatItDependsOnChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, after(process("web"), "store/redis", spec.ConditionStarted, spec.OnFailureStop)))
		told := func() string {
			synctest.Wait()
			a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j"))
			switch {
			case errors.Is(err, state.ErrNotFound):
				return "nothing"
			case err != nil:
				t.Fatal(err)
			case a.Processes[0].Held != nil:
				return a.Processes[0].Held[0]
			}
			return "run"
		}
		see := func(job, process string, phase spec.Phase) {
			s.set(state.ObservedKey("a", job), state.Encode(spec.Observed{Job: job, Node: "a", Instances: []spec.Instance{
				{ID: spec.InstanceID{Job: job, Process: process}, Phase: phase, Version: 1, Generation: 1},
			}}))
		}
		store := version(1, process("redis"))
		store.Job.Name = "store"
		placed := onNode(store, "a")
		placed.Job = "store"
		for _, step := range []struct {
			do   func()
			want string
		}{
			{func() {}, `waits for store/redis: no job named "store"`},
			{func() {
				s.set(state.JobKey("store"), state.Encode(store))
				s.set(state.PlacementKey("store"), state.Encode(placed))
			}, "waits for store/redis to be started"},
			{func() { see("store", "redis", spec.PhaseRunning) }, "run"},
			{func() { see("j", "web", spec.PhaseRunning) }, "run"},
			{func() { see("store", "redis", spec.PhaseBackoff) }, "nothing"},
			{func() { see("store", "redis", spec.PhaseRunning) }, "run"},
			{func() {
				if _, err := s.store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: state.JobKey("store")}); err != nil {
					t.Fatal(err)
				}
			}, "nothing"},
		} {
			step.do()
			if got := told(); got != step.want {
				t.Fatalf("told %q, want %q", got, step.want)
			}
		}
		s.want(version(2, process("web"))) // it depends on nothing any more
		before := s.index()
		see("store", "redis", spec.PhaseFailed)
		synctest.Wait()
		if got, after := told(), s.index(); got != "run" || after != before+1 {
			t.Fatalf("told %q; the store went from %d to %d", got, before, after)
		}
	})
}

func TestAJobThatCannotBeReadIsNotAJobThatWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, process("p")))
		s.set(state.JobKey("j"), []byte("{"))
		time.Sleep(time.Minute) // virtual
		synctest.Wait()
		if _, err := s.store.Get(t.Context(), state.AssignmentKey("a", "j")); err != nil {
			t.Fatalf("the assignment is gone: %v", err)
		}
		s.want(version(2, process("p"), process("q")))
		if a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j")); err != nil || len(a.Processes) != 2 {
			t.Fatalf("mended, it is assigned as %+v, %v", a, err)
		}
	})
}

func TestAnAssignmentThatSomebodyChangedIsMendedByTheNextDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(version(1, process("p")))
		for n, broken := range []string{"{", `{"job": "j", "node": "a", "processes": []}`} {
			s.set(state.AssignmentKey("a", "j"), []byte(broken))
			edited := process("p")
			edited.Dir = spec.Template(fmt.Sprint("/", n))
			s.want(version(uint64(n)+2, edited))
			time.Sleep(2 * retryDelay) // virtual
			synctest.Wait()
			a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j"))
			if err != nil || len(a.Processes) != 1 || a.Processes[0].Version != uint64(n)+2 {
				t.Fatalf("%s became %+v, %v", broken, a, err)
			}
		}
	})
}

// Nothing tells the loop of its own write.
func TestWhatWasNeverSeenOnItsNodeMovesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.set(state.NodeKey("b"), state.Encode(spec.Node{Name: "b", Draining: true})) // it decides nothing
		v := version(1, process("p"))
		s.want(v)
		s.set(state.PlacementKey("j"), state.Encode(onNode(v, "b")))
		synctest.Wait()
		if _, err := s.store.Get(t.Context(), state.AssignmentKey("b", "j")); err != nil {
			t.Errorf("it is placed on b: %v", err)
		}
		if _, err := s.store.Get(t.Context(), state.AssignmentKey("a", "j")); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a has it still: %v", err)
		}
	})
}

func TestEveryJobHasAControlShard(t *testing.T) {
	used := map[int]bool{}
	for _, job := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		n := ControlShard(job)
		if n < 0 || n >= state.ControlShards {
			t.Fatalf("job %s has control shard %d", job, n)
		}
		used[n] = true
	}
	if len(used) < 3 {
		t.Errorf("eight jobs have only the control shards %v", used)
	}
}

func TestALargeJobGoesBackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		p := rolled("v1", 1, func(u *spec.Update) { u.AutoRevert = true })
		p.Command = append(p.Command, spec.Template(strings.Repeat("x", state.MaxTxnBytes/2)))
		good := version(1, p)
		p.Command = []spec.Template{"v2"}
		failed := version(2, p)
		failed.When = time.Now()
		s.set(state.HistoryKey("j", 1), state.Encode(good))
		s.set(state.RolloutKey("j"), state.Encode(spec.Rollout{Job: "j", Version: 1, State: spec.RolloutDone, Good: 1}))
		s.want(failed)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, key := range []string{state.JobKey("j"), state.HistoryKey("j", 3)} {
			if v, _, err := state.GetAs[spec.JobVersion](t.Context(), s.store, key); err != nil || v.Version != 3 || v.Reverts != 2 {
				t.Errorf("%s is version %d: %v", key, v.Version, err)
			}
		}
	})
}

// Validation counts both versions, but not what an older one was like.
func TestARolloutThatCannotBeWrittenHasFailedAndABetterVersionMendsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		stepped := func(n uint64, size int) *spec.JobVersion {
			p, u := process("p"), spec.DefaultUpdate()
			p.Shards, p.Update = 2, &u
			p.Env = map[string]spec.Template{"A": spec.Template(fmt.Sprint(n) + strings.Repeat("x", size))}
			return version(n, p)
		}
		run := func(n uint64, p *spec.Process) {
			o := spec.Observed{Job: "j", Node: "a"}
			for shard := range 2 {
				o.Instances = append(o.Instances, spec.Instance{
					ID: spec.InstanceID{Job: "j", Process: "p", Shard: shard}, Node: "a", Phase: spec.PhaseRunning,
					Version: n, Hash: spec.ReplaceHash(p), Generation: 1, ReadyAt: time.Now(), Since: time.Now(),
				})
			}
			s.set(state.ObservedKey("a", "j"), state.Encode(o))
			time.Sleep(time.Minute) // virtual
			synctest.Wait()
		}
		rollout := func() spec.Rollout {
			r, _, err := state.GetAs[spec.Rollout](t.Context(), s.store, state.RolloutKey("j"))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first := stepped(1, 225_000)
		s.want(first)
		run(1, &first.Job.Processes[0])
		if r := rollout(); r.State != spec.RolloutDone {
			t.Fatalf("the first version: %+v", r)
		}
		s.want(stepped(2, 225_000))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r := rollout(); r.State != spec.RolloutFailed || r.Version != 2 || !strings.Contains(r.Reason, "too large") {
			t.Errorf("what cannot be written: %+v", r)
		}
		before := s.index()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if after := s.index(); after != before {
			t.Errorf("what has failed took the store from %d to %d", before, after)
		}
		s.want(stepped(3, 1000))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", "j"))
		if r := rollout(); err != nil || r.State != spec.RolloutRunning || len(a.Processes) != 2 {
			t.Errorf("a smaller one: %+v, assigned at %d versions, %v", r, len(a.Processes), err)
		}
	})
}
