package orchestrator

import (
	"fmt"
	"reflect"

	"github.com/synergymesh/meshrun/spec"
)

// definition is a wanted process.
type definition struct {
	process *spec.Process
	// version is the job's version that the definition is from.
	version uint64
	// hash is its ReplaceHash, made when it is first needed.
	hash string
	// waits says what it waits for, "" if every dependency is so far; known
	// once checked is set.
	waits   string
	checked bool
}

func (r *rollout) define(p *spec.Process, version uint64) *definition {
	if version == 0 {
		version = r.Job.Version
	}
	return &definition{process: p, version: version}
}

// versions returns, of the processes that are assigned as the job wants them,
// the versions that they are assigned with.
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

// behind reports whether an instance must be restarted to be what is wanted.
func (r *rollout) behind(def *definition, in *spec.Instance) bool {
	if in.Epoch != r.Job.Order(in.ID.Process, in.ID.Shard).Epoch {
		return true
	}
	if in.Version == def.version {
		return false
	}
	if def.hash == "" {
		def.hash = spec.ReplaceHash(def.process)
	}
	return in.Hash != def.hash
}

// waitsFor returns why instances of a process can't be started now, "" if they can.
func (r *rollout) waitsFor(def *definition) string {
	if !def.checked {
		def.checked = true
		for _, d := range def.process.DependsOn {
			if def.waits = r.unmet(d); def.waits != "" {
				break
			}
		}
	}
	return def.waits
}

// unmet returns why a dependency isn't so far, "" if it is.
func (r *rollout) unmet(d spec.Dependency) string {
	state := "started"
	if d.Condition == spec.ConditionCompleted {
		state = "completed"
	}
	on := r.defs[d.Process]
	if on == nil {
		return fmt.Sprintf("waits for %s, which this job does not have", d.Process)
	}
	if why, known := r.dependencies[d]; known {
		return why
	}
	why := ""
	if on.process.Shards == 0 {
		why = fmt.Sprintf("waits for %s to be %s, which has no shards", d.Process, state)
	}
	for shard := range on.process.Shards {
		if !r.soFar(on, shard, d.Condition) {
			why = fmt.Sprintf("waits for %s to be %s", d.Process, state)
			if r.Job.Order(d.Process, shard).Stopped {
				why += ", which an operator has stopped"
			}
			break
		}
	}
	r.dependencies[d] = why
	return why
}

// soFar reports whether one shard of a dependency is as far as the condition
// demands, and is what it is wanted to be.
func (r *rollout) soFar(on *definition, shard int, c spec.Condition) bool {
	for _, node := range r.at[instanceKey{on.process.Name, shard}] {
		where := spot{node, on.process.Name, shard}
		in := r.seen[where]
		if in == nil || !r.wanted[where] || r.behind(on, in) {
			continue
		}
		done := in.Phase == spec.PhaseCompleted && (in.LastExit == nil || in.LastExit.Success())
		return done || (in.Phase == spec.PhaseRunning && c != spec.ConditionCompleted)
	}
	return false
}
