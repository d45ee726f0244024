package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// maxRestartShards bounds the shards of a dependency whose restarts cause restarts of
// dependents: their generations have to fit into an assignment.
const maxRestartShards = 256

// Other is what is known of a job on which another job depends.
type Other struct {
	Job       *spec.JobVersion
	Placement *spec.Placement
	Observed  map[string]spec.Observed
	// Unreadable is set if some of it cannot be read. Dependents are then neither
	// started nor stopped.
	Unreadable bool
}

// on returns the rollout of the job that a dependency names, and the name of the
// process there.
func (r *rollout) on(d spec.Dependency) (*rollout, string) {
	job, process := d.Of(r.job)
	if job == r.job {
		return r, process
	}
	if r.otherRollouts[job] == nil {
		o := r.Others[job]
		if o.Placement == nil {
			o.Placement = &spec.Placement{}
		}
		other := newRollout(Snapshot{Job: o.Job, Placement: o.Placement, Live: r.Live, Observed: o.Observed})
		other.job, other.ofOtherJob, other.unreadable = job, true, o.Unreadable
		other.want()
		r.otherRollouts[job] = other
	}
	return r.otherRollouts[job], process
}

// failed reports whether a dependency has failed: no shard that should run meets
// the condition, in any version, on any node.
func (r *rollout) failed(d spec.Dependency) bool {
	if failed, known := r.failures[d]; known {
		return failed
	}
	on, name := r.on(d)
	r.failures[d] = !on.unreadable && !on.anyMeets(name, d.Condition)
	return r.failures[d]
}

// anyMeets reports whether any shard of a process that should run meets a
// condition.
func (r *rollout) anyMeets(name string, c spec.Condition) bool {
	def := r.defs[name]
	if def == nil {
		return false
	}
	for shard := range def.process.Shards {
		if r.Job.Order(name, shard).Stopped {
			continue
		}
		for _, node := range r.at[instanceKey{name, shard}] {
			if in := r.seen[shardOnNode{node, name, shard}]; in != nil && meets(in, c) {
				return true
			}
		}
	}
	return false
}

// stopDependents stops the instances whose dependency has failed and whose
// current definition says on_failure = "stop", and with them the instances that
// depend on those in the same way. A stopped instance is not wanted until it is
// gone; after that it is held like any instance that has not started yet.
func (r *rollout) stopDependents() {
	there := map[string][]shardOnNode{}
	for where := range r.wanted {
		if in := r.seen[where]; in != nil && in.Phase != spec.PhasePending && in.Phase != spec.PhaseCompleted {
			there[where.process] = append(there[where.process], where)
		}
	}
	r.inOrder(func(process string) {
		halted := 0
		for _, where := range there[process] {
			why := r.stopReason(where, r.seen[where])
			if why == "" {
				continue
			}
			halted++
			delete(r.wanted, where)
			r.stopping[where] = why
			r.settled = false
			r.reasons[r.id(where.process, where.shard)] = why
		}
		r.stoppedProcesses[process] = halted > 0 && halted == len(there[process])
	})
}

// stopReason returns why a wanted instance must not run now, "" if it may.
func (r *rollout) stopReason(where shardOnNode, in *spec.Instance) string {
	if e := r.current[where]; e != nil {
		if in.Version != e.Version {
			return "" // it keeps another definition until this one may start
		}
		return r.stopReasonOf(&e.Process)
	}
	// It is being stopped, and its definition is no longer known.
	why := r.stopReasonOf(r.defs[where.process].process)
	for _, e := range r.entries() {
		if e.Process.Name == where.process && why == "" {
			why = r.stopReasonOf(&e.Process)
		}
	}
	return why
}

// stopReasonOf returns why an instance with a definition must not run now, "" if
// it may.
func (r *rollout) stopReasonOf(p *spec.Process) string {
	for _, d := range p.DependsOn {
		if d.OnFailure != spec.OnFailureStop {
			continue
		}
		if on, name := r.on(d); r.failed(d) || (on == r && r.stoppedProcesses[name]) {
			return fmt.Sprintf("stopped: waits for %s to be %s again", d.Process, d.Condition)
		}
	}
	return ""
}

// inOrder calls do for each wanted process, after its dependencies in the same
// job.
func (r *rollout) inOrder(do func(process string)) {
	on := map[string][]spec.Dependency{}
	for name, def := range r.defs {
		on[name] = def.process.DependsOn
	}
	for _, e := range r.entries() {
		if name := e.Process.Name; on[name] != nil || len(e.Process.DependsOn) > 0 {
			on[name] = slices.Concat(on[name], e.Process.DependsOn)
		}
	}
	done := map[string]bool{}
	var visit func(process string)
	visit = func(process string) {
		if done[process] || r.defs[process] == nil {
			return
		}
		done[process] = true
		for _, d := range on[process] {
			visit(d.Process)
		}
		do(process)
	}
	for _, process := range sortedKeys(r.defs) {
		visit(process)
	}
}

// restartDependents finds the instances that must be restarted because a
// dependency has restarted and meets its condition again, by their current
// definition. A restart stays due until the generation is gone, whichever
// orchestrator decides then. What depends on an instance that is due waits for
// its restart, and then restarts once itself.
func (r *rollout) restartDependents() {
	places := map[string][]shardOnNode{} // of processes with restartDependencies
	for where := range r.wanted {
		if e := r.current[where]; e != nil && len(restartDependencies(&e.Process)) > 0 {
			places[where.process] = append(places[where.process], where)
		}
	}
	if len(places) == 0 {
		return
	}
	r.inOrder(func(process string) {
		for _, where := range places[process] {
			r.checkRestart(where)
		}
	})
}

// checkRestart records that an assigned instance must be restarted, if a
// dependency has restarted.
func (r *rollout) checkRestart(where shardOnNode) {
	e, in := r.current[where], r.seen[where]
	if in == nil || in.Generation == 0 || !(in.Phase.Alive() || in.Phase == spec.PhaseBackoff) {
		return
	}
	due := e.Due[where.shard] == in.Generation
	for _, d := range restartDependencies(&e.Process) {
		if had := e.After[d.Process]; had != "" {
			due = due || restarted(had, r.recordedGenerations(e, d))
		}
	}
	if due {
		r.restartsDue[where] = in.Generation
		r.expiring[where.process] = true
	}
}

// restartDependencies returns the dependencies of a process that have on_failure
// = "restart".
func restartDependencies(p *spec.Process) []spec.Dependency {
	var out []spec.Dependency
	for _, d := range p.DependsOn {
		if d.OnFailure == spec.OnFailureRestart {
			out = append(out, d)
		}
	}
	return out
}

// recordedGenerations returns what an assignment records of a dependency: its
// present generations if it meets its condition, and otherwise what the entry e,
// which may be nil, has recorded already.
func (r *rollout) recordedGenerations(e *spec.AssignedProcess, d spec.Dependency) string {
	had := ""
	if e != nil {
		had = e.After[d.Process]
	}
	// An entry without recorded generations records them as soon as it may start.
	if r.unmet(demand{d, had != ""}) != "" {
		return had
	}
	if r.generations[d] == "" {
		r.generations[d] = r.generationsOf(d)
	}
	return r.generations[d]
}

// generationsOf returns the generations of a dependency's shards, such as
// "0@node-a:3,1@node-b:1.m5x2k8". A generation counts from one when an instance
// is declared again, so the start time is part of it.
func (r *rollout) generationsOf(d spec.Dependency) string {
	on, name := r.on(d)
	var b strings.Builder
	for shard := range min(on.defs[name].process.Shards, maxRestartShards) {
		nodes := slices.Sorted(slices.Values(on.at[instanceKey{name, shard}]))
		for _, node := range nodes {
			in := on.seen[shardOnNode{node, name, shard}]
			if in == nil || !meets(in, d.Condition) {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%d@%s:%d", shard, node, in.Generation)
			if !in.Started.IsZero() {
				b.WriteString("." + strconv.FormatInt(in.Started.UnixMilli(), 36))
			}
			break
		}
	}
	return b.String()
}

// restarted reports whether a shard that both texts contain has restarted.
func restarted(had, now string) bool {
	if had == now || had == "" {
		return false
	}
	lived := map[string]string{}
	for one := range strings.SplitSeq(had, ",") {
		shard, life, _ := strings.Cut(one, "@")
		lived[shard] = life
	}
	for one := range strings.SplitSeq(now, ",") {
		shard, life, _ := strings.Cut(one, "@")
		if was := lived[shard]; was != "" && was != life {
			return true
		}
	}
	return false
}

// restartReason returns why an instance must be restarted with its dependencies,
// "" if it must not, or not now.
func (r *rollout) restartReason(where shardOnNode, in *spec.Instance) string {
	if due := r.restartsDue[where]; due == 0 || due != in.Generation {
		return ""
	}
	var names []string
	for _, d := range restartDependencies(&r.current[where].Process) {
		if r.unmet(demand{d, true}) != "" {
			return "" // its dependency is down
		}
		names = append(names, d.Process)
	}
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, " or ") + " has restarted"
}

// recordGenerations records in the new assignments the generations of
// dependencies and the restarts that are still due.
func (r *rollout) recordGenerations() {
	for g, a := range r.groups {
		old := r.previousEntry(g)
		for _, d := range restartDependencies(&a.Process) {
			if text := r.recordedGenerations(old, d); text != "" {
				if a.After == nil {
					a.After = map[string]string{}
				}
				a.After[d.Process] = text
			}
		}
		for _, shard := range a.Shards {
			if due := r.restartsDue[shardOnNode{g.node, g.process, shard}]; due != 0 {
				set(&a.Due, shard, due)
			}
		}
	}
}

// previousEntry returns the entry of Current that a new entry continues: the one
// of the same version, or else the newest.
func (r *rollout) previousEntry(g entryKey) *spec.AssignedProcess {
	var found *spec.AssignedProcess
	for i := range r.Current[g.node].Processes {
		e := &r.Current[g.node].Processes[i]
		if e.Process.Name == g.process && (found == nil || e.Version == g.version || (found.Version != g.version && e.Version > found.Version)) {
			found = e
		}
	}
	return found
}

// Needs returns the jobs, sorted, that a job depends on, by its wanted definition
// and by its assigned ones: an instance with an old definition waits for the
// dependencies of that definition.
func Needs(job *spec.JobVersion, current map[string]spec.Assignment) []string {
	out := map[string]bool{}
	note := func(j *spec.Job) {
		for _, on := range j.Needs() {
			out[on] = true
		}
	}
	if job != nil {
		note(&job.Job)
	}
	for _, a := range current {
		for i := range a.Processes {
			note(&spec.Job{Name: a.Job, Processes: []spec.Process{a.Processes[i].Process}})
		}
	}
	return slices.SortedFunc(maps.Keys(out), cmp.Compare[string])
}
