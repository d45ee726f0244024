package scheduler

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/synergymesh/meshrun/spec"
)

// branch is a part of the nodes that may have shards of a process: one node (a
// leaf), the nodes with one value of a label, or all.
//
//	all ─┬─ zone a ─┬─ node-1     shards are divided evenly among values,
//	     │          └─ node-2     and among nodes by weight, with slack
//	     └─ zone b ─── node-3
type branch struct {
	name   string
	node   *spec.Node // of a leaf
	weight float64    // of a leaf
	shards []int      // of a leaf: what it has, the strongest claim first

	up    *branch
	parts []*branch
	turn  uint64 // who gets what can't be divided, among equals

	have  int // shards
	apart int // so many of them are no part of the balance: the first of a leaf
	least int // it has that many already, and keeps them
	room  int // it can have no more
	limit int // it may have no more
}

// grow makes the tree over the leaves. Of several labels to spread over, the
// one with the fewest values comes first.
func grow(leaves []*branch, placing *spec.Placing, key string) *branch {
	var labels []string
	if placing != nil {
		values := map[string]int{}
		for _, s := range placing.Spreads {
			labels = append(labels, s.Label)
			values[s.Label] = len(byValue(leaves, s.Label))
		}
		slices.SortFunc(labels, func(a, b string) int { return cmp.Or(values[a]-values[b], cmp.Compare(a, b)) })
	}
	root := &branch{}
	root.split(leaves, labels, key)
	return root
}

func byValue(leaves []*branch, label string) map[string][]*branch {
	groups := map[string][]*branch{}
	for _, leaf := range leaves {
		value := leaf.node.Labels[label]
		groups[value] = append(groups[value], leaf)
	}
	return groups
}

func (b *branch) split(leaves []*branch, labels []string, key string) {
	if len(labels) == 0 {
		b.parts = leaves
	} else {
		for value, group := range byValue(leaves, labels[0]) {
			part := &branch{name: value, turn: mix(hashString(hashString(fnvOffset, key), "@"+value))}
			part.split(group, labels[1:], key)
			b.parts = append(b.parts, part)
		}
		slices.SortFunc(b.parts, func(x, y *branch) int { return cmp.Compare(x.name, y.name) })
	}
	for _, part := range b.parts {
		part.up = b
	}
}

// measure sums up what the leaves have and can have.
func (b *branch) measure() {
	if b.node != nil {
		b.have = len(b.shards)
		return
	}
	b.have, b.apart, b.least, b.room = 0, 0, 0, 0
	for _, part := range b.parts {
		part.measure()
		b.have += part.have
		b.apart += part.apart
		b.least += part.least
		b.room += part.room
	}
}

// divide sets the limits of a branch and its parts, so that its shards have
// room within them if they have any at all.
func (b *branch) divide(shards int) {
	b.limit = shards
	if len(b.parts) == 0 {
		return
	}
	if b.parts[0].node != nil {
		b.divideByWeight(shards)
		return
	}
	b.divideEvenly(shards)
	for _, part := range b.parts {
		part.divide(part.limit)
	}
}

// divideEvenly gives every part the same, within what it has and can have.
// What is left goes to those that have the most already.
func (b *branch) divideEvenly(shards int) {
	sum := func(level int) int {
		total := 0
		for _, part := range b.parts {
			total += part.at(level)
		}
		return total
	}
	level := max(0, sort.Search(shards+1, func(level int) bool { return sum(level) > shards })-1)
	left := shards - sum(level)
	order := slices.SortedStableFunc(slices.Values(b.parts), func(x, y *branch) int {
		return cmp.Or(cmp.Compare(y.have-y.apart, x.have-x.apart), cmp.Compare(x.turn, y.turn))
	})
	for _, part := range order {
		part.limit = part.at(level)
		if left > 0 && part.at(level+1) > part.limit {
			part.limit++
			left--
		}
	}
}

// at returns what a part has where all have the same, as far as it can.
func (b *branch) at(level int) int { return min(max(level, b.least), max(b.room, b.least)) }

// divideByWeight gives every node its Bound. A node that has no room for it, or
// has more already, leaves the others the rest.
func (b *branch) divideByWeight(shards int) {
	open := slices.Clone(b.parts)
	rest, total := float64(shards), 0.0
	for _, n := range open {
		total += n.weight
	}
	all := total
	for settled := false; !settled; {
		share := rest * (1 + Slack) / total
		left := open[:0:0]
		for _, n := range open {
			if want := share * n.weight; float64(n.room) < want || float64(n.least) > math.Ceil(want) {
				n.limit = max(n.least, min(n.room, int(math.Ceil(want))))
				rest, total = max(0, rest-float64(n.limit)), total-n.weight
			} else {
				left = append(left, n)
			}
		}
		settled = len(left) == len(open)
		open = left
	}
	for _, n := range open {
		n.limit = min(n.room, max(Bound(shards, n.weight, all), int(math.Ceil(rest*(1+Slack)*n.weight/total))))
	}
	b.makeRoom(shards)
}

// makeRoom raises limits until the shards fit, for what divideByWeight gave
// away to nodes that had more already.
func (b *branch) makeRoom(shards int) {
	sum, room := 0, 0
	for _, n := range b.parts {
		sum += n.limit
		room += n.room
	}
	for ; sum < min(shards, room); sum++ {
		var lowest *branch
		for _, n := range b.parts {
			if n.limit < n.room && (lowest == nil || float64(n.limit)/n.weight < float64(lowest.limit)/lowest.weight) {
				lowest = n
			}
		}
		lowest.limit++
	}
}

// prune takes away what is above the limits: of the fullest node, the shard
// that it has the weakest claim on.
func (b *branch) prune(proc *process) {
	if b.node != nil {
		for len(b.shards) > b.limit {
			b.drop()
		}
		return
	}
	for _, part := range b.parts {
		part.prune(proc)
	}
	if b.have <= b.limit {
		return
	}
	below := slices.DeleteFunc(slices.Clone(proc.leaves), func(leaf *branch) bool { return !leaf.within(b) })
	for b.have > b.limit {
		fullest := slices.MaxFunc(below, func(x, y *branch) int {
			return cmp.Compare(float64(len(x.shards)-x.apart)/x.weight, float64(len(y.shards)-y.apart)/y.weight)
		})
		fullest.drop()
	}
}

func (b *branch) within(of *branch) bool {
	for ; b != nil; b = b.up {
		if b == of {
			return true
		}
	}
	return false
}

// drop takes the last shard of a leaf away.
func (b *branch) drop() {
	b.shards = b.shards[:len(b.shards)-1]
	for ; b != nil; b = b.up {
		b.have--
	}
}

// exempt lets a branch have what is no part of the balance beside its limit, as
// far as it has room.
func (b *branch) exempt() {
	b.limit = min(b.limit+b.apart, max(b.room, b.limit))
	for _, part := range b.parts {
		part.exempt()
	}
}

// remove takes a shard of a leaf away.
func (b *branch) remove(shard int) {
	b.shards = slices.DeleteFunc(b.shards, func(s int) bool { return s == shard })
	for ; b != nil; b = b.up {
		b.have--
	}
}

// add gives a leaf a shard.
func (b *branch) add(shard int) {
	b.shards = append(b.shards, shard)
	for ; b != nil; b = b.up {
		b.have++
	}
}

// open reports whether a leaf may have another shard.
func (b *branch) open() bool {
	for ; b != nil; b = b.up {
		if b.have >= b.limit {
			return false
		}
	}
	return true
}
