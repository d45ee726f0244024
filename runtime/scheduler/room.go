package scheduler

import (
	"math"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Load is what instances take of a node.
type Load struct {
	Instances int
	CPU       int64 // thousandths of a core
	Memory    int64 // bytes
}

// plus adds so many times another load.
func (l Load) plus(other Load, times int) Load {
	return Load{
		Instances: l.Instances + other.Instances*times,
		CPU:       l.CPU + other.CPU*int64(times),
		Memory:    l.Memory + other.Memory*int64(times),
	}
}

// one is the load of an instance with such resources.
func one(r spec.Resources) Load {
	return Load{Instances: 1, CPU: thousandths(r.CPU), Memory: int64(r.Memory)}
}

func thousandths(cores float64) int64 { return int64(math.Round(cores * 1000)) }

// Bounded reports whether any node has a bound, so that jobs compete for room.
func Bounded(nodes []spec.Node) bool {
	return slices.ContainsFunc(nodes, func(n spec.Node) bool { return n.Capacity > 0 || n.CPU > 0 || n.Memory > 0 })
}

// Loads returns what placements take together of each node.
func Loads(placements ...*spec.Placement) map[string]Load {
	loads := map[string]Load{}
	for _, p := range placements {
		for process, nodes := range p.Processes {
			each := one(p.Resources[process])
			for node, shards := range nodes {
				loads[node] = loads[node].plus(each, len(shards))
			}
		}
	}
	return loads
}

// room returns how many more instances a node can take that has so much to bear,
// at most so many, and what there is too little of.
func room(n *spec.Node, bears, each Load, most int) (count int, short string) {
	limit := func(bound, used, one int64, what string) {
		if bound <= 0 || one <= 0 {
			return
		}
		if left := max(0, bound-used) / one; left < int64(most) {
			most, short = int(left), what
		}
	}
	limit(int64(n.Capacity), int64(bears.Instances), int64(each.Instances), "full")
	limit(thousandths(n.CPU), bears.CPU, each.CPU, "with too little cpu left")
	limit(int64(n.Memory), bears.Memory, each.Memory, "with too little memory left")
	return most, short
}

// resources returns what the processes of a job say that a shard may use.
func resources(job *spec.Job) map[string]spec.Resources {
	out := map[string]spec.Resources{}
	for i := range job.Processes {
		if p := &job.Processes[i]; p.Resources != nil {
			out[p.Name] = *p.Resources
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
