package watchdog

import (
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func notifying(process string) spec.Launch {
	l := job(process)
	l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(30 * time.Second)}
	l.Watchdog = &spec.Watchdog{Timeout: spec.Duration(20 * time.Second)}
	return l
}

func TestReadyIsAwaited(t *testing.T) {
	inWorld(t, func(w *world) {
		l := notifying("a")
		w.set(l)
		w.wants(l.ID, spec.PhaseStarting, 1)
		w.pass(25 * time.Second)
		w.says(l.ID, notification{hasStatus: true, status: "loading", extend: time.Minute})
		w.pass(50 * time.Second)
		if v := w.wants(l.ID, spec.PhaseStarting, 1); v.Status != "loading" {
			t.Errorf("status is %q", v.Status)
		}
		w.says(l.ID, notification{ready: true})
		if v := w.wants(l.ID, spec.PhaseRunning, 1); v.ReadyAt.IsZero() {
			t.Error("no time of readiness")
		}
	})
}

func TestMissedReadyIsAFailedStart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := notifying("a")
		l.Restart.Policy = spec.RestartOnFailure
		w.set(l)
		w.pass(31 * time.Second)
		if v := w.wants(l.ID, spec.PhaseStopping, 1); !strings.Contains(v.Reason, "no READY=1 within 30s") {
			t.Errorf("reason is %q", v.Reason)
		}
		w.exits(l.ID, 0) // it ends well, and yet it has failed
		w.wants(l.ID, spec.PhaseBackoff, 1)
	})
}

func TestMissedHeartbeatKills(t *testing.T) {
	inWorld(t, func(w *world) {
		l := notifying("a")
		w.set(l)
		w.says(l.ID, notification{ready: true})
		for range 5 {
			w.pass(15 * time.Second)
			w.says(l.ID, notification{alive: true})
		}
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.pass(21 * time.Second)
		if k := w.told(spec.EventKilled); len(k) != 1 || !strings.Contains(k[0].Message, "no WATCHDOG=1 within 20s") {
			t.Errorf("told %+v", k)
		}
		w.pass(2 * time.Second)
		w.wants(l.ID, spec.PhaseStarting, 2)
	})
}
