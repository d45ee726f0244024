package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// readNotifications handles what a process sent on its notify socket.
func (lc *lifecycle) readNotifications(in *instance, now time.Time) {
	for _, n := range lc.kern.Messages(in.view.ID) {
		if in.proc == nil || in.Hook != "" {
			continue // a late message of a program that has ended
		}
		lc.applyNotification(in, n, now)
	}
}

func (lc *lifecycle) applyNotification(in *instance, n notification, now time.Time) {
	if n.mainPID != 0 && n.mainPID != in.proc.pid {
		lc.changeMain(in, n.mainPID)
	}
	if n.hasStatus && n.status != in.view.Status {
		in.view.Status = n.status
		lc.journal.record(in, note{kind: spec.EventStatus, message: "says: " + n.status})
	}
	if n.watchdog > 0 {
		in.pulse = n.watchdog
		n.alive = true
	}
	if n.ready && in.Phase == starting {
		took := uptime(now.Sub(in.view.Started))
		lc.step(in, evReady, now, note{kind: spec.EventReady, message: fmt.Sprintf("ready after %s", took)})
	}
	if n.alive && in.Phase == running && in.heartbeat() > 0 {
		lc.timers.set(in, timerWatchdog, now.Add(in.heartbeat()))
	}
	if n.stopping && in.Phase == running {
		lc.timers.clear(in, timerWatchdog) // it is ending: no WATCHDOG=1 is due
	}
	if n.extend > 0 {
		lc.timers.extend(in, now.Add(n.extend))
	}
}

// changeMain switches to the main process that an instance named.
func (lc *lifecycle) changeMain(in *instance, pid int) {
	p, err := lc.kern.ChangeMain(in.proc, pid, in.marks())
	if err != nil {
		lc.log.Warn("ignored MAINPID", "instance", in.view.ID.String(), "error", err)
		return
	}
	delete(lc.byProcess, in.proc.token)
	lc.hold(in, p)
	lc.journal.record(in, note{kind: spec.EventStatus, message: fmt.Sprintf("main process is now %d", pid)})
	lc.planSweep(time.Now())
}

// reportLost records that output was lost, and not again for a while.
func (lc *lifecycle) reportLost(in *instance, now time.Time) {
	if in.lost == 0 {
		return
	}
	lc.journal.record(in, note{kind: spec.EventOutputLost, severity: spec.Warning,
		message: fmt.Sprintf("%d bytes of output were lost: check disk space", in.lost)})
	in.lost = 0
	lc.timers.set(in, timerLost, now.Add(lostEvery))
}
