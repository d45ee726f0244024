package engine

import (
	"context"
	"reflect"

	"github.com/synergymesh/meshrun/spec"
)

// WaitSettled blocks until what Instances returns has been compared with what
// is assigned, so that its services are known, or returns ctx's error.
func (e *Engine) WaitSettled(ctx context.Context) error { return e.view.waitSettled(ctx) }

// isSettled reports whether setProcesses was called.
func (v *view) isSettled() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.settled
}

// processesOf returns the process of every assigned shard; should a shard be
// assigned twice, that of the newer version.
func processesOf(jobs map[string]*assigned) map[spec.InstanceID]*process {
	out := map[spec.InstanceID]*process{}
	for name, job := range jobs {
		for _, p := range job.processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: name, Process: p.Process.Name, Shard: shard}
				if other, twice := out[id]; !twice || p.Version > other.Version {
					out[id] = p
				}
			}
		}
	}
	return out
}

// setProcesses replaces the processes of what is assigned. What is assigned no
// more keeps its own until it is gone.
func (v *view) setProcesses(next map[spec.InstanceID]*process) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, p := range v.processes {
		_, assigned := next[id]
		if _, runs := v.jobs[id.Job][id]; runs && !assigned {
			next[id] = p
		}
	}
	changed := !v.settled
	for _, processes := range []map[spec.InstanceID]*process{v.processes, next} {
		for id := range processes {
			if !shownAlike(v.processes[id], next[id]) {
				v.dirty[id.Job], changed = true, true
			}
		}
	}
	v.processes, v.settled = next, true
	if v.hush() || changed {
		v.bump()
	}
}

// shownAlike reports whether instances of two processes, nil for none, are
// shown in the same way.
func shownAlike(a, b *process) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.Process.Services, b.Process.Services) && reflect.DeepEqual(a.Process.Health, b.Process.Health)
}
