// Package scheduler decides where shards belong (layer L-B). Place is the
// decision, a pure function; Loop watches jobs and nodes, asks Place, and
// writes the placements.
package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

// Slack is how far above its fair share a node may be filled: shards then stay
// where they are, and fall where their hash says, rather than being moved to
// even out a difference of one or two.
const Slack = 0.25

// Place says where every shard of a job belongs. A shard stays where previous
// (nil: nothing is known) has it as long as that node may have it; any other
// one goes to the node that weighted rendezvous hashing gives it, among those
// that may take it. A node may take a shard if it isn't draining, has the
// labels that the process demands, has no shard yet that listens on the same
// static port, and is below its Bound.
//
// So a leaving node moves its own shards only, and a new node only what is
// above the others' new bounds. Same input, same answer, whatever the order of
// the nodes. What no node can take is listed as unplaced, with the reason.
func Place(v *spec.JobVersion, nodes []spec.Node, previous *spec.Placement) spec.Placement {
	p := &placer{
		job:    v.Job.Name,
		nodes:  slices.SortedFunc(slices.Values(nodes), func(a, b spec.Node) int { return cmp.Compare(a.Name, b.Name) }),
		ports:  map[string]map[int]string{},
		result: spec.Placement{Job: v.Job.Name, Version: v.Version, Processes: map[string]map[string]spec.ShardSet{}},
	}
	processes := make([]*process, 0, len(v.Job.Processes))
	for i := range v.Job.Processes {
		processes = append(processes, p.prepare(&v.Job.Processes[i]))
	}
	slices.SortFunc(processes, func(a, b *process) int { return cmp.Compare(a.spec.Name, b.spec.Name) })
	// All that stays goes first, so that nothing new takes its port.
	for _, proc := range processes {
		if previous != nil {
			p.keep(proc, previous.Processes[proc.spec.Name])
		}
	}
	for _, proc := range processes {
		p.fill(proc)
		p.finish(proc)
	}
	return p.result
}

// Bound is the largest number of a process's shards that a node of the given
// weight may have, where total is the weight of all nodes that may have any.
func Bound(shards int, weight, total float64) int {
	return int(math.Ceil(float64(shards) * (1 + Slack) * weight / total))
}

// placer is one run of Place.
type placer struct {
	job   string
	nodes []spec.Node
	// ports maps node → static port → the shard that listens there.
	ports  map[string]map[int]string
	result spec.Placement
}

// process is a process while its shards are being placed.
type process struct {
	spec *spec.Process
	// eligible are the nodes that may have shards of it, bounds how many.
	eligible []spec.Node
	bounds   map[string]int
	// refused counts the other nodes by reason.
	refused map[string]int
	placed  map[string][]int
	// done marks the shards that have a node.
	done []bool
}

func (p *placer) prepare(s *spec.Process) *process {
	proc := &process{
		spec: s, bounds: map[string]int{}, refused: map[string]int{}, placed: map[string][]int{},
		done: make([]bool, max(s.Shards, 0)),
	}
	var total float64
	for _, n := range p.nodes {
		if reason := refusal(s, n); reason != "" {
			proc.refused[reason]++
			continue
		}
		proc.eligible = append(proc.eligible, n)
		total += weight(n)
	}
	for _, n := range proc.eligible {
		proc.bounds[n.Name] = Bound(s.Shards, weight(n), total)
	}
	return proc
}

// refusal says why a node may have no shard of a process at all, or "".
func refusal(s *spec.Process, n spec.Node) string {
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
func (p *placer) keep(proc *process, previous map[string]spec.ShardSet) {
	for _, n := range proc.eligible {
		var stay []int
		for _, shard := range previous[n.Name] {
			if shard < len(proc.done) && !proc.done[shard] {
				stay = append(stay, shard)
			}
		}
		if len(stay) > proc.bounds[n.Name] {
			score := p.scorer(proc)
			slices.SortFunc(stay, func(a, b int) int {
				return cmp.Or(cmp.Compare(score(b, n), score(a, n)), a-b)
			})
			stay = stay[:proc.bounds[n.Name]]
			slices.Sort(stay)
		}
		for _, shard := range stay {
			if p.conflict(proc, n.Name) == "" {
				p.put(proc, shard, n.Name)
			}
		}
	}
}

// fill places the shards that have no node yet.
func (p *placer) fill(proc *process) {
	score := p.scorer(proc)
	for shard := range proc.done {
		if proc.done[shard] {
			continue
		}
		best, bestScore := "", math.Inf(-1)
		for _, n := range proc.eligible {
			if len(proc.placed[n.Name]) >= proc.bounds[n.Name] || p.conflict(proc, n.Name) != "" {
				continue
			}
			if len(proc.eligible) == 1 {
				best = n.Name
				break
			}
			if s := score(shard, n); s > bestScore {
				best, bestScore = n.Name, s
			}
		}
		if best != "" {
			p.put(proc, shard, best)
			continue
		}
		p.result.Unplaced = append(p.result.Unplaced, spec.Unplaced{Process: proc.spec.Name, Shard: shard, Reason: p.reason(proc)})
	}
}

func (p *placer) put(proc *process, shard int, node string) {
	proc.done[shard] = true
	proc.placed[node] = append(proc.placed[node], shard)
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

// conflict says which static port of the process is taken on a node, or "".
func (p *placer) conflict(proc *process, node string) string {
	for _, port := range proc.spec.Ports {
		if holder, taken := p.ports[node][port.Static]; taken && port.Static != 0 {
			return fmt.Sprintf("port %d is taken by %s", port.Static, holder)
		}
	}
	return ""
}

// reason says why no node can take another shard of the process.
func (p *placer) reason(proc *process) string {
	if len(p.nodes) == 0 {
		return "there is no node"
	}
	counts := maps.Clone(proc.refused)
	for _, n := range proc.eligible {
		if why := p.conflict(proc, n.Name); why != "" {
			counts[why]++
		}
	}
	text := ""
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%d of %d nodes: %s", counts[why], len(p.nodes), why)
	}
	return text
}

func (p *placer) finish(proc *process) {
	if len(proc.placed) == 0 {
		return
	}
	sets := make(map[string]spec.ShardSet, len(proc.placed))
	for node, shards := range proc.placed {
		sets[node] = spec.NewShardSet(shards...)
	}
	p.result.Processes[proc.spec.Name] = sets
}

func weight(n spec.Node) float64 {
	if n.Weight > 0 {
		return n.Weight
	}
	return 1
}

// scorer returns how strong a node's claim on a shard is: the highest of
// -weight/ln(u), with u the hash of both as a number between 0 and 1, wins as
// often as the node's weight says.
func (p *placer) scorer(proc *process) func(shard int, n spec.Node) float64 {
	prefix := hashString(hashString(fnvOffset, p.job), "/"+proc.spec.Name+"/")
	return func(shard int, n spec.Node) float64 {
		h := hashString(hashString(prefix, strconv.Itoa(shard)), "@"+n.Name)
		u := (float64(mix(h)>>11) + 0.5) / (1 << 53)
		return -weight(n) / math.Log(u)
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
