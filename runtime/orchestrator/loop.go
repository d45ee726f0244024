package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// who is the author of the orchestrator's versions and events.
const who = "orchestrator"

const (
	// retryDelay is how long to wait after the assignments of a job could not be
	// written.
	retryDelay = time.Second
	// maxSteps bounds the writes for one job before the next job is handled.
	maxSteps = 8
	// storeTimeout bounds every call of the store.
	storeTimeout = 10 * time.Second
)

// ControlShard is the control shard that a job belongs to, of
// state.ControlShards.
func ControlShard(job string) int {
	h := fnv.New32a()
	h.Write([]byte(job))
	return int(h.Sum32() % state.ControlShards)
}

// Loop keeps the assignments of jobs equal to what Rollout decides. The nodes
// divide the control shards among them. Each node handles the jobs of the control
// shards whose locks it holds, and hands a control shard over only between two
// reconciliations.
type Loop struct{ *follow.Role }

// New returns the loop of a node's agent. See follow.RoleConfig for session.
func New(store state.Store, node string, session func() string, logger hclog.Logger) *Loop {
	logger = logger.Named("orchestrator")
	prefixes := []string{state.JobsPrefix, state.NodesPrefix, state.PlacementsPrefix, state.ObservedPrefix}
	return &Loop{follow.NewRole(follow.RoleConfig{
		Store: store, Node: node, Session: session, Locks: state.OrchestratorLocksPrefix, May: owners,
		Prefixes: prefixes, Work: newReconciler(store, logger), Logger: logger,
	})}
}

// owners divides the control shards among the nodes.
func owners(nodes []spec.Node) map[string][]string {
	locks := make([]string, state.ControlShards)
	for n := range locks {
		locks[n] = state.OrchestratorLock(n)
	}
	out := map[string][]string{}
	for lock, node := range follow.Divide(locks, follow.Available(nodes)) {
		out[lock] = []string{node}
	}
	return out
}

// reconciler is the orchestrator's state while it holds locks: caches of what it
// watches and reads, and the jobs to look at. Only its follow.Role calls it, one
// call at a time.
type reconciler struct {
	store       state.Store
	logger      hclog.Logger
	jobs        *follow.View[spec.JobVersion]
	nodes       *follow.View[spec.Node]
	placements  *follow.View[spec.Placement]
	assignments *perNode[spec.Assignment]
	observed    *perNode[spec.Observed]

	rollouts   map[string]rolloutRecord // by job
	runs       *runBook
	dependents dependents
	ending     endingJobs

	// loaded are the control shards whose assignments, rollouts and runs are cached:
	// lock → the index at which it was acquired. Nobody else writes those while it is
	// held.
	loaded  map[string]uint64
	dirty   map[string]bool      // jobs to look at
	settled map[string]bool      // jobs that no observation can change
	wakes   map[string]time.Time // when to look at a job again even if nothing changes
}

func newReconciler(store state.Store, logger hclog.Logger) *reconciler {
	return &reconciler{
		store: store, logger: logger,
		jobs:        follow.NewView[spec.JobVersion](state.JobsPrefix),
		nodes:       follow.NewView[spec.Node](state.NodesPrefix),
		placements:  follow.NewView[spec.Placement](state.PlacementsPrefix),
		assignments: newPerNode[spec.Assignment](state.AssignmentsPrefix),
		observed:    newPerNode[spec.Observed](state.ObservedPrefix),
		rollouts:    map[string]rolloutRecord{}, runs: newRunBook(), ending: endingJobs{map[string]*spec.JobVersion{}, map[string]map[string]Dependent{}}, loaded: map[string]uint64{}, dirty: map[string]bool{}, settled: map[string]bool{}, wakes: map[string]time.Time{},
	}
}

// Act rolls out the jobs that are marked as changed.
func (d *reconciler) Act(ctx context.Context, term *follow.Term) (time.Time, error) {
	if err := d.load(ctx, term); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	for job, at := range d.wakes {
		if !at.After(now) {
			d.dirty[job] = true
			delete(d.wakes, job)
		}
	}
	for _, job := range slices.Sorted(maps.Keys(d.dirty)) {
		lock := state.OrchestratorLock(ControlShard(job))
		if term.Locks[lock] == 0 {
			delete(d.dirty, job) // another node's
			delete(d.wakes, job)
			continue
		}
		err := d.rollOutAll(ctx, term, job, now)
		if err == nil {
			delete(d.dirty, job)
			continue
		}
		if outcomeUnknown(err) {
			delete(d.loaded, lock)
		}
		switch {
		case ctx.Err() != nil || follow.Lost(err) || errors.Is(err, state.ErrClosed):
			return time.Time{}, err
		case errors.Is(err, state.ErrConflict): // the watch is about to deliver what changed
		default:
			d.logger.Error("cannot assign job, trying again", "job", job, "retry_in", retryDelay, "error", err)
		}
		d.wakes[job] = now.Add(retryDelay)
	}
	return d.nextWake(), nil
}

// load reads the assignments and observations of the control shards that this
// node has just acquired. The watch delivers observations too, but could deliver
// older ones than the assignments: a shard that is about to start would seem
// gone.
func (d *reconciler) load(ctx context.Context, term *follow.Term) error {
	fresh := map[string]bool{}
	for lock, at := range term.Locks {
		if d.loaded[lock] != at {
			fresh[lock] = true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	mine := func(job string) bool { return fresh[state.OrchestratorLock(ControlShard(job))] }
	if err := d.assignments.load(ctx, d.store, mine); err != nil {
		return err
	}
	if err := d.observed.load(ctx, d.store, mine); err != nil {
		return err
	}
	if err := d.loadRollouts(ctx, mine); err != nil {
		return err
	}
	if err := d.loadRuns(ctx, mine); err != nil {
		return err
	}
	for lock := range fresh {
		d.loaded[lock] = term.Locks[lock]
	}
	d.markAll(mine)
	return nil
}

// rollOutAll repeats rollOut until nothing is left to write: a shard that is
// unassigned from one node may be what another node waits for.
func (d *reconciler) rollOutAll(ctx context.Context, term *follow.Term, job string, now time.Time) error {
	for range maxSteps {
		if wrote, err := d.rollOut(ctx, term, job, now); err != nil || !wrote {
			return err
		}
	}
	d.wakes[job] = now.Add(retryDelay)
	return nil
}

// outcomeUnknown reports whether, after an error, it is not known what is
// assigned: somebody else wrote it, or the write may have succeeded.
func outcomeUnknown(err error) bool {
	var conflict *state.TxnError
	if errors.As(err, &conflict) {
		return slices.ContainsFunc(conflict.Failures, func(f state.OpFailure) bool {
			return strings.HasPrefix(f.Op.Key, state.AssignmentsPrefix) || strings.HasPrefix(f.Op.Key, state.RolloutsPrefix) ||
				strings.HasPrefix(f.Op.Key, state.RunsPrefix)
		})
	}
	return !errors.Is(err, state.ErrTooLarge) && !errors.Is(err, state.ErrInvalid)
}

func (d *reconciler) nextWake() time.Time {
	var wake time.Time
	for _, at := range d.wakes {
		if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	return wake
}

// Take applies an update of the watched keys.
func (d *reconciler) Take(u follow.Update) {
	switch u.Prefix {
	case state.JobsPrefix:
		d.keepRemovedJobs(u)
		changed := d.jobs.Apply(u)
		d.markWith(changed)
		d.markAwaiting(changed)
	case state.PlacementsPrefix:
		d.markWith(d.placements.Apply(u))
	case state.NodesPrefix:
		d.applyNodes(u)
	case state.ObservedPrefix:
		seen := d.observed.apply(u)
		d.markAwaiting(seen)
		for _, job := range seen {
			d.mark(d.dependents.of(job)) // a settled job can still have unsettled dependents
		}
		d.mark(slices.DeleteFunc(seen, func(job string) bool { return d.settled[job] }))
	}
}

// applyNodes marks all jobs if a node has joined or left.
func (d *reconciler) applyNodes(u follow.Update) {
	before := d.nodes.Names()
	d.nodes.Apply(u)
	if !slices.Equal(before, d.nodes.Names()) {
		d.markAll(func(string) bool { return true })
	}
}

// markAll marks all selected jobs that exist or still have assignments.
func (d *reconciler) markAll(of func(job string) bool) {
	for _, names := range [][]string{d.jobs.Names(), d.placements.Names(), slices.Collect(maps.Keys(d.assignments.nodes))} {
		d.mark(slices.DeleteFunc(names, func(job string) bool { return !of(job) }))
	}
}

func (d *reconciler) mark(jobs []string) {
	for _, job := range jobs {
		d.dirty[job] = true
	}
}

// markWith marks jobs and their dependents.
func (d *reconciler) markWith(jobs []string) {
	d.mark(jobs)
	for _, job := range jobs {
		d.mark(d.dependents.of(job))
	}
}

// others returns what is known of the jobs that a job depends on, and registers
// the job to be rolled out again when they change.
func (d *reconciler) others(name string, job *spec.JobVersion, current map[string]spec.Assignment) map[string]Other {
	needs := Needs(job, current)
	d.dependents.note(name, needs)
	out := make(map[string]Other, len(needs))
	for _, on := range needs {
		var o Other
		var bad [3]error // the orchestrator of that job logs them
		o.Job, _, bad[0] = d.jobs.Get(on)
		o.Placement, _, bad[1] = d.placements.Get(on)
		o.Observed, bad[2] = d.observed.of(on)
		o.Unreadable = errors.Join(bad[:]...) != nil
		out[on] = o
	}
	return out
}

// perNode is a cache of keys <node>/<job> with an index of the nodes of each job.
type perNode[T any] struct {
	prefix string
	view   *follow.View[T]
	nodes  map[string]map[string]bool // job → nodes
}

func newPerNode[T any](prefix string) *perNode[T] {
	return &perNode[T]{prefix: prefix, view: follow.NewView[T](prefix), nodes: map[string]map[string]bool{}}
}

// apply applies an update and returns the jobs that it concerns.
func (p *perNode[T]) apply(u follow.Update) []string {
	var jobs []string
	for _, name := range p.view.Apply(u) {
		node, job, ok := strings.Cut(name, "/")
		if !ok {
			continue
		}
		p.note(node, job)
		jobs = append(jobs, job)
	}
	return jobs
}

// load reads the values of some jobs from the store.
func (p *perNode[T]) load(ctx context.Context, store state.Store, of func(job string) bool) error {
	entries, index, err := store.List(ctx, p.prefix)
	if err != nil {
		return fmt.Errorf("load %s: %w", p.prefix, err)
	}
	u := follow.Update{Prefix: p.prefix, Index: index}
	there := map[string]bool{}
	for _, e := range entries {
		if _, job, _ := strings.Cut(follow.Name(p.prefix, e.Key), "/"); of(job) {
			u.Changed = append(u.Changed, e)
			there[e.Key] = true
		}
	}
	for job, nodes := range p.nodes {
		for node := range nodes {
			if key := p.prefix + node + "/" + job; of(job) && !there[key] {
				u.Removed = append(u.Removed, key)
			}
		}
	}
	p.apply(u)
	return nil
}

// put records a value that the loop itself wrote. Assignments are not watched, so
// no older update can follow it.
func (p *perNode[T]) put(node, job string, value *T, index uint64) {
	p.view.Put(node+"/"+job, value, index)
	p.view.Apply(follow.Update{Prefix: p.prefix, Index: index})
	p.note(node, job)
}

func (p *perNode[T]) note(node, job string) {
	if !p.view.Has(node + "/" + job) {
		delete(p.nodes[job], node)
		if len(p.nodes[job]) == 0 {
			delete(p.nodes, job)
		}
		return
	}
	if p.nodes[job] == nil {
		p.nodes[job] = map[string]bool{}
	}
	p.nodes[job][node] = true
}

// of returns the values of a job by node. Unreadable values are left out, and one
// of their errors is returned as bad.
func (p *perNode[T]) of(job string) (values map[string]T, bad error) {
	values = map[string]T{}
	for node := range p.nodes[job] {
		value, _, err := p.view.Get(node + "/" + job)
		if err != nil {
			bad = err
			continue
		}
		values[node] = *value
	}
	return values, bad
}
