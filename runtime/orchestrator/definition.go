package orchestrator

import (
	"fmt"
	"reflect"

	"github.com/synergymesh/meshrun/spec"
)

// definition is the wanted definition of a process.
type definition struct {
	process *spec.Process
	// version is the job version that introduced the definition.
	version uint64
	// hash is its ReplaceHash, computed when it is first needed.
	hash string
}

func (r *rollout) define(p *spec.Process, version uint64) *definition {
	if version == 0 {
		version = r.Job.Version
	}
	return &definition{process: p, version: version}
}

// versions returns, for each process that is assigned exactly as the job wants
// it, the job version that it is assigned with.
func (r *rollout) versions() map[string]uint64 {
	wanted := map[string]*spec.Process{}
	for i := range r.Job.Job.Processes {
		wanted[r.Job.Job.Processes[i].Name] = &r.Job.Job.Processes[i]
	}
	versions := map[string]uint64{}
	for _, a := range r.Current {
		for i := range a.Processes {
			have := &a.Processes[i]
			want := wanted[have.Process.Name]
			if want != nil && have.Version > versions[want.Name] && reflect.DeepEqual(have.Process, *want) {
				versions[want.Name] = have.Version
			}
		}
	}
	return versions
}

// outdated reports whether an instance must be restarted to become what is
// wanted.
func (r *rollout) outdated(def *definition, in *spec.Instance) bool {
	known := !r.ofOtherJob || def.process.Schedule == nil // the runs of other jobs are not known
	if known && in.Epoch != r.epoch(in.ID.Process, in.ID.Shard) {
		return true
	}
	if in.Version == def.version {
		return false
	}
	return in.Hash != def.replaceHash()
}

func (def *definition) replaceHash() string {
	if def.hash == "" {
		def.hash = spec.ReplaceHash(def.process)
	}
	return def.hash
}

// demand is a dependency as a start or a restart sees it. A restart for a change
// is strict: it waits until the dependency itself is what is wanted. A start also
// accepts a dependency whose own rollout has not reached it yet.
type demand struct {
	spec.Dependency
	strict bool
}

// firstUnmet returns why one of the dependencies does not meet its condition, ""
// if all do.
func (r *rollout) firstUnmet(all []spec.Dependency, strict bool) string {
	for _, d := range all {
		if why := r.unmet(demand{d, strict}); why != "" {
			return why
		}
	}
	return ""
}

// unmet returns why a dependency does not meet its condition, "" if it does.
func (r *rollout) unmet(d demand) string {
	if why, known := r.dependencies[d]; known {
		return why
	}
	why := r.findUnmet(d)
	r.dependencies[d] = why
	return why
}

// findUnmet computes what unmet returns.
func (r *rollout) findUnmet(d demand) string {
	of, name := r.on(d.Dependency)
	on := of.defs[name]
	switch {
	case on == nil && of == r:
		return fmt.Sprintf("waits for %s, which this job does not have", d.Process)
	case of.unreadable:
		return fmt.Sprintf("waits for %s: the state of job %s cannot be read", d.Process, of.job)
	case of.Job == nil:
		return fmt.Sprintf("waits for %s: no job named %q", d.Process, of.job)
	case on == nil:
		return fmt.Sprintf("waits for %s, which job %s does not have", d.Process, of.job)
	case of == r && r.stoppedProcesses[name]:
		return fmt.Sprintf("waits for %s to be %s again", d.Process, d.Condition)
	}
	why := ""
	if on.process.Shards == 0 {
		why = fmt.Sprintf("waits for %s to be %s, which has no shards", d.Process, d.Condition)
	}
	for shard := range on.process.Shards {
		if !of.shardMeets(on, shard, d) {
			why = fmt.Sprintf("waits for %s to be %s", d.Process, d.Condition)
			if of.Job.Order(name, shard).Stopped {
				why += ", which an operator has stopped"
			}
			break
		}
	}
	return why
}

// shardMeets reports whether one shard of a dependency meets the condition and is
// what is wanted, or what it is assigned as.
func (r *rollout) shardMeets(on *definition, shard int, d demand) bool {
	for _, node := range r.at[instanceKey{on.process.Name, shard}] {
		where := shardOnNode{node, on.process.Name, shard}
		in := r.seen[where]
		if in == nil || !(r.wanted[where] || r.staying[where]) {
			continue
		}
		if d.strict && r.restarting(where, in) {
			continue
		}
		if meets(in, d.Condition) && (!r.outdated(on, in) || (!d.strict && r.asAssigned(where, in))) {
			return true
		}
	}
	return false
}

// restarting reports whether the observed generation is to be restarted, or has a
// restart request.
func (r *rollout) restarting(where shardOnNode, in *spec.Instance) bool {
	if e := r.current[where]; e != nil && in.Generation != 0 && e.Expire[where.shard].Generation == in.Generation {
		return true
	}
	return r.restartsDue[where] != 0 && r.restartsDue[where] == in.Generation
}

// asAssigned reports whether an instance runs what it is assigned as while the
// wanted definition has to wait.
func (r *rollout) asAssigned(where shardOnNode, in *spec.Instance) bool {
	if r.ofOtherJob { // its assignment is not known here: its update block decides
		return r.Job.Steps(r.defs[where.process].process)
	}
	if r.staying[where] {
		return true
	}
	t, gated := r.steps[where]
	if !gated || in.Epoch != t.epoch {
		return false
	}
	return in.Version == r.defs[where.process].version || (t.old != nil && in.Version == t.old.Version)
}

// meets reports whether an instance meets a condition. One that completed
// successfully meets every condition.
func meets(in *spec.Instance, c spec.Condition) bool {
	if in.Phase == spec.PhaseCompleted {
		return in.LastExit == nil || in.LastExit.Success()
	}
	_, healthy := in.HealthyAt()
	return in.Phase == spec.PhaseRunning && (c == spec.ConditionStarted || (c == spec.ConditionHealthy && healthy))
}
