package orchestrator

import (
	"slices"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// Dependent is what is known of a job that depends on another job.
type Dependent struct {
	// Job is its present version, or its last one if the job is Gone.
	Job      *spec.JobVersion
	Gone     bool
	Observed map[string]spec.Observed
}

// dependentsEnding maps each process that has shards to unassign to a process of
// another job that depends on it, is to end too, and is still present.
func (r *rollout) dependentsEnding(assigned map[string][]shardOnNode) map[string]string {
	by := map[string]string{}
	for _, job := range sortedKeys(r.Dependents) {
		d := r.Dependents[job]
		for i := range d.Job.Job.Processes {
			p := &d.Job.Job.Processes[i]
			for _, on := range p.DependsOn {
				onJob, name := on.Of(job)
				if onJob == r.job && by[name] == "" && len(assigned[name]) > 0 && r.endsIn(&d, p) {
					by[name] = job + "/" + p.Name
				}
			}
		}
	}
	return by
}

// endsIn reports whether a dependent's process has an instance that is present
// and is to end.
func (r *rollout) endsIn(d *Dependent, p *spec.Process) bool {
	for node, seen := range d.Observed {
		if r.Live[node] && slices.ContainsFunc(seen.Instances, func(in spec.Instance) bool {
			ends := d.Gone || in.ID.Shard >= p.Instances() || d.Job.Order(p.Name, in.ID.Shard).Stopped
			return in.ID.Process == p.Name && present(&in) && ends
		}) {
			return true
		}
	}
	return false
}

// endingJobs records which jobs wait for dependents in other jobs to end, so that
// jobs that are stopped together end in reverse dependency order.
type endingJobs struct {
	// removed are the last versions of removed jobs that still have observed
	// instances. A node that acquires the control shard later does not have them: then
	// the dependencies do not wait for their dependents to end.
	removed map[string]*spec.JobVersion
	// awaiting are the jobs that wait for dependents to end: job → dependents.
	awaiting map[string]map[string]Dependent
}

// keepRemovedJobs keeps the last versions of the jobs that an update removes,
// while any of their instances is still reported.
func (d *reconciler) keepRemovedJobs(u follow.Update) {
	for _, key := range u.Removed {
		name := follow.Name(state.JobsPrefix, key)
		if job, _, err := d.jobs.Get(name); err == nil && job != nil && len(d.observed.nodes[name]) > 0 {
			d.ending.removed[name] = job
		}
	}
}

// markAwaiting marks the jobs that wait for one of these jobs to end.
func (d *reconciler) markAwaiting(jobs []string) {
	for _, job := range jobs {
		if len(d.observed.nodes[job]) == 0 || d.jobs.Has(job) {
			delete(d.ending.removed, job)
		}
	}
	for name, on := range d.ending.awaiting {
		if slices.ContainsFunc(jobs, func(job string) bool { _, waits := on[job]; return waits }) {
			d.dirty[name] = true
		}
	}
}

// endingDependents returns the jobs that depend on a job. Jobs that depend on
// each other in a cycle are left out: none of them would ever end.
func (d *reconciler) endingDependents(name string) map[string]Dependent {
	jobs := map[string]*spec.Job{}
	out := map[string]Dependent{}
	note := func(other string, v *spec.JobVersion, gone bool) {
		jobs[other] = &v.Job
		if slices.Contains(Needs(v, nil), name) && other != name {
			observed, _ := d.observed.of(other) // do not wait for what cannot be read
			out[other] = Dependent{Job: v, Gone: gone, Observed: observed}
		}
	}
	for other, v := range d.ending.removed {
		note(other, v, true)
	}
	for _, other := range d.jobs.Names() {
		if v, _, err := d.jobs.Get(other); err == nil {
			note(other, v, false)
		}
	}
	for _, found := range spec.Circles(jobs) {
		for _, other := range found.On {
			if slices.Contains(found.On, name) {
				delete(out, other)
			}
		}
	}
	return out
}

// dependents indexes jobs by the jobs that they depend on.
type dependents struct {
	needs map[string][]string        // job → those it depends on
	by    map[string]map[string]bool // job → those that depend on it
}

// note records which jobs a job depends on now.
func (d *dependents) note(job string, on []string) {
	if d.by == nil {
		d.needs, d.by = map[string][]string{}, map[string]map[string]bool{}
	}
	for _, old := range d.needs[job] {
		if delete(d.by[old], job); len(d.by[old]) == 0 {
			delete(d.by, old)
		}
	}
	if delete(d.needs, job); len(on) > 0 {
		d.needs[job] = on
	}
	for _, other := range on {
		if d.by[other] == nil {
			d.by[other] = map[string]bool{}
		}
		d.by[other][job] = true
	}
}

// of returns the jobs that depend on a job.
func (d *dependents) of(job string) []string { return sortedKeys(d.by[job]) }
