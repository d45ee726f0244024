package orchestrator

import (
	"context"
	"errors"
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

// who signs the orchestrators' decisions.
const who = "orchestrator"

// retryDelay is how long a job waits whose assignments could not be written.
const retryDelay = time.Second

// ControlShard is the control shard that a job belongs to, of
// state.ControlShards.
func ControlShard(job string) int {
	h := fnv.New32a()
	h.Write([]byte(job))
	return int(h.Sum32() % state.ControlShards)
}

// Loop keeps the assignments of every job what Rollout says, while it holds
// the locks of the control shards.
type Loop struct {
	store  state.Store
	logger hclog.Logger
	role   follow.Role
}

// New returns a loop for an agent. Session returns the agent's session, or "" while it has none; the loop holds its locks with it.
func New(store state.Store, session func() string, logger hclog.Logger) *Loop {
	logger = logger.Named("orchestrator")
	locks := make([]string, state.ControlShards)
	for n := range locks {
		locks[n] = state.OrchestratorLock(n)
	}
	return &Loop{
		store: store, logger: logger,
		role: follow.Role{Store: store, Locks: locks, Session: session, Logger: logger},
	}
}

// Run works whenever it holds the locks, until ctx ends; then it gives them
// back. It returns an error only if the store was closed.
func (l *Loop) Run(ctx context.Context) error { return l.role.Run(ctx, l.lead) }

func (l *Loop) lead(ctx context.Context, session string) error {
	d := &desk{
		Loop: l, session: session,
		jobs:        follow.NewView[spec.JobVersion](state.JobsPrefix),
		placements:  follow.NewView[spec.Placement](state.PlacementsPrefix),
		assignments: newPerNode[spec.Assignment](state.AssignmentsPrefix),
		observed:    newPerNode[spec.Observed](state.ObservedPrefix),
		dirty:       map[string]bool{}, settled: map[string]bool{}, wakes: map[string]time.Time{},
	}
	prefixes := []string{state.JobsPrefix, state.PlacementsPrefix, state.AssignmentsPrefix, state.ObservedPrefix}
	return follow.Loop(ctx, l.store, prefixes, l.logger, d.step)
}

// desk is what the holder of the locks has before it. Only the loop's
// goroutine touches it.
type desk struct {
	*Loop
	session     string
	jobs        *follow.View[spec.JobVersion]
	placements  *follow.View[spec.Placement]
	assignments *perNode[spec.Assignment]
	observed    *perNode[spec.Observed]

	dirty   map[string]bool      // jobs to look at
	settled map[string]bool      // jobs that nothing observed can change
	wakes   map[string]time.Time // when to look again though nothing has changed
}

func (d *desk) step(ctx context.Context, updates []follow.Update) (time.Time, error) {
	for _, u := range updates {
		d.take(u)
	}
	now := time.Now()
	for job, at := range d.wakes {
		if !at.After(now) {
			d.dirty[job] = true
			delete(d.wakes, job)
		}
	}
	for _, job := range slices.Sorted(maps.Keys(d.dirty)) {
		err := d.rollOut(ctx, job, now)
		switch {
		case err == nil:
			delete(d.dirty, job)
			continue
		case ctx.Err() != nil:
			return time.Time{}, nil
		case follow.Lost(err):
			return time.Time{}, follow.ErrDeposed
		case errors.Is(err, state.ErrConflict): // what moved is on its way here
		default:
			d.logger.Error("cannot assign job, trying again", "job", job, "retry_in", retryDelay, "error", err)
		}
		d.wakes[job] = now.Add(retryDelay)
	}
	return d.nextWake(), nil
}

func (d *desk) nextWake() time.Time {
	var wake time.Time
	for _, at := range d.wakes {
		if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	return wake
}

func (d *desk) take(u follow.Update) {
	switch u.Prefix {
	case state.JobsPrefix:
		d.mark(d.jobs.Apply(u))
	case state.PlacementsPrefix:
		d.mark(d.placements.Apply(u))
	case state.AssignmentsPrefix:
		d.mark(d.assignments.apply(u))
	case state.ObservedPrefix:
		d.mark(slices.DeleteFunc(d.observed.apply(u), func(job string) bool { return d.settled[job] }))
	}
}

func (d *desk) mark(jobs []string) {
	for _, job := range jobs {
		d.dirty[job] = true
	}
}

// perNode is a view of <node>/<job> that finds the nodes of a job.
type perNode[T any] struct {
	view  *follow.View[T]
	nodes map[string]map[string]bool // job → nodes
}

func newPerNode[T any](prefix string) *perNode[T] {
	return &perNode[T]{view: follow.NewView[T](prefix), nodes: map[string]map[string]bool{}}
}

// apply takes an update over and returns the jobs that it concerns.
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

// put records what the loop itself wrote.
func (p *perNode[T]) put(node, job string, value *T, index uint64) {
	p.view.Put(node+"/"+job, value, index)
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

// of returns what there is of a job, by node. What can't be read is left out
// and reported in bad.
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
