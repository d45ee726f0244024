package orchestrator

import (
	"slices"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// Dependent is what is known of a job that depends on another one.
type Dependent struct {
	// Job is its present version, or, if it is Gone, the last one.
	Job      *spec.JobVersion
	Gone     bool
	Observed map[string]spec.Observed
}

// dependentsEnding returns, of the processes of which something is to be unassigned, what
// in other jobs depends on them, ends too and is not gone yet.
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

// endsIn reports whether an instance of a dependent's process is there that shall end.
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

// endingJobs finds the jobs on which others that end depend, so that what is stopped
// together ends in the reverse order of its dependencies.
type endingJobs struct {
	// removed are the last versions of jobs that were removed and of which something
	// is seen yet. Who takes a control shard over later knows nothing of those: what
	// they depended on does not wait for them.
	removed map[string]*spec.JobVersion
	// awaiting are the jobs that wait for dependents to end: job → those.
	awaiting map[string]map[string]Dependent
}

// keepRemovedJobs keeps the versions of the jobs that an update removes.
func (d *reconciler) keepRemovedJobs(u follow.Update) {
	for _, key := range u.Removed {
		name := follow.Name(state.JobsPrefix, key)
		if job, _, err := d.jobs.Get(name); err == nil && job != nil && len(d.observed.nodes[name]) > 0 {
			d.ending.removed[name] = job
		}
	}
}

// markAwaiting marks the jobs that wait for one of these to end.
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

// endingDependents returns what depends on a job of which something is to end, and notes
// that it waits for that. Jobs that wait for each other, in a circle, are left out:
// none of them would ever end.
func (d *reconciler) endingDependents(name string) map[string]Dependent {
	jobs := map[string]*spec.Job{}
	out := map[string]Dependent{}
	note := func(other string, v *spec.JobVersion, gone bool) {
		jobs[other] = &v.Job
		if slices.Contains(Needs(v, nil), name) && other != name {
			observed, _ := d.observed.of(other) // what can't be read is waited for no longer
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
