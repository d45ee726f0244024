package scheduler

import (
	"cmp"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Bounded reports whether any node has a capacity, so that jobs compete for
// room.
func Bounded(nodes []spec.Node) bool {
	return slices.ContainsFunc(nodes, func(n spec.Node) bool { return n.Capacity > 0 })
}

// Count returns how many shards of a placement belong on each node.
func Count(p *spec.Placement) map[string]int {
	counts := map[string]int{}
	add(counts, p)
	return counts
}

func add(counts map[string]int, p *spec.Placement) {
	for _, nodes := range p.Processes {
		for node, shards := range nodes {
			counts[node] += len(shards)
		}
	}
}

// MadeRoom reports whether a placement has less on any node than the one before.
func MadeRoom(before, after *spec.Placement) bool {
	now := Count(after)
	for node, n := range Count(before) {
		if now[node] < n {
			return true
		}
	}
	return false
}

// Waits reports whether a placement has shards that another node might take, had
// it room for them.
func Waits(p *spec.Placement) bool { return len(p.Unplaced) > 0 || len(p.Spent) > 0 }

// SortTurns sorts jobs into the order in which they are placed: those that go
// make room for the others.
func SortTurns(jobs []string, goes func(job string) bool) {
	slices.SortFunc(jobs, func(a, b string) int {
		if goes(a) != goes(b) {
			if goes(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
}
