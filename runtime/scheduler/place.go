package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// Slack is how far above its fair share a node may be filled: shards then stay
// where they are, and fall where their hash says, rather than being moved to
// even out a difference of one or two.
const Slack = 0.25

// maxRounds bounds how often a placement is made again because what moved made
// room for others.
const maxRounds = 8

// Place says where every shard of a job belongs. A shard stays where previous
// (nil: nothing is known) has it as long as that node may have it; any other
// one goes to the node that weighted rendezvous hashing gives it, among those
// that may take it. A node may take a shard if it isn't draining, has the
// labels that the process demands, has no shard yet that listens on the same
// static port, has room left for the instance and its resources, and is below its
// Bound. taken is what other jobs take of the nodes; it matters only where a node
// has a bound for that.
//
// A process that is spread over a label has as many shards on the nodes of one
// value as on those of any other, give or take one, as far as there is room;
// the nodes without the label count as one value more. Bounds hold among the
// nodes of a value. Of several labels, the one with the fewest values is
// divided first, and the others within each of its values.
//
// So a leaving node moves its own shards only, and a new node only what is
// above the others' new bounds. Same input, same answer, whatever the order of
// the nodes. What no node can take is listed as unplaced, with the reason.
func Place(v *spec.JobVersion, nodes []spec.Node, taken map[string]Load, previous *spec.Placement) spec.Placement {
	placed := place(v, nodes, taken, previous)
	for range maxRounds {
		if !Bounded(nodes) && len(placed.Spent) == 0 {
			break
		}
		again := place(v, nodes, taken, &placed)
		if reflect.DeepEqual(again, placed) {
			break
		}
		placed = again
	}
	return placed
}

// Bound is the largest number of a process's shards that a node of the given
// weight may have, where total is the weight of all nodes that may have any. It
// is higher if others have no room for their part.
func Bound(shards int, weight, total float64) int {
	return int(math.Ceil(float64(shards) * (1 + Slack) * weight / total))
}

func place(v *spec.JobVersion, nodes []spec.Node, taken map[string]Load, previous *spec.Placement) spec.Placement {
	p := &placer{
		job:   v.Job.Name,
		nodes: slices.SortedFunc(slices.Values(nodes), func(a, b spec.Node) int { return cmp.Compare(a.Name, b.Name) }),
		ports: map[string]map[int]string{}, used: maps.Clone(taken), reserved: map[string]Load{},
		result: spec.Placement{Job: v.Job.Name, Version: v.Version, Processes: map[string]map[string]spec.ShardSet{}, Resources: resources(&v.Job)},
	}
	if p.used == nil {
		p.used = map[string]Load{}
	}
	p.result.Spent = recall(v, nodes, previous)
	processes := make([]*process, 0, len(v.Job.Processes))
	for i := range v.Job.Processes {
		s := &v.Job.Processes[i]
		var had map[string]spec.ShardSet
		if previous != nil {
			had = previous.Processes[s.Name]
		}
		processes = append(processes, p.prepare(s, had))
	}
	slices.SortFunc(processes, func(a, b *process) int { return cmp.Compare(a.spec.Name, b.spec.Name) })
	// All that stays goes first, so that nothing new takes its port or its room.
	for _, proc := range processes {
		p.keep(proc)
	}
	for _, proc := range processes {
		p.fill(proc)
		p.settle(proc)
		p.finish(proc)
	}
	return p.result
}

// placer is one run of Place.
type placer struct {
	job   string
	nodes []spec.Node
	// ports maps node → static port → the shard that listens there.
	ports map[string]map[int]string
	// used is what all jobs take of a node by now; reserved is what processes
	// whose turn is to come had there before.
	used, reserved map[string]Load
	result         spec.Placement
}

// process is a process while its shards are being placed.
type process struct {
	spec *spec.Process
	each Load // of a shard
	// root is the tree of the nodes that may have shards of it, leaves are these.
	root   *branch
	leaves []*branch
	// refused counts the other nodes by reason.
	refused map[string]int
	// done marks the shards that have a node.
	done []bool
	// spent are the nodes on which shards are not placed any more.
	spent map[int]map[string]bool
	// score is a node's claim on a shard.
	score func(shard int, n *spec.Node) float64
}

// prepare finds the nodes that may have shards of a process, and which of those
// that they had before could stay.
func (p *placer) prepare(s *spec.Process, had map[string]spec.ShardSet) *process {
	proc := &process{
		spec: s, each: one(p.result.Resources[s.Name]), refused: map[string]int{}, done: make([]bool, max(s.Instances(), 0)),
		score: p.scorer(s.Name), spent: spentShards(p.result.Spent, s.Name),
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		if reason := Refusal(s, *n); reason != "" {
			proc.refused[reason]++
			continue
		}
		leaf := &branch{name: n.Name, node: n, weight: weight(*n)}
		for _, shard := range had[n.Name] {
			if shard < len(proc.done) && !proc.done[shard] {
				proc.done[shard] = true // by this one; another could only have it by mistake
				leaf.shards = append(leaf.shards, shard)
				if proc.spent[shard] != nil {
					leaf.apart++
				}
			}
		}
		p.reserved[n.Name] = p.reserved[n.Name].plus(proc.each, len(leaf.shards))
		proc.leaves = append(proc.leaves, leaf)
	}
	clear(proc.done)
	proc.root = grow(proc.leaves, s.Placing, p.job+"/"+s.Name)
	return proc
}

// Refusal says why a node may have no shard of a process at all, or "".
func Refusal(s *spec.Process, n spec.Node) string {
	if n.Draining {
		return "draining"
	}
	if s.Placing == nil {
		return ""
	}
	for _, c := range s.Placing.Constraints {
		if value, ok := n.Labels[c.Label]; !ok || value != c.Is {
			return fmt.Sprintf("without label %s = %q", c.Label, c.Is)
		}
	}
	return ""
}

// keep leaves shards where they are, as far as that is allowed. Of a node
// above its bound, the shards go that it has the weakest claim on.
func (p *placer) keep(proc *process) {
	for _, leaf := range proc.leaves {
		had, all := len(leaf.shards), len(proc.done)
		p.reserved[leaf.name] = p.reserved[leaf.name].plus(proc.each, -had)
		bears := p.used[leaf.name]
		stay, _ := room(leaf.node, bears, proc.each, had)
		more, _ := room(leaf.node, bears.plus(proc.each, stay).plus(p.reserved[leaf.name], 1), proc.each, all)
		leaf.room = min(all, stay+more)
		if listens(proc.spec) {
			leaf.room = min(leaf.room, 1)
		}
		if p.conflict(proc, leaf.name) != "" {
			leaf.room = 0
		}
		slices.SortFunc(leaf.shards, func(a, b int) int {
			if apart := proc.spent[a] != nil; apart != (proc.spent[b] != nil) {
				if apart {
					return -1
				}
				return 1
			}
			return cmp.Or(cmp.Compare(proc.score(b, leaf.node), proc.score(a, leaf.node)), a-b)
		})
	}
	proc.root.measure()
	proc.root.divide(len(proc.done))
	proc.root.exempt()
	proc.root.prune(proc)
	for _, leaf := range proc.leaves {
		for _, shard := range leaf.shards {
			p.put(proc, shard, leaf.name)
		}
	}
}

// fill places the shards that have no node yet, but for those that are spent on
// some (see settle).
func (p *placer) fill(proc *process) {
	for _, leaf := range proc.leaves {
		leaf.least = len(leaf.shards)
		more, _ := room(leaf.node, p.used[leaf.name], proc.each, len(proc.done))
		if leaf.least > 0 && listens(proc.spec) || leaf.least == 0 && p.conflict(proc, leaf.name) != "" {
			more = 0
		} else if listens(proc.spec) {
			more = min(more, 1)
		}
		leaf.room = leaf.least + more
	}
	proc.root.measure()
	proc.root.divide(len(proc.done))
	for shard := range proc.done {
		if proc.done[shard] || proc.spent[shard] != nil {
			continue
		}
		var best *branch
		bestScore := math.Inf(-1)
		for _, leaf := range proc.leaves {
			if !leaf.open() {
				continue
			}
			if len(proc.leaves) == 1 {
				best = leaf
				break
			}
			if s := proc.score(shard, leaf.node); s > bestScore {
				best, bestScore = leaf, s
			}
		}
		if best != nil {
			best.add(shard)
			p.put(proc, shard, best.name)
			continue
		}
		p.result.Unplaced = append(p.result.Unplaced, spec.Unplaced{Process: proc.spec.Name, Shard: shard, Reason: p.reason(proc, shard)})
	}
}

func (p *placer) put(proc *process, shard int, node string) {
	proc.done[shard] = true
	p.used[node] = p.used[node].plus(proc.each, 1)
	for _, port := range proc.spec.Ports {
		if port.Static == 0 {
			continue
		}
		if p.ports[node] == nil {
			p.ports[node] = map[int]string{}
		}
		p.ports[node][port.Static] = proc.spec.Name + "/" + strconv.Itoa(shard)
	}
}

// lift takes a shard of a process off a node again.
func (p *placer) lift(proc *process, node string) {
	p.used[node] = p.used[node].plus(proc.each, -1)
	for _, port := range proc.spec.Ports {
		delete(p.ports[node], port.Static)
	}
}

// listens reports whether a process has a static port: a node can have one
// shard of it.
func listens(s *spec.Process) bool {
	return slices.ContainsFunc(s.Ports, func(p spec.Port) bool { return p.Static != 0 })
}

// conflict says which static port of the process is taken on a node, or "".
func (p *placer) conflict(proc *process, node string) string {
	for _, port := range proc.spec.Ports {
		if holder, taken := p.ports[node][port.Static]; taken && port.Static != 0 {
			return fmt.Sprintf("with port %d taken by %s", port.Static, holder)
		}
	}
	return ""
}

// reason says why no node can take a shard of the process.
func (p *placer) reason(proc *process, shard int) string {
	if len(p.nodes) == 0 {
		return "there is no node"
	}
	counts := maps.Clone(proc.refused)
	for _, leaf := range proc.leaves {
		if proc.spent[shard][leaf.name] {
			counts["where its restarts are used up"]++
		} else if why := p.conflict(proc, leaf.name); why != "" {
			counts[why]++
		} else if n, short := room(leaf.node, p.used[leaf.name], proc.each, 1); n == 0 {
			counts[short]++
		}
	}
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[why], why))
	}
	return "no eligible node (" + strings.Join(parts, ", ") + ")"
}

func (p *placer) finish(proc *process) {
	sets := map[string]spec.ShardSet{}
	for _, leaf := range proc.leaves {
		if len(leaf.shards) > 0 {
			sets[leaf.name] = spec.NewShardSet(leaf.shards...)
		}
	}
	if len(sets) > 0 {
		p.result.Processes[proc.spec.Name] = sets
	}
}
