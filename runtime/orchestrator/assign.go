package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// group is an entry of an assignment: a process on a node, at one definition.
type group struct {
	node, process string
	// old is the entry in Current that what leaves keeps; nil for what is wanted.
	old *spec.AssignedProcess
}

// leave finds what is assigned, shall not be, and must stay so for a while yet:
// what something depends on that leaves too and isn't gone.
func (r *rollout) leave() {
	assigned := map[string][]spot{} // by process: assigned, and shall not be
	ending := map[string]bool{}     // unassigned by now, but not gone yet
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
		process := e.old.Process.Name
		for _, d := range e.old.Process.DependsOn {
			if leaves(process) && len(assigned[d.Process]) > 0 && (blocked[d.Process] == "" || process < blocked[d.Process]) {
				blocked[d.Process] = process
			}
		}
	}
	if len(blocked) == len(assigned) && len(ending) == 0 {
		return // a ring of versions that never ran together: no order is right
	}
	for process, by := range blocked {
		for _, where := range assigned[process] {
			r.staying[where] = true
			r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("is stopped once %s is gone", by)
		}
	}
	r.remember(blocked, leaves)
}

// entries returns the entries of all current assignments of nodes that are there.
func (r *rollout) entries() []group {
	var out []group
	for node, a := range r.Current {
		if !r.Live[node] {
			continue
		}
		for i := range a.Processes {
			out = append(out, group{node: node, process: a.Processes[i].Process.Name, old: &a.Processes[i]})
		}
	}
	return out
}

// remember keeps the entries, without shards, of processes that end while what
// they depend on waits for that: they are all that tells of the dependency.
func (r *rollout) remember(blocked map[string]string, leaves func(string) bool) {
	for _, e := range r.entries() {
		for _, d := range e.old.Process.DependsOn {
			if blocked[d.Process] != "" && leaves(e.process) {
				r.group(e)
			}
		}
	}
}

// present reports whether an instance that is no longer assigned is still
// there, or could come back.
func present(in *spec.Instance) bool {
	return in.Phase != spec.PhaseCompleted && in.Phase != spec.PhaseFailed
}

// group returns an entry of the assignments to be written. A process has one
// for each version.
func (r *rollout) group(g group) *spec.AssignedProcess {
	if def := r.defs[g.process]; g.old != nil && def != nil && def.version == g.old.Version {
		g.old = nil
	}
	if r.groups[g] == nil {
		if g.old != nil {
			r.groups[g] = &spec.AssignedProcess{Process: g.old.Process, Version: g.old.Version}
		} else {
			def := r.defs[g.process]
			r.groups[g] = &spec.AssignedProcess{Process: *def.process, Version: def.version}
		}
	}
	return r.groups[g]
}

// assign writes the assignments.
func (r *rollout) assign() {
	for where := range r.wanted {
		// Where it is assigned already it stays: only its start waits.
		if old := r.elsewhere(where); old != "" && r.current[where] == nil {
			r.settled = false
			r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("moves to %s once it has ended on %s", where.node, old)
			continue
		}
		r.put(r.group(group{node: where.node, process: where.process}), where)
	}
	for where := range r.staying {
		old := r.current[where]
		a := r.group(group{node: where.node, process: where.process, old: old})
		a.Shards = append(a.Shards, where.shard)
		if epoch := old.Epochs[where.shard]; epoch != 0 {
			set(&a.Epochs, where.shard, epoch)
		}
		if held := old.Held[where.shard]; held != "" {
			set(&a.Held, where.shard, held)
		} else if other := r.elsewhere(where); other != "" && r.seen[where] == nil {
			set(&a.Held, where.shard, endsOn(other))
		}
	}
	for g, a := range r.groups {
		slices.Sort(a.Shards)
		if r.out[g.node] == nil {
			r.out[g.node] = &spec.Assignment{Job: r.job, Node: g.node}
		}
		r.out[g.node].Processes = append(r.out[g.node].Processes, *a)
	}
	for _, a := range r.out {
		slices.SortFunc(a.Processes, func(x, y spec.AssignedProcess) int {
			return cmp.Or(cmp.Compare(x.Process.Name, y.Process.Name), cmp.Compare(x.Version, y.Version))
		})
	}
}

// put assigns a wanted shard, held if it has to wait.
func (r *rollout) put(a *spec.AssignedProcess, where spot) {
	a.Shards = append(a.Shards, where.shard)
	if epoch := r.Job.Order(where.process, where.shard).Epoch; epoch != 0 {
		set(&a.Epochs, where.shard, epoch)
	}
	in := r.seen[where]
	if old := r.elsewhere(where); old != "" {
		r.settled = false
		if in == nil {
			r.hold(a, where, endsOn(old))
			return
		}
	}
	def := r.defs[where.process]
	if len(def.process.DependsOn) == 0 {
		return
	}
	r.settled = false
	if in != nil && in.Phase != spec.PhasePending && !r.behind(def, in) {
		return
	}
	if waits := r.waitsFor(def); waits != "" {
		r.hold(a, where, waits)
	}
}

func endsOn(node string) string { return "waits until it has ended on " + node }

func (r *rollout) hold(a *spec.AssignedProcess, where spot, why string) {
	set(&a.Held, where.shard, why)
	r.reasons[r.id(where.process, where.shard)] = why
}

// elsewhere returns another node at which the shard is still assigned or may
// still run, "" if there is none.
func (r *rollout) elsewhere(where spot) string {
	for _, node := range r.at[instanceKey{where.process, where.shard}] {
		other := spot{node, where.process, where.shard}
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
