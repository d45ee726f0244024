package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// A generation consists of up to three processes, one after the other:
// before_start, the program, and after_stop. Each is forked from the queue,
// carries a mark of its own, is journalled and adopted like any other, and runs
// under the lease and the lock of its instance. after_stop runs at the end of
// every generation of which a process ran, even if that was only before_start.
// An instance that was asked to end keeps its phase until after_stop has ended,
// so that nobody takes it for ended before that.
//
// The phase alone says which process the queue forks: in pending the first of a
// new generation, in hooking the program, and in every other phase of a
// generation after_stop.

// hookOf returns a launch's hook; nil if it has none for that time.
func hookOf(l *spec.Launch, when spec.HookTime) *spec.LaunchHook {
	for i := range l.Hooks {
		if l.Hooks[i].When == when {
			return &l.Hooks[i]
		}
	}
	return nil
}

// ran is the launch that the present generation was started from.
func (in *instance) ran() *spec.Launch {
	if in.Old != nil {
		return in.Old
	}
	return in.launch
}

// cleanup is the hook to run once the present generation has ended.
func (in *instance) cleanup() *spec.LaunchHook { return hookOf(in.ran(), spec.HookAfterStop) }

// hookTimeout is how long the present hook may take.
func (in *instance) hookTimeout() time.Duration {
	if h := hookOf(in.ran(), in.Hook); h != nil {
		return h.Timeout.Std()
	}
	return spec.DefaultHook(in.Hook).Timeout.Std()
}

// endTimeout is how long the present process may take to end.
func (in *instance) endTimeout() time.Duration {
	if in.Phase == hooking || in.Phase == cleaning || in.Hook == spec.HookAfterStop {
		return in.hookTimeout()
	}
	return in.launch.Stop.Timeout.Std()
}

// underway reports whether a process of the present generation is about to be
// forked.
func (in *instance) underway() bool { return in.Phase.alive() && in.proc == nil }

// intend sets which process of the generation is forked next, for the journal.
func (in *instance) intend(hook spec.HookTime, nonce string) {
	in.Hook, in.Nonce = hook, nonce
	in.Forking, in.killed, in.lockBy = true, false, time.Time{}
}

// begin begins the next generation of an instance.
func (in *instance) begin(nonce func() string) {
	in.view.Generation++
	hook := spec.HookTime("")
	if hookOf(in.launch, spec.HookBeforeStart) != nil {
		hook = spec.HookBeforeStart
	}
	in.generation = generation{}
	in.intend(hook, nonce())
	in.Old, in.Lease, in.Blame = nil, in.launch.Lease, ""
	in.view.Status, in.view.ReadyAt, in.view.Reason = "", time.Time{}, ""
}

// lockWait is how long the next process of a generation waits for the lock that
// remains of the previous one, which was killed, still hold.
const lockWait = 5 * time.Second

// awaitLock repeats the fork in a moment, and reports whether it does.
func (in *instance) awaitLock(timers *timerHeap, now time.Time) bool {
	if in.lockBy.IsZero() {
		in.lockBy = now.Add(lockWait)
	}
	if in.Phase == pending || now.After(in.lockBy) {
		return false
	}
	in.Forking = true
	timers.set(in, timerLock, now.Add(minLockDelay))
	return true
}

// mayFork reports whether a process is to be forked for an instance from the
// queue; if not, it does what is due instead.
func (lc *lifecycle) mayFork(in *instance, now time.Time) bool {
	switch {
	case in.Phase == pending && lc.shuttingDown:
		return false
	case in.Phase == pending:
		if lc.leases.fence.allows(in.launch.Lease, false) {
			return true
		}
		lc.awaitLease(in, now)
		return false
	case !in.underway():
		return false
	case in.Phase == hooking:
		return true
	case in.Hook != spec.HookAfterStop: // asked to end between before_start and the program
		const never = "not started after its before_start hook"
		lc.endGeneration(in, spec.Exit{Error: never}, false, now, note{kind: spec.EventHook, message: never})
		return false
	case in.cleanup() == nil:
		lc.conclude(in, now, note{kind: spec.EventHook, message: "its after_stop hook was removed"})
		return false
	}
	return true
}

// nextStart is the process to be forked for an instance now.
func (in *instance) nextStart() start {
	st := start{launch: in.ran(), marks: in.marks(), hook: hookOf(in.ran(), in.Hook)}
	if in.Hook == spec.HookAfterStop && in.view.LastExit != nil {
		st.exit = hookExit(*in.view.LastExit)
	}
	return st
}

// hookExit is the value of MESHRUN_EXIT: the exit code, the signal's name,
// "unknown", or "failed" if the program could not be started.
func hookExit(e spec.Exit) string {
	switch {
	case e.Error != "":
		return "failed"
	case e.Unknown:
		return "unknown"
	case e.Signal != "":
		return string(e.Signal)
	}
	return fmt.Sprint(e.Code)
}

// hookStarted handles a hook that was forked.
func (lc *lifecycle) hookStarted(in *instance, now time.Time) {
	message := fmt.Sprintf("%s hook started as process %d", in.Hook, in.proc.pid)
	n := note{kind: spec.EventHook, message: message}
	if in.Hook == spec.HookBeforeStart {
		lc.step(in, evHooking, now, n)
		return
	}
	in.view.Reason = afterStopRuns
	lc.timers.set(in, timerStop, now.Add(in.hookTimeout()))
	lc.journal.record(in, n)
}

// The reasons of an instance while a hook runs.
const (
	beforeStartRuns = "before_start hook runs"
	afterStopRuns   = "after_stop hook runs"
)

// hookEnded handles the end of a hook. An exit with an error means that the
// hook could not be started.
func (lc *lifecycle) hookEnded(in *instance, exit spec.Exit, locked bool, now time.Time) {
	when := in.Hook
	n := note{kind: spec.EventHook, message: fmt.Sprintf("%s hook ended with %s", when, exit)}
	if exit.Error != "" {
		n.message = fmt.Sprintf("%s hook could not be started: %s", when, exit.Error)
	}
	switch {
	case when == spec.HookBeforeStart && in.Blame != "":
		n.message += " (" + in.Blame + ")"
	case when == spec.HookAfterStop && in.killed:
		n.message += fmt.Sprintf(" (killed: its timeout is %s)", in.hookTimeout())
	}
	asked := when == spec.HookBeforeStart && !in.Phase.judged()
	if !exit.Success() && !asked {
		n.severity = spec.Warning
	}
	switch {
	case when == spec.HookAfterStop:
		lc.conclude(in, now, n)
	case exit.Success() && in.Phase == hooking:
		lc.timers.clear(in, timerStop)
		in.intend("", lc.nonce())
		lc.step(in, evHooked, now, n)
	case asked:
		lc.endGeneration(in, exit, locked, now, n)
	default: // the start has failed with it
		lc.journal.record(in, n)
		exit = spec.Exit{Error: n.message}
		lc.endGeneration(in, exit, locked, now, note{kind: spec.EventStartFailed, severity: spec.Warning, message: n.message})
	}
}

// endGeneration handles the end of a generation up to its after_stop hook,
// which is queued. If no process ran, there is none.
func (lc *lifecycle) endGeneration(in *instance, exit spec.Exit, locked bool, now time.Time, n note) {
	exit.At, exit.Cause = now.UTC(), in.Blame
	in.view.LastExit, in.locked = &exit, locked
	if !in.Phase.alive() || in.cleanup() == nil {
		lc.conclude(in, now, n)
		return
	}
	lc.timers.clear(in, timerStop, timerExit)
	in.intend(spec.HookAfterStop, lc.nonce())
	n.message += "; running its after_stop hook"
	lc.step(in, evClean, now, n)
}
