package scheduler

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

func drawNode(t *rapid.T, name string, capacities bool) spec.Node {
	n := spec.Node{
		Name:     name,
		Weight:   rapid.SampledFrom([]float64{0, 0, 0.5, 3}).Draw(t, "weight"),
		Draining: rapid.IntRange(0, 5).Draw(t, "draining") == 5,
		Labels: map[string]string{
			"disk": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk"),
			"zone": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"),
		},
	}
	if rapid.IntRange(0, 3).Draw(t, "unlabelled") == 3 {
		delete(n.Labels, "zone")
	}
	if capacities && rapid.Bool().Draw(t, "bounded") {
		n.Capacity = rapid.IntRange(0, 15).Draw(t, "capacity")
		n.CPU = rapid.SampledFrom([]float64{0, 0, 0.1, 2}).Draw(t, "cpu")
		n.Memory = rapid.SampledFrom([]spec.Size{0, 0, 1000}).Draw(t, "memory")
	}
	return n
}

func drawNodes(t *rapid.T, capacities bool) []spec.Node {
	var nodes []spec.Node
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		nodes = append(nodes, drawNode(t, fmt.Sprintf("node-%d", i), capacities))
	}
	return nodes
}

// drawTaken draws what other jobs have.
func drawTaken(t *rapid.T, nodes []spec.Node) map[string]Load {
	taken := map[string]Load{}
	for _, n := range nodes {
		taken[n.Name] = Load{
			Instances: rapid.SampledFrom([]int{0, 0, 2, 20}).Draw(t, "taken"),
			CPU:       rapid.SampledFrom([]int64{0, 0, 900}).Draw(t, "cpu taken"),
			Memory:    rapid.SampledFrom([]int64{0, 0, 900}).Draw(t, "memory taken"),
		}
	}
	return taken
}

func drawJob(t *rapid.T, processes int) *spec.JobVersion {
	v := &spec.JobVersion{Version: 1, Job: spec.Job{Name: "j"}}
	for i := range rapid.IntRange(1, processes).Draw(t, "processes") {
		p := spec.DefaultProcess(fmt.Sprintf("p%d", i))
		p.Shards = rapid.IntRange(0, 20).Draw(t, "shards")
		if rapid.IntRange(0, 3).Draw(t, "static") == 3 {
			p.Ports = []spec.Port{{Name: "http", Static: rapid.SampledFrom([]int{80, 81}).Draw(t, "port")}}
		}
		if rapid.IntRange(0, 2).Draw(t, "resources") == 2 {
			p.Resources = &spec.Resources{
				CPU:    rapid.SampledFrom([]float64{0, 0.1, 0.3}).Draw(t, "cpu"),
				Memory: rapid.SampledFrom([]spec.Size{0, 90, 300}).Draw(t, "memory"),
			}
		}
		p.Placing = &spec.Placing{}
		if rapid.IntRange(0, 3).Draw(t, "constrained") == 3 {
			p.Placing.Constraints = []spec.Constraint{{Label: "disk", Is: "ssd"}}
		}
		for _, label := range rapid.SampledFrom([][]string{nil, {"zone"}, {"disk"}, {"disk", "zone"}}).Draw(t, "spread") {
			p.Placing.Spreads = append(p.Placing.Spreads, spec.Spread{Label: label})
		}
		v.Job.Processes = append(v.Job.Processes, p)
	}
	return v
}

// places lists where each shard is, and fails if it is anywhere twice.
func places(t *rapid.T, p spec.Placement) map[string]string {
	out := map[string]string{}
	for process, nodes := range p.Processes {
		for node, shards := range nodes {
			for _, shard := range shards {
				id := fmt.Sprintf("%s/%d", process, shard)
				if out[id] != "" {
					t.Fatalf("%s is on %s and on %s", id, out[id], node)
				}
				out[id] = node
			}
		}
	}
	return out
}

// eligible returns the nodes that may have a process, and their weight.
func eligible(p *spec.Process, nodes []spec.Node) (may []spec.Node, total float64) {
	for _, n := range nodes {
		if Refusal(p, n) == "" {
			may = append(may, n)
			total += weight(n)
		}
	}
	return may, total
}

// outcome is a placement with what it was made of.
type outcome struct {
	job   *spec.JobVersion
	nodes []spec.Node
	taken map[string]Load
	p     spec.Placement

	where    map[string]string // of each shard
	unplaced map[string]bool
	used     map[string]Load // of a node
	listens  map[string]string
}

// check demands the laws of one placement, and returns where each shard is.
func check(t *rapid.T, v *spec.JobVersion, nodes []spec.Node, taken map[string]Load, p spec.Placement) map[string]string {
	o := &outcome{job: v, nodes: nodes, taken: taken, p: p, where: places(t, p), unplaced: map[string]bool{}, used: maps.Clone(taken), listens: map[string]string{}}
	if o.used == nil {
		o.used = map[string]Load{}
	}
	for _, u := range p.Unplaced {
		id := fmt.Sprintf("%s/%d", u.Process, u.Shard)
		if o.unplaced[id] || o.where[id] != "" || u.Reason == "" {
			t.Fatalf("unplaced %+v: twice, or placed too, or without a reason", u)
		}
		o.unplaced[id] = true
	}
	count := 0
	for i := range v.Job.Processes {
		count += v.Job.Processes[i].Shards
		o.checkShards(t, &v.Job.Processes[i])
	}
	if len(o.where)+len(o.unplaced) != count {
		t.Fatalf("%d placed and %d unplaced of %d shards", len(o.where), len(o.unplaced), count)
	}
	for _, n := range nodes {
		has, had := o.used[n.Name], taken[n.Name]
		if n.Capacity > 0 && has.Instances > n.Capacity && has.Instances > had.Instances ||
			n.CPU > 0 && float64(has.CPU) > n.CPU*1000 && has.CPU > had.CPU ||
			n.Memory > 0 && has.Memory > int64(n.Memory) && has.Memory > had.Memory {
			t.Fatalf("%s has %+v and is %+v", n.Name, has, n)
		}
	}
	for i := range v.Job.Processes {
		o.checkBalance(t, &v.Job.Processes[i])
	}
	return o.where
}

// checkShards demands that each shard is somewhere, or said not to be, where
// it may be, and shares no port.
func (o *outcome) checkShards(t *rapid.T, proc *spec.Process) {
	may, _ := eligible(proc, o.nodes)
	for shard := range proc.Shards {
		id := fmt.Sprintf("%s/%d", proc.Name, shard)
		node := o.where[id]
		if (node != "") == o.unplaced[id] {
			t.Fatalf("%s is neither placed nor unplaced, or both", id)
		}
		if node == "" {
			continue
		}
		o.used[node] = sum(o.used[node], proc)
		if !slices.ContainsFunc(may, func(n spec.Node) bool { return n.Name == node }) {
			t.Fatalf("%s is on %s, which must not have it", id, node)
		}
		for _, port := range proc.Ports {
			key := fmt.Sprintf("%s:%d", node, port.Static)
			if o.listens[key] != "" {
				t.Fatalf("%s and %s share %s", id, o.listens[key], key)
			}
			o.listens[key] = id
		}
	}
}

// full reports whether a node can have no other shard of a process.
func (o *outcome) full(proc *spec.Process, n spec.Node) bool {
	for _, port := range proc.Ports {
		if o.listens[fmt.Sprintf("%s:%d", n.Name, port.Static)] != "" {
			return true
		}
	}
	next := sum(o.used[n.Name], proc)
	return n.Capacity > 0 && next.Instances > n.Capacity ||
		n.CPU > 0 && proc.Resources != nil && proc.Resources.CPU > 0 && float64(next.CPU) > n.CPU*1000 ||
		n.Memory > 0 && proc.Resources != nil && proc.Resources.Memory > 0 && next.Memory > int64(n.Memory)
}

// sum returns a load with another shard of a process.
func sum(l Load, proc *spec.Process) Load {
	l.Instances++
	if r := proc.Resources; r != nil {
		l.CPU += int64(math.Round(r.CPU * 1000))
		l.Memory += int64(r.Memory)
	}
	return l
}

// checkBalance demands that who has more than its part has it only because
// others are full, and that what has no place has none because all are.
func (o *outcome) checkBalance(t *rapid.T, proc *spec.Process) {
	may, total := eligible(proc, o.nodes)
	full := func(n spec.Node) bool { return o.full(proc, n) }
	if notFull := slices.ContainsFunc(may, func(n spec.Node) bool { return !full(n) }); notFull {
		for shard := range proc.Shards {
			if id := fmt.Sprintf("%s/%d", proc.Name, shard); o.unplaced[id] {
				t.Fatalf("%s has no place (%v), and there is room", id, o.p.Unplaced)
			}
		}
	}
	if len(proc.Placing.Spreads) == 0 {
		some := slices.ContainsFunc(may, func(n spec.Node) bool { return Bounded([]spec.Node{n}) || full(n) })
		for _, n := range may {
			if have := len(o.p.Processes[proc.Name][n.Name]); !some && have > Bound(proc.Shards, weight(n), total) {
				t.Fatalf("%s has %d of %d shards of %s, above its bound", n.Name, have, proc.Shards, proc.Name)
			}
		}
		return
	}
	if len(proc.Placing.Spreads) > 1 {
		return // see TestSpreadOverTwoLabels
	}
	counts, open := map[string]int{}, map[string]bool{}
	for _, n := range may {
		value := n.Labels[proc.Placing.Spreads[0].Label]
		counts[value] += len(o.p.Processes[proc.Name][n.Name])
		open[value] = open[value] || !full(n)
	}
	for value, few := range counts {
		for other, many := range counts {
			if open[value] && many > few+1 {
				t.Fatalf("%s: %d shards on %q and %d on %q, which isn't full", proc.Name, many, other, few, value)
			}
		}
	}
}
