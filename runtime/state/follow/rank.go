package follow

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Rank sorts nodes by the claim that each has on a key, the strongest first
// (rendezvous hashing): a node that comes or goes changes nothing among the
// others.
func Rank(key string, nodes []string) []string {
	claims := make(map[string][]byte, len(nodes))
	for _, n := range nodes {
		sum := sha256.Sum256([]byte(key + "@" + n))
		claims[n] = sum[:]
	}
	return slices.SortedFunc(slices.Values(nodes), func(a, b string) int { return bytes.Compare(claims[a], claims[b]) })
}

// Divide gives each key to the node with the strongest claim on it that has no
// more than its part of the keys yet. Without nodes it gives nothing.
func Divide(keys, nodes []string) map[string]string {
	owners := make(map[string]string, len(keys))
	if len(nodes) == 0 {
		return owners
	}
	part := (len(keys) + len(nodes) - 1) / len(nodes)
	has := map[string]int{}
	for _, key := range keys {
		for _, n := range Rank(key, nodes) {
			if has[n] < part {
				owners[key] = n
				has[n]++
				break
			}
		}
	}
	return owners
}

// Available returns the names of the nodes that may be given work: those that
// aren't draining or, if all are, all.
func Available(nodes []spec.Node) []string {
	var names, all []string
	for _, n := range nodes {
		all = append(all, n.Name)
		if !n.Draining {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return all
	}
	return names
}
