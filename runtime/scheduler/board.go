package scheduler

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Board is what jobs are placed by, one after the other: a job that takes less
// of a node leaves room for those that wait for it. The scheduler's loop and the
// planner use it alike, so that a plan places as an apply does.
type Board struct {
	// Nodes are the nodes that are present.
	Nodes []spec.Node
	// Removed reports whether a job is not wanted any more, and Job returns what
	// is wanted of any other one; with ok false its placement stays as it is.
	Removed func(name string) bool
	Job     func(name string) (v *spec.JobVersion, ok bool)
	// Placed lists the jobs that have a placement, and Placement returns one; nil
	// if there is none.
	Placed    func() []string
	Placement func(name string) *spec.Placement
	// Observed returns the instances of a job that a node reports.
	Observed func(job, node string) []spec.Instance
	// Change makes a placement another one; after is nil for one that is removed,
	// and before for one that is missing or can't be read. Placement returns it
	// from then on, unless kept is false. An error ends PlaceAll.
	Change func(name string, before, after *spec.Placement) (kept bool, err error)

	loads map[string]Load // of all placements, by node; nil where no node has a bound
}

// PlaceAll places jobs in order, those that are removed first, and then again
// those that wait for the room that this made, in at most maxRounds rounds. It
// returns the jobs that are left when the rounds are over, or when Change has
// returned an error.
func (b *Board) PlaceAll(names []string) (left []string, err error) {
	if b.loads = nil; Bounded(b.Nodes) {
		b.loads = map[string]Load{}
		for _, name := range b.Placed() {
			b.count(b.Placement(name), 1)
		}
	}
	for range maxRounds {
		if len(names) == 0 {
			break
		}
		slices.SortFunc(names, func(a, c string) int {
			if b.Removed(a) != b.Removed(c) {
				if b.Removed(a) {
					return -1
				}
				return 1
			}
			return cmp.Compare(a, c)
		})
		room := false
		for i, name := range names {
			made, err := b.place(name)
			if err != nil {
				return names[i:], err
			}
			room = room || made
		}
		names = nil
		if room {
			names = b.waiting()
		}
	}
	return names, nil
}

// place places a job, and reports whether that makes room for others.
func (b *Board) place(name string) (room bool, err error) {
	before := b.Placement(name)
	if b.Removed(name) { // and its placement goes, also one that can't be read
		return b.change(name, before, nil)
	}
	v, ok := b.Job(name)
	if !ok {
		return false, nil
	}
	noted := Note(v, before, func(node string) []spec.Instance { return b.Observed(name, node) })
	after := Place(v, b.Nodes, b.taken(before), noted)
	if before != nil && reflect.DeepEqual(*before, after) {
		return false, nil
	}
	return b.change(name, before, &after)
}

func (b *Board) change(name string, before, after *spec.Placement) (room bool, err error) {
	kept, err := b.Change(name, before, after)
	if err != nil || !kept || b.loads == nil {
		return false, err
	}
	b.count(before, -1)
	b.count(after, 1)
	return before != nil && (after == nil || madeRoom(before, after)), nil
}

// count adds a placement, nil for none, so many times to the loads.
func (b *Board) count(p *spec.Placement, times int) {
	if p == nil || b.loads == nil {
		return
	}
	for node, load := range Loads(p) {
		b.loads[node] = b.loads[node].plus(load, times)
	}
}

// taken returns what all jobs but one, which has that placement, take of each
// node; nil where no node has a bound.
func (b *Board) taken(but *spec.Placement) map[string]Load {
	if b.loads == nil || but == nil {
		return b.loads
	}
	taken := maps.Clone(b.loads)
	for node, load := range Loads(but) {
		taken[node] = taken[node].plus(load, -1)
	}
	return taken
}

// waiting lists the jobs that have shards which another node might take, had it
// room for them.
func (b *Board) waiting() []string {
	return slices.DeleteFunc(b.Placed(), func(name string) bool {
		p := b.Placement(name)
		return p == nil || len(p.Unplaced) == 0 && len(p.Spent) == 0
	})
}

// madeRoom reports whether a placement takes less of any node than the one before.
func madeRoom(before, after *spec.Placement) bool {
	now := Loads(after)
	for node, was := range Loads(before) {
		if l := now[node]; l.Instances < was.Instances || l.CPU < was.CPU || l.Memory < was.Memory {
			return true
		}
	}
	return false
}
