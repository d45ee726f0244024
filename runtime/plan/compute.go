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
	seen := map[string]bool{}
	var work errgroup.Group // jobs don't look at each other
	work.SetLimit(runtime.GOMAXPROCS(0))
	errs := make([]error, len(wanted))
	for i, w := range wanted {
		if seen[w.Job] {
			errs[i] = fmt.Errorf("job %q is to be changed twice in one plan: %w", w.Job, ErrInvalid)
			break
		}
		seen[w.Job] = true
		work.Go(func() error {
			p.Jobs[i], errs[i] = computeJob(&s, w, now)
			return nil
		})
	}
	_ = work.Wait()
	for _, err := range errs { // the first in the order of what is wanted, always
		if err != nil {
			return spec.Plan{}, err
		}
	}
	slices.SortFunc(p.Jobs, func(a, b spec.JobPlan) int { return strings.Compare(a.Job, b.Job) })
	return p, nil
}

func computeJob(s *Snapshot, w Wanted, now time.Time) (spec.JobPlan, error) {
	var current *spec.JobVersion
	stored, exists := s.Jobs[w.Job]
	if exists {
		current = &stored.Value
	}
	if w.Remove && !exists {
		return spec.JobPlan{}, fmt.Errorf("there is no job %q to remove: %w", w.Job, ErrUnknown)
	}
	next, err := Next(current, s.Latest[w.Job], w, now)
	if err != nil {
		return spec.JobPlan{}, err
	}
	job := spec.JobPlan{Job: w.Job, Base: stored.Index, Placed: s.Placements[w.Job].Index}
	if current != nil {
		job.From = current.Version
	}
	if next != nil {
		job.To = next.Version
	}
	switch {
	case next == nil:
		job.Action = spec.JobRemove
	case current == nil:
		job.Action = spec.JobCreate
	case next == current:
		job.Action = spec.JobKeep
	default:
		job.Action = spec.JobUpdate
	}
	if job.Action != spec.JobKeep && next != nil {
		job.Wanted = next
	}
	job.Changes = jobChanges(current, next)
	job.Instances = instances(s, w.Job, current, next, now)
	return job, nil
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
