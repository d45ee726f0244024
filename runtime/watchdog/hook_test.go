package watchdog

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// hooked returns a launch with both hooks.
func hooked(process string) spec.Launch {
	l := job(process)
	l.Hooks = []spec.LaunchHook{
		{When: spec.HookBeforeStart, Argv: []string{"before"}, Timeout: spec.Duration(30 * time.Second)},
		{When: spec.HookAfterStop, Argv: []string{"after"}, Timeout: spec.Duration(20 * time.Second)}}
	return l
}

// wantsRan fails the test unless the programs were started, in this order.
func (w *world) wantsRan(programs ...string) {
	w.t.Helper()
	if !slices.Equal(w.fake.ran, programs) {
		w.t.Errorf("ran %q, want %q", w.fake.ran, programs)
	}
}

func TestHooksRunAroundEveryGeneration(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.set(l)
		if v := w.wants(l.ID, spec.PhaseStarting, 1); v.Reason != "before_start hook runs" || v.PID == 0 {
			t.Errorf("reason %q, process %d", v.Reason, v.PID)
		}
		w.exits(l.ID, 0)
		if v := w.wants(l.ID, spec.PhaseRunning, 1); v.Reason != "" {
			t.Errorf("running because %q", v.Reason)
		}
		w.pass(time.Hour) // the hook's time is not the program's
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.exits(l.ID, 7)
		if v := w.wants(l.ID, spec.PhaseStopping, 1); v.Reason != "after_stop hook runs" || v.LastExit.Code != 7 {
			t.Errorf("reason %q, last exit %s", v.Reason, v.LastExit)
		}
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseBackoff, 1)
		w.pass(2 * time.Second)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.drop(l.ID)
		if v := w.wants(l.ID, spec.PhaseStopping, 2); v.Reason != "after_stop hook runs" {
			t.Errorf("reason %q", v.Reason)
		}
		w.exits(l.ID, 0)
		if v := w.see(l.ID); v.Phase != "" {
			t.Errorf("it is still there: %+v", v)
		}
		w.wantsRan("before", "program", "after:7", "before", "program", "after:SIGTERM")
		for _, e := range w.told(spec.EventHook) {
			if e.Severity != spec.Info {
				t.Errorf("told as %s: %s", e.Severity, e.Message)
			}
		}
		if n := len(w.timers); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

func TestFailedBeforeStartIsAFailedStart(t *testing.T) {
	for _, c := range []struct {
		policy spec.RestartPolicy
		phase  spec.Phase
	}{{spec.RestartAlways, spec.PhaseBackoff}, {spec.RestartOnFailure, spec.PhaseBackoff}, {spec.RestartNever, spec.PhaseFailed}} {
		inWorld(t, func(w *world) {
			l := hooked("a")
			l.Restart.Policy = c.policy
			w.set(l)
			w.exits(l.ID, 3)
			w.exits(l.ID, 0) // after_stop
			v := w.wants(l.ID, c.phase, 1)
			if v.LastExit.Error != "before_start hook ended with exit 3" {
				t.Errorf("last exit %q", v.LastExit)
			}
			w.wantsRan("before", "after:failed")
			warned := w.told(spec.EventHook)[1]
			if warned.Severity != spec.Warning || !strings.Contains(warned.Message, "exit 3") {
				t.Errorf("told as %s: %s", warned.Severity, warned.Message)
			}
			if failed := w.told(spec.EventStartFailed); len(failed) != 1 {
				t.Errorf("told %d failed starts", len(failed))
			}
		})
	}
}

func TestHookThatCannotBeStarted(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.fake.refuses(l.ID, errLocked)
		w.set(l)
		v := w.wants(l.ID, spec.PhaseBackoff, 1) // nothing ran: nothing is cleaned up
		if !strings.Contains(v.LastExit.Error, "before_start hook could not be started: another copy") {
			t.Errorf("last exit %q", v.LastExit)
		}
		w.fake.refuses(l.ID, nil)
		w.pass(2 * time.Second)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.fake.refuses(l.ID, errLocked)
		w.exits(l.ID, 1)
		w.pass(4 * time.Second) // the rest of the program may still hold it
		w.wants(l.ID, spec.PhaseStopping, 2)
		w.pass(1100 * time.Millisecond)
		w.wants(l.ID, spec.PhaseBackoff, 2)
		told := w.told(spec.EventHook)
		if last := told[len(told)-1]; last.Severity != spec.Warning || !strings.Contains(last.Message, "after_stop hook could not be started") {
			t.Errorf("told as %s: %s", last.Severity, last.Message)
		}
	})
}

func TestAfterStopWaitsForTheLock(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.set(l)
		w.exits(l.ID, 0)
		w.fake.refuses(l.ID, errLocked)
		w.drop(l.ID)
		w.onLoop(func() error { w.beginShutdown(false, time.Now()); return nil })
		w.pass(time.Second)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.fake.refuses(l.ID, nil)
		w.pass(100 * time.Millisecond)
		w.wantsRan("before", "program", "after:SIGTERM")
		w.exits(l.ID, 0)
	})
}

func TestHooksAreKilledAfterTheirTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := hooked("a")
		w.set(l)
		w.pass(29 * time.Second)
		w.wants(l.ID, spec.PhaseStarting, 1)
		w.pass(2 * time.Second)
		if v := w.wants(l.ID, spec.PhaseStopping, 1); v.Reason != "after_stop hook runs" {
			t.Errorf("reason %q", v.Reason)
		}
		w.pass(18 * time.Second)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(1500 * time.Millisecond)
		v := w.wants(l.ID, spec.PhaseBackoff, 1)
		if !strings.Contains(v.LastExit.Error, "did not end within 30s") {
			t.Errorf("last exit %q", v.LastExit)
		}
		w.wantsRan("before", "after:failed")
		if want := []string{"test/a/0 SIGKILL", "test/a/0 SIGKILL"}; !slices.Equal(w.fake.signals, want) {
			t.Errorf("signals %v", w.fake.signals)
		}
		if killed := w.told(spec.EventKilled); len(killed) != 2 || !strings.Contains(killed[1].Message, "after_stop hook did not end within 20s") {
			t.Errorf("killings: %+v", killed)
		}
	})
}

func TestReadyIsAwaitedFromTheProgramsStart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := hooked("a")
		l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(10 * time.Second)}
		w.set(l)
		w.says(l.ID, notification{ready: true}) // a hook's word is not the program's
		w.pass(25 * time.Second)
		w.wants(l.ID, spec.PhaseStarting, 1)
		w.exits(l.ID, 0)
		w.pass(9 * time.Second)
		if v := w.wants(l.ID, spec.PhaseStarting, 1); v.Reason != "" {
			t.Errorf("reason %q", v.Reason)
		}
		w.says(l.ID, notification{ready: true})
		w.wants(l.ID, spec.PhaseRunning, 1)
	})
}

func TestStopDuringBeforeStartEndsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.set(l)
		w.drop(l.ID)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.exits(l.ID, 0)
		if v := w.see(l.ID); v.Phase != "" {
			t.Errorf("it is still there: %+v", v)
		}
		w.wantsRan("before", "after:SIGTERM")
		if n := len(w.told(spec.EventExhausted)) + len(w.told(spec.EventStartFailed)); n != 0 {
			t.Errorf("%d failures are told of what was asked for", n)
		}
	})
}

func TestReplacedInstanceIsCleanedUpByWhatItWasStartedFrom(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.set(l)
		w.exits(l.ID, 0)
		next := job("a")
		next.Hash, next.Argv = "h2", []string{"program2"}
		w.set(next)
		w.wantsRan("before", "program", "after:SIGTERM")
		w.wants(l.ID, spec.PhaseStopping, 1)
		w = w.successor()
		w.exits(l.ID, 1)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.wantsRan("before", "program", "after:SIGTERM", "program2")
		w.exits(l.ID, 1)
		w.pass(2 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 3)
	})
}

func TestFailedAfterStopOnlyTells(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		l.Restart.Policy = spec.RestartOnFailure
		w.set(l)
		w.exits(l.ID, 0)
		w.exits(l.ID, 0)
		w.exits(l.ID, 9)
		w.wants(l.ID, spec.PhaseCompleted, 1)
		told := w.told(spec.EventHook)
		if last := told[len(told)-1]; last.Severity != spec.Warning || last.Message != "after_stop hook ended with exit 9" {
			t.Errorf("told as %s: %s", last.Severity, last.Message)
		}
	})
}

func TestExpiryIsCleanedUpAndStaysAFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = leaves(w)
		l := hooked("a")
		l.Restart.Policy = spec.RestartOnFailure
		w.set(l)
		w.exits(l.ID, 0)
		w.set(expiring(l, 1))
		w.wantsRan("before", "program", "after:0")
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseBackoff, 1)
	})
}

func TestLeaseEndsAfterStopToo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = func(p *fakeProcess, _ syscall.Signal) bool { return w.fake.ran[len(w.fake.ran)-1] == "program" }
		l := hooked("a")
		l.Lease = "s"
		w.renew("s", 5*time.Second)
		w.set(l)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.pass(3500 * time.Millisecond)
		// Asked to end at the margin, it has; what is left of the lease is the hook's.
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.wantsRan("before", "program", "after:SIGTERM")
		w.pass(2 * time.Second)
		if v := w.wants(l.ID, spec.PhasePending, 1); !strings.Contains(v.Reason, "waits for its lease") {
			t.Errorf("reason %q", v.Reason)
		}
		w.renew("s", 5*time.Second)
		w.wants(l.ID, spec.PhaseStarting, 2)
		w.wantsRan("before", "program", "after:SIGTERM", "before")
	})
}

func TestLeaseThatIsOverLeavesNoTimeForAfterStop(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := hooked("a")
		l.Lease = "s"
		w.renew("s", 5*time.Second)
		w.set(l)
		w.exits(l.ID, 0)
		w.pass(6 * time.Second)
		w.wants(l.ID, spec.PhasePending, 1)
		w.wantsRan("before", "program")
		told := w.told(spec.EventHook)
		if last := told[len(told)-1]; last.Severity != spec.Warning || !strings.Contains(last.Message, "after_stop hook could not be started") {
			t.Errorf("skipped silently: %s: %s", last.Severity, last.Message)
		}
	})
}

func TestHaltWaitsForAfterStop(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		w.set(l)
		w.exits(l.ID, 0)
		w.onLoop(func() error { w.beginShutdown(false, time.Now()); return nil })
		w.wantsRan("before", "program", "after:SIGTERM")
		select {
		case <-w.done:
			t.Error("it ended before after_stop")
		default:
		}
		w.fake.end(l.ID, spec.Exit{})
		w.pass(time.Millisecond)
		select {
		case <-w.done:
		default:
			t.Error("it does not end after after_stop")
		}
	})
}

func TestSuccessorGoesOnWithHooks(t *testing.T) {
	inWorld(t, func(w *world) {
		lives, dies := hooked("lives"), hooked("dies")
		w.set(lives, dies)
		delete(w.fake.live, w.fake.byID[dies.ID].token) // and nobody was told
		w = w.successor()
		// How the hook ended is not known: the start has failed.
		if v := w.wants(lives.ID, spec.PhaseStarting, 1); v.Reason != "before_start hook runs" {
			t.Errorf("reason %q", v.Reason)
		}
		if v := w.wants(dies.ID, spec.PhaseStopping, 1); v.Reason != "after_stop hook runs" {
			t.Errorf("reason %q", v.Reason)
		}
		w.exits(lives.ID, 0)
		w.exits(dies.ID, 0)
		w.wants(lives.ID, spec.PhaseRunning, 1)
		w.wants(dies.ID, spec.PhaseBackoff, 1)
		w.exits(lives.ID, 4)
		w = w.successor()
		if v := w.wants(lives.ID, spec.PhaseStopping, 1); v.Reason != "after_stop hook runs" {
			t.Errorf("reason %q", v.Reason)
		}
		w.exits(lives.ID, 0)
		if v := w.wants(lives.ID, spec.PhaseBackoff, 1); v.LastExit.Code != 4 {
			t.Errorf("last exit %s", v.LastExit)
		}
		w.wantsRan("before", "before", "after:failed", "program", "after:4")
	})
}

func TestWhatWasUpBeforeARebootIsCleanedUpAfterIt(t *testing.T) {
	inWorld(t, func(w *world) {
		l := hooked("a")
		l.Restart.Policy = spec.RestartNever
		w.set(l)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 1)
		clear(w.fake.live)
		w.fake.boot = "another"
		w = w.successor()
		w.exits(l.ID, 0)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.wantsRan("before", "program", "after:unknown", "before", "program")
	})
}

func TestForkThatNobodySawIsCleanedUpAfterAndNotRepeated(t *testing.T) {
	for _, c := range []struct {
		phase phase
		hook  spec.HookTime
		ran   []string
	}{
		{pending, spec.HookBeforeStart, []string{"after:failed"}},
		{hooking, "", []string{"after:unknown"}},
		{cleaning, spec.HookAfterStop, []string{"after:4"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), newFakeKernel(t))
			l := hooked("a")
			v := spec.Instance{ID: l.ID, Generation: 1, Phase: c.phase.public(), LastExit: &spec.Exit{Code: 4}}
			w.start(&replayed{entries: map[spec.InstanceID]*entry{l.ID: {Launch: l, Instance: v,
				Keep: keep{Phase: c.phase, Nonce: "n", Forking: true, Hook: c.hook}}}})
			w.wants(l.ID, spec.PhaseStopping, 1)
			w.wantsRan(c.ran...)
			w.exits(l.ID, 0)
			w.wants(l.ID, spec.PhaseBackoff, 1)
			w.stop()
		})
	}
}
