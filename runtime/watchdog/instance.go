package watchdog

import (
	"reflect"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// instance is one instance as the loop keeps it.
type instance struct {
	launch *spec.Launch  // what is wanted; never changed in place
	view   spec.Instance // what clients see
	keep                 // what else a successor needs
	generation

	proc   *process  // nil unless alive
	why    string    // the policy's reason for what follows an end
	nextAt time.Time // of the next start, in backoff
	queued bool      // in the queue of forks
	notify uint64    // token of its notify socket
	lost   uint64    // bytes dropped and not reported yet
	timers [numTimers]*timer
}

// generation is what the loop knows of an instance's present generation only.
type generation struct {
	locked  bool          // it was not started: another copy holds its lock
	killed  bool          // SIGKILL was sent to its process, and recorded
	lockBy  time.Time     // when the lock of the process before must be free
	adopted bool          // it was starting when a watchdog died, so READY=1 may be lost
	pulse   time.Duration // WATCHDOG_USEC that it chose itself, or 0
}

// kept is what the journal keeps of it besides the view.
func (in *instance) kept() keep {
	k := in.keep
	k.Session = 0
	if in.proc != nil && in.proc.session != in.proc.pid {
		k.Session = in.proc.session
	}
	return k
}

// want sets the launch, and the parts of the view that change with it at once.
func (in *instance) want(l *spec.Launch) {
	in.launch = l
	in.view.Version, in.view.Hash, in.view.Epoch = l.Version, l.Hash, l.Epoch
	in.view.ReloadHash, in.view.Ports, in.view.Critical = l.ReloadHash, l.Ports, l.Critical
}

// needsReady reports whether the instance counts as running only after READY=1.
func (in *instance) needsReady() bool { return in.launch.Ready != nil && in.launch.Ready.Notify }

// wantsNotify reports whether a launch has a notify socket.
func wantsNotify(l *spec.Launch) bool {
	return l.Watchdog != nil || (l.Ready != nil && l.Ready.Notify)
}

// defaultReadyTimeout is how long READY=1 may take unless the launch says
// otherwise.
const defaultReadyTimeout = time.Minute

// readyTimeout is how long READY=1 may take.
func (in *instance) readyTimeout() time.Duration {
	if in.launch.Ready != nil && in.launch.Ready.Timeout > 0 {
		return in.launch.Ready.Timeout.Std()
	}
	return defaultReadyTimeout
}

// heartbeat is the interval within which WATCHDOG=1 must come; 0 for none.
func (in *instance) heartbeat() time.Duration {
	if in.launch.Watchdog == nil {
		return 0
	}
	if in.pulse > 0 {
		return in.pulse
	}
	return in.launch.Watchdog.Timeout.Std()
}

// expires reports whether the launch ends the present generation, and that is
// not ending or dead already.
func (in *instance) expires() bool {
	e := in.launch.Expire
	if e == nil || e.Generation != in.view.Generation || (in.proc != nil && in.proc.dead) {
		return false
	}
	return in.Phase == hooking || in.Phase == starting || in.Phase == running
}

// marks are those of the current generation.
func (in *instance) marks() marks {
	return marks{generation: in.view.Generation, nonce: in.Nonce}
}

// replaces reports whether a launch needs a new process.
func replaces(old, l *spec.Launch) bool {
	return old.Hash != l.Hash || old.Epoch != l.Epoch || old.Lease != l.Lease
}

// same reports whether two launches are the same in every respect.
func same(a, b *spec.Launch) bool { return reflect.DeepEqual(a, b) }

// enter changes an instance's phase and sets the timers that belong to it.
func (in *instance) enter(p phase, timers *timerHeap, now time.Time) {
	was := in.Phase
	in.Phase = p
	in.view.Phase = p.public()
	in.view.Reason = ""
	in.view.NextStart = time.Time{}
	switch p {
	case starting:
		timers.set(in, timerReady, now.Add(in.readyTimeout()))
		return
	case running:
		timers.clear(in, timerReady)
		in.view.ReadyAt = now.UTC()
		in.timeRunning(timers, now)
		return
	case hooking:
		timers.set(in, timerStop, now.Add(in.hookTimeout()))
		in.view.Reason = beforeStartRuns
		return
	case cleaning:
		in.view.Reason = afterStopRuns
	case stopping, replacing, killing, ceding:
		in.view.Reason = in.Blame
		if in.Hook == spec.HookAfterStop {
			in.view.Reason = afterStopRuns
		}
	case backoff:
		in.view.NextStart = in.nextAt.UTC()
		in.view.Reason = in.why
	case fenced:
		in.view.Reason = waitsFor(in)
	case failed:
		in.view.Reason = in.why
	}
	if was != p {
		timers.clear(in, timerReady, timerStable, timerWatchdog, timerStart)
	}
	if !p.alive() {
		timers.clear(in, timerStop, timerExit)
	}
}

// timeRunning sets the timers of a running instance. One that never failed has
// nothing to recover from, and needs no timer.
func (in *instance) timeRunning(timers *timerHeap, now time.Time) {
	if in.History.Streak > 0 || in.History.Exhausted {
		timers.set(in, timerStable, in.view.Started.Add(in.launch.Restart.Stable.Std()))
	}
	if beat := in.heartbeat(); beat > 0 {
		timers.set(in, timerWatchdog, now.Add(beat))
	} else {
		timers.clear(in, timerWatchdog)
	}
}
