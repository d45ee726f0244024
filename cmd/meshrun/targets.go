package main

import (
	"slices"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// targets are what is looked at: none is all there is.
type targets []api.Target

// match reports whether an instance is among the targets.
func (ts targets) match(id spec.InstanceID) bool {
	return len(ts) == 0 || slices.ContainsFunc(ts, func(t api.Target) bool { return t.Matches(id) })
}

// job reports whether something of a job is.
func (ts targets) job(name string) bool {
	return len(ts) == 0 || slices.ContainsFunc(ts, func(t api.Target) bool { return t.Job == name })
}

// process reports whether something of a process is.
func (ts targets) process(job, name string) bool {
	return len(ts) == 0 || slices.ContainsFunc(ts, func(t api.Target) bool {
		return t.Job == job && (t.Process == "" || t.Process == name)
	})
}

// part reports whether an instance is among those named as a part of their job:
// of these there is more to tell.
func (ts targets) part(id spec.InstanceID) bool {
	return slices.ContainsFunc(ts, func(t api.Target) bool { return t.Process != "" && t.Matches(id) })
}

// shard reports whether single shards are named of an instance's process.
func (ts targets) shard(id spec.InstanceID) bool {
	return slices.ContainsFunc(ts, func(t api.Target) bool { return t.Job == id.Job && t.Process == id.Process && t.Shard >= 0 })
}

// wanted reports whether the target is among the wanted processes.
func wanted(jobs []spec.JobVersion, target api.Target) bool {
	for _, j := range jobs {
		if j.Job.Name != target.Job {
			continue
		}
		if target.Process == "" {
			return true
		}
		for _, p := range j.Job.Processes {
			if p.Name == target.Process && target.Shard < p.Instances() {
				return true
			}
		}
	}
	return false
}
