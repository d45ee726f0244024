package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// maxFollowed is how many rollouts are followed at the same time; more are
	// as these end.
	maxFollowed = 16
	// rolloutPause is the least time between two looks at a rollout.
	rolloutPause = 100 * time.Millisecond
	// quietFor is how long what is waited for is not told in lines of text: most
	// of it is over soon.
	quietFor = 5 * time.Second
)

// errFollowed ends the following of a rollout.
var errFollowed = errors.New("the rollout is followed to its end")

// rolloutFollower shows how rollouts go on, until each is done, has failed, or
// waits for somebody.
type rolloutFollower struct {
	term   *terminal
	client *api.Client
	// versions are what is to be rolled out, by job.
	versions map[string]uint64

	seen map[string]*api.RolloutStatus
	told map[string]told // what was said last, where nothing can be drawn
}

// told is a line that was printed.
type told struct {
	counts, waits string
	at            time.Time
}

// ending is what became of a rollout.
type ending struct {
	job string
	err error
}

// run follows the rollouts. A timeout of 0 is none: a rollout ends by its own
// deadlines. The error says what has failed and what to do, or, with exit code
// exitWaits, who is waited for.
func (f *rolloutFollower) run(ctx context.Context, timeout time.Duration) error {
	if len(f.versions) == 0 {
		return nil
	}
	if timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx = bounded
	}
	ctx, cancel := context.WithCancel(ctx)
	f.seen, f.told = map[string]*api.RolloutStatus{}, map[string]told{}
	looks, ends := make(chan *api.RolloutStatus), make(chan ending, len(f.versions))
	var work errgroup.Group
	work.SetLimit(maxFollowed)
	started := make(chan struct{})
	go func() { // Go blocks while so many are followed
		defer close(started)
		for _, job := range names(f.versions) {
			work.Go(func() error {
				ends <- ending{job, f.one(ctx, job, looks)}
				return nil
			})
		}
	}()
	defer func() { cancel(); <-started; _ = work.Wait() }()
	defer f.term.settle()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var failed []error
	for left := len(f.versions); left > 0; {
		select {
		case s := <-looks:
			f.seen[s.Job] = s
		case end := <-ends:
			left--
			if end.err != nil {
				failed = append(failed, end.err)
			}
		case <-ticker.C:
		}
		f.show()
	}
	return f.verdict(ctx, failed, timeout)
}

// verdict joins what has become of the rollouts.
func (f *rolloutFollower) verdict(ctx context.Context, failed []error, timeout time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		var parts []string
		for _, job := range names(f.seen) {
			for i := range f.seen[job].Progress {
				if p := &f.seen[job].Progress[i]; p.State != spec.RolloutDone {
					parts = append(parts, job+"/"+progressText(p))
				}
			}
		}
		return fmt.Errorf("after %s it is not rolled out yet, and goes on: %s: see `meshrun status`, or wait longer with -timeout", ago(timeout), strings.Join(parts, "; "))
	}
	onlyWaits := len(failed) > 0 && !slices.ContainsFunc(failed, func(err error) bool {
		var waits *waitsError
		return !errors.As(err, &waits)
	})
	switch {
	case len(failed) == 0:
		return nil
	case onlyWaits:
		return &waitsError{errors.Join(failed...)}
	case len(failed) == 1:
		return failed[0]
	default:
		var texts []string
		for _, err := range failed {
			texts = append(texts, err.Error())
		}
		return errors.New(strings.Join(texts, "\n"))
	}
}

// one follows one rollout to its end.
func (f *rolloutFollower) one(ctx context.Context, job string, looks chan<- *api.RolloutStatus) error {
	var away absence
	tag, reverted := "", ""
	for {
		s, err := f.client.Rollout(ctx, job, tag)
		switch {
		case passing(err):
			tag = ""
			if err := away.wait(ctx, err); err != nil {
				return err
			}
			continue
		case errors.Is(err, api.ErrNotFound):
			return fmt.Errorf("%s was removed while it was rolled out", job)
		case err != nil:
			return err
		}
		away.ended()
		tag = s.Tag
		select {
		case looks <- &s:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if s.Version > f.versions[job] && s.Reverted && reverted == "" {
			reverted = f.whyReverted(ctx, &s)
			f.term.say("%s %s: %s", f.term.errStyle.red("Reverting"), job, reverted)
		}
		if end := rolloutEnd(&s, f.versions[job], reverted); end != nil {
			if errors.Is(end, errFollowed) {
				return nil
			}
			return end
		}
		if err := pause(ctx, rolloutPause); err != nil {
			return err
		}
	}
}

// rolloutEnd returns errFollowed if the rollout of a version is done, why it
// has ended otherwise, and nil while it goes on. Reverted says why an older
// version has taken its place; "" if none has.
func rolloutEnd(s *api.RolloutStatus, version uint64, reverted string) error {
	state := s.State()
	switch {
	case s.Version < version:
		return nil
	case s.Version > version && reverted == "" && isApply(s.Why):
		return fmt.Errorf("%s version %d is rolled out no further: version %d (%s, by %s) has taken its place", s.Job, version, s.Version, s.Why, s.Who)
	case state == spec.RolloutDone && reverted != "":
		return fmt.Errorf("%s: %s; that is rolled out now: %s tell what went wrong", s.Job, reverted, lookAt(s.Job, reverted))
	case state == spec.RolloutDone:
		return errFollowed
	case state == spec.RolloutFailed && reverted != "":
		return fmt.Errorf("%s: %s; and that has failed, too (%s): look at %s, then apply a version that works", s.Job, reverted, s.Rollout.Reason, lookAt(s.Job, s.Rollout.Reason))
	case state == spec.RolloutFailed && s.Reverting == 0:
		return fmt.Errorf("%s version %d has failed: %s; %s", s.Job, s.Version, s.Rollout.Reason, rolloutHint(s))
	case state == spec.RolloutWaiting || state == spec.RolloutPaused:
		return &waitsError{fmt.Errorf("%s version %d %s: %s", s.Job, s.Version, waitsText(state), s.Rollout.Reason)}
	}
	return nil
}

func waitsText(state spec.RolloutState) string {
	if state == spec.RolloutPaused {
		return "is paused"
	}
	return "waits to be promoted"
}

// isApply reports whether a version is another definition of the job, and not
// one that an order made.
func isApply(why string) bool {
	first, _, _ := strings.Cut(why, ",")
	switch spec.Op(first) {
	case spec.OpStop, spec.OpStart, spec.OpRestart, spec.OpScale, spec.OpPause, spec.OpResume, spec.OpPromote, spec.OpRun:
		return false
	}
	return true
}

// whyReverted finds out why a version was reverted; the event of it tells.
func (f *rolloutFollower) whyReverted(ctx context.Context, s *api.RolloutStatus) string {
	why := fmt.Sprintf("version %d has failed, and an earlier one takes its place as version %d", f.versions[s.Job], s.Version)
	query := api.EventQuery{Types: []spec.EventType{spec.EventRolloutReverted}, Job: s.Job, Since: s.When.Add(-time.Second)}
	err := f.client.Events(ctx, query, func(ev spec.Event) error {
		if ev.Version == s.Version {
			why = ev.Message
		}
		return nil
	})
	if err != nil && !errors.Is(err, api.ErrPartial) {
		return why // the rollout itself is what matters
	}
	return why
}

// progressText tells in a line how far a process is.
func progressText(p *spec.Progress) string {
	text := p.Process + "  " + counts(p)
	if p.Waits != "" && p.State != spec.RolloutDone {
		text += "; " + oneLine(p.Waits)
	}
	return text
}

// show draws the rollouts, or tells of what has changed.
func (f *rolloutFollower) show() {
	now := f.term.now()
	jobs := names(f.seen)
	if f.term.liveErr {
		var lines []string
		for _, job := range jobs {
			s := f.seen[job]
			lines = append(lines, f.term.errStyle.bold(job)+"  "+rolloutHead(s, f.term.errStyle, now))
			lines = append(lines, rolloutLines(s, f.term.errStyle, "  ", true)...)
		}
		f.term.draw(lines)
		return
	}
	for _, job := range jobs {
		for i := range f.seen[job].Progress {
			f.tell(job, &f.seen[job].Progress[i], now)
		}
	}
}

// tell prints a line of a process if it is further than before, or waits for
// something else for a while.
func (f *rolloutFollower) tell(job string, p *spec.Progress, now time.Time) {
	key := job + "/" + p.Process
	last, again := f.told[key]
	this := told{counts: string(p.State) + counts(p), waits: p.Waits, at: now}
	if !again && p.State == spec.RolloutDone {
		return // nothing happens to it
	}
	if again && this.counts == last.counts && (this.waits == last.waits || now.Sub(last.at) < quietFor) {
		return
	}
	f.told[key] = this
	f.term.say("  %s/%s", job, progressText(p))
}

// names returns the keys of a map in their order.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// unfinished returns the rollouts of the jobs that are not done.
func unfinished(ctx context.Context, client *api.Client, jobs []spec.JobVersion) ([]api.RolloutStatus, error) {
	steps := slices.DeleteFunc(slices.Clone(jobs), func(v spec.JobVersion) bool {
		return !v.InSteps()
	})
	if len(steps) == 0 {
		return nil, nil
	}
	records, err := client.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	done := map[string]uint64{}
	for _, r := range records {
		if r.State == spec.RolloutDone {
			done[r.Job] = r.Version
		}
	}
	var out []api.RolloutStatus
	for _, v := range steps {
		if done[v.Job.Name] == v.Version {
			continue
		}
		s, err := client.Rollout(ctx, v.Job.Name, "")
		if errors.Is(err, api.ErrNotFound) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		if s.State() != spec.RolloutDone {
			out = append(out, s)
		}
	}
	return out, nil
}
