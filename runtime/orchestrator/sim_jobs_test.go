package orchestrator_test

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// checkJobs demands that each shard that is wanted runs once, where it belongs,
// in its version, and that nothing else does.
func (s *sim) checkJobs() {
	running := map[spec.InstanceID]string{}
	for name, n := range s.nodes {
		for _, id := range n.running() {
			if running[id] != "" {
				s.t.Errorf("%s runs on %s and on %s", id, name, running[id])
			}
			running[id] = name
		}
	}
	entries, _, err := s.store.List(context.Background(), state.JobsPrefix)
	if err != nil {
		s.t.Fatal(err)
	}
	jobs := map[string]*spec.JobVersion{}
	for _, e := range entries {
		v, err := state.Decode[spec.JobVersion](e)
		if err != nil {
			s.t.Fatal(err)
		}
		jobs[v.Job.Name] = &v
	}
	for _, v := range jobs {
		placement, _, err := state.GetAs[spec.Placement](context.Background(), s.store, state.PlacementKey(v.Job.Name))
		if err != nil || placement.Version != v.Version {
			s.t.Errorf("job %s of version %d is placed in version %d, %v", v.Job.Name, v.Version, placement.Version, err)
			continue
		}
		for process, nodes := range placement.Processes {
			must, mustNot := s.duty(jobs, v.Job.Name, process)
			hash := spec.ReplaceHash(wantedProcess(jobs, v.Job.Name, process))
			for node, shards := range nodes {
				for _, shard := range shards {
					id := spec.InstanceID{Job: v.Job.Name, Process: process, Shard: shard}
					if must && fails(wantedProcess(jobs, id.Job, process), node) && s.bearable() {
						s.t.Errorf("%s is on %s, where it fails, and is spent on %v", id, node, placement.SpentOn(process, shard))
					}
					switch on := running[id]; {
					case must && on != node:
						s.t.Errorf("%s belongs on %s and runs on %q", id, node, on)
					case mustNot && on != "" && s.nodes[on].hash(id) == hash: // an old definition goes on
						s.t.Errorf("%s runs on %s, and what it stops for isn't there", id, on)
					}
					delete(running, id)
				}
			}
		}
		for _, u := range placement.Unplaced {
			if s.available("xyz") && (s.bearable() || len(placement.SpentOn(u.Process, u.Shard)) == 0) {
				s.t.Errorf("%s/%s/%d has no place: %s", v.Job.Name, u.Process, u.Shard, u.Reason)
			}
		}
	}
	for id, node := range running {
		s.t.Errorf("%s runs on %s and is not wanted", id, node)
	}
}

// available reports whether a node whose name begins with one of the letters may
// be given work.
func (s *sim) available(zones string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(s.nodes)), func(n *simNode) bool {
		return strings.Contains(zones, n.name[:1]) && !n.isDraining()
	})
}

// bearable reports whether there is a node on which no process fails.
func (s *sim) bearable() bool { return s.available("yz") }

// duty reports whether a process must run at rest, as all that it depends on
// does, and whether it must not, as it stops for something that isn't there.
// In between it may: what ran before what it depends on was taken away goes on.
func (s *sim) duty(jobs map[string]*spec.JobVersion, job, process string) (must, mustNot bool) {
	p := wantedProcess(jobs, job, process)
	if p == nil {
		return false, true
	}
	must = !fails(p, "x") || s.bearable()
	for _, d := range p.DependsOn {
		onJob, on := d.Of(job)
		runs, _ := s.duty(jobs, onJob, on)
		must = must && runs
		mustNot = mustNot || (d.OnFailure == spec.OnFailureStop && wantedProcess(jobs, onJob, on) == nil)
	}
	return must, mustNot
}

// wantedProcess returns a process that shall have shards, nil if there is none.
func wantedProcess(jobs map[string]*spec.JobVersion, job, process string) *spec.Process {
	if v := jobs[job]; v != nil {
		for i := range v.Job.Processes {
			if p := &v.Job.Processes[i]; p.Name == process && p.Shards > 0 {
				return p
			}
		}
	}
	return nil
}
