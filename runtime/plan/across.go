package plan

import (
	"fmt"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// together returns the jobs that there are once a plan is applied.
func together(s *Snapshot, parts []part) map[string]*spec.Job {
	jobs := make(map[string]*spec.Job, len(s.Jobs))
	for name, stored := range s.Jobs {
		jobs[name] = &stored.Value.Job
	}
	for i := range parts {
		if delete(jobs, parts[i].wanted.Job); parts[i].next != nil {
			jobs[parts[i].wanted.Job] = &parts[i].next.Job
		}
	}
	return jobs
}

// circle refuses what closes a circle of dependencies across jobs. One that is
// there already stops no operator: only the jobs that are applied are refused.
func circle(jobs map[string]*spec.Job, parts []part) error {
	for _, found := range spec.Circles(jobs) {
		for i := range parts {
			if w := parts[i].wanted; w.Apply != nil && slices.Contains(found.On, w.Job) {
				return fmt.Errorf("%s: %w", found, ErrInvalid)
			}
		}
	}
	return nil
}

// maxNeeds bounds how many jobs a plan demands unchanged, so that it fits into a
// transaction; the nearest come first.
const maxNeeds = 64

// needs returns the indexes of the other jobs that there are and on which a job
// comes to depend with a plan. Somebody who makes one of those depend on this job
// at the same time changes it: then the plan is stale, and the next one finds the
// circle. A job that is not there is not demanded to stay so, as that takes the
// right to make it; meshrun status tells of a circle that is closed that way.
func needs(s *Snapshot, j *part, jobs map[string]*spec.Job, changed map[string]bool) map[string]uint64 {
	if j.next == nil || j.next == j.current {
		return nil
	}
	known := map[string]bool{}
	if j.current != nil {
		for _, name := range j.current.Job.Needs() {
			known[name] = true
		}
	}
	queue := slices.DeleteFunc(j.next.Job.Needs(), func(name string) bool { return known[name] })
	out, seen := map[string]uint64{}, map[string]bool{j.wanted.Job: true}
	for ; len(queue) > 0 && len(out) < maxNeeds; queue = queue[1:] {
		name := queue[0]
		if seen[name] || jobs[name] == nil {
			continue
		}
		seen[name] = true
		if there, ok := s.Jobs[name]; ok && !changed[name] { // what the plan changes it demands anyway
			out[name] = there.Index
		}
		queue = append(queue, jobs[name].Needs()...)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// unmeetable tells of dependencies across jobs that can't come true once the
// plan is applied: of those that it has a part in.
func unmeetable(jobs map[string]*spec.Job, parts []part) []string {
	touched := map[string]bool{}
	for i := range parts {
		touched[parts[i].wanted.Job] = true
	}
	var out []string
	for _, p := range spec.Unmeetable(jobs) {
		if touched[p.Job] || slices.ContainsFunc(p.On, func(on string) bool { return touched[on] }) {
			out = append(out, p.String())
		}
	}
	return out
}
