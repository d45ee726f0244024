package watchdog

import (
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// registry finds instances: all of them by their ID, and those that have one by
// the token of their live process or of their notify socket.
type registry struct {
	byID      map[spec.InstanceID]*instance
	byProcess map[uint64]*instance
	bySocket  map[uint64]*instance
}

func newRegistry() registry {
	return registry{byID: map[spec.InstanceID]*instance{}, byProcess: map[uint64]*instance{}, bySocket: map[uint64]*instance{}}
}

// sorted returns all instances in the order of their IDs.
func (r *registry) sorted() []*instance {
	return slices.SortedFunc(maps.Values(r.byID), func(a, b *instance) int { return a.view.ID.Compare(b.view.ID) })
}

// entries returns the whole state, for a new segment of the journal.
func (r *registry) entries() []entry {
	out := make([]entry, 0, len(r.byID))
	for _, in := range r.sorted() {
		out = append(out, entry{Launch: *in.launch, Instance: in.view, Keep: in.kept()})
	}
	return out
}

// forkQueue holds the instances of which a process is to be forked, in order.
type forkQueue struct {
	waiting []*instance
	// between holds those that are in the middle of a generation: one of its
	// processes has ended, and the next one is not forked yet.
	between map[*instance]bool
}

// push puts an instance into the queue, once.
func (q *forkQueue) push(in *instance) {
	if in.Phase.alive() {
		q.between[in] = true
	}
	if !in.queued {
		in.queued = true
		q.waiting = append(q.waiting, in)
	}
}

// pop takes the first instance out of the queue; nil if there is none.
func (q *forkQueue) pop() *instance {
	if len(q.waiting) == 0 {
		return nil
	}
	in := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	in.queued = false
	return in
}

// settled records that an instance's process is forked, or that its generation
// has ended.
func (q *forkQueue) settled(in *instance) { delete(q.between, in) }
