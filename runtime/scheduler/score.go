package scheduler

import (
	"math"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

func weight(n spec.Node) float64 {
	if n.Weight > 0 {
		return n.Weight
	}
	return 1
}

// scorer returns how strong a node's claim on a shard is: the highest of
// -weight/ln(u), with u the hash of both as a number between 0 and 1, wins as
// often as the node's weight says.
func (p *placer) scorer(process string) func(shard int, n *spec.Node) float64 {
	prefix := hashString(hashString(fnvOffset, p.job), "/"+process+"/")
	return func(shard int, n *spec.Node) float64 {
		h := hashString(hashString(prefix, strconv.Itoa(shard)), "@"+n.Name)
		u := (float64(mix(h)>>11) + 0.5) / (1 << 53)
		return -weight(*n) / math.Log(u)
	}
}

const fnvOffset = 14695981039346656037

// hashString is FNV-1a, continued from h.
func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads every bit of a hash over all of it (the finalizer of SplitMix64):
// FNV alone leaves names that differ in their last digit too much alike.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
