package plan

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synergymesh/meshrun/spec"
)

// Compute says what the wanted changes, one for each job, would do to the
// state of the snapshot. Of each job plan, Wanted is the whole version to be
// written, with its sensitive values: who shows, saves or sends the plan
// redacts it first. Jobs that need nothing are in the plan as kept. An error
// wraps ErrUnknown or ErrInvalid.
func Compute(s Snapshot, wanted []Wanted, now time.Time) (spec.Plan, error) {
	p := spec.Plan{Format: spec.PlanFormat, Created: now.UTC(), Index: s.Index, Jobs: make([]spec.JobPlan, len(wanted))}
	parts := make([]part, len(wanted))
	seen := map[string]bool{}
	for i, w := range wanted {
		if seen[w.Job] {
			return spec.Plan{}, fmt.Errorf("job %q is to be changed twice in one plan: %w", w.Job, ErrInvalid)
		}
		seen[w.Job] = true
		parts[i].wanted = w
	}
	if err := each(parts, func(j *part) error { return j.version(&s, now) }); err != nil {
		return spec.Plan{}, err
	}
	jobs := together(&s, parts)
	if err := circle(jobs, parts); err != nil {
		return spec.Plan{}, err
	}
	board, moved := place(&s, parts)
	for i := range parts {
		if err := parts[i].reportable(&s); err != nil {
			return spec.Plan{}, err
		}
	}
	p.Warnings = moved
	together := groups(&s, board, parts)
	_ = each(together, func(group *[]*part) error { // which don't look at each other
		run(&s, *group, now)
		return nil
	})
	changed := map[string]bool{}
	for i := range parts {
		changed[parts[i].wanted.Job] = parts[i].next != parts[i].current
	}
	_ = each(parts, func(j *part) error {
		j.plan = j.compute(&s)
		j.plan.Needs = needs(&s, j, jobs, changed)
		return nil
	})
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.wanted.Job, b.wanted.Job) })
	for i := range parts {
		p.Jobs[i] = parts[i].plan
		p.Warnings = append(p.Warnings, warnings(&s, &parts[i])...)
	}
	p.Warnings = append(p.Warnings, unmeetable(jobs, parts)...)
	for _, group := range together {
		p.Warnings = append(p.Warnings, beside(group)...)
	}
	return p, nil
}

// part is one job's part of a plan.
type part struct {
	wanted        Wanted
	current, next *spec.JobVersion
	placement     *spec.Placement // of next
	// model is what became of it, nil if nothing does; and beside is set if it is
	// no part of the plan, but has to do with one.
	model  *model
	beside bool
	plan   spec.JobPlan
}

// each does the same to all, side by side, and returns the first error in their
// order.
func each[T any](all []T, do func(*T) error) error {
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	errs := make([]error, len(all))
	for i := range all {
		work.Go(func() error {
			errs[i] = do(&all[i])
			return nil
		})
	}
	_ = work.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// version finds the job's version before and after.
func (j *part) version(s *Snapshot, now time.Time) (err error) {
	stored, exists := s.Jobs[j.wanted.Job]
	if exists {
		j.current = &stored.Value
	}
	if j.wanted.Remove && !exists {
		return fmt.Errorf("no job named %q to remove: %w", j.wanted.Job, ErrUnknown)
	}
	j.next, err = Next(j.current, s.Latest[j.wanted.Job], j.wanted, now)
	return err
}

func (j *part) compute(s *Snapshot) spec.JobPlan {
	name := j.wanted.Job
	job := spec.JobPlan{Job: name, Base: s.Jobs[name].Index, Placed: s.Placements[name].Index}
	if j.current != nil {
		job.From = j.current.Version
	}
	if j.next != nil {
		job.To = j.next.Version
	}
	switch {
	case j.next == nil:
		job.Action = spec.JobRemove
	case j.current == nil:
		job.Action = spec.JobCreate
	case j.next == j.current:
		job.Action = spec.JobKeep
	default:
		job.Action = spec.JobUpdate
	}
	if job.Action != spec.JobKeep && j.next != nil {
		job.Wanted = j.next
	}
	job.Changes = jobChanges(j.current, j.next)
	job.Steps = j.next != nil && j.next.InSteps()
	if j.next != nil {
		job.Ends = batch(j.next.Job.Processes)
	}
	job.Instances = instances(s, j)
	return job
}

// batch names the processes that run to their end.
func batch(processes []spec.Process) []string {
	var names []string
	for i := range processes {
		if processes[i].Ends() {
			names = append(names, processes[i].Name)
		}
	}
	return names
}

// jobChanges returns what differs, with the file that the job comes from.
func jobChanges(current, next *spec.JobVersion) []spec.Change {
	if current == next {
		return nil
	}
	var before, after *spec.Job
	if current != nil {
		before = &current.Job
	}
	if next != nil {
		after = &next.Job
	}
	changes := spec.Diff(before, after)
	if before != nil && after != nil && current.Source != next.Source {
		changes = append([]spec.Change{{
			Path: "source", Old: current.Source, OldSet: current.Source != "",
			New: next.Source, NewSet: next.Source != "", Effect: spec.EffectLive,
		}}, changes...)
	}
	return changes
}
