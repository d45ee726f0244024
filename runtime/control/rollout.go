package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// rolloutReads bounds how many keys are read at the same time for a status.
const rolloutReads = 8

// rolloutView is what a status was made of, and what to watch for the next one.
type rolloutView struct {
	orchestrator.Snapshot
	marks []rolloutMark
	// instances are the job's, as of index.
	instances []spec.Instance
	index     uint64
	wake      time.Time // when it is another one by itself; zero for never
}

// rolloutMark is a key and the index up to which it is known.
type rolloutMark struct {
	key   string
	index uint64
}

// Rollout says how far the rollout of a job is: it asks the function that its
// orchestrator decides with, so any agent can answer.
func (b *Node) Rollout(ctx context.Context, name, after string) (api.RolloutStatus, error) {
	for {
		v, err := b.viewRollout(ctx, name)
		if err != nil {
			return api.RolloutStatus{}, err
		}
		status, err := v.status(time.Now())
		if err != nil || status.Tag != after {
			return status, err
		}
		if err := b.awaitRollout(ctx, name, v); err != nil {
			return api.RolloutStatus{}, fmt.Errorf("follow rollout of job %s: %w", name, err)
		}
	}
}

// Rollouts returns what is remembered of the jobs' rollouts.
func (b *Node) Rollouts(ctx context.Context) ([]spec.Rollout, error) {
	entries, _, err := b.storeFor(ctx).List(ctx, state.RolloutsPrefix)
	if err != nil {
		return nil, fmt.Errorf("read rollouts: %w", err)
	}
	return state.DecodeAll[spec.Rollout](entries)
}

// Placements returns where the shards of all jobs belong.
func (b *Node) Placements(ctx context.Context) ([]spec.Placement, error) {
	placements, _, err := state.ListAs[spec.Placement](ctx, b.storeFor(ctx), state.PlacementsPrefix)
	if err != nil {
		return nil, fmt.Errorf("read placements: %w", err)
	}
	return placements, nil
}

// viewRollout reads what there is to know of a job.
func (b *Node) viewRollout(ctx context.Context, name string) (*rolloutView, error) {
	store := b.storeFor(ctx)
	v := &rolloutView{}
	v.Current, v.Observed, v.Live = map[string]spec.Assignment{}, map[string]spec.Observed{}, map[string]bool{}
	var err error
	if v.Job, err = marked[spec.JobVersion](ctx, store, v, state.JobKey(name)); err != nil {
		return nil, err
	}
	if v.Job == nil {
		return nil, api.Errorf(api.ErrNotFound, "no job named %q: `meshrun status` lists the jobs", name)
	}
	if v.Rollout, err = marked[spec.Rollout](ctx, store, v, state.RolloutKey(name)); err != nil {
		return nil, err
	}
	if v.Runs, err = readRuns(ctx, store, v.Job); err != nil {
		return nil, err
	}
	if v.Placement, err = stored[spec.Placement](ctx, store, state.PlacementKey(name)); err != nil {
		return nil, err
	}
	nodes, _, err := store.List(ctx, state.NodesPrefix)
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	for _, e := range nodes {
		v.Live[e.Key[len(state.NodesPrefix):]] = true
	}
	all, index, err := b.seen(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("look at instances: %w", err)
	}
	v.index, v.instances = index, instancesOf(all, name)
	for _, i := range v.instances {
		node := i.Node
		if node == "" {
			node = b.cfg.Node
		}
		o := v.Observed[node]
		o.Job, o.Node, o.Instances = name, node, append(o.Instances, i)
		v.Observed[node] = o
	}
	return v, b.readNodes(ctx, store, v, name)
}

// readNodes reads what is assigned to each node, and what those have seen of
// which this agent knows nothing by itself.
func (b *Node) readNodes(ctx context.Context, store state.Store, v *rolloutView, name string) error {
	names := map[string]bool{}
	for node := range v.Live {
		names[node] = true
	}
	if v.Placement != nil { // a node that is gone may have shards still
		for _, nodes := range v.Placement.Processes {
			for node := range nodes {
				names[node] = true
			}
		}
	}
	told := map[string]bool{b.cfg.Node: true}
	for node := range v.Observed {
		told[node] = true
	}
	var mu sync.Mutex // guards the maps of v
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(rolloutReads)
	for node := range names {
		work.Go(func() error {
			assigned, err := stored[spec.Assignment](ctx, store, state.AssignmentKey(node, name))
			if err != nil {
				return err
			}
			var observed *spec.Observed
			if !told[node] && v.Live[node] {
				if observed, err = stored[spec.Observed](ctx, store, state.ObservedKey(node, name)); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if assigned != nil {
				v.Current[node] = *assigned
			}
			if observed != nil {
				v.Observed[node] = *observed
			}
			return nil
		})
	}
	return work.Wait()
}

// stored returns the value of a key, nil if there is none.
func stored[T any](ctx context.Context, store state.Store, key string) (*T, error) {
	entry, err := store.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	value, err := state.Decode[T](entry)
	return &value, err
}

// marked returns the value of a key, nil if there is none, and notes from where
// to watch it.
func marked[T any](ctx context.Context, store state.Store, v *rolloutView, key string) (*T, error) {
	entries, index, err := store.List(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	v.marks = append(v.marks, rolloutMark{key, index})
	for _, e := range entries { // of others, too, whose names begin so
		if e.Key == key {
			value, err := state.Decode[T](e)
			return &value, err
		}
	}
	return nil, nil
}

func instancesOf(all []spec.Instance, job string) []spec.Instance {
	return slices.DeleteFunc(slices.Clone(all), func(i spec.Instance) bool { return i.ID.Job != job })
}

// status asks what the orchestrator would decide.
func (v *rolloutView) status(now time.Time) (api.RolloutStatus, error) {
	d := orchestrator.Rollout(v.Snapshot, now)
	v.wake = d.NextWake
	s := api.RolloutStatus{
		Job: v.Job.Job.Name, Version: v.Job.Version, Why: v.Job.Why, Who: v.Job.Who, When: v.Job.When,
		Rollout: d.Rollout, Progress: d.Progress, Waiting: d.Reasons, Reverted: v.Job.IsRevert(), Reverting: d.Revert,
	}
	if !v.Job.InSteps() {
		s.Rollout = nil
	} else if r := s.Rollout; r == nil || r.Version != v.Job.Version {
		// It waits for the scheduler, and has not begun.
		s.Rollout = &spec.Rollout{Job: s.Job, Version: s.Version, State: spec.RolloutRunning}
		if r != nil {
			s.Rollout.Good = r.Good
		}
	}
	if r := s.Rollout; r != nil && (v.Rollout == nil || v.Rollout.Version != r.Version || v.Rollout.State != r.State) {
		// Not remembered yet: its time would be another one with every look, and
		// only what is remembered as done can be gone back to.
		begun := *r
		begun.Since = time.Time{}
		if begun.State == spec.RolloutDone {
			begun.State = spec.RolloutRunning
		}
		s.Rollout = &begun
	}
	return s, s.SetTag()
}

// awaitRollout returns when the status of a job may be another one.
func (b *Node) awaitRollout(ctx context.Context, name string, v *rolloutView) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	woken := make(chan error, len(v.marks)+1) // each puts one
	for _, mark := range v.marks {
		tasks.Go(func() {
			_, _, err := b.storeFor(ctx).Watch(ctx, mark.key, mark.index)
			woken <- err
		})
	}
	tasks.Go(func() { woken <- b.awaitInstances(ctx, name, v) })
	var due <-chan time.Time
	if !v.wake.IsZero() {
		timer := time.NewTimer(time.Until(v.wake))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case err := <-woken:
		return err
	case <-due:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitInstances returns when an instance of the job has changed.
func (b *Node) awaitInstances(ctx context.Context, name string, v *rolloutView) error {
	index := v.index
	for {
		all, now, err := b.seen(ctx, index)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(instancesOf(all, name), v.instances, sameInstance) {
			return nil
		}
		index = now
	}
}

// sameInstance reports whether two looks at an instance tell a rollout the same.
func sameInstance(a, b spec.Instance) bool {
	return a.ID == b.ID && a.Node == b.Node && a.Phase == b.Phase && a.Version == b.Version && a.Hash == b.Hash && a.Epoch == b.Epoch &&
		a.Generation == b.Generation && a.Health == b.Health && a.Since.Equal(b.Since) && a.ReadyAt.Equal(b.ReadyAt) &&
		a.HealthSince.Equal(b.HealthSince) && a.RestartCause == b.RestartCause
}

// good returns the version that a revert goes back to: the last one that was
// rolled out completely, 0 if none is known.
func good(s *plan.Snapshot, job string) (uint64, error) {
	at := s.Rollouts[job].Value.Good
	if current, ok := s.Jobs[job]; ok && at == current.Value.Version {
		return 0, api.Errorf(api.ErrInvalid, "job %q: version %d is rolled out completely, so there is nothing to revert: to go back further, `meshrun rollback %s`",
			job, at, job)
	}
	return at, nil
}
