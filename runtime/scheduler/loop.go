package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// who signs the scheduler's decisions.
const who = "scheduler"

const (
	// retryDelay is how long a job waits whose placement could not be written.
	retryDelay = time.Second
	// storeTimeout ends every call of the store.
	storeTimeout = 10 * time.Second
)

// Loop keeps every job's placement what Place says. Of all loops on one store,
// the one that holds the scheduler's lock works; the others follow the store as
// it does, and the next of them goes on at once when it is gone.
type Loop struct{ *follow.Role }

// New returns the loop of a node's agent. Session and Refresh are as a
// follow.Role wants them.
func New(store state.Store, node string, session func() string, logger hclog.Logger) *Loop {
	logger = logger.Named("scheduler")
	prefixes := []string{state.JobsPrefix, state.NodesPrefix, state.PlacementsPrefix, state.ObservedPrefix}
	return &Loop{follow.NewRole(follow.RoleConfig{
		Store: store, Node: node, Session: session, Locks: state.SchedulerLock, May: mayLead,
		Prefixes: prefixes, Work: newReconciler(store, logger), Logger: logger,
	})}
}

// mayLead lets every node be the primary that may be given work.
func mayLead(nodes []spec.Node) map[string][]string {
	return map[string][]string{state.SchedulerLock: follow.Available(nodes)}
}

// reconciler is what the primary knows of the store, and every standby, which is
// ready to take over.
type reconciler struct {
	store      state.Store
	logger     hclog.Logger
	jobs       *follow.View[spec.JobVersion]
	nodes      *follow.View[spec.Node]
	placements *follow.View[spec.Placement]
	observed   *follow.View[spec.Observed] // by node/job
	seen       map[string]map[string]bool  // node → jobs that it observes
	reported   map[string]bool             // jobs of which something new is observed
	moving     map[string]bool             // jobs that are to be rescheduled, as they were placed last

	roster  roster
	records records
	since   uint64          // the index at which the lock was taken that dirty is of
	dirty   map[string]bool // jobs to look at
}

func newReconciler(store state.Store, logger hclog.Logger) *reconciler {
	return &reconciler{
		store: store, logger: logger,
		jobs:       follow.NewView[spec.JobVersion](state.JobsPrefix),
		nodes:      follow.NewView[spec.Node](state.NodesPrefix),
		placements: follow.NewView[spec.Placement](state.PlacementsPrefix),
		observed:   follow.NewView[spec.Observed](state.ObservedPrefix),
		records:    newRecords(),
		seen:       map[string]map[string]bool{}, reported: map[string]bool{}, moving: map[string]bool{}, dirty: map[string]bool{},
	}
}

// Act tells of nodes that have come or gone, places the jobs that something
// has changed for, and forgets nodes that nothing belongs on any more.
func (d *reconciler) Act(ctx context.Context, term *follow.Term) (time.Time, error) {
	if at := term.Locks[state.SchedulerLock]; at != d.since {
		d.since = at // what the primary before left undone is not known
		d.roster = roster{}
		d.mark(d.jobs.Names())
		d.mark(d.placements.Names())
	}
	d.markSpent()
	now := time.Now()
	wake, err := d.callRoll(ctx, term, now)
	if err != nil {
		if wake, err = now.Add(retryDelay), d.tolerate(ctx, "tell of nodes", err); err != nil {
			return wake, err
		}
	}
	if retry, err := d.placeDirty(ctx, term); err != nil || !retry.IsZero() {
		return retry, err
	}
	if err := d.forgetGone(ctx, term); err != nil {
		return now.Add(retryDelay), d.tolerate(ctx, "forget a node", err)
	}
	return wake, nil
}

// tolerate returns an error that ends the turn, and logs any other.
func (d *reconciler) tolerate(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil || follow.Lost(err) || errors.Is(err, state.ErrClosed):
		return err
	case !errors.Is(err, state.ErrConflict): // what moved is on its way here
		d.logger.Error("cannot "+what+", trying again", "retry_in", retryDelay, "error", err)
	}
	return nil
}

// placeDirty places the jobs that are to be looked at, and returns when to try
// again what could not be written.
func (d *reconciler) placeDirty(ctx context.Context, term *follow.Term) (retry time.Time, err error) {
	if len(d.dirty) == 0 {
		return time.Time{}, nil
	}
	nodes, err := d.allNodes()
	if err != nil {
		return time.Time{}, err
	}
	names := slices.Collect(maps.Keys(d.dirty))
	clear(d.dirty)
	read := d.placements.Read
	if Bounded(nodes) { // then all are looked at each time
		read = d.placements.Get
	}
	board := Board{
		Nodes:    nodes,
		Removed:  func(name string) bool { return !d.jobs.Has(name) },
		Job:      d.job,
		Placed:   d.placements.Names,
		Observed: func(job, node string) []spec.Instance { return d.instances(job)(node) },
		Placement: func(name string) *spec.Placement {
			p, _, _ := read(name) // nil for one that can't be read
			return p
		},
		Change: func(name string, before, after *spec.Placement) (bool, error) {
			if after == nil && d.placements.Index(name) == 0 {
				d.noteMoving(name, nil)
				return true, nil // there is nothing to remove
			}
			if _, _, err := d.placements.Read(name); err != nil {
				d.logger.Warn("cannot read a placement: writing it anew", "job", name, "error", err)
			}
			err := d.write(ctx, term, name, before, after)
			if err == nil {
				return true, nil
			}
			d.dirty[name] = true
			retry = time.Now().Add(retryDelay)
			return false, d.tolerate(ctx, "place job "+name, err)
		},
	}
	left, err := board.PlaceAll(names)
	d.mark(left)
	return retry, err
}

// job returns what is wanted of a job; with ok false its placement stays as it
// is for now.
func (d *reconciler) job(name string) (v *spec.JobVersion, ok bool) {
	v, _, err := d.jobs.Read(name)
	if err != nil {
		// A job that can't be read is not a job that was removed.
		d.logger.Error("cannot read job, its placement stays as it is; apply it again", "job", name, "error", err)
		return nil, false
	}
	d.noteMoving(name, v)
	previous, _, err := d.placements.Read(name)
	return v, err != nil || !d.roster.awaits(previous) // its nodes may be back before long
}

// Take takes over what has changed.
func (d *reconciler) Take(u follow.Update) {
	switch u.Prefix {
	case state.JobsPrefix:
		d.mark(d.jobs.Apply(u))
	case state.PlacementsPrefix:
		d.mark(d.placements.Apply(u))
	case state.NodesPrefix:
		d.records.take(u)
		if len(d.nodes.Apply(u)) > 0 {
			d.roster.moved = true
			d.mark(d.jobs.Names())
		}
	case state.ObservedPrefix:
		d.see(u)
	}
}

// see notes which nodes observe anything, and of what there is news.
func (d *reconciler) see(u follow.Update) {
	for _, name := range d.observed.Apply(u) {
		_, job, _ := strings.Cut(name, "/")
		d.reported[job] = true
	}
	for _, e := range u.Changed {
		node, job, _ := strings.Cut(follow.Name(u.Prefix, e.Key), "/")
		if d.seen[node] == nil {
			d.seen[node] = map[string]bool{}
		}
		d.seen[node][job] = true
	}
	for _, key := range u.Removed {
		node, job, _ := strings.Cut(follow.Name(u.Prefix, key), "/")
		if delete(d.seen[node], job); len(d.seen[node]) == 0 {
			delete(d.seen, node)
		}
	}
}

func (d *reconciler) mark(jobs []string) {
	for _, job := range jobs {
		d.dirty[job] = true
	}
}

// write makes a job's placement another one, under the lock of the scheduler and
// as long as the job is the one that was placed; a nil after is its removal.
func (d *reconciler) write(ctx context.Context, term *follow.Term, name string, before, after *spec.Placement) error {
	ops := []state.Op{term.Check(state.SchedulerLock)}
	message, index := "the job was removed: none of its shards has a node any more", d.placements.Index(name)
	var value []byte
	if after == nil {
		d.noteMoving(name, nil)
		ops = append(ops, state.Op{Kind: state.OpCheckMissing, Key: state.JobKey(name)},
			state.Op{Kind: state.OpDeleteCAS, Key: state.PlacementKey(name), Index: index})
	} else {
		value, message = state.Encode(after), describe(before, after)
		ops = append(ops, state.Op{Kind: state.OpCheckIndex, Key: state.JobKey(name), Index: d.jobs.Index(name)},
			state.Op{Kind: state.OpCAS, Key: state.PlacementKey(name), Index: index, Value: value})
	}
	ops, err := d.tell(ops, name, after, message)
	if err == nil && after != nil {
		ops, err = tellSpent(ops, before, after, d.instances(name), time.Now())
	}
	if err != nil {
		return err
	}
	at, err := d.txn(ctx, ops)
	if err != nil {
		return fmt.Errorf("write placement: %w", err)
	}
	if after == nil {
		d.placements.Put(name, nil, at)
	} else {
		d.placements.Keep(name, value, at)
	}
	return nil
}

func (d *reconciler) txn(ctx context.Context, ops []state.Op) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return d.store.Txn(ctx, ops...)
}

// loads returns what all jobs take of each node.
func (d *reconciler) loads() map[string]Load {
	var all []*spec.Placement
	for _, name := range d.placements.Names() {
		if p, _, err := d.placements.Get(name); err == nil {
			all = append(all, p)
		}
	}
	return Loads(all...)
}

// tell adds the event of a decision to its transaction; a nil placement is its
// removal.
func (d *reconciler) tell(ops []state.Op, job string, p *spec.Placement, message string) ([]state.Op, error) {
	event := spec.Event{
		Time: time.Now(), Type: spec.EventPlaced, Severity: spec.Info,
		Job: job, Who: who, Message: message, Placement: p,
	}
	if p != nil {
		event.Version = p.Version
		if len(p.Unplaced) > 0 {
			event.Severity = spec.Warning
		}
	}
	op, err := state.EventOp(event)
	if err != nil {
		return nil, fmt.Errorf("write event: %w", err)
	}
	return append(ops, op), nil
}

func (d *reconciler) allNodes() ([]spec.Node, error) {
	var nodes []spec.Node
	for _, name := range d.nodes.Names() {
		node, _, err := d.nodes.Get(name)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, *node)
	}
	return nodes, nil
}

// samePlaces reports whether two placements have the same shards in the same
// places, whatever the version and the resources they were made for, and where
// shards are spent.
func samePlaces(a, b spec.Placement) bool {
	a.Version, a.Resources, a.Spent = b.Version, b.Resources, b.Spent
	return reflect.DeepEqual(a, b)
}

// describe tells a placement in one line.
func describe(previous, p *spec.Placement) string {
	if previous != nil && samePlaces(*previous, *p) {
		return fmt.Sprintf("every shard of version %d stays where it is", p.Version)
	}
	loads := Loads(p)
	var parts []string
	for _, node := range slices.Sorted(maps.Keys(loads)) {
		parts = append(parts, fmt.Sprintf("%d on %s", loads[node].Instances, node))
	}
	text := "placed " + strings.Join(parts, ", ")
	if len(parts) == 0 {
		text = "placed no shard"
	}
	if n := len(p.Unplaced); n > 0 {
		u := p.Unplaced[0]
		text += fmt.Sprintf("; %d found no node, the first is %s/%d (%s)", n, u.Process, u.Shard, u.Reason)
	}
	return text
}
