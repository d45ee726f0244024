package watchdog

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// lifecycle carries each instance through the table (table.go). It owns the
// instances, their timers, the queue of forks, and what leases and limits mean
// for them. The loop reports events to it.
type lifecycle struct {
	registry
	log          hclog.Logger
	kern         kernel
	journal      *journal
	nonce        func() string
	queue        forkQueue
	timers       timerHeap
	leases       leases
	limits       limits
	sweepAt      time.Time // of the next sweep; zero if none is due
	shuttingDown bool      // nothing is started any more
}

// step applies the table: the instance changes its phase, the notes are
// recorded, and the actions are done, in this order.
func (lc *lifecycle) step(in *instance, e event, now time.Time, notes ...note) {
	next, acts := Next(in.Phase, e)
	if next != in.Phase {
		in.enter(next, &lc.timers, now)
		if next == fenced {
			lc.leases.stale = true // it may be renewed already
		}
	}
	for _, n := range notes {
		lc.journal.record(in, n)
	}
	for _, a := range acts {
		lc.act(in, a, now)
	}
}

// act does one action.
func (lc *lifecycle) act(in *instance, a action, now time.Time) {
	switch a {
	case actQueue:
		lc.queue.push(in)
	case actAsk:
		lc.ask(in, now)
	case actKill:
		lc.kill(in, now)
	case actWait:
		lc.timers.set(in, timerStart, in.nextAt)
	case actRecover:
		in.History = in.History.stable()
		lc.journal.record(in, note{kind: spec.EventRecovered, severity: spec.Info,
			message: fmt.Sprintf("up for %s since its restart", in.launch.Restart.Stable)})
	case actRemove:
		lc.remove(in)
	}
}

// ask sends the stop signal, and sets the time of SIGKILL.
func (lc *lifecycle) ask(in *instance, now time.Time) {
	if in.proc == nil {
		return // it is between two processes of a generation
	}
	sig := in.launch.Stop.Signal
	if sig == "" {
		sig = "SIGTERM"
	}
	message := fmt.Sprintf("stopping with %s, timeout %s", sig, in.launch.Stop.Timeout)
	if in.Blame != "" {
		message = in.Blame + ": " + message
	}
	lc.journal.record(in, note{kind: spec.EventStopping, message: message})
	lc.timers.set(in, timerStop, now.Add(in.launch.Stop.Timeout.Std()))
	if in.proc.dead {
		return
	}
	if err := lc.kern.Signal(in.proc, unix.SignalNum(string(sig))); err != nil {
		lc.log.Warn("cannot send the stop signal", "instance", in.view.ID.String(), "error", err)
	}
}

// killAgain is how soon SIGKILL is repeated: a process forked at the same
// moment could have escaped the first.
const killAgain = time.Second

// kill sends SIGKILL to the group, and again while a process of it lives. It is
// recorded once: a process that the kernel cannot end may stay for hours.
func (lc *lifecycle) kill(in *instance, now time.Time) {
	if in.proc == nil {
		return
	}
	lc.timers.set(in, timerStop, now.Add(killAgain))
	if !in.killed {
		in.killed = true
		message := in.Blame
		switch {
		case in.Hook == spec.HookAfterStop && in.Phase != ceding:
			message = fmt.Sprintf("after_stop hook did not end within %s", in.hookTimeout())
		case message == "":
			message = fmt.Sprintf("did not end within %s", in.launch.Stop.Timeout)
		}
		lc.journal.record(in, note{kind: spec.EventKilled, severity: spec.Warning, message: message + ": killed with its process group"})
	}
	if in.proc.dead {
		return
	}
	if err := lc.kern.Signal(in.proc, unix.SIGKILL); err != nil {
		lc.log.Warn("cannot kill an instance", "instance", in.view.ID.String(), "error", err)
	}
}

// fork forks the next process of each of the first instances of the queue: of a
// new generation, or the one that was decided on when the one before it ended.
func (lc *lifecycle) fork() {
	var batch []*instance
	for len(batch) < startBatch {
		in := lc.queue.pop()
		if in == nil {
			break
		}
		if lc.mayFork(in, time.Now()) {
			batch = append(batch, in)
		}
	}
	if len(batch) == 0 {
		return
	}
	starts := make([]start, len(batch))
	for i, in := range batch {
		if in.Phase == pending {
			in.begin(lc.nonce)
			lc.journal.record(in, note{kind: spec.EventStarting, message: "starting"})
		}
		if in.launch.Resources != nil || in.launch.Exclusive {
			lc.limits.apply(in)
		}
		starts[i] = in.nextStart()
	}
	// On disk before the fork, so that a successor looks for what was forked.
	unrecorded := !lc.journal.flush(true)
	for i := range starts {
		starts[i].marks.unrecorded = unrecorded
	}
	lc.kern.Start(starts, func(i int, proc *process, err error) {
		lc.forked(batch[i], proc, err, time.Now())
	})
	lc.tidy(time.Now())
}

// forked handles the result of a fork.
func (lc *lifecycle) forked(in *instance, proc *process, err error, now time.Time) {
	in.Forking = false
	if errors.Is(err, errFenced) && in.Phase == pending {
		lc.awaitLease(in, now)
		return
	}
	if errors.Is(err, errLocked) && in.awaitLock(&lc.timers, now) {
		return
	}
	if err != nil {
		if errors.Is(err, errFenced) { // between two processes of a generation
			lc.cede(in, evFence, errFenced.Error(), now)
		}
		lc.ended(in, spec.Exit{Error: spec.Conceal(err.Error(), in.launch.Secrets)}, errors.Is(err, errLocked), now)
		return
	}
	lc.hold(in, proc)
	lc.openPipes(in, true)
	if in.Hook != spec.HookAfterStop {
		in.view.Started = now.UTC()
	}
	if in.Hook != "" {
		lc.hookStarted(in, now)
		return
	}
	e := evUp
	if in.needsReady() {
		e = evForked
	}
	lc.step(in, e, now, note{kind: spec.EventStarted, message: fmt.Sprintf("started as process %d", proc.pid)})
}

// hold makes a live process the process of an instance.
func (lc *lifecycle) hold(in *instance, p *process) {
	lc.queue.settled(in)
	in.proc = p
	lc.byProcess[p.token] = in
	lc.leases.guard(p, in.Lease)
	in.view.PID, in.view.StartTicks, in.view.BootID, in.view.Lease = p.pid, p.startTicks, p.bootID, in.Lease
}

// openPipes opens an instance's pipes and notify socket, and registers the socket.
func (lc *lifecycle) openPipes(in *instance, lives bool) {
	token, err := lc.kern.Hold(in.launch, lives)
	if err != nil {
		if lives { // otherwise its next start reports it
			lc.log.Error("cannot open the pipes of an instance", "instance", in.view.ID.String(), "error", err)
		}
		return
	}
	if token != 0 {
		in.notify = token
		lc.bySocket[token] = in
	}
}

// died handles a process that the kernel reports dead. The exit status of an
// adopted one may be readable only later; last gives up waiting for it.
func (lc *lifecycle) died(in *instance, last bool, now time.Time) {
	fenced := lc.leases.fence.hasKilled(in.proc)
	if fenced { // which does not count as a failure
		lc.cede(in, evFence, leaseIsOver, now)
	}
	exit, ok := lc.kern.Collect(in.proc, last)
	if !ok {
		if !in.proc.dead {
			in.proc.dead = true
			lc.timers.clear(in, timerReady, timerWatchdog, timerStable, timerStop)
			lc.timers.set(in, timerExit, now.Add(exitWait))
		}
		return
	}
	if in.killed || fenced {
		exit.OOM = false // meshrun killed it, whatever the kernel did before
	}
	lc.tidy(now)
	if in.notify != 0 {
		lc.readNotifications(in, now) // its last messages
	}
	lc.kern.EndOutput(in.view.ID)
	lc.ended(in, exit, false, now)
}

// remove deletes an instance and closes what it holds.
func (lc *lifecycle) remove(in *instance) {
	lc.timers.clear(in, timerStart, timerReady, timerStop, timerStable, timerWatchdog, timerExit, timerLost, timerLock)
	lc.journal.record(in, note{kind: spec.EventRemoved, message: "removed"})
	delete(lc.byID, in.view.ID)
	delete(lc.bySocket, in.notify)
	lc.kern.Release(in.view.ID)
}

// expired handles a timer.
func (lc *lifecycle) expired(in *instance, kind timerKind, now time.Time) {
	switch kind {
	case timerStart:
		if !lc.shuttingDown {
			in.view.Restarts++
			lc.step(in, evDue, now)
		}
	case timerReady:
		lc.readyOverdue(in, now)
	case timerStop:
		if in.Phase == hooking {
			in.Blame = fmt.Sprintf("its before_start hook did not end within %s", in.hookTimeout())
		}
		lc.step(in, evStopTimeout, now)
	case timerStable:
		lc.step(in, evStable, now)
	case timerWatchdog:
		in.Blame = fmt.Sprintf("no WATCHDOG=1 within %s", in.heartbeat())
		lc.step(in, evUnresponsive, now)
	case timerExit:
		lc.died(in, true, now)
	case timerLock:
		lc.queue.push(in)
	case timerLost:
		lc.reportLost(in, now)
	}
}

// readyOverdue handles a READY=1 that did not come in time.
func (lc *lifecycle) readyOverdue(in *instance, now time.Time) {
	if in.adopted {
		// It may have sent READY=1 while no watchdog ran: leave it running.
		lc.step(in, evReady, now)
		in.view.Reason = "readiness unknown: the watchdog restarted while the process was starting"
		lc.journal.record(in, note{kind: spec.EventReady, severity: spec.Warning, message: in.view.Reason})
		return
	}
	in.Blame = fmt.Sprintf("no READY=1 within %s", in.readyTimeout())
	lc.step(in, evReadyTimeout, now)
}

// tidy removes the cgroups of instances that have ended. One that is not empty
// yet is tried again by the next sweep.
func (lc *lifecycle) tidy(now time.Time) {
	if !lc.kern.Tidy() {
		lc.planSweep(now)
	}
}

// planSweep makes a sweep due soon; see supervisor.sweep.
func (lc *lifecycle) planSweep(now time.Time) {
	if lc.sweepAt.IsZero() {
		lc.sweepAt = now.Add(sweepDelay)
	}
}
