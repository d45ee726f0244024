package watchdog

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ended handles the end of a process, or a start that failed.
func (lc *lifecycle) ended(in *instance, exit spec.Exit, locked bool, now time.Time) {
	if in.proc != nil {
		delete(lc.byProcess, in.proc.token)
		in.proc = nil
	}
	in.view.PID, in.view.StartTicks, in.view.Lease = 0, 0, ""
	if in.Hook != "" {
		lc.hookEnded(in, exit, locked, now)
		return
	}
	lc.endGeneration(in, exit, locked, now, in.exitNote(exit, now))
}

// conclude decides what comes after a generation, and records that with the
// note on how the generation ended.
func (lc *lifecycle) conclude(in *instance, now time.Time, n note) {
	lc.queue.settled(in)
	in.Hook, in.Old, in.Forking, in.view.BootID = "", nil, false, ""
	exit := in.view.LastExit
	d := decision{event: evDone}
	if in.Phase.judged() {
		end := ending{success: exit.Success() && in.Blame == "", locked: in.locked}
		d = decide(in.launch.Restart, in.History, end, now, seedOf(in.view.ID, in.view.Generation))
		in.History, in.nextAt = d.history, d.at
		n.message += outcome(d, now)
	}
	in.why = d.reason
	if in.Blame != "" && d.event == evGiveUp {
		in.why = in.Blame + "; " + d.reason
	}
	lc.step(in, d.event, now, n)
	in.Blame = ""
	if d.exhausted {
		severity := spec.Warning
		if in.launch.Critical {
			severity = spec.Critical
		}
		lc.journal.record(in, note{kind: spec.EventExhausted, severity: severity, message: d.reason})
	}
}

// exitNote describes an exit: how, and after how long.
func (in *instance) exitNote(exit spec.Exit, now time.Time) note {
	n := note{kind: spec.EventExited, severity: spec.Info}
	switch {
	case exit.Error != "":
		n.kind, n.message = spec.EventStartFailed, exit.Error
	default:
		n.message = fmt.Sprintf("ended with %s after %s", exit, uptime(now.Sub(in.view.Started)))
	}
	if in.Blame != "" {
		n.message += " (" + in.Blame + ")"
	}
	if in.Phase.judged() && (!exit.Success() || in.Blame != "") {
		n.severity = spec.Warning
	}
	return n
}

// outcome says what comes after an end.
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

// uptime rounds a duration for people to read.
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
