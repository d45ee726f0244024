package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// upView tells what becomes of instances, between the lines that they print.
type upView struct {
	term  *terminal
	print *logPrinter

	mu   sync.Mutex // guards seen, and keeps what is told in order
	seen map[spec.InstanceID]spec.Instance
}

func newUpView(term *terminal, print *logPrinter) *upView {
	return &upView{term: term, print: print, seen: map[spec.InstanceID]spec.Instance{}}
}

// show tells what has changed since the last call.
func (v *upView) show(list []spec.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
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

// tell tells of one instance what is worth telling: not that it is about to
// start or to stop, for the next line says that it has.
func (v *upView) tell(i *spec.Instance, now time.Time) {
	text := upText(i, now)
	if text == "" {
		return
	}
	s := v.term.errStyle
	line := phaseMark(i.Phase) + " " + text
	if i.Phase == "" {
		line = s.dim(line)
	} else {
		line = s.phase(i.Phase, line)
	}
	if i.Phase == spec.PhaseFailed {
		line += s.dim(fmt.Sprintf("   look at: meshrun logs %s", i.ID))
	}
	v.term.say("%s%s", v.print.prefix(i.ID, s), line)
}

// upText tells what has become of an instance; "" if there is nothing to tell.
func upText(i *spec.Instance, now time.Time) string {
	known := what(i, now)
	switch i.Phase {
	case "":
		return "stopped"
	case spec.PhaseStarting, spec.PhaseStopping:
		return ""
	case spec.PhasePending:
		return known
	case spec.PhaseRunning:
		text := fmt.Sprintf("running, pid %d", i.PID)
		if i.Restarts > 0 && i.LastExit != nil {
			text = fmt.Sprintf("running again, pid %d (was: %s)", i.PID, i.LastExit)
		}
		if p := portsText(i.Ports); p != "" {
			text += ", port " + p
		}
		return text
	case spec.PhaseCompleted:
		if i.LastExit != nil {
			return "completed: " + i.LastExit.String()
		}
		return "completed"
	case spec.PhaseBackoff:
		return known
	default:
		return string(i.Phase) + ": " + known
	}
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
