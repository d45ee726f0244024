package watchdog

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func TestWhatExpiresIsKilledAsIfItHadNotDoneItsDuty(t *testing.T) {
	for p := range numPhases {
		next, acts := Next(p, evExpire)
		if p == hooking || p == starting || p == running {
			if next != killing || !slices.Equal(acts, []action{actAsk}) {
				t.Errorf("%v expires to %v, %v", p, next, acts)
			}
		} else if next != p || len(acts) != 0 {
			t.Errorf("%v is none that can expire, and leads to %v, %v", p, next, acts)
		}
	}
}

// expiring returns a launch that ends a generation.
func expiring(l spec.Launch, generation uint64) spec.Launch {
	l.Expire = &spec.Expire{Generation: generation, Why: "check http fails"}
	return l
}

// leaves is a process that ends with 0 when it is asked to.
func leaves(w *world) func(*fakeProcess, syscall.Signal) bool {
	return func(p *fakeProcess, _ syscall.Signal) bool {
		w.fake.ended(p.id, spec.Exit{Code: 0})
		return false
	}
}

func TestExpiryEndsAGenerationByItsPolicy(t *testing.T) {
	for _, c := range []struct {
		policy spec.RestartPolicy
		phase  spec.Phase
		words  string
	}{
		{spec.RestartAlways, spec.PhaseBackoff, ""},
		{spec.RestartOnFailure, spec.PhaseBackoff, ""}, // ending with 0 is no success now
		{spec.RestartNever, spec.PhaseFailed, "check http fails"},
	} {
		inWorld(t, func(w *world) {
			w.fake.onSignal = leaves(w)
			l := job("a")
			l.Restart.Policy = c.policy
			w.set(l)
			w.set(expiring(l, 1))
			v := w.wants(l.ID, c.phase, 1)
			if !slices.Equal(w.fake.signals, []string{"test/a/0 SIGTERM"}) {
				t.Errorf("%s: signals %v", c.policy, w.fake.signals)
			}
			if !strings.Contains(v.Reason, c.words) {
				t.Errorf("%s: reason %q", c.policy, v.Reason)
			}
			for _, kind := range []spec.EventType{spec.EventUpdated, spec.EventStopping, spec.EventExited} {
				if told := w.told(kind); len(told) != 1 || !strings.Contains(told[0].Message, "check http fails") {
					t.Errorf("%s: %s tells %+v", c.policy, kind, told)
				}
			}
		})
	}
}

func TestExpiryIsKilledAfterItsTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := job("a")
		w.set(l)
		w.set(expiring(l, 1))
		if v := w.wants(l.ID, spec.PhaseStopping, 1); v.Reason != "check http fails" {
			t.Errorf("reason %q", v.Reason)
		}
		w.pass(11 * time.Second)
		w.pass(2 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 2)
		if want := []string{"test/a/0 SIGTERM", "test/a/0 SIGKILL"}; !slices.Equal(w.fake.signals, want) {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}

func TestExpiriesUseUpTheAttempts(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		for g := uint64(1); g <= 4; g++ {
			w.wants(l.ID, spec.PhaseRunning, g)
			w.set(expiring(l, g))
			w.pass(10 * time.Second)
		}
		v := w.wants(l.ID, spec.PhaseFailed, 4)
		if !strings.Contains(v.Reason, "used up") || len(w.told(spec.EventExhausted)) != 1 {
			t.Errorf("reason %q, alerts %d", v.Reason, len(w.told(spec.EventExhausted)))
		}
	})
}

func TestExpiryIsNothingToAnotherGeneration(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		w.set(expiring(l, 2)) // not there yet
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.exits(l.ID, 1)
		w.set(expiring(l, 1)) // gone already
		w.wants(l.ID, spec.PhaseBackoff, 1)
		w.pass(2 * time.Second)
		w.set(expiring(l, 1))
		changed := expiring(l, 1)
		changed.Version = 7
		w.set(changed)
		w.wants(l.ID, spec.PhaseRunning, 2)
		if len(w.fake.signals) != 0 {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}

func TestExpiryDeclaredAgainChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := expiring(job("a"), 1)
		w.set(job("a"))
		w.set(l)
		w.set(l)
		l.Version = 9 // any other live change
		w.set(l)
		w.wants(l.ID, spec.PhaseStopping, 1)
		if want := []string{"test/a/0 SIGTERM"}; !slices.Equal(w.fake.signals, want) {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}

func TestExpiryOfWhatEndsAlreadyChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := job("a")
		w.set(l)
		next := l
		next.Hash = "h2"
		w.set(next)
		w.set(expiring(next, 1))
		w.pass(13 * time.Second)
		if v := w.wants(l.ID, spec.PhaseRunning, 2); v.Restarts != 0 {
			t.Errorf("it counts as %d restarts", v.Restarts)
		}
		if want := []string{"test/a/0 SIGTERM", "test/a/0 SIGKILL"}; !slices.Equal(w.fake.signals, want) {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}

func TestSuccessorGoesOnWithAnExpiryAndExpiresNothingElse(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		a, b := job("a"), job("b")
		w.set(a, b)
		w.set(expiring(a, 1), expiring(b, 2))
		w.exits(b.ID, 1)
		w.pass(2 * time.Second)
		w.wants(a.ID, spec.PhaseStopping, 1)
		w.wants(b.ID, spec.PhaseRunning, 2) // that was not there when it was told to end
		w = w.successor()
		if v := w.wants(a.ID, spec.PhaseStopping, 1); v.Reason != "check http fails" {
			t.Errorf("reason %q", v.Reason)
		}
		w.wants(b.ID, spec.PhaseRunning, 2)
		w.fake.end(a.ID, spec.Exit{Code: 0})
		w.pass(2 * time.Second)
		if v := w.wants(a.ID, spec.PhaseRunning, 2); v.Restarts != 1 {
			t.Errorf("restarts are %d", v.Restarts)
		}
		w = w.successor()
		w.set(expiring(a, 1), expiring(b, 2))
		w.wants(a.ID, spec.PhaseRunning, 2)
		w.wants(b.ID, spec.PhaseRunning, 2)
	})
}

func TestSinceIsWhenAnotherProcessWasAskedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		first := w.see(l.ID).Since
		if first.IsZero() || time.Since(first) > time.Second {
			t.Fatalf("declared just now, it is since %s", first)
		}
		same := func(what string) {
			t.Helper()
			if since := w.see(l.ID).Since; !since.Equal(first) {
				t.Errorf("%s moved it from %s to %s", what, first, since)
			}
		}
		w.exits(l.ID, 1)
		w.pass(10 * time.Second)
		same("a restart after a crash")
		l.Version, l.Restart.Attempts, l.ReloadHash = 2, 9, "r2"
		w.set(l)
		same("a live update")
		w.set(expiring(l, 2))
		w.pass(10 * time.Second)
		same("an expiry")
		w = w.successor()
		same("another watchdog")
		for what, change := range map[string]func(){
			"another hash": func() { l.Hash = "h2" }, "a restart by hand": func() { l.Epoch++ },
		} {
			w.pass(time.Minute)
			change()
			w.set(l)
			now := w.see(l.ID).Since
			if !now.After(first) {
				t.Errorf("%s leaves it at %s", what, first)
			}
			first = now
		}
	})
}

// It is restarted as often as it is planned, and whatever its policy is.
func TestPlannedExpiryUsesUpNoAttempt(t *testing.T) {
	for _, policy := range []spec.RestartPolicy{spec.RestartAlways, spec.RestartNever} {
		inWorld(t, func(w *world) {
			w.fake.onSignal = leaves(w)
			l := job("a")
			l.Restart.Policy, l.Restart.Attempts = policy, 1
			w.set(l)
			for generation := range uint64(5) {
				w.wants(l.ID, spec.PhaseRunning, generation+1)
				planned := expiring(l, generation+1)
				planned.Expire.Planned = true
				w.set(planned)
			}
			v := w.wants(l.ID, spec.PhaseRunning, 6)
			if v.Restarts != 0 {
				t.Errorf("%s: %d restarts count", policy, v.Restarts)
			}
			if v.LastExit == nil || v.LastExit.Cause != "check http fails" {
				t.Errorf("%s: nobody knows why it was ended: %+v", policy, v.LastExit)
			}
		})
	}
}
