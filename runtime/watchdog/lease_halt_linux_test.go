package watchdog

import (
	"errors"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func TestAWatchdogThatFencesDoesNotEndAndLeaveThemAlive(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := withPulse(t, leasedProgram("a"))
	d.renew(maxLease)
	d.declare(l)
	d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitPulses(&l)
	allowed := lateness(t)
	deadline := d.renew(5 * time.Second)
	if err := d.client.Shutdown(t.Context(), false); !errors.Is(err, ErrRefused) {
		t.Errorf("to leave it alive without a watchdog: %v", err)
	}
	sleepUntil(deadline + 2*time.Second)
	leader, child := lastPulses(t, &l)
	if late := allowed(); leader > deadline+late || child > deadline+late {
		t.Errorf("alive %s and %s after the end of the lease", leader-deadline, child-deadline)
	}
}
