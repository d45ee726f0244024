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
