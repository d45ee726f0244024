package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// runs returns what is recorded of runs, by tick.
func (s *started) runs() []spec.Run {
	s.t.Helper()
	entries, _, err := s.store.List(s.t.Context(), state.RunsPrefix)
	if err != nil {
		s.t.Fatal(err)
	}
	runs, err := state.DecodeAll[spec.Run](entries)
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(runs, compareRuns)
	return runs
}

// assigned returns the assignment of node a.
func (s *started) assigned() spec.Assignment {
	s.t.Helper()
	a, _, err := state.GetAs[spec.Assignment](s.t.Context(), s.store, state.AssignmentKey("a", "j"))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// finish reports that all that is assigned, and not held, has completed.
func (s *started) finish() {
	s.t.Helper()
	o := spec.Observed{Job: "j", Node: "a"}
	for _, p := range s.assigned().Processes {
		for _, shard := range p.Shards {
			o.Instances = append(o.Instances, spec.Instance{
				ID: spec.InstanceID{Job: "j", Process: p.Process.Name, Shard: shard}, Phase: spec.PhaseCompleted,
				Version: p.Version, Hash: spec.ReplaceHash(&p.Process), Epoch: p.Epochs[shard], LastExit: &spec.Exit{At: time.Now()},
			})
		}
	}
	s.set(state.ObservedKey("a", "j"), state.Encode(o))
	synctest.Wait()
}

// made returns a version that is made now.
func made(n uint64, processes ...spec.Process) *spec.JobVersion {
	v := version(n, processes...)
	v.When = time.Now()
	return v
}

// until sleeps until a time of the bubble's clock.
func until(t *testing.T, at string) {
	t.Helper()
	when, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(when))
	synctest.Wait()
}

func TestARunIsRecordedAndAssignedInOneTransactionWithItsEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.want(made(1, scheduled("p")))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		runs := s.runs()
		if len(runs) != 1 || runs[0].State != spec.RunActive || runs[0].Node != "a" {
			t.Fatalf("runs are %+v", runs)
		}
		run, err := s.store.Get(t.Context(), state.RunKey("j", "p", runs[0].ID))
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.store.Get(t.Context(), state.AssignmentKey("a", "j"))
		if err != nil || a.ModifyIndex != run.CreateIndex {
			t.Fatalf("the run is of %d, the assignment of %d, %v", run.CreateIndex, a.ModifyIndex, err)
		}
		if p := s.assigned().Processes[0]; len(p.Held) > 0 || p.Epochs[0] != runs[0].Epoch {
			t.Errorf("assigned %+v for run %+v", p, runs[0])
		}
		s.finish()
		events, err := state.Events(t.Context(), s.store)
		if err != nil {
			t.Fatal(err)
		}
		var told []spec.EventType
		for _, e := range events {
			if e.Type == spec.EventRunStarted || e.Type == spec.EventRunEnded {
				told = append(told, e.Type)
			}
		}
		if !slices.Equal(told, []spec.EventType{spec.EventRunStarted, spec.EventRunEnded}) {
			t.Errorf("told of %v", told)
		}
	})
}

// A bubble's clock begins on the first of January 2000.
func TestTheNightsOnWhichTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		p := scheduled("p", func(p *spec.Process) { p.Schedule.Cron, p.Schedule.TimeZone = "30 2 * * *", "Europe/Berlin" })
		for n, night := range []struct{ from, to, tick string }{
			{"2000-03-25T12:00:00Z", "2000-03-26T12:00:00Z", "2000-03-26T01:00:00Z"}, // 02:30 is skipped
			{"2000-10-28T12:00:00Z", "2000-10-29T12:00:00Z", "2000-10-29T00:30:00Z"}, // 02:30 comes twice
		} {
			until(t, night.from)
			s.want(made(uint64(n)+1, p))
			until(t, night.tick)
			s.finish()
			until(t, night.to)
			if runs := s.runs(); len(runs) != 1 || runs[0].State != spec.RunSucceeded || runs[0].Began.Format(time.RFC3339) != night.tick {
				t.Errorf("from %s to %s: %+v", night.from, night.to, runs)
			}
			if _, err := s.store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: state.JobKey("j")}, state.Op{Kind: state.OpDelete, Key: state.PlacementKey("j")}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if runs := s.runs(); len(runs) > 0 {
				t.Errorf("the job is gone, and its runs are left: %+v", runs)
			}
		}
	})
}

func TestAThousandDueTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		const jobs, each = 5, 200
		for n := range jobs {
			var all []spec.Process
			for n := range each {
				all = append(all, scheduled(fmt.Sprintf("p%03d", n)))
			}
			v := made(1, all...)
			placed := onNode(v, "a")
			v.Job.Name = fmt.Sprint("j", n)
			placed.Job = v.Job.Name
			s.set(state.JobKey(v.Job.Name), state.Encode(v))
			s.set(state.PlacementKey(v.Job.Name), state.Encode(placed))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		began := 0
		for _, r := range s.runs() {
			if r.State == spec.RunActive && r.Began.Sub(r.Tick) < time.Second {
				began++
			}
		}
		if began != jobs*each {
			t.Fatalf("%d of %d runs began in time", began, jobs*each)
		}
		for n := range jobs {
			a, _, err := state.GetAs[spec.Assignment](t.Context(), s.store, state.AssignmentKey("a", fmt.Sprint("j", n)))
			if err != nil || len(a.Processes) != each {
				t.Fatalf("job %d: %d processes are assigned, %v", n, len(a.Processes), err)
			}
			for _, p := range a.Processes {
				if len(p.Held) > 0 || p.Epochs[0] == 0 {
					t.Fatalf("%s is held: %v", p.Process.Name, p.Held)
				}
			}
		}
	})
}

// failing is a store whose transactions fail after a number of them, as if the
// agent had died between two of them.
type failing struct {
	state.Store
	left int
}

func (f *failing) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	if f.left--; f.left < 0 {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return f.Store.Txn(ctx, ops...)
}

// However far the primary came before it was lost, its successor runs the tick,
// and runs it once.
func TestATickSurvivesTheLossOfThePrimaryAtEveryStep(t *testing.T) {
	for steps := range 6 {
		t.Run(fmt.Sprint("after ", steps, " transactions"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all []spec.Process
				for n := range 80 { // more than one transaction takes
					all = append(all, scheduled(fmt.Sprintf("p%03d", n)))
				}
				s := startAs(t, "b", func(store state.Store) state.Store { return &failing{store, state.ControlShards + steps} })
				s.want(made(1, all...))
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				s.stop() // with whatever it has written
				s.succeed("a")
				time.Sleep(20 * time.Second)
				synctest.Wait()
				runs, epochs := s.runs(), map[string]uint64{}
				if len(runs) != 80 {
					t.Fatalf("%d runs of 80: %+v", len(runs), runs[:min(len(runs), 3)])
				}
				for _, r := range runs {
					epochs[r.Process] = r.Epoch
				}
				for _, p := range s.assigned().Processes {
					if len(p.Held) > 0 || p.Epochs[0] != epochs[p.Process.Name] {
						t.Fatalf("%s is assigned %v, %v for the run of epoch %d", p.Process.Name, p.Held, p.Epochs, epochs[p.Process.Name])
					}
				}
			})
		})
	}
}

// startAs starts the loop of a node on a store that may fail.
func startAs(t *testing.T, node string, wrap func(state.Store) state.Store) *started {
	s := &started{t: t, store: local.OpenMemory(local.Options{})}
	t.Cleanup(func() { s.store.Close() })
	for _, name := range []string{"a", "b"} {
		s.set(state.NodeKey(name), state.Encode(spec.Node{Name: name, Draining: name != node}))
	}
	s.run(node, wrap(s.store))
	return s
}

// run runs the loop of a node until stop is called.
func (s *started) run(node string, store state.Store) {
	session, err := s.store.CreateSession(s.t.Context(), state.SessionConfig{Name: node, Behavior: state.BehaviorRelease})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = New(store, node, func() string { return session }, hclog.NewNullLogger()).Run(ctx)
	}()
	s.stop = func() {
		cancel()
		<-done
		if err := s.store.DestroySession(context.Background(), session); err != nil {
			s.t.Error(err)
		}
	}
}

// succeed makes another node the one that decides.
func (s *started) succeed(node string) {
	s.set(state.NodeKey(node), state.Encode(spec.Node{Name: node}))
	s.run(node, s.store)
	s.t.Cleanup(s.stop)
}

// A job that was accepted, of as many scheduled processes as are, can be assigned
// to one node, between runs and after many of them.
func TestAsManyScheduledProcessesAsAJobMayHaveCanBeAssigned(t *testing.T) {
	job := func(n int) *spec.JobVersion {
		var all []spec.Process
		for i := range n {
			p := process(fmt.Sprintf("nightly-report-%04d", i))
			p.Restart.Policy = spec.RestartNever
			p.Schedule = &spec.Schedule{Cron: "0 3 * * *", TimeZone: "UTC", CatchUp: spec.CatchUpNone}
			all = append(all, p)
		}
		return version(1, all...)
	}
	most := sort.Search(2000, func(n int) bool { return len(spec.Validate(&job(n+1).Job)) > 0 })
	w := newWorld()
	w.now = dawn
	w.release(job(most))
	assigned := w.decide().Assignments["a"]
	for i := range assigned.Processes {
		assigned.Processes[i].Epochs = map[int]uint64{0: uint64(1_000_000 + i)}
	}
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	c := newReconciler(store, hclog.NewNullLogger()).change("j", "a", 1_000_000, &assigned)
	if size := state.TxnSize(c.ops); most < 500 || size > state.MaxTxnBytes-1000 {
		t.Errorf("to assign %d processes takes %d bytes", most, size)
	}
}
