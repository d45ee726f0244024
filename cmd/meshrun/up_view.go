package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// upView tells what becomes of instances, between the lines that they print.
type upView struct {
	term  *terminal
	print *logPrinter
	seen  map[spec.InstanceID]spec.Instance
}

func newUpView(term *terminal, print *logPrinter) *upView {
	return &upView{term: term, print: print, seen: map[spec.InstanceID]spec.Instance{}}
}

// show tells what has changed since the last call.
func (v *upView) show(list []spec.Instance) {
	now := v.term.now()
	there := make(map[spec.InstanceID]bool, len(list))
	var changed []spec.Instance
	for _, i := range list {
		there[i.ID] = true
		before, known := v.seen[i.ID]
		if !known || before.Phase != i.Phase || (before.Generation != i.Generation && i.Phase == spec.PhaseRunning) {
			changed = append(changed, i)
		}
		v.seen[i.ID] = i
	}
	for id, i := range v.seen {
		if !there[id] {
			delete(v.seen, id)
			if !isDown(i.Phase) {
				i.Phase = ""
				changed = append(changed, i)
			}
		}
	}
	if len(changed) > maxShown {
		v.sum(changed, list)
	}
	for n := range changed {
		if len(changed) <= maxShown || changed[n].Phase == spec.PhaseFailed {
			v.tell(&changed[n], now)
		}
	}
}

// tell tells of one instance.
func (v *upView) tell(i *spec.Instance, now time.Time) {
	if i.Phase == spec.PhaseStarting {
		return // it is told once it runs, or has failed to
	}
	s := v.term.errStyle
	mark, text := phaseMark(i.Phase), ""
	switch i.Phase {
	case "":
		text = "stopped"
	case spec.PhaseRunning:
		text = fmt.Sprintf("running, pid %d", i.PID)
		if p := portsText(i.Ports); p != "" {
			text += ", port " + p
		}
		if i.Generation > 1 && i.LastExit != nil && i.Restarts > 0 {
			text = "running again, pid " + fmt.Sprint(i.PID) + " (was " + i.LastExit.String() + ")"
		}
	case spec.PhasePending:
		text = "waits"
		if w := what(i, now); w != "" {
			text += ": " + w
		}
	default:
		text = string(i.Phase)
		if w := what(i, now); w != "" {
			text += ": " + w
		}
	}
	line := s.phase(i.Phase, mark+" "+text)
	if i.Phase == "" {
		line = s.dim(mark + " " + text)
	}
	if i.Phase == spec.PhaseFailed {
		line += s.dim(fmt.Sprintf("   look at: meshrun logs %s", i.ID))
	}
	v.term.say("%s%s", v.print.prefix(i.ID, s), line)
}

func phaseMark(p spec.Phase) string {
	switch p {
	case spec.PhaseRunning:
		return "●"
	case spec.PhaseCompleted:
		return "✔"
	case spec.PhaseFailed:
		return "✖"
	case spec.PhaseBackoff:
		return "↻"
	case spec.PhasePending:
		return "○"
	default:
		return "■"
	}
}

// sum tells of many instances in one line.
func (v *upView) sum(changed, all []spec.Instance) {
	text := healthText(all, v.term.errStyle)
	if text == "" {
		text = v.term.errStyle.dim("none left")
	}
	v.term.say("%s %s", v.term.errStyle.dim(strings.Repeat("─", 2)), fmt.Sprintf("%d changed: %s", len(changed), text))
}
