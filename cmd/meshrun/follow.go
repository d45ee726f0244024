package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// goal is what an instance shall come to after an apply.
type goal struct {
	id spec.InstanceID
	// gone is set if the instance shall be down.
	gone bool
	// anew is set if the instance shall be another process than before.
	anew bool
	// before is the instance as it was before the plan; nil if it wasn't there.
	before *spec.Instance
	// version is the job's after the apply. An instance of that version is a
	// new one for sure; but one that was restarted for an older reason keeps
	// its version.
	version uint64
	// epoch is the number of restarts that were ordered; ordered is set if
	// they are the only reason for a new process.
	epoch   uint64
	ordered bool
	// ends is set if the instance shall run to its end.
	ends bool
}

// goalsOf returns what the instances of a plan shall come to, given what was
// seen before it was made.
func goalsOf(p *spec.Plan, before []spec.Instance) []goal {
	byID := make(map[spec.InstanceID]*spec.Instance, len(before))
	for i := range before {
		byID[before[i].ID] = &before[i]
	}
	var goals []goal
	for _, j := range p.Jobs {
		replaced := map[string]bool{}
		for _, c := range j.Changes {
			replaced[c.Process] = replaced[c.Process] || c.Effect == spec.EffectReplace
		}
		for _, i := range j.Instances {
			g := goal{id: i.ID, before: byID[i.ID], version: j.To, ends: slices.Contains(j.Ends, i.ID.Process)}
			switch i.Action {
			case spec.ActionStop:
				g.gone = true
			case spec.ActionRestart, spec.ActionStart, spec.ActionWait, spec.ActionMove:
				g.anew = true
			case spec.ActionRefuse, spec.ActionSchedule:
				continue
			}
			if j.Wanted != nil {
				g.epoch = j.Wanted.Order(i.ID.Process, i.ID.Shard).Epoch
				g.ordered = g.epoch > 0 && !replaced[i.ID.Process]
				// One that never ran is kept as it is, which is down.
				g.gone = g.gone || j.Wanted.Order(i.ID.Process, i.ID.Shard).Stopped
			}
			goals = append(goals, g)
		}
	}
	return goals
}

// isOld reports whether the instance is still the one that shall be replaced.
func (g *goal) isOld(i *spec.Instance) bool {
	if !g.anew || g.before == nil || (g.version > 0 && i.Version >= g.version) || (g.ordered && i.Epoch >= g.epoch) {
		return false
	}
	return i.PID == g.before.PID && i.Generation == g.before.Generation && i.Epoch == g.before.Epoch && i.Version == g.before.Version
}

// progress compares goals with what is seen: what has come to its goal, what
// has failed, and what is still on its way.
func progress(goals []goal, seen []spec.Instance) (done int, failed, waiting []spec.Instance) {
	byID := make(map[spec.InstanceID]*spec.Instance, len(seen))
	for i := range seen {
		byID[seen[i].ID] = &seen[i]
	}
	for n := range goals {
		g := &goals[n]
		i, there := byID[g.id]
		switch {
		case g.gone && (!there || isDown(i.Phase)):
			done++
		case g.gone:
			waiting = append(waiting, *i)
		case !there:
			waiting = append(waiting, spec.Instance{ID: g.id, Phase: spec.PhasePending})
		case g.isOld(i):
			waiting = append(waiting, *i)
		case i.Phase == spec.PhaseFailed:
			failed = append(failed, *i)
		case i.Phase == spec.PhaseCompleted || (i.Phase == spec.PhaseRunning && !g.ends):
			done++
		default:
			waiting = append(waiting, *i)
		}
	}
	return done, failed, waiting
}

func isDown(p spec.Phase) bool { return !p.Alive() && p != spec.PhaseBackoff }

// Of more instances than manyInstances, the list is asked for at most once in
// listPause: telling it takes time that what moves can use better.
const (
	manyInstances = 100
	listPause     = 100 * time.Millisecond
)

// watchInstances calls each with the instances now and whenever they have
// changed, until each returns false or the context ends. While the agent is
// away, it waits for it.
func watchInstances(ctx context.Context, client *api.Client, away *absence, each func([]spec.Instance) bool) error {
	var index uint64
	for {
		list, now, err := client.Instances(ctx, index)
		if err != nil {
			if !passing(err) {
				return err
			}
			index = 0 // the next agent counts afresh
			if err := away.wait(ctx, err); err != nil {
				return err
			}
			continue
		}
		away.ended()
		index = now
		if !each(list) {
			return nil
		}
		if len(list) > manyInstances {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(listPause):
			}
		}
	}
}

// passing reports whether an error is one that an agent's restart causes.
func passing(err error) bool {
	return errors.Is(err, api.ErrUnavailable) || errors.Is(err, api.ErrNoAgent)
}

// maxAbsence is how long an agent that has answered before is waited for: its
// watchdog brings it back in a moment, or a new one takes some seconds.
const maxAbsence = 30 * time.Second

// absence is the time for which an agent has not answered. Its zero value is
// ready to use.
type absence struct {
	since time.Time
	pause time.Duration
	// most is how long is waited; 0 for maxAbsence.
	most time.Duration
	// revive, if it is set, starts a new agent if none has answered for
	// reviveAfter; then the waiting has no end.
	revive func(context.Context) error
	// begun, if it is set, is told once that the agent does not answer, and
	// over that it does again.
	begun, over func()
}

// reviveAfter is longer than watchdog and agent need to bring each other back.
const reviveAfter = 5 * time.Second

// ended notes that the agent answers.
func (a *absence) ended() {
	if !a.since.IsZero() && a.over != nil {
		a.over()
	}
	a.since, a.pause = time.Time{}, 0
}

// wait waits a little, longer each time, and returns the error once the agent
// has been away for too long.
func (a *absence) wait(ctx context.Context, err error) error {
	if a.since.IsZero() {
		a.since, a.pause = time.Now(), 10*time.Millisecond
		if a.begun != nil {
			a.begun()
		}
	}
	switch gone := time.Since(a.since); {
	case a.revive != nil && gone > reviveAfter && errors.Is(err, api.ErrNoAgent):
		if err := a.revive(ctx); err != nil {
			return err
		}
	case a.revive == nil && gone > cmp.Or(a.most, maxAbsence):
		return err
	}
	a.pause = min(2*a.pause, time.Second)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(a.pause):
		return nil
	}
}

// follower shows how instances come to their goals.
type follower struct {
	term   *terminal
	client *api.Client
	goals  []goal
	byID   map[spec.InstanceID]goal
	phases map[spec.InstanceID]spec.Phase
	last   string
}

// reached is the word for goals that are reached.
func reached(goals []goal) string {
	if slices.ContainsFunc(goals, func(g goal) bool { return !g.gone }) {
		return "done"
	}
	return "removed"
}

// maxShown is up to how many instances each one's way is told; of more only
// the number, and what fails.
const maxShown = 24

// stuckAfter is how long what only waits is followed after something failed:
// the orchestrator would have let it start long before.
const stuckAfter = 2 * time.Second

// errStuck ends the following of instances that wait for a failed one.
var errStuck = errors.New("what is left waits for what has failed")

// run follows until every goal is reached or failed, or waits for a failed one. It returns an error that
// says what to look at if any has failed or the time is over.
func (f *follower) run(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	f.phases = map[spec.InstanceID]spec.Phase{}
	f.byID = make(map[spec.InstanceID]goal, len(f.goals))
	for _, g := range f.goals {
		f.byID[g.id] = g
		if g.before != nil && !g.anew && !g.gone {
			f.phases[g.id] = g.before.Phase // told only if it changes
		}
	}
	var failed, waiting []spec.Instance
	watching, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	stuck := time.AfterFunc(timeout, func() { giveUp(errStuck) })
	stuck.Stop() // until something has failed
	defer stuck.Stop()
	err := watchInstances(watching, f.client, &absence{}, func(seen []spec.Instance) bool {
		var done int
		f.transitions(seen)
		done, failed, waiting = progress(f.goals, seen)
		if len(f.goals) > maxShown {
			f.say(fmt.Sprintf("%d of %d %s%s", done, len(f.goals), reached(f.goals), failedNote(len(failed))))
		}
		if len(failed) == 0 || slices.ContainsFunc(waiting, func(i spec.Instance) bool { return i.Phase != spec.PhasePending }) {
			stuck.Stop()
		} else {
			stuck.Reset(stuckAfter)
		}
		return len(waiting) > 0
	})
	if errors.Is(context.Cause(watching), errStuck) {
		err = nil // what has failed is to be told, not that others wait for it
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("after %s, %s not there yet: %s: see `meshrun status`, or wait longer with -timeout",
			ago(timeout), count(len(waiting), "instance"), summary(waiting, f.term.now()))
	case err != nil:
		return err
	case len(failed) > 0:
		return fmt.Errorf("%s failed: %s%s: look at `meshrun logs %s`",
			count(len(failed), "instance"), summary(failed, f.term.now()), waitingNote(len(waiting)), failed[0].ID)
	}
	return nil
}

func waitingNote(n int) string {
	if n == 0 {
		return ""
	}
	return "; " + count(n, "other") + " still waiting"
}

func failedNote(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d failed", n)
}

// summary names the first few instances with what there is to know.
func summary(list []spec.Instance, now time.Time) string {
	var parts []string
	for i := range list {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		text := list[i].ID.String() + " is " + string(list[i].Phase)
		if w := what(&list[i], now); w != "" {
			text += " (" + w + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// say prints a line of progress, once.
func (f *follower) say(line string) {
	if line != f.last {
		f.last = line
		f.term.say("  %s", line)
	}
}

// transitions tells what has changed of the instances with a goal.
func (f *follower) transitions(seen []spec.Instance) {
	now := f.term.now()
	there := make(map[spec.InstanceID]bool, len(seen))
	for i := range seen {
		id := seen[i].ID
		there[id] = true
		g, meant := f.byID[id]
		if !meant || f.phases[id] == seen[i].Phase || g.isOld(&seen[i]) {
			continue
		}
		f.phases[id] = seen[i].Phase
		if len(f.goals) <= maxShown || seen[i].Phase == spec.PhaseFailed {
			f.term.say("  %s", transition(&seen[i], f.term.errStyle, now))
		}
	}
	for id := range f.phases {
		if !there[id] {
			delete(f.phases, id)
			if len(f.goals) <= maxShown {
				f.term.say("  %s  %s", id, f.term.errStyle.dim("gone"))
			}
		}
	}
}

// transition tells the phase that an instance has come to.
func transition(i *spec.Instance, s style, now time.Time) string {
	text := i.ID.String() + "  " + s.phase(i.Phase, string(i.Phase))
	if i.Phase == spec.PhaseRunning || (i.Phase == spec.PhaseStarting && i.Reason == "") {
		text += s.dim(fmt.Sprintf("  pid %d", i.PID))
		if p := portsText(i.Ports); p != "" {
			text += s.dim("  " + p)
		}
		return text
	}
	if w := what(i, now); w != "" {
		text += s.dim("  " + w)
	}
	return text
}
