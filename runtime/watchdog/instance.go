package watchdog

import (
	"reflect"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// instance is one instance as the loop keeps it.
type instance struct {
	launch  *spec.Launch  // what is wanted; never changed in place
	view    spec.Instance // what is told
	phase   phase
	history history
	nonce   string
	proc    *process // nil unless alive
	// blame is why it is being killed: the next exit counts as a failure.
	blame  string
	why    string    // the policy's reason for what follows an end
	nextAt time.Time // of the next start, in backoff
	queued bool
	// forking: a fork is to come at once, and whether it worked is not noted yet.
	forking bool
	// hook is which hook of the generation lives or is forked next; empty for
	// the program.
	hook spec.HookTime
	// old is what the present generation was started from, if its after_stop
	// hook is to run and another launch is wanted by now.
	old    *spec.Launch
	lockBy time.Time // when the lock of the process before must be free
	locked bool      // the present generation was not started: a copy holds its lock
	killed bool      // SIGKILL was sent, and told
	// adopted: it was starting when a watchdog died, so READY=1 may be lost.
	adopted bool
	lease   string        // that its process was started under, which may not be its launch's
	session int           // of a main process found by its journal entry
	notify  uint64        // token of its notify socket
	pulse   time.Duration // WATCHDOG_USEC that it chose itself, or 0
	lost    uint64        // bytes dropped and not told yet
	timers  [numTimers]*timer
}

// keep is what the journal holds of it besides what is told.
func (in *instance) keep() keep {
	k := keep{Phase: in.phase, Nonce: in.nonce, History: in.history, Blame: in.blame, Forking: in.forking, Lease: in.lease, Hook: in.hook, Old: in.old}
	if in.proc != nil && in.proc.session != in.proc.pid {
		k.Session = in.proc.session
	}
	return k
}

// want makes the launch the wanted one, as far as it can be seen at once.
func (in *instance) want(l *spec.Launch) {
	in.launch = l
	in.view.Version, in.view.Hash, in.view.Epoch = l.Version, l.Hash, l.Epoch
	in.view.ReloadHash, in.view.Ports, in.view.Critical = l.ReloadHash, l.Ports, l.Critical
}

// needsReady reports whether the instance is up only once it says READY=1.
func (in *instance) needsReady() bool { return in.launch.Ready != nil && in.launch.Ready.Notify }

// wantsNotify reports whether a launch has a notify socket.
func wantsNotify(l *spec.Launch) bool {
	return l.Watchdog != nil || (l.Ready != nil && l.Ready.Notify)
}

// defaultReadyTimeout is how long READY=1 is awaited if nobody said.
const defaultReadyTimeout = time.Minute

// readyTimeout is how long READY=1 may take.
func (in *instance) readyTimeout() time.Duration {
	if in.launch.Ready != nil && in.launch.Ready.Timeout > 0 {
		return in.launch.Ready.Timeout.Std()
	}
	return defaultReadyTimeout
}

// heartbeat is how often WATCHDOG=1 is expected; 0 for never.
func (in *instance) heartbeat() time.Duration {
	if in.launch.Watchdog == nil {
		return 0
	}
	if in.pulse > 0 {
		return in.pulse
	}
	return in.launch.Watchdog.Timeout.Std()
}

// expires reports whether its launch says that the present generation shall
// end, and that is not ending or dead already.
func (in *instance) expires() bool {
	e := in.launch.Expire
	if e == nil || e.Generation != in.view.Generation || (in.proc != nil && in.proc.dead) {
		return false
	}
	return in.phase == hooking || in.phase == starting || in.phase == running
}

// marks are those of the current generation.
func (in *instance) marks() marks {
	return marks{generation: in.view.Generation, nonce: in.nonce}
}

// replaces reports whether a launch needs another process than the one known.
func replaces(old, l *spec.Launch) bool {
	return old.Hash != l.Hash || old.Epoch != l.Epoch || old.Lease != l.Lease
}

// same reports whether two launches are the same in every respect.
func same(a, b *spec.Launch) bool { return reflect.DeepEqual(a, b) }
