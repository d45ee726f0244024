package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Overlap is what may never be: two copies of a shard at the same time.
type Overlap struct {
	Old, New Copy
	// For is how long both are known to have lived.
	For time.Duration
}

// String names both copies.
func (o Overlap) String() string {
	return fmt.Sprintf("two copies for %v:\n  %v\n  %v", o.For, o.Old, o.New)
}

// Overlaps returns every copy that started while another one of its shard
// lived, with the one of those that lived longest.
func (b *Book) Overlaps() []Overlap {
	var found []Overlap
	b.each(func(before, c Copy) {
		if c.First <= before.Last {
			found = append(found, Overlap{before, c, min(before.Last, c.Last) - c.First})
		}
	})
	return found
}

// TokenFaults returns every hand-over whose token does not do what it is for:
// a copy without a token, one that doesn't have a greater token than a copy on
// another node before it, or one that has a smaller token than a copy on its
// own node before it (a restart under the same lock has the same token).
func (b *Book) TokenFaults() []string {
	var faults []string
	for _, id := range slices.Sorted(maps.Keys(b.Copies())) {
		copies := b.Copies()[id]
		for i, c := range copies {
			switch {
			case c.Token == 0:
				faults = append(faults, fmt.Sprintf("no token: %v", c))
			case i == 0:
			case c.Node == copies[i-1].Node && c.Token < copies[i-1].Token,
				c.Node != copies[i-1].Node && c.Token <= copies[i-1].Token:
				faults = append(faults, fmt.Sprintf("the token did not grow:\n  %v\n  %v", copies[i-1], c))
			}
		}
	}
	return faults
}

// Gap is a time in which no copy of a shard lived.
type Gap struct {
	ID       string
	From, To time.Duration
	// Moved is set if the copies before and after were on different nodes;
	// Open if there is none after.
	Moved, Open bool
}

// For is the length of the gap.
func (g Gap) For() time.Duration { return g.To - g.From }

// String tells the gap.
func (g Gap) String() string {
	if g.For() == 0 {
		return "none"
	}
	how := "on the same node"
	if g.Moved {
		how = "on another node"
	}
	if g.Open {
		how = "not at all"
	}
	return fmt.Sprintf("%s was down for %v, then ran %s", g.ID, g.For().Round(time.Millisecond), how)
}

// Gaps returns, for each shard, the longest gap that ended in the time from
// since to until, or had not ended by then. A shard that was never down has
// none. What ended less than alive before until counts as still living: its
// next record is not due yet.
func (b *Book) Gaps(since, until, alive time.Duration) map[string]Gap {
	longest := map[string]Gap{}
	take := func(g Gap) {
		if g.For() > 0 && g.To >= since && g.From <= until && g.For() > longest[g.ID].For() {
			longest[g.ID] = g
		}
	}
	b.each(func(before, c Copy) {
		if c.First <= until {
			take(Gap{ID: c.ID, From: before.Last, To: c.First, Moved: before.Node != c.Node})
		}
	})
	for id, copies := range b.Copies() {
		last := slices.MaxFunc(copies, func(a, b Copy) int { return cmp.Compare(a.Last, b.Last) })
		if until-last.Last > alive {
			take(Gap{ID: id, From: last.Last, To: until, Open: true})
		}
	}
	return longest
}

// Longest returns the longest of the gaps; the zero Gap if there is none.
func Longest(gaps map[string]Gap) Gap {
	var longest Gap
	for _, id := range slices.Sorted(maps.Keys(gaps)) {
		if gaps[id].For() > longest.For() {
			longest = gaps[id]
		}
	}
	return longest
}

// each calls f for every copy but a shard's first, with that earlier copy of
// the shard that lived longest.
func (b *Book) each(f func(before, c Copy)) {
	shards := b.Copies()
	for _, id := range slices.Sorted(maps.Keys(shards)) {
		before := shards[id][0]
		for _, c := range shards[id][1:] {
			f(before, c)
			if c.Last > before.Last {
				before = c
			}
		}
	}
}
