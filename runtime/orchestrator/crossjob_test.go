package orchestrator

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// together runs job j, whose process web depends on store/redis, and that one,
// both of them on node a.
func together(t *testing.T, store ...spec.Process) (s *started, web, redis *spec.JobVersion) {
	s = start(t)
	web, redis = version(1, process("web", "store/redis")), version(1, store...)
	redis.Job.Name = "store"
	placed := onNode(redis, "a")
	placed.Job = "store"
	s.set(state.PlacementKey("store"), state.Encode(placed))
	s.set(state.JobKey("store"), state.Encode(redis))
	s.see("store", "redis", spec.PhaseRunning)
	s.want(web)
	s.see("j", "web", spec.PhaseRunning)
	return s, web, redis
}

func (s *started) see(job, process string, phase spec.Phase) {
	s.set(state.ObservedKey("a", job), state.Encode(spec.Observed{Job: job, Node: "a", Instances: []spec.Instance{
		{ID: spec.InstanceID{Job: job, Process: process}, Phase: phase, Version: 1, Generation: 1},
	}}))
	synctest.Wait()
}

func (s *started) has(job string) bool {
	_, err := s.store.Get(s.t.Context(), state.AssignmentKey("a", job))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		s.t.Fatal(err)
	}
	return err == nil
}

func stopped(v *spec.JobVersion, process string) state.Op {
	next := *v
	next.Version, next.Orders = v.Version+1, map[string]spec.Order{process: {Stopped: true}}
	return state.Op{Kind: state.OpSet, Key: state.JobKey(v.Job.Name), Value: state.Encode(next)}
}

func TestJobsThatEndTogetherEndInTheReverseOrderOfTheirDependencies(t *testing.T) {
	ends := map[string]func(web, redis *spec.JobVersion) []state.Op{
		"stop": func(web, redis *spec.JobVersion) []state.Op {
			return []state.Op{stopped(redis, "redis"), stopped(web, "web")}
		},
		"stop -purge": func(*spec.JobVersion, *spec.JobVersion) []state.Op {
			return []state.Op{{Kind: state.OpDelete, Key: state.JobKey("store")}, {Kind: state.OpDelete, Key: state.JobKey("j")}}
		},
	}
	for how, ops := range ends {
		synctest.Test(t, func(t *testing.T) {
			s, web, redis := together(t, process("redis"))
			all := ops(web, redis)
			if how == "stop" { // what is placed is placed by the version
				for _, v := range []*spec.JobVersion{web, redis} {
					next := *v
					next.Version++
					placed := onNode(&next, "a")
					placed.Job = v.Job.Name
					all = append(all, state.Op{Kind: state.OpSet, Key: state.PlacementKey(v.Job.Name), Value: state.Encode(placed)})
				}
			}
			if _, err := s.store.Txn(t.Context(), all...); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if s.has("j") || !s.has("store") {
				t.Fatalf("%s: j is assigned: %v, and store: %v", how, s.has("j"), s.has("store"))
			}
			s.see("j", "web", spec.PhaseStopping)
			if !s.has("store") {
				t.Fatalf("%s: j is stopping, and store has ended before", how)
			}
			if _, err := s.store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: state.ObservedKey("a", "j")}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if s.has("store") {
				t.Errorf("%s: j is gone, and store stays", how)
			}
		})
	}
}

func TestAJobThatIsStoppedDoesNotWaitForDependentsThatStayOrForACircle(t *testing.T) {
	for how, redis := range map[string]spec.Process{"stays": process("redis"), "circle": process("redis", "j/web")} {
		synctest.Test(t, func(t *testing.T) {
			s, web, store := together(t, redis)
			ops := []state.Op{stopped(store, "redis")}
			if how == "circle" {
				ops = append(ops, stopped(web, "web"))
			}
			for _, v := range []*spec.JobVersion{web, store} {
				if next := *v; how == "circle" || v == store {
					next.Version++
					placed := onNode(&next, "a")
					placed.Job = v.Job.Name
					ops = append(ops, state.Op{Kind: state.OpSet, Key: state.PlacementKey(v.Job.Name), Value: state.Encode(placed)})
				}
			}
			if _, err := s.store.Txn(t.Context(), ops...); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if s.has("store") {
				t.Errorf("%s: it does not end", how)
			}
		})
	}
}
