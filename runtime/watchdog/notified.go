package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// notified handles what a process said on its notify socket.
func (s *supervisor) notified(in *instance, now time.Time) {
	for _, n := range s.kern.Messages(in.view.ID) {
		if in.proc == nil || in.hook != "" {
			continue // a late word of a program that has ended
		}
		s.hear(in, n, now)
	}
}

func (s *supervisor) hear(in *instance, n notification, now time.Time) {
	if n.mainPID != 0 && n.mainPID != in.proc.pid {
		s.follow(in, n.mainPID)
	}
	if n.hasStatus && n.status != in.view.Status {
		in.view.Status = n.status
		s.tell(in, note{kind: spec.EventStatus, severity: spec.Info, message: "says: " + n.status})
	}
	if n.watchdog > 0 {
		in.pulse = n.watchdog
		n.alive = true
	}
	if n.ready && in.phase == starting {
		took := uptime(now.Sub(in.view.Started))
		s.step(in, evReady, now, note{kind: spec.EventReady, severity: spec.Info, message: fmt.Sprintf("ready after %s", took)})
	}
	if n.alive && in.phase == running && in.heartbeat() > 0 {
		s.timers.set(in, timerWatchdog, now.Add(in.heartbeat()))
	}
	if n.stopping && in.phase == running {
		s.timers.clear(in, timerWatchdog) // it ends by itself: no more duty
	}
	if n.extend > 0 {
		s.extend(in, now.Add(n.extend))
	}
}

// extend gives an instance more time for what it is doing.
func (s *supervisor) extend(in *instance, until time.Time) {
	for _, k := range [...]timerKind{timerReady, timerStop, timerWatchdog} {
		if t := in.timers[k]; t != nil && t.index >= 0 && t.at.Before(until) {
			s.timers.set(in, k, until)
		}
	}
}

// follow switches to the main process that an instance named.
func (s *supervisor) follow(in *instance, pid int) {
	p, err := s.kern.Follow(in.proc, pid, in.marks())
	if err != nil {
		s.log.Warn("ignored a MAINPID", "instance", in.view.ID.String(), "error", err)
		return
	}
	delete(s.procs, in.proc.token)
	s.holdProcess(in, p)
	s.tell(in, note{kind: spec.EventStatus, severity: spec.Info, message: fmt.Sprintf("its main process is %d now", pid)})
	s.planSweep(time.Now())
}

// outputDropped counts output that could not be kept.
func (s *supervisor) outputDropped(now time.Time) {
	for id, n := range s.kern.TakeDropped() {
		in := s.instances[id]
		if in == nil {
			continue
		}
		in.view.DroppedBytes += n
		in.lost += n
		if t := in.timers[timerLost]; t == nil || t.index < 0 {
			s.tellLost(in, now)
		}
	}
}

// tellLost tells of lost output, and not again for a while.
func (s *supervisor) tellLost(in *instance, now time.Time) {
	if in.lost == 0 {
		return
	}
	s.tell(in, note{kind: spec.EventOutputLost, severity: spec.Warning,
		message: fmt.Sprintf("%d bytes of output could not be kept: look for a full disk", in.lost)})
	in.lost = 0
	s.timers.set(in, timerLost, now.Add(lostEvery))
}
