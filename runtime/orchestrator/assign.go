package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// entryKey identifies an entry of an assignment: a process on a node, at one
// version of its definition.
type entryKey struct {
	node, process string
	version       uint64
}

// entry is an entry of Current, with its node.
type entry struct {
	node string
	*spec.AssignedProcess
}

// delayStops keeps assigned what is to be unassigned as long as something that
// depends on it is to end too and is still present.
func (r *rollout) delayStops() {
	assigned := map[string][]shardOnNode{} // by process: to be unassigned
	ending := map[string]bool{}            // unassigned, but not gone yet
	for where := range r.current {
		if !r.wanted[where] && !r.staying[where] {
			assigned[where.process] = append(assigned[where.process], where)
		}
	}
	for where, in := range r.seen {
		if !r.wanted[where] && r.current[where] == nil && present(in) {
			ending[where.process] = true
		}
	}
	if len(assigned) == 0 && len(ending) == 0 {
		return
	}
	r.settled = false
	leaves := func(process string) bool { return len(assigned[process]) > 0 || ending[process] }
	blocked := map[string]string{} // process → what must be gone first
	for _, e := range r.entries() {
		process := e.Process.Name
		for _, d := range e.Process.DependsOn {
			if leaves(process) && len(assigned[d.Process]) > 0 && (blocked[d.Process] == "" || process < blocked[d.Process]) {
				blocked[d.Process] = process
			}
		}
	}
	if len(blocked) == len(assigned) && len(ending) == 0 {
		clear(blocked) // a cycle through versions that never ran together: no order is right
	}
	r.unassigns = len(assigned) > 0
	for process, by := range r.dependentsEnding(assigned) {
		blocked[process] = by
	}
	for process, by := range blocked {
		for _, where := range assigned[process] {
			r.staying[where] = true
			r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("is stopped once %s is gone", by)
		}
	}
	r.keepDependencyEntries(blocked, leaves)
}

// entries returns the entries of all current assignments on live nodes.
func (r *rollout) entries() []entry {
	var out []entry
	for node, a := range r.Current {
		if !r.Live[node] {
			continue
		}
		for i := range a.Processes {
			out = append(out, entry{node, &a.Processes[i]})
		}
	}
	return out
}

// keepDependencyEntries keeps entries without shards for processes that end while
// their dependencies wait for that: only these entries record the dependency.
func (r *rollout) keepDependencyEntries(blocked map[string]string, leaves func(string) bool) {
	for _, e := range r.entries() {
		for _, d := range e.Process.DependsOn {
			if blocked[d.Process] != "" && leaves(e.Process.Name) {
				r.group(e.node, e.Process.Name, e.AssignedProcess)
			}
		}
	}
}

// present reports whether an instance that is no longer assigned still runs or
// could start again.
func present(in *spec.Instance) bool {
	return in.Phase != spec.PhaseCompleted && in.Phase != spec.PhaseFailed
}

// group returns the entry of the new assignments for a process on a node: with
// the definition of an old entry, or the wanted one if old is nil. A process has
// one entry for each version.
func (r *rollout) group(node, process string, old *spec.AssignedProcess) *spec.AssignedProcess {
	at := entryKey{node: node, process: process}
	def := r.defs[process]
	if old != nil {
		at.version = old.Version
	} else {
		at.version = def.version
	}
	if r.groups[at] == nil {
		if old != nil && (def == nil || def.version != old.Version) {
			r.groups[at] = &spec.AssignedProcess{Process: old.Process, Version: old.Version}
		} else {
			r.groups[at] = &spec.AssignedProcess{Process: *def.process, Version: def.version}
		}
		r.groups[at].Since = r.since[process]
	}
	return r.groups[at]
}

// assign builds the new assignments.
func (r *rollout) assign() {
	for where := range r.wanted {
		// Where it is assigned already it stays assigned: only its start waits.
		if old := r.elsewhere(where); old != "" && r.current[where] == nil {
			r.settled = false
			r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("moves to %s once it has ended on %s", where.node, old)
			continue
		}
		r.put(where)
	}
	for where := range r.staying {
		old := r.current[where]
		a := r.group(where.node, where.process, old)
		a.Shards = append(a.Shards, where.shard)
		if epoch := old.Epochs[where.shard]; epoch != 0 {
			set(&a.Epochs, where.shard, epoch)
		}
		if expire := old.Expire[where.shard]; expire.Generation != 0 {
			set(&a.Expire, where.shard, expire)
		}
		if held := old.Held[where.shard]; held != "" {
			set(&a.Held, where.shard, held)
		} else if other := r.elsewhere(where); other != "" && r.seen[where] == nil {
			set(&a.Held, where.shard, endsOn(other))
		}
	}
	r.recordGenerations()
	for g, a := range r.groups {
		slices.Sort(a.Shards)
		if r.out[g.node] == nil {
			r.out[g.node] = &spec.Assignment{Job: r.job, Node: g.node}
		}
		r.out[g.node].Processes = append(r.out[g.node].Processes, *a)
	}
	for _, a := range r.out {
		a.Processes = slices.Clone(a.Processes) // stored for long, so without spare capacity
		slices.SortFunc(a.Processes, func(x, y spec.AssignedProcess) int {
			return cmp.Or(cmp.Compare(x.Process.Name, y.Process.Name), cmp.Compare(x.Version, y.Version))
		})
	}
}

// put assigns a wanted shard as its step says, held if it has to wait.
func (r *rollout) put(where shardOnNode) {
	t, gated := r.steps[where]
	if !gated {
		t.epoch = r.epoch(where.process, where.shard)
	}
	a := r.group(where.node, where.process, t.old)
	a.Shards = append(a.Shards, where.shard)
	if t.epoch != 0 {
		set(&a.Epochs, where.shard, t.epoch)
	}
	if t.expire.Generation != 0 {
		set(&a.Expire, where.shard, t.expire)
	}
	if why := r.down[where]; why != "" {
		r.hold(a, where, why)
		return
	}
	in := r.seen[where]
	if old := r.elsewhere(where); old != "" {
		r.settled = false
		if in == nil {
			r.hold(a, where, endsOn(old))
			return
		}
	}
	if len(a.Process.DependsOn) == 0 {
		return
	}
	r.settled = false
	there := in != nil && in.Phase != spec.PhasePending
	if there && (t.old != nil || !r.outdated(r.defs[where.process], in)) {
		return
	}
	if waits := r.firstUnmet(a.Process.DependsOn, there); waits != "" {
		r.hold(a, where, waits)
	}
}

func endsOn(node string) string { return "waits until it has ended on " + node }

func (r *rollout) hold(a *spec.AssignedProcess, where shardOnNode, why string) {
	set(&a.Held, where.shard, why)
	r.reasons[r.id(where.process, where.shard)] = why
}

// elsewhere returns another node on which the shard is still assigned or may
// still run, "" if there is none.
func (r *rollout) elsewhere(where shardOnNode) string {
	for _, node := range r.at[instanceKey{where.process, where.shard}] {
		other := shardOnNode{node, where.process, where.shard}
		if node == where.node {
			continue
		}
		if in := r.seen[other]; r.current[other] != nil || (in != nil && present(in)) {
			return node
		}
	}
	return ""
}

func set[V any](m *map[int]V, shard int, value V) {
	if *m == nil {
		*m = map[int]V{}
	}
	(*m)[shard] = value
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
