package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// A generation is up to three processes, one after the other: before_start, the
// program, and after_stop. Each is forked from the queue, carries a mark of its
// own, is journalled and adopted like any other, and lives under the lease and
// the lock of its instance. after_stop runs at the end of every generation of
// which anything ran, be it before_start alone; a process that is asked to end
// is in its phase until after_stop has ended as well, so that nobody takes the
// instance for gone before that.
//
// Which process the queue forks follows from the phase alone: in pending the
// first of a new generation, in hooking the program, and in every other phase of
// a generation under way after_stop.

// hookOf returns a launch's hook; nil if it has none of that time.
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

// cleanup is the hook that runs once the present generation has ended.
func (in *instance) cleanup() *spec.LaunchHook { return hookOf(in.ran(), spec.HookAfterStop) }

// hookTimeout is how long the hook that runs may take.
func (in *instance) hookTimeout() time.Duration {
	if h := hookOf(in.ran(), in.Hook); h != nil {
		return h.Timeout.Std()
	}
	return spec.DefaultHook(in.Hook).Timeout.Std()
}

// endTimeout is how long the end of what is alive may take.
func (in *instance) endTimeout() time.Duration {
	if in.Phase == hooking || in.Phase == cleaning || in.Hook == spec.HookAfterStop {
		return in.hookTimeout()
	}
	return in.launch.Stop.Timeout.Std()
}

// underway reports whether a process of a generation is about to be forked.
func (in *instance) underway() bool { return in.Phase.alive() && in.proc == nil }

// intend records which process of the generation is forked next, for the journal.
func (in *instance) intend(hook spec.HookTime, nonce string) {
	in.Hook, in.Nonce = hook, nonce
	in.Forking, in.killed, in.lockBy = true, false, time.Time{}
}

// begin makes the next generation of an instance.
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
// the rest of the one before, which was killed, still holds.
const lockWait = 5 * time.Second

// awaitLock tries the fork again in a moment, and reports whether it does.
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

// mayFork reports whether a process is to be forked for an instance that has
// come out of the queue; if not, it does what follows instead.
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

// nextStart is what is to be forked for an instance now.
func (in *instance) nextStart() start {
	st := start{launch: in.ran(), marks: in.marks(), hook: hookOf(in.ran(), in.Hook)}
	if in.Hook == spec.HookAfterStop && in.view.LastExit != nil {
		st.exit = hookExit(*in.view.LastExit)
	}
	return st
}

// hookExit is the value of MESHRUN_EXIT: the exit code, the signal's name,
// "unknown", or "failed" if the program did not come to be started.
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

// The reasons that are told while a hook runs.
const (
	beforeStartRuns = "before_start hook runs"
	afterStopRuns   = "after_stop hook runs"
)

// hookEnded handles the end of a hook. An exit with an error was none: the hook
// could not be started.
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
	default: // with it the start has failed
		lc.journal.record(in, n)
		exit = spec.Exit{Error: n.message}
		lc.endGeneration(in, exit, locked, now, note{kind: spec.EventStartFailed, severity: spec.Warning, message: n.message})
	}
}

// endGeneration handles the end of a generation but for its after_stop hook, which is
// forked in its turn. Nothing is cleaned up if nothing ran.
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
