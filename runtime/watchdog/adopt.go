package watchdog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// forkGrace is how long adoption waits for a process that was forked when the
// last watchdog died, and may not have executed its program yet; forkPoll is how
// often it looks.
const (
	forkGrace = 300 * time.Millisecond
	forkPoll  = 5 * time.Millisecond
)

// adoption takes over what a predecessor left. It happens once, before the loop
// runs.
type adoption struct {
	*lifecycle
	now  time.Time
	seen []foundProcess
	// known are the processes that belong to an instance.
	known map[int]bool
	// ended are the nonces of processes that were not found.
	ended map[string]bool
	// incomplete is set if the journal may lack generations.
	incomplete bool
}

// adopt continues where the journal ends: it finds every process that a
// predecessor left, and starts those again that have ended.
//
// An error means that it is not certain which processes live. Then nothing may
// be started, and nothing was.
func (s *supervisor) adopt(r *replayed, now time.Time) error {
	a := &adoption{lifecycle: s.life, now: now, known: map[int]bool{}, ended: map[string]bool{}, incomplete: len(r.damage) > 0 || r.fresh}
	for id, e := range r.entries {
		in := &instance{launch: &e.Launch, view: e.Instance, keep: e.Keep, nextAt: e.Instance.NextStart}
		in.view.ID = id
		a.byID[id] = in
	}
	if err := a.run(a.sorted()); err != nil {
		return err
	}
	s.flush()
	return nil
}

// run adopts the instances in order.
func (a *adoption) run(instances []*instance) error {
	if err := a.fenceFirst(instances); err != nil {
		return err
	}
	for _, in := range instances {
		if in.Phase.alive() || in.Forking { // first, in case descriptors are few
			a.openPipes(in, true)
		}
	}
	a.leases.stale = true // instances may wait for them
	a.scan(instances)
	for _, in := range instances {
		nonce := in.Nonce
		if err := a.resume(in); err != nil {
			return err
		}
		a.ended[nonce] = nonce != "" && in.proc == nil
	}
	for _, in := range instances {
		if a.byID[in.view.ID] == in {
			a.openPipes(in, false)
		}
	}
	a.killStrays()
	a.reclaim()
	return nil
}

// fenceFirst puts the processes under a lease under the fence again, before the
// steps that take long with many instances.
func (a *adoption) fenceFirst(instances []*instance) (err error) {
	for _, in := range instances {
		if in.Lease == "" || in.view.PID == 0 || !in.Phase.alive() {
			continue
		}
		if in.proc, err = a.find(in); err != nil {
			return err
		}
		if in.proc != nil {
			a.leases.guard(in.proc, in.Lease)
		}
	}
	return nil
}

// find opens the process that the journal names.
func (a *adoption) find(in *instance) (*process, error) {
	p, err := a.kern.Find(in.view.PID, in.view.StartTicks, in.view.BootID, in.marks())
	if err != nil {
		return nil, fmt.Errorf("adopt instance %s: %w", in.view.ID, err)
	}
	if p != nil && in.Session != 0 {
		p.session = in.Session // a main process that the leader named
	}
	return p, nil
}

// scan searches for this watchdog's processes. While one is missing that was
// about to be forked, it searches again for a moment.
func (a *adoption) scan(instances []*instance) {
	ids := make([]spec.InstanceID, len(instances))
	for i, in := range instances {
		ids[i] = in.view.ID
	}
	for deadline := time.Now().Add(forkGrace); ; time.Sleep(forkPoll) {
		a.seen = a.kern.Scan(ids)
		missing := func(in *instance) bool { return in.Forking && leaderOf(in, a.seen) == nil }
		if !slices.ContainsFunc(instances, missing) || time.Now().After(deadline) {
			return
		}
	}
}

// leaderOf returns the process that leads an instance's newest generation: one
// that is marked as such, or holds its pipes. A generation newer than the
// journal's counts too, since its start may not have been journalled. Of the
// journal's own generation only the process that the journal names counts:
// another one has detached itself, unless it may have been named the main
// process meanwhile (MAINPID=).
func leaderOf(in *instance, seen []foundProcess) *foundProcess {
	var best *foundProcess
	for i := range seen {
		p := &seen[i]
		if p.id != in.view.ID || !p.leader() {
			continue
		}
		// Of one generation, a start that could not be written came later.
		newer := p.generation > in.view.Generation || (p.generation == in.view.Generation && p.unrecorded)
		if !p.byPipe && !newer && (p.nonce != in.Nonce || p.generation != in.view.Generation) {
			continue
		}
		if !newer && in.view.PID != 0 && p.pid != in.view.PID && !wantsNotify(in.launch) {
			continue
		}
		// The newest generation, of it the oldest process.
		if best == nil || p.generation > best.generation ||
			(p.generation == best.generation && p.startTicks < best.startTicks) {
			best = p
		}
	}
	return best
}

// resume adopts or continues one instance.
func (a *adoption) resume(in *instance) (err error) {
	p := in.proc // set by fenceFirst
	if p == nil && in.view.PID != 0 && in.Phase.alive() {
		if p, err = a.find(in); err != nil {
			return err
		}
	}
	forking := in.Forking
	awaited := in.Phase.alive() || forking
	in.Forking = false
	leader := leaderOf(in, a.seen)
	if p == nil && leader != nil && (awaited || leader.generation > in.view.Generation) {
		if leader.byPipe {
			in.Lease = cmp.Or(in.Lease, in.launch.Lease) // it carries no marks
		} else {
			in.view.Generation, in.Nonce, in.Lease, in.Hook = leader.generation, leader.nonce, leader.lease, leader.hook
		}
		if p, err = a.kern.Find(leader.pid, leader.startTicks, a.kern.BootID(), in.marks()); err != nil {
			return fmt.Errorf("adopt instance %s: %w", in.view.ID, err)
		}
		in.view.Started = a.now.UTC()
	}
	if p != nil {
		a.known[p.pid] = true
		a.adopted(in, p)
		return nil
	}
	switch {
	case in.Phase.alive():
		if in.Phase != stopping && in.view.BootID != "" && in.view.BootID != a.kern.BootID() {
			// The machine was rebooted: what was running runs again, whatever
			// the restart policy says about ends.
			in.Phase, in.History = replacing, history{}
		}
		if forking && !in.uncertain() {
			// It ended between two of its processes: the next is forked a.now.
			in.Forking = true
			a.queue.push(in)
			break
		}
		// It ended while no watchdog ran, and how is unknown.
		in.view.PID, in.view.StartTicks, in.view.Lease = 0, 0, ""
		a.lifecycle.ended(in, spec.Exit{Unknown: true}, false, a.now)
	case in.Phase == pending && forking && in.uncertain():
		in.Phase = hooking
		a.lifecycle.ended(in, spec.Exit{Unknown: true}, false, a.now)
	case in.Phase == pending:
		a.queue.push(in)
	case in.Phase == backoff:
		// The clock may have been set back since the time was journalled.
		if latest := a.now.Add(in.launch.Restart.MaxDelay.Std()); latest.Before(in.nextAt) {
			in.nextAt, in.view.NextStart = latest, latest.UTC()
		}
		a.timers.set(in, timerStart, in.nextAt)
	}
	return nil
}

// uncertain reports whether it matters that a process may have been forked
// right before the watchdog died, and have ended since: an instance with hooks
// must not start again before after_stop has run. after_stop itself may run
// twice.
func (in *instance) uncertain() bool {
	return len(in.launch.Hooks) > 0 && in.Hook != spec.HookAfterStop && (in.Phase == pending || in.Phase == hooking)
}

// adopted makes a live process the process of its instance.
func (a *adoption) adopted(in *instance, p *process) {
	a.hold(in, p)
	a.limits.apply(in)
	if p := in.found(); p != in.Phase {
		in.Phase, in.view.Phase = p, p.public()
	}
	switch in.Phase {
	case hooking, cleaning:
		a.timers.set(in, timerStop, a.now.Add(in.endTimeout()))
	case starting:
		in.adopted = true
		a.timers.set(in, timerReady, a.now.Add(in.readyTimeout()))
	case running:
		in.timeRunning(&a.timers, a.now)
	case stopping, replacing, killing, ceding:
		a.timers.set(in, timerStop, a.now.Add(in.endTimeout()))
	}
	message := fmt.Sprintf("found running as process %d", p.pid)
	switch in.Hook {
	case spec.HookBeforeStart:
		in.view.Reason = beforeStartRuns
	case spec.HookAfterStop:
		in.view.Reason = afterStopRuns
	}
	if in.Hook != "" {
		message = fmt.Sprintf("%s hook %s", in.Hook, message)
	}
	a.journal.record(in, note{kind: spec.EventAdopted, message: message})
}

// found returns the phase of an instance of which a live process was found,
// whose start may not be in the journal.
func (in *instance) found() phase {
	began := in.Phase.alive() && in.Phase != hooking
	switch {
	case in.Hook == spec.HookBeforeStart && !in.Phase.alive():
		return hooking
	case in.Hook == spec.HookAfterStop && (!began || in.Phase == starting || in.Phase == running):
		return cleaning
	case in.Hook != "" || began:
		return in.Phase
	case in.needsReady():
		return starting
	}
	return running
}

// killStrays examines the processes that carry this watchdog's marks and belong
// to no live instance. Most have left their group on purpose and keep running.
// It kills only starts of its own that were lost: remains of a generation that
// has ended, leaders whose start could not be journalled, or any leader if the
// journal is incomplete.
func (a *adoption) killStrays() {
	for _, p := range a.seen {
		in := a.byID[p.id]
		if a.known[p.session] || a.known[p.pid] || (in != nil && in.proc != nil && p.nonce == in.Nonce) {
			continue
		}
		remains := in != nil && in.proc == nil && a.ended[p.nonce] && !p.leader()
		lost := p.leader() && !p.byPipe && (p.unrecorded || a.incomplete)
		if remains || lost {
			a.killStray(p)
		} else {
			a.log.Info("left a process running that its instance has detached", "instance", p.id.String(), "pid", p.pid)
		}
	}
}

// killStray kills a process whose identity is certain.
func (a *adoption) killStray(p foundProcess) {
	proc, err := a.kern.Find(p.pid, p.startTicks, a.kern.BootID(), marks{generation: p.generation, nonce: p.nonce})
	if err != nil {
		a.log.Warn("cannot examine a process that was left behind", "instance", p.id.String(), "pid", p.pid, "error", err)
	}
	if proc == nil {
		return
	}
	proc.session = p.session
	message := fmt.Sprintf("killed process %d, left behind by instance %s", p.pid, p.id)
	if err := a.kern.Kill(proc); err != nil {
		message = fmt.Sprintf("cannot kill process %d, left behind by instance %s: %v", p.pid, p.id, err)
	}
	a.journal.recordOwn(spec.EventStray, spec.Warning, p.id.Job, message)
}

// reclaim kills the processes in cgroups that belong to no instance: members of
// instances whose main process has ended, even those that left its session.
func (a *adoption) reclaim() {
	killed := a.kern.Reclaim()
	for _, name := range slices.Sorted(maps.Keys(killed)) {
		switch n := killed[name]; {
		case n == 1:
			a.journal.recordOwn(spec.EventStray, spec.Warning, "", fmt.Sprintf("killed 1 process left in cgroup %s, whose instance has ended", name))
		case n > 1:
			a.journal.recordOwn(spec.EventStray, spec.Warning, "", fmt.Sprintf("killed %d processes left in cgroup %s, whose instance has ended", n, name))
		}
	}
	a.tidy(a.now)
}
