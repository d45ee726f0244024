package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Note returns a placement in which it is noted which shards have used up their
// restarts where they are placed, of processes that are to be rescheduled then;
// the placement itself if that is known already. It counts only what runs, or ran,
// as the job wants it now: what an old definition did says nothing of the next.
// seen returns what is observed of the job on a node.
func Note(v *spec.JobVersion, placed *spec.Placement, seen func(node string) []spec.Instance) *spec.Placement {
	moving := map[string]*spec.Process{}
	for i := range v.Job.Processes {
		if p := &v.Job.Processes[i]; p.Restart.Reschedules() {
			moving[p.Name] = p
		}
	}
	if placed == nil || len(moving) == 0 {
		return placed
	}
	nodes := map[string]bool{}
	for process := range moving {
		for node := range placed.Processes[process] {
			nodes[node] = true
		}
	}
	found := map[spent]map[string]spec.ShardSet{}
	hashes := map[string]string{}
	for node := range nodes {
		for _, in := range seen(node) {
			p := moving[in.ID.Process]
			if p == nil || in.Phase != spec.PhaseFailed || in.Refused != 0 || !placed.Processes[p.Name][node].Contains(in.ID.Shard) {
				continue
			}
			if hashes[p.Name] == "" {
				hashes[p.Name] = spec.ReplaceHash(p)
			}
			order := v.Order(p.Name, in.ID.Shard)
			as := spent{p.Name, hashes[p.Name], order.Epoch}
			if in.Hash != as.hash || in.Epoch != as.epoch || order.Stopped || as.of(placed)[node].Contains(in.ID.Shard) {
				continue
			}
			if found[as] == nil {
				found[as] = maps.Clone(as.of(placed))
			}
			if found[as] == nil {
				found[as] = map[string]spec.ShardSet{}
			}
			found[as][node] = append(slices.Clip(found[as][node]), in.ID.Shard)
		}
	}
	if len(found) == 0 {
		return placed
	}
	noted := *placed
	noted.Spent = slices.DeleteFunc(slices.Clone(placed.Spent), func(s spec.Spent) bool {
		return found[spent{s.Process, s.Hash, s.Epoch}] != nil
	})
	for as, on := range found {
		for node, shards := range on {
			on[node] = spec.NewShardSet(shards...)
		}
		noted.Spent = append(noted.Spent, spec.Spent{Process: as.process, Hash: as.hash, Epoch: as.epoch, Nodes: on})
	}
	sortSpent(noted.Spent)
	return &noted
}

// spent is what one spec.Spent is of.
type spent struct {
	process, hash string
	epoch         uint64
}

// of returns what a placement has noted, by node.
func (as spent) of(placed *spec.Placement) map[string]spec.ShardSet {
	for _, s := range placed.Spent {
		if s.Process == as.process && s.Hash == as.hash && s.Epoch == as.epoch {
			return s.Nodes
		}
	}
	return nil
}

func sortSpent(all []spec.Spent) {
	slices.SortFunc(all, func(a, b spec.Spent) int {
		return cmp.Or(cmp.Compare(a.Process, b.Process), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Hash, b.Hash))
	})
}

// recall returns what still holds of what a placement has noted: for the
// definitions that the job has now, the epochs of its orders, and the nodes that
// are there.
func recall(v *spec.JobVersion, nodes []spec.Node, placed *spec.Placement) []spec.Spent {
	if placed == nil || len(placed.Spent) == 0 {
		return nil
	}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
	}
	hashes := map[string]string{}
	var out []spec.Spent
	for _, was := range placed.Spent {
		at := slices.IndexFunc(v.Job.Processes, func(p spec.Process) bool { return p.Name == was.Process })
		if at < 0 || !v.Job.Processes[at].Restart.Reschedules() {
			continue
		}
		p := &v.Job.Processes[at]
		if hashes[p.Name] == "" {
			hashes[p.Name] = spec.ReplaceHash(p)
		}
		if was.Hash != hashes[p.Name] {
			continue
		}
		still := was
		still.Nodes = map[string]spec.ShardSet{}
		for node, shards := range was.Nodes {
			left := slices.DeleteFunc(slices.Clone(shards), func(shard int) bool {
				return !there[node] || shard >= p.Instances() || v.Order(p.Name, shard).Epoch != was.Epoch
			})
			if len(left) > 0 {
				still.Nodes[node] = left
			}
		}
		if len(still.Nodes) > 0 {
			out = append(out, still)
		}
	}
	sortSpent(out)
	return out
}

// spentShards returns the nodes on which the shards of a process are spent.
func spentShards(all []spec.Spent, process string) map[int]map[string]bool {
	var out map[int]map[string]bool
	for _, s := range all {
		if s.Process != process {
			continue
		}
		for node, shards := range s.Nodes {
			for _, shard := range shards {
				if out == nil {
					out = map[int]map[string]bool{}
				}
				if out[shard] == nil {
					out[shard] = map[string]bool{}
				}
				out[shard][node] = true
			}
		}
	}
	return out
}

// settle finds places for the shards that are spent on some node, after all
// others: those that have none, and those that are where they are spent. They are
// no part of the balance, so that nothing else moves for them: a node takes one
// whatever its bound is, if it has room. What no other node can take stays.
func (p *placer) settle(proc *process) {
	if len(proc.spent) == 0 {
		return
	}
	places := map[int]*branch{}
	for _, leaf := range proc.leaves {
		for _, shard := range leaf.shards {
			places[shard] = leaf
		}
	}
	for _, shard := range slices.Sorted(maps.Keys(proc.spent)) {
		at := places[shard]
		if at != nil && !proc.spent[shard][at.name] {
			continue
		}
		to := proc.refuge(shard)
		if to != nil && at != nil {
			at.remove(shard)
			p.lift(proc, at.name)
		}
		switch {
		case to != nil:
			to.add(shard)
			p.put(proc, shard, to.name)
		case at == nil:
			p.result.Unplaced = append(p.result.Unplaced, spec.Unplaced{Process: proc.spec.Name, Shard: shard, Reason: p.reason(proc, shard)})
		}
	}
}

// refuge returns the node for a shard that is spent on others: one below its bound
// with the strongest claim, else the one with the fewest shards; nil if none has
// room.
func (proc *process) refuge(shard int) *branch {
	var best *branch
	for _, leaf := range proc.leaves {
		if proc.spent[shard][leaf.name] || len(leaf.shards) >= leaf.room {
			continue
		}
		if best == nil || proc.prefers(shard, leaf, best) {
			best = leaf
		}
	}
	return best
}

// prefers reports whether a leaf suits a spent shard better than another.
func (proc *process) prefers(shard int, leaf, other *branch) bool {
	if leaf.open() != other.open() {
		return leaf.open()
	}
	claim := cmp.Compare(proc.score(shard, leaf.node), proc.score(shard, other.node))
	if leaf.open() {
		return claim > 0
	}
	load := func(b *branch) float64 { return float64(len(b.shards)) / b.weight }
	return cmp.Or(cmp.Compare(load(other), load(leaf)), claim) > 0
}
