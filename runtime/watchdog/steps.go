package watchdog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// note is an event about to be told.
type note struct {
	kind     spec.EventType
	severity spec.Severity
	message  string
	launch   bool // the journal keeps the launch with it
}

// tell journals an event of an instance as it is now.
func (s *supervisor) tell(in *instance, n note) {
	view := in.view
	k := in.keep()
	r := record{Keep: &k, Event: spec.Event{Time: time.Now().UTC(), Type: n.kind, Severity: n.severity,
		Job: view.ID.Job, Version: view.Version, Who: "watchdog", Message: n.message, Instance: &view}}
	if n.launch {
		r.Launch = in.launch
	}
	r.Removed = n.kind == spec.EventRemoved
	s.journal.append(r)
	if n.severity != spec.Info && s.log.IsWarn() {
		s.log.Warn(n.message, "instance", view.ID.String(), "event", string(n.kind))
	} else if s.log.IsDebug() {
		s.log.Debug(n.message, "instance", view.ID.String(), "event", string(n.kind))
	}
}

// step lets the table decide: the instance moves, the notes are told, and the
// actions are done, in this order.
func (s *supervisor) step(in *instance, e event, now time.Time, notes ...note) {
	next, acts := Next(in.phase, e)
	if next != in.phase {
		s.enter(in, next, now)
	}
	for _, n := range notes {
		s.tell(in, n)
	}
	for _, a := range acts {
		s.act(in, a, now)
	}
}

// enter moves an instance to a phase and sets the timers that belong to it.
func (s *supervisor) enter(in *instance, p phase, now time.Time) {
	was := in.phase
	in.phase = p
	in.view.Phase = p.public()
	in.view.Reason = ""
	in.view.NextStart = time.Time{}
	switch p {
	case starting:
		s.timers.set(in, timerReady, now.Add(in.readyTimeout()))
		return
	case running:
		s.timers.clear(in, timerReady)
		in.view.ReadyAt = now.UTC()
		s.timeRunning(in, now)
		return
	case hooking:
		s.timers.set(in, timerStop, now.Add(in.hookTimeout()))
		in.view.Reason = beforeStartRuns
		return
	case cleaning:
		in.view.Reason = afterStopRuns
	case stopping, replacing, killing, ceding:
		in.view.Reason = in.blame
		if in.hook == spec.HookAfterStop {
			in.view.Reason = afterStopRuns
		}
	case backoff:
		in.view.NextStart = in.nextAt.UTC()
		in.view.Reason = in.why
	case fenced:
		in.view.Reason = waitsFor(in)
		s.leases.unheeded = true // it may be renewed already
	case failed:
		in.view.Reason = in.why
	}
	if was != p {
		s.timers.clear(in, timerReady, timerStable, timerWatchdog, timerStart)
	}
	if !p.alive() {
		s.timers.clear(in, timerStop, timerExit)
	}
}

// timeRunning sets the timers of a running instance. Who never failed has
// nothing to recover from, and costs no timer.
func (s *supervisor) timeRunning(in *instance, now time.Time) {
	if in.history.Streak > 0 || in.history.Exhausted {
		s.timers.set(in, timerStable, in.view.Started.Add(in.launch.Restart.Stable.Std()))
	}
	if beat := in.heartbeat(); beat > 0 {
		s.timers.set(in, timerWatchdog, now.Add(beat))
	} else {
		s.timers.clear(in, timerWatchdog)
	}
}

// act does one action.
func (s *supervisor) act(in *instance, a action, now time.Time) {
	switch a {
	case actQueue:
		s.enqueue(in)
	case actAsk:
		s.ask(in, now)
	case actKill:
		s.kill(in, now)
	case actWait:
		s.timers.set(in, timerStart, in.nextAt)
	case actRecover:
		in.history = in.history.stable()
		s.tell(in, note{kind: spec.EventRecovered, severity: spec.Info,
			message: fmt.Sprintf("has been up for %s after a restart", in.launch.Restart.Stable)})
	case actForget:
		s.forget(in)
	}
}

// ask sends the stop signal, and sets the time for SIGKILL.
func (s *supervisor) ask(in *instance, now time.Time) {
	if in.proc == nil {
		return // it is between two of its processes
	}
	sig := in.launch.Stop.Signal
	if sig == "" {
		sig = "SIGTERM"
	}
	message := fmt.Sprintf("asked to end with %s, at most %s", sig, in.launch.Stop.Timeout)
	if in.blame != "" {
		message = in.blame + ": " + message
	}
	s.tell(in, note{kind: spec.EventStopping, severity: spec.Info, message: message})
	s.timers.set(in, timerStop, now.Add(in.launch.Stop.Timeout.Std()))
	if in.proc.dead {
		return
	}
	if err := s.kern.Signal(in.proc, unix.SignalNum(string(sig))); err != nil {
		s.log.Warn("cannot signal", "instance", in.view.ID.String(), "error", err)
	}
}

// killAgain is how soon SIGKILL is repeated: a fork in the same moment could
// have escaped the first.
const killAgain = time.Second

// kill sends SIGKILL to the group, and again while somebody lives. That is
// told once: a process that the kernel cannot end can stay for hours.
func (s *supervisor) kill(in *instance, now time.Time) {
	if in.proc == nil {
		return
	}
	s.timers.set(in, timerStop, now.Add(killAgain))
	if !in.killed {
		in.killed = true
		message := in.blame
		switch {
		case in.hook == spec.HookAfterStop && in.phase != ceding:
			message = fmt.Sprintf("after_stop hook did not end within %s", in.hookTimeout())
		case message == "":
			message = fmt.Sprintf("did not end within %s", in.launch.Stop.Timeout)
		}
		s.tell(in, note{kind: spec.EventKilled, severity: spec.Warning, message: message + ": killed with its whole group"})
	}
	if in.proc.dead {
		return
	}
	if err := s.kern.Signal(in.proc, unix.SIGKILL); err != nil {
		s.log.Warn("cannot kill", "instance", in.view.ID.String(), "error", err)
	}
}

// fork forks the next process of some instances: of a new generation, or the one
// that was intended when the one before it ended.
func (s *supervisor) fork(batch []*instance) {
	starts := make([]start, len(batch))
	for i, in := range batch {
		if in.phase == pending {
			s.generate(in)
		}
		if in.launch.Resources != nil || in.launch.Exclusive {
			s.limit(in)
		}
		starts[i] = in.order()
	}
	// On disk before the fork, so that a successor looks for what was forked.
	unrecorded := !s.journal.flush(true)
	for i := range starts {
		starts[i].marks.unrecorded = unrecorded
	}
	s.kern.Start(starts, func(i int, proc *process, err error) {
		s.forked(batch[i], proc, err, time.Now())
	})
	s.tidy(time.Now())
}

// generate begins the next generation of an instance.
func (s *supervisor) generate(in *instance) {
	in.view.Generation++
	hook := spec.HookTime("")
	if hookOf(in.launch, spec.HookBeforeStart) != nil {
		hook = spec.HookBeforeStart
	}
	in.old, in.locked = nil, false
	s.intend(in, hook)
	in.blame, in.pulse, in.adopted = "", 0, false
	in.view.Status, in.view.ReadyAt, in.view.Reason = "", time.Time{}, ""
	in.lease = in.launch.Lease
	s.tell(in, note{kind: spec.EventStarting, severity: spec.Info, message: "starting"})
}

// forked handles what came of a fork.
func (s *supervisor) forked(in *instance, proc *process, err error, now time.Time) {
	in.forking = false
	if errors.Is(err, errFenced) && in.phase == pending {
		s.await(in, now)
		return
	}
	if errors.Is(err, errLocked) && s.awaitLock(in, now) {
		return
	}
	if err != nil {
		if errors.Is(err, errFenced) { // between two processes of a generation
			s.cede(in, evFence, errFenced.Error(), now)
		}
		s.ended(in, spec.Exit{Error: spec.Conceal(err.Error(), in.launch.Secrets)}, errors.Is(err, errLocked), now)
		return
	}
	s.holdProcess(in, proc)
	s.listen(in, true)
	if in.hook != spec.HookAfterStop {
		in.view.Started = now.UTC()
	}
	if in.hook != "" {
		s.hooked(in, now)
		return
	}
	e := evUp
	if in.needsReady() {
		e = evForked
	}
	s.step(in, e, now, note{kind: spec.EventStarted, severity: spec.Info, message: fmt.Sprintf("started as process %d", proc.pid)})
}

func (s *supervisor) holdProcess(in *instance, p *process) {
	delete(s.between, in)
	in.proc = p
	s.procs[p.token] = in
	if in.lease != "" {
		s.leases.fence.guard(p, in.lease)
		s.leases.unheeded = true
	}
	in.view.PID, in.view.StartTicks, in.view.BootID, in.view.Lease = p.pid, p.startTicks, p.bootID, in.lease
}

// listen learns the token of an instance's notify socket.
func (s *supervisor) listen(in *instance, lives bool) {
	token, err := s.kern.Hold(in.launch, lives)
	if err != nil {
		if lives { // else its next start tells
			s.log.Error("cannot open the pipes of an instance", "instance", in.view.ID.String(), "error", err)
		}
		return
	}
	if token != 0 {
		in.notify = token
		s.sockets[token] = in
	}
}

// died handles a process that the kernel says is dead. An adopted one's exit
// may be readable only later; last gives up on that.
func (s *supervisor) died(in *instance, last bool, now time.Time) {
	fenced := s.leases.fence.hasKilled(in.proc)
	if fenced { // which is no failure of its own
		s.cede(in, evFence, leaseIsOver, now)
	}
	exit, ok := s.kern.Collect(in.proc, last)
	if !ok {
		if !in.proc.dead {
			in.proc.dead = true
			s.timers.clear(in, timerReady, timerWatchdog, timerStable, timerStop)
			s.timers.set(in, timerExit, now.Add(exitWait))
		}
		return
	}
	if in.killed || fenced {
		exit.OOM = false // it was meshrun, whatever the kernel did before
	}
	s.tidy(now)
	if in.notify != 0 {
		s.notified(in, now) // what it said last
	}
	s.kern.EndOutput(in.view.ID)
	s.ended(in, exit, false, now)
}

// forget drops an instance and all that it holds.
func (s *supervisor) forget(in *instance) {
	s.timers.clear(in, timerStart, timerReady, timerStop, timerStable, timerWatchdog, timerExit, timerLost, timerLock)
	s.tell(in, note{kind: spec.EventRemoved, severity: spec.Info, message: "removed"})
	delete(s.instances, in.view.ID)
	delete(s.sockets, in.notify)
	s.kern.Release(in.view.ID)
}

// expired handles a timer.
func (s *supervisor) expired(in *instance, kind timerKind, now time.Time) {
	switch kind {
	case timerStart:
		if s.halt == nil {
			in.view.Restarts++
			s.step(in, evDue, now)
		}
	case timerReady:
		s.unready(in, now)
	case timerStop:
		if in.phase == hooking {
			in.blame = fmt.Sprintf("its before_start hook did not end within %s", in.hookTimeout())
		}
		s.step(in, evStopTimeout, now)
	case timerStable:
		s.step(in, evStable, now)
	case timerWatchdog:
		in.blame = fmt.Sprintf("no WATCHDOG=1 within %s", in.heartbeat())
		s.step(in, evUnresponsive, now)
	case timerExit:
		s.died(in, true, now)
	case timerLock:
		s.enqueue(in)
	case timerLost:
		s.tellLost(in, now)
	}
}

// unready handles a READY=1 that did not come in time.
func (s *supervisor) unready(in *instance, now time.Time) {
	if in.adopted {
		// It may have said so while nobody listened. It lives: leave it.
		s.step(in, evReady, now)
		in.view.Reason = "readiness unknown: the watchdog was restarted while it started"
		s.tell(in, note{kind: spec.EventReady, severity: spec.Warning, message: in.view.Reason})
		return
	}
	in.blame = fmt.Sprintf("no READY=1 within %s", in.readyTimeout())
	s.step(in, evReadyTimeout, now)
}

// sorted returns the IDs in order.
func (s *supervisor) sorted() []spec.InstanceID {
	ids := make([]spec.InstanceID, 0, len(s.instances))
	for id := range s.instances {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, spec.InstanceID.Compare)
	return ids
}
