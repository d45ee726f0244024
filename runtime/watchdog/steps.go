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
	case stopping, replacing, killing, ceding:
		in.view.Reason = in.blame
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
	if in.proc == nil || in.proc.dead {
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
	s.timers.set(in, timerStop, now.Add(killAgain))
	if !in.killed {
		in.killed = true
		message := in.blame
		if message == "" {
			message = fmt.Sprintf("did not end within %s", in.launch.Stop.Timeout)
		}
		s.tell(in, note{kind: spec.EventKilled, severity: spec.Warning, message: message + ": killed with its whole group"})
	}
	if in.proc == nil || in.proc.dead {
		return
	}
	if err := s.kern.Signal(in.proc, unix.SIGKILL); err != nil {
		s.log.Warn("cannot kill", "instance", in.view.ID.String(), "error", err)
	}
}

// fork starts the next generations of some instances.
func (s *supervisor) fork(batch []*instance) {
	starts := make([]start, len(batch))
	for i, in := range batch {
		in.view.Generation++
		in.nonce = s.nonce()
		in.blame, in.pulse, in.adopted, in.killed = "", 0, false, false
		in.view.Status, in.view.ReadyAt, in.view.Reason = "", time.Time{}, ""
		in.forking, in.lease = true, in.launch.Lease
		s.tell(in, note{kind: spec.EventStarting, severity: spec.Info, message: "starting"})
		starts[i] = start{launch: in.launch, marks: in.marks()}
	}
	// On disk before the fork, so that a successor looks for what was forked.
	unrecorded := !s.journal.flush(true)
	for i := range starts {
		starts[i].marks.unrecorded = unrecorded
	}
	s.kern.Start(starts, func(i int, proc *process, err error) {
		s.forked(batch[i], proc, err, time.Now())
	})
}

// forked handles what came of a fork.
func (s *supervisor) forked(in *instance, proc *process, err error, now time.Time) {
	in.forking = false
	if errors.Is(err, errFenced) {
		s.await(in, now)
		return
	}
	if err != nil {
		s.ended(in, spec.Exit{Error: err.Error()}, errors.Is(err, errLocked), now)
		return
	}
	in.view.Started = now.UTC()
	s.holdProcess(in, proc)
	s.listen(in, true)
	e := evUp
	if in.needsReady() {
		e = evForked
	}
	s.step(in, e, now, note{kind: spec.EventStarted, severity: spec.Info, message: fmt.Sprintf("started as process %d", proc.pid)})
}

func (s *supervisor) holdProcess(in *instance, p *process) {
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
	if s.leases.fence.hasKilled(in.proc) { // which is no failure of its own
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
	if in.notify != 0 {
		s.notified(in, now) // what it said last
	}
	s.kern.EndOutput(in.view.ID)
	s.ended(in, exit, false, now)
}

// ended handles the end of a generation, or a start that failed.
func (s *supervisor) ended(in *instance, exit spec.Exit, locked bool, now time.Time) {
	if in.proc != nil {
		delete(s.procs, in.proc.token)
		in.proc = nil
	}
	in.view.PID, in.view.StartTicks, in.view.BootID, in.view.Lease = 0, 0, "", ""
	exit.At = now.UTC()
	in.view.LastExit = &exit
	d := decision{event: evDone}
	if in.phase.judged() {
		end := ending{success: exit.Success() && in.blame == "", locked: locked}
		d = decide(in.launch.Restart, in.history, end, now, seedOf(in.view.ID, in.view.Generation))
		in.history, in.nextAt = d.history, d.at
	}
	in.why = d.reason
	if in.blame != "" && d.event == evGiveUp {
		in.why = in.blame + "; " + d.reason
	}
	s.step(in, d.event, now, s.exitNote(in, exit, d, now))
	in.blame = ""
	if d.exhausted {
		severity := spec.Warning
		if in.launch.Critical {
			severity = spec.Critical
		}
		s.tell(in, note{kind: spec.EventExhausted, severity: severity, message: d.reason})
	}
}

// exitNote tells an exit in words: what, after how long, and what follows.
func (s *supervisor) exitNote(in *instance, exit spec.Exit, d decision, now time.Time) note {
	n := note{kind: spec.EventExited, severity: spec.Info}
	switch {
	case exit.Error != "":
		n.kind, n.message = spec.EventStartFailed, exit.Error
	default:
		n.message = fmt.Sprintf("ended with %s after %s", exit, uptime(now.Sub(in.view.Started)))
	}
	if in.blame != "" {
		n.message += " (" + in.blame + ")"
	}
	if !in.phase.judged() {
		return n
	}
	if !exit.Success() || in.blame != "" {
		n.severity = spec.Warning
	}
	switch d.event {
	case evRetry:
		wait := d.at.Sub(now)
		if wait <= 0 {
			n.message += "; starts again"
		} else {
			n.message += "; starts again in " + uptime(wait).String()
		}
	case evGiveUp:
		n.message += "; stays down: " + d.reason
	}
	return n
}

// uptime rounds a duration to what a person wants to read.
func uptime(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < time.Minute:
		return d.Round(100 * time.Millisecond)
	default:
		return d.Round(time.Second)
	}
}

// forget drops an instance and all that it holds.
func (s *supervisor) forget(in *instance) {
	s.timers.clear(in, timerStart, timerReady, timerStop, timerStable, timerWatchdog, timerExit, timerLost)
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
		s.step(in, evStopTimeout, now)
	case timerStable:
		s.step(in, evStable, now)
	case timerWatchdog:
		in.blame = fmt.Sprintf("no WATCHDOG=1 within %s", in.heartbeat())
		s.step(in, evUnresponsive, now)
	case timerExit:
		s.died(in, true, now)
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
