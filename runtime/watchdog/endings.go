package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ended handles the end of a process, or a start that failed.
func (s *supervisor) ended(in *instance, exit spec.Exit, locked bool, now time.Time) {
	if in.proc != nil {
		delete(s.procs, in.proc.token)
		in.proc = nil
	}
	in.view.PID, in.view.StartTicks, in.view.Lease = 0, 0, ""
	if in.hook != "" {
		s.hookEnded(in, exit, locked, now)
		return
	}
	s.over(in, exit, locked, now, s.exitNote(in, exit, now))
}

// judge decides what follows a generation, and tells that with a note on how
// it ended.
func (s *supervisor) judge(in *instance, now time.Time, n note) {
	delete(s.between, in)
	in.hook, in.old, in.forking, in.view.BootID = "", nil, false, ""
	exit := in.view.LastExit
	d := decision{event: evDone}
	if in.phase.judged() {
		end := ending{success: exit.Success() && in.blame == "", locked: in.locked}
		d = decide(in.launch.Restart, in.history, end, now, seedOf(in.view.ID, in.view.Generation))
		in.history, in.nextAt = d.history, d.at
		n.message += outcome(d, now)
	}
	in.why = d.reason
	if in.blame != "" && d.event == evGiveUp {
		in.why = in.blame + "; " + d.reason
	}
	s.step(in, d.event, now, n)
	in.blame = ""
	if d.exhausted {
		severity := spec.Warning
		if in.launch.Critical {
			severity = spec.Critical
		}
		s.tell(in, note{kind: spec.EventExhausted, severity: severity, message: d.reason})
	}
}

// exitNote tells an exit in words: what, and after how long.
func (s *supervisor) exitNote(in *instance, exit spec.Exit, now time.Time) note {
	n := note{kind: spec.EventExited, severity: spec.Info}
	switch {
	case exit.Error != "":
		n.kind, n.message = spec.EventStartFailed, exit.Error
	default:
		n.message = fmt.Sprintf("ended with %s after %s", exit, uptime(now.Sub(in.view.Started)))
	}
	if in.blame != "" {
		n.message += " (" + in.blame + ")"
	}
	if in.phase.judged() && (!exit.Success() || in.blame != "") {
		n.severity = spec.Warning
	}
	return n
}

// outcome tells what follows an end.
func outcome(d decision, now time.Time) string {
	switch d.event {
	case evRetry:
		wait := d.at.Sub(now)
		if wait <= 0 {
			return "; starts again"
		}
		return "; starts again in " + uptime(wait).String()
	case evGiveUp:
		return "; stays down: " + d.reason
	}
	return ""
}

// uptime rounds a duration to what a person wants to read.
func uptime(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < time.Minute:
		return d.Round(100 * time.Millisecond)
	default:
		return d.Round(time.Second)
	}
}
