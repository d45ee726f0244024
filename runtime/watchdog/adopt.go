package watchdog

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// The wait for a process that was forked right when the last watchdog died: it
// may not have executed its program yet.
const (
	forkGrace = 300 * time.Millisecond
	forkPoll  = 5 * time.Millisecond
)

// adoptAll goes on where the journal ends: it finds every process that a
// predecessor left, and starts again what is gone.
//
// An error means that it cannot be told who lives: then nothing may be started,
// and nothing was.
func (s *supervisor) adoptAll(r *replayed, now time.Time) error {
	ids := make([]spec.InstanceID, 0, len(r.entries))
	for id := range r.entries {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, spec.InstanceID.Compare)
	for _, id := range ids {
		e := r.entries[id]
		in := &instance{launch: &e.Launch, view: e.Instance, phase: e.Keep.Phase, nonce: e.Keep.Nonce,
			history: e.Keep.History, blame: e.Keep.Blame, forking: e.Keep.Forking, hook: e.Keep.Hook, old: e.Keep.Old, lease: e.Keep.Lease, session: e.Keep.Session, nextAt: e.Instance.NextStart}
		in.view.ID = id
		s.instances[id] = in
	}
	if err := s.fenceFirst(ids); err != nil {
		return err
	}
	for _, id := range ids {
		in := s.instances[id]
		if in.phase.alive() || in.forking { // these come first if descriptors are few
			s.listen(in, true)
		}
	}
	s.leases.unheeded = true // some may wait for theirs
	seen := s.scan(ids)
	known := make(map[int]bool)
	over := make(map[string]bool, len(ids)) // the nonces of what did not live on
	for _, id := range ids {
		in := s.instances[id]
		nonce := in.nonce
		if err := s.resume(in, seen, known, now); err != nil {
			return err
		}
		over[nonce] = nonce != "" && in.proc == nil
	}
	for _, id := range ids {
		if in := s.instances[id]; in != nil {
			s.listen(in, false)
		}
	}
	s.strays(seen, known, over, len(r.damage) > 0 || r.fresh, now)
	s.reclaim(now)
	s.settle()
	return nil
}

// fenceFirst puts what lives under a lease under the fence again, before
// anything that takes long where there are many instances.
func (s *supervisor) fenceFirst(ids []spec.InstanceID) (err error) {
	for _, id := range ids {
		in := s.instances[id]
		if in.lease == "" || in.view.PID == 0 || !in.phase.alive() {
			continue
		}
		if in.proc, err = s.find(in); err != nil {
			return err
		}
		if in.proc != nil {
			s.leases.fence.guard(in.proc, in.lease)
		}
	}
	return nil
}

// find opens the process that the journal names.
func (s *supervisor) find(in *instance) (*process, error) {
	p, err := s.kern.Find(in.view.PID, in.view.StartTicks, in.view.BootID, in.marks())
	if err != nil {
		return nil, fmt.Errorf("adopt instance %s: %w", in.view.ID, err)
	}
	if p != nil && in.session != 0 {
		p.session = in.session // a main process that the leader named
	}
	return p, nil
}

// scan looks for this watchdog's processes; while one is awaited that was
// about to be forked, it looks again for a moment.
func (s *supervisor) scan(ids []spec.InstanceID) []sighting {
	deadline := time.Now().Add(forkGrace)
	for {
		seen := s.kern.Scan(ids)
		missing := false
		for _, in := range s.instances {
			if in.forking && leaderOf(in, seen) == nil {
				missing = true
			}
		}
		if !missing || time.Now().After(deadline) {
			return seen
		}
		time.Sleep(forkPoll)
	}
}

// leaderOf returns the process that an instance's newest generation leads:
// marked as such, or holding its pipes. A newer generation than the journal
// knows counts too: its start could not be written. Of the one that it knows only
// the process that it names is meant; another one has set itself free, unless it
// may have been named the main one meanwhile.
func leaderOf(in *instance, seen []sighting) *sighting {
	var best *sighting
	for i := range seen {
		p := &seen[i]
		if p.id != in.view.ID || !p.leader() {
			continue
		}
		// Of one generation, a start that could not be written came later.
		newer := p.generation > in.view.Generation || (p.generation == in.view.Generation && p.unrecorded)
		if !p.byPipe && !newer && (p.nonce != in.nonce || p.generation != in.view.Generation) {
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

// resume goes on with one instance.
func (s *supervisor) resume(in *instance, seen []sighting, known map[int]bool, now time.Time) (err error) {
	p := in.proc // of one that is fenced already
	if p == nil && in.view.PID != 0 && in.phase.alive() {
		if p, err = s.find(in); err != nil {
			return err
		}
	}
	forking := in.forking
	awaited := in.phase.alive() || forking
	in.forking = false
	leader := leaderOf(in, seen)
	if p == nil && leader != nil && (awaited || leader.generation > in.view.Generation) {
		if leader.byPipe {
			in.lease = cmp.Or(in.lease, in.launch.Lease) // it does not tell
		} else {
			in.view.Generation, in.nonce, in.lease, in.hook = leader.generation, leader.nonce, leader.lease, leader.hook
		}
		if p, err = s.kern.Find(leader.pid, leader.startTicks, s.kern.BootID(), in.marks()); err != nil {
			return fmt.Errorf("adopt instance %s: %w", in.view.ID, err)
		}
		in.view.Started = now.UTC()
	}
	if p != nil {
		known[p.pid] = true
		s.adopted(in, p, now)
		return nil
	}
	switch {
	case in.phase.alive():
		if in.phase != stopping && in.view.BootID != "" && in.view.BootID != s.kern.BootID() {
			// The machine was restarted: what was up comes up again, whatever
			// its policy says of its own ends.
			in.phase, in.history = replacing, history{}
		}
		if forking && !in.uncertain() {
			// It ended between two of its processes: the next is forked now.
			in.forking = true
			s.enqueue(in)
			break
		}
		// It ended while nobody watched. Nobody knows how.
		in.view.PID, in.view.StartTicks, in.view.Lease = 0, 0, ""
		s.ended(in, spec.Exit{Unknown: true}, false, now)
	case in.phase == pending && forking && in.uncertain():
		in.phase = hooking
		s.ended(in, spec.Exit{Unknown: true}, false, now)
	case in.phase == pending:
		s.enqueue(in)
	case in.phase == backoff:
		// The journal has the time of a clock that may have been set back since.
		if latest := now.Add(in.launch.Restart.MaxDelay.Std()); latest.Before(in.nextAt) {
			in.nextAt, in.view.NextStart = latest, latest.UTC()
		}
		s.timers.set(in, timerStart, in.nextAt)
	}
	return nil
}

// uncertain reports whether it matters that nobody knows if a process of the
// generation was forked right before a watchdog died, and has ended since: what
// has hooks shall not run again before it is cleaned up. An after_stop hook may.
func (in *instance) uncertain() bool {
	return len(in.launch.Hooks) > 0 && in.hook != spec.HookAfterStop && (in.phase == pending || in.phase == hooking)
}

// adopted takes a live process over.
func (s *supervisor) adopted(in *instance, p *process, now time.Time) {
	s.holdProcess(in, p)
	s.limit(in)
	if p := in.found(); p != in.phase {
		in.phase, in.view.Phase = p, p.public()
	}
	switch in.phase {
	case hooking, cleaning:
		s.timers.set(in, timerStop, now.Add(in.endTimeout()))
	case starting:
		in.adopted = true
		s.timers.set(in, timerReady, now.Add(in.readyTimeout()))
	case running:
		s.timeRunning(in, now)
	case stopping, replacing, killing, ceding:
		s.timers.set(in, timerStop, now.Add(in.endTimeout()))
	}
	message := fmt.Sprintf("found alive as process %d", p.pid)
	switch in.hook {
	case spec.HookBeforeStart:
		in.view.Reason = beforeStartRuns
	case spec.HookAfterStop:
		in.view.Reason = afterStopRuns
	}
	if in.hook != "" {
		message = fmt.Sprintf("%s hook %s", in.hook, message)
	}
	s.tell(in, note{kind: spec.EventAdopted, severity: spec.Info, message: message})
}

// found returns the phase of an instance of which a process was found alive:
// that it was started may not be in the journal.
func (in *instance) found() phase {
	began := in.phase.alive() && in.phase != hooking
	switch {
	case in.hook == spec.HookBeforeStart && !in.phase.alive():
		return hooking
	case in.hook == spec.HookAfterStop && (!began || in.phase == starting || in.phase == running):
		return cleaning
	case in.hook != "" || began:
		return in.phase
	case in.needsReady():
		return starting
	}
	return running
}

// strays looks at processes that carry this watchdog's marks and belong to no
// live instance. Normally they are what left its group on purpose, and are
// left alone. They are ended only if they are meshrun's own forgotten starts:
// leaders whose start could not be journalled, or any if the journal is broken.
func (s *supervisor) strays(seen []sighting, known map[int]bool, over map[string]bool, lost bool, now time.Time) {
	for _, p := range seen {
		in := s.instances[p.id]
		if known[p.session] || known[p.pid] || (in != nil && in.proc != nil && p.nonce == in.nonce) {
			continue
		}
		remains := in != nil && in.proc == nil && over[p.nonce] && !p.leader()
		forgotten := p.leader() && !p.byPipe && (p.unrecorded || lost)
		m := marks{generation: p.generation, nonce: p.nonce}
		if !remains && !forgotten {
			s.log.Info("left a process alone that an instance has set free", "instance", p.id.String(), "pid", p.pid)
			continue
		}
		s.endStray(p, m, now)
	}
}

// endStray kills a process whose identity is certain.
func (s *supervisor) endStray(p sighting, m marks, now time.Time) {
	proc, err := s.kern.Find(p.pid, p.startTicks, s.kern.BootID(), m)
	if err != nil {
		s.log.Warn("cannot look at a process that was left", "instance", p.id.String(), "pid", p.pid, "error", err)
	}
	if proc == nil {
		return
	}
	proc.session = p.session
	err = s.kern.Kill(proc)
	message := fmt.Sprintf("process %d was left of instance %s, which no longer has it: killed", p.pid, p.id)
	if err != nil {
		message = fmt.Sprintf("process %d was left of instance %s and cannot be killed: %v", p.pid, p.id, err)
	}
	s.log.Warn(message)
	s.journal.append(record{Event: spec.Event{Time: now.UTC(), Type: spec.EventStray, Severity: spec.Warning,
		Job: p.id.Job, Who: "watchdog", Message: message}})
}
