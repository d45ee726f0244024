package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// massGrace is how long nothing is moved off nodes that are gone if these are
// most of all: after a fault of the store itself every node needs a while to
// come back, and the first that does must not be given all that the others run.
const massGrace = 20 * time.Second

// roll calls the roll: it compares the nodes that are there with those that
// were told of, and returns what to remember and what to tell. placed counts
// the shards that belong on a node, seen says of which something runs still.
func roll(before spec.Roster, nodes []spec.Node, placed map[string]Load, seen func(node string) bool) (spec.Roster, []spec.Event) {
	after := spec.Roster{Nodes: map[string]spec.NodeState{}, Since: map[string]time.Time{}}
	var events []spec.Event
	tell := func(kind spec.EventType, severity spec.Severity, node, message string) {
		events = append(events, spec.Event{Type: kind, Severity: severity, Node: node, Who: who, Message: message})
	}
	for _, n := range nodes {
		was, known := before.Nodes[n.Name]
		now := spec.NodeHere
		switch {
		case n.Draining && placed[n.Name].Instances == 0 && !seen(n.Name):
			now = spec.NodeDrained
		case n.Draining:
			now = spec.NodeDraining
		}
		after.Nodes[n.Name] = now
		if !n.Since.IsZero() {
			after.Since[n.Name] = n.Since
		}
		if !known {
			tell(spec.EventNodeJoined, spec.Info, n.Name, n.Name+" is there")
		}
		if now == spec.NodeDrained && was != now {
			tell(spec.EventNodeDrained, spec.Info, n.Name, n.Name+" is drained: nothing runs on it any more")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.Nodes)) {
		switch _, there := after.Nodes[name]; {
		case there:
		case placed[name].Instances > 0:
			tell(spec.EventNodeLeft, spec.Critical, name, fmt.Sprintf("%s is gone, with %d shards on it", name, placed[name].Instances))
		default:
			tell(spec.EventNodeLeft, spec.Info, name, name+" has left; it had no shards")
		}
	}
	return after, events
}

// roster is what the primary knows of the nodes that come and go.
type roster struct {
	spec.Roster
	index uint64
	known bool // it was read
	// moved: it has to be called anew.
	moved bool
	// lost are the nodes that are gone and have grace.
	lost  map[string]bool
	since time.Time
}

// callRoll tells of the nodes that have come and gone since this was last done,
// by this primary or another, and returns when to do it again.
func (d *reconciler) callRoll(ctx context.Context, term *follow.Term, now time.Time) (time.Time, error) {
	r := &d.roster
	draining := slices.Contains(slices.Collect(maps.Values(r.Nodes)), spec.NodeDraining)
	if r.known && !r.moved && !draining {
		return time.Time{}, nil
	}
	if !r.known {
		read, cancel := context.WithTimeout(ctx, storeTimeout)
		value, entry, err := state.GetAs[spec.Roster](read, d.store, state.RosterKey)
		cancel()
		if err != nil && entry.ModifyIndex == 0 && !errors.Is(err, state.ErrNotFound) {
			return time.Time{}, fmt.Errorf("read roster: %w", err)
		}
		r.Roster, r.index, r.known = value, entry.ModifyIndex, true // one that can't be read is made anew
		r.moved = true
	}
	nodes, err := d.allNodes()
	if err != nil {
		return time.Time{}, err
	}
	lost, until := r.grace(nodes, now)
	if !until.After(now) {
		lost, until = d.doubted(ctx, now)
	}
	if len(r.lost) > 0 && !maps.Equal(r.lost, lost) {
		d.mark(d.jobs.Names())
	}
	if r.lost = lost; len(lost) > 0 {
		return until, nil
	}
	after, events := roll(r.Roster, nodes, d.loads(), func(node string) bool { return len(d.seen[node]) > 0 })
	if err := d.writeRoster(ctx, term, after, events, now); err != nil {
		return time.Time{}, err
	}
	r.moved, r.since = false, time.Time{}
	return time.Time{}, nil
}

// grace returns which nodes are gone and until when to leave alone what is on
// them: it begins when most are gone, and lasts for each until it is back. Who was
// gone too and is back before this primary could see it counts as well: after a
// fault of the store a primary comes back one of the last.
func (r *roster) grace(nodes []spec.Node, now time.Time) (lost map[string]bool, until time.Time) {
	lost = map[string]bool{}
	for name := range r.Nodes {
		lost[name] = true
	}
	back := 0
	for _, n := range nodes {
		delete(lost, n.Name)
		if was := r.Since[n.Name]; !was.IsZero() && !n.Since.IsZero() && !was.Equal(n.Since) {
			back++
		}
	}
	if len(lost) == 0 || r.since.IsZero() && 2*(len(lost)+back) <= len(r.Nodes) {
		return nil, time.Time{}
	}
	if r.since.IsZero() {
		r.since = now
	}
	return lost, r.since.Add(massGrace)
}

// awaits reports whether a placement has shards on nodes that have grace.
func (r *roster) awaits(p *spec.Placement) bool {
	if p == nil || len(r.lost) == 0 {
		return false
	}
	for node := range Loads(p) {
		if r.lost[node] {
			return true
		}
	}
	return false
}

// writeRoster writes what to remember with what to tell, in as many
// transactions as it takes.
func (d *reconciler) writeRoster(ctx context.Context, term *follow.Term, after spec.Roster, events []spec.Event, now time.Time) error {
	if maps.Equal(d.roster.Nodes, after.Nodes) && maps.EqualFunc(d.roster.Since, after.Since, time.Time.Equal) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ops := []state.Op{
		term.Check(state.SchedulerLock),
		{Kind: state.OpCAS, Key: state.RosterKey, Index: d.roster.index, Value: state.Encode(after)},
	}
	for i := range events {
		events[i].Time = now
		op, err := state.EventOp(events[i])
		if err != nil {
			return fmt.Errorf("tell of nodes: %w", err)
		}
		ops = append(ops, op)
	}
	batches := state.Batches(ops)
	for i, batch := range batches {
		at, err := d.store.Txn(ctx, batch...)
		if err != nil {
			d.roster.known = false
			return fmt.Errorf("write roster: %w", err)
		}
		if i == 0 {
			d.roster.Roster, d.roster.index = after, at
		}
	}
	return nil
}

// forgetGone deletes what nodes that are gone had observed, once nothing
// belongs there any more.
func (d *reconciler) forgetGone(ctx context.Context, term *follow.Term) error {
	var placed map[string]Load
	for node := range d.seen {
		if d.nodes.Has(node) || d.roster.lost[node] {
			continue
		}
		if placed == nil {
			placed = d.loads()
		}
		if placed[node].Instances > 0 {
			continue
		}
		if err := d.forget(ctx, term, node); err != nil {
			return fmt.Errorf("forget node %s: %w", node, err)
		}
		delete(d.seen, node) // the update comes too
	}
	return nil
}

// forget deletes what a node that is gone had observed.
func (d *reconciler) forget(ctx context.Context, term *follow.Term, node string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	checks := []state.Op{
		term.Check(state.SchedulerLock),
		{Kind: state.OpCheckMissing, Key: state.NodeKey(node)},
	}
	for jobs := range slices.Chunk(slices.Sorted(maps.Keys(d.seen[node])), state.MaxTxnOps-len(checks)) {
		ops := slices.Clone(checks)
		for _, job := range jobs {
			ops = append(ops, state.Op{Kind: state.OpDelete, Key: state.ObservedKey(node, job)})
		}
		if _, err := d.store.Txn(ctx, ops...); err != nil {
			return err
		}
	}
	return nil
}
