package control

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// rolling is a node with job web of two shards, of which one at a time may be
// changed.
type rolling struct {
	t     *testing.T
	store state.Store
	job   spec.JobVersion

	mu        sync.Mutex // guards all below
	instances []spec.Instance
	index     uint64
	changed   chan struct{}
}

func newRolling(t *testing.T) *rolling {
	p, u := spec.DefaultProcess("app"), spec.DefaultUpdate()
	p.Command, p.Shards, p.Update = []spec.Template{"run"}, 2, &u
	r := &rolling{t: t, store: openStore(t), changed: make(chan struct{}), index: 1}
	r.job = spec.JobVersion{Version: 1, Why: "apply", When: time.Now(), Job: spec.Job{Name: "web", Processes: []spec.Process{p}}}
	write(t, r.store, state.Op{Kind: state.OpSet, Key: state.NodeKey("node-a"), Value: state.Encode(spec.Node{Name: "node-a"})})
	r.want(r.job)
	return r
}

// want writes a version with its placement and its assignment.
func (r *rolling) want(v spec.JobVersion) {
	r.t.Helper()
	p := spec.Placement{Job: "web", Version: v.Version, Processes: map[string]map[string]spec.ShardSet{"app": {"node-a": spec.NewShardSet(0, 1)}}}
	a := spec.Assignment{Job: "web", Node: "node-a", Processes: []spec.AssignedProcess{{Process: v.Job.Processes[0], Version: 1, Shards: spec.NewShardSet(0, 1)}}}
	write(r.t, r.store,
		state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: state.Encode(v)},
		state.Op{Kind: state.OpSet, Key: state.PlacementKey("web"), Value: state.Encode(p)},
		state.Op{Kind: state.OpSet, Key: state.AssignmentKey("node-a", "web"), Value: state.Encode(a)})
}

// see replaces what runs on the node.
func (r *rolling) see(instances ...spec.Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = instances
	r.index++
	close(r.changed)
	r.changed = make(chan struct{})
}

// seen is the engine's WaitInstances.
func (r *rolling) seen(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	for {
		r.mu.Lock()
		list, index, changed := r.instances, r.index, r.changed
		r.mu.Unlock()
		if index != after {
			return list, index, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (r *rolling) backend() *Node {
	b := storeBackend(r.store)
	b.seen = r.seen
	return b
}

func (r *rolling) up(shard int, since time.Time) spec.Instance {
	return spec.Instance{
		ID: spec.InstanceID{Job: "web", Process: "app", Shard: shard}, Phase: spec.PhaseRunning, Version: 1,
		Hash: spec.ReplaceHash(&r.job.Job.Processes[0]), ReadyAt: since, Since: since,
	}
}

// ask asks for the next status after the given one, in the background.
func (r *rolling) ask(b *Node, after string) <-chan api.RolloutStatus {
	out := make(chan api.RolloutStatus, 1)
	go func() {
		s, err := b.Rollout(r.t.Context(), "web", after)
		if err != nil && r.t.Context().Err() == nil {
			r.t.Error(err)
		}
		out <- s
	}()
	return out
}

func TestAFollowerOfARolloutIsToldOfEveryChangeAndOfNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t)
		b := r.backend()
		first := <-r.ask(b, "")
		if p := first.Progress; len(p) != 1 || p[0].Wanted != 2 || p[0].Healthy != 0 || first.State() != spec.RolloutRunning {
			t.Fatalf("at first: %+v", first)
		}

		// What other jobs do is no reason to answer.
		next := r.ask(b, first.Tag)
		other := r.up(0, time.Now())
		other.ID.Job = "other"
		r.see(other)
		write(t, r.store, state.Op{Kind: state.OpSet, Key: state.JobKey("web2"), Value: []byte("{}")})
		synctest.Wait()
		select {
		case s := <-next:
			t.Fatalf("answered without a change: %+v", s)
		default:
		}

		// That the shards run is one, and that they have for long enough, which
		// only time tells, is another.
		began := time.Now()
		r.see(r.up(0, began), r.up(1, began))
		s := <-next
		if !strings.Contains(s.Progress[0].Waits, "has to be healthy") {
			t.Errorf("after the start: %+v", s.Progress)
		}
		s = <-r.ask(b, s.Tag)
		if s.Progress[0].State != spec.RolloutDone || time.Since(began) != spec.DefaultUpdate().MinHealthy.Std() {
			t.Errorf("after %s: %+v", time.Since(began), s)
		}

		// It is done once it can be gone back to.
		if next = r.ask(b, s.Tag); s.State() != spec.RolloutRunning {
			t.Errorf("before it is remembered it is %s", s.State())
		}
		synctest.Wait()
		record := spec.Rollout{Job: "web", Version: 1, State: spec.RolloutDone, Good: 1, Since: time.Now().UTC()}
		write(t, r.store, state.Op{Kind: state.OpSet, Key: state.RolloutKey("web"), Value: state.Encode(record)})
		if s = <-next; s.State() != spec.RolloutDone {
			t.Errorf("once it is remembered it is %s", s.State())
		}

		// So is an order.
		next = r.ask(b, s.Tag)
		synctest.Wait()
		v := r.job
		v.Version, v.Why, v.Who = 2, "pause", "alice"
		r.want(v)
		if s = <-next; s.Version != 2 || s.Who != "alice" {
			t.Errorf("after an order: %+v", s)
		}
	})
}

func TestARolloutThatHasNotBegunIsNotDone(t *testing.T) {
	r := newRolling(t)
	v := r.job
	v.Version = 2
	write(t, r.store,
		state.Op{Kind: state.OpSet, Key: state.RolloutKey("web"), Value: state.Encode(spec.Rollout{Job: "web", Version: 1, State: spec.RolloutDone, Good: 1})},
		state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: state.Encode(v)})
	s, err := r.backend().Rollout(t.Context(), "web", "")
	if err != nil || s.State() != spec.RolloutRunning || s.Rollout.Version != 2 || s.Rollout.Good != 1 {
		t.Errorf("before it is placed: %+v %+v, %v", s, s.Rollout, err)
	}
	records, err := r.backend().Rollouts(t.Context())
	if err != nil || len(records) != 1 || records[0].Version != 1 {
		t.Errorf("the records are %+v, %v", records, err)
	}
}

func TestAJobWithoutUpdateBlocksHasNoRollout(t *testing.T) {
	r := newRolling(t)
	v := r.job
	v.Version, v.Job.Processes[0].Update = 2, nil
	r.want(v)
	if s, err := r.backend().Rollout(t.Context(), "web", ""); err != nil || s.Rollout != nil || s.Version != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := r.backend().Rollout(t.Context(), "wbe", ""); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("of a job that there is not: %v", err)
	}
}

func TestARevertGoesToTheLastGoodVersion(t *testing.T) {
	jobs := map[string]plan.Stored[spec.JobVersion]{"web": {Value: spec.JobVersion{Version: 7}}}
	for name, c := range map[string]struct {
		record spec.Rollout
		want   uint64
	}{
		"one is known":  {spec.Rollout{Version: 7, Good: 4}, 4},
		"none is known": {spec.Rollout{}, 0},
	} {
		s := &plan.Snapshot{Jobs: jobs, Rollouts: map[string]plan.Stored[spec.Rollout]{"web": {Value: c.record}}}
		if got, err := good(s, "web"); err != nil || got != c.want {
			t.Errorf("%s: version %d, %v", name, got, err)
		}
	}
	s := &plan.Snapshot{Jobs: jobs, Rollouts: map[string]plan.Stored[spec.Rollout]{"web": {Value: spec.Rollout{Version: 7, Good: 7}}}}
	if _, err := good(s, "web"); !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), "meshrun rollback web") {
		t.Errorf("of what is rolled out: %v", err)
	}
}
