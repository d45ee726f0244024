package engine

import (
	"context"
	"reflect"

	"github.com/synergymesh/meshrun/spec"
)

// WaitSettled blocks until what Instances returns has been compared with what
// is assigned, so that its services are known, or returns ctx's error.
func (e *Engine) WaitSettled(ctx context.Context) error { return e.view.waitSettled(ctx) }

// servicesOf returns the services of every assigned shard, also of those that
// have none; should a shard be assigned twice, those of the newer version.
func servicesOf(jobs map[string]*assigned) map[spec.InstanceID][]spec.Service {
	out := map[spec.InstanceID][]spec.Service{}
	for name, job := range jobs {
		newest := map[string]uint64{}
		for _, p := range job.processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: name, Process: p.Process.Name, Shard: shard}
				if _, twice := out[id]; !twice || p.Version > newest[id.Process] {
					out[id] = p.Process.Services
				}
			}
			newest[p.Process.Name] = max(newest[p.Process.Name], p.Version)
		}
	}
	return out
}

// setServices replaces the services of what is assigned. What is assigned no
// more keeps its own until it is gone.
func (v *view) setServices(next map[spec.InstanceID][]spec.Service) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, services := range v.services {
		_, assigned := next[id]
		if _, runs := v.jobs[id.Job][id]; runs && !assigned {
			next[id] = services
		}
	}
	changed := !v.settled
	for _, services := range []map[spec.InstanceID][]spec.Service{v.services, next} {
		for id := range services {
			if !reflect.DeepEqual(v.services[id], next[id]) {
				v.dirty[id.Job], changed = true, true
			}
		}
	}
	v.services, v.settled = next, true
	if changed {
		v.bump()
	}
}
