package engine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/spec"
)

// findings is what checks and guards found out about instances. view owns it and
// guards it.
type findings map[spec.InstanceID]finding

// finding says nothing about any other generation than its own.
type finding struct {
	health *health.Finding // nil before the first
	alarms map[spec.GuardKind]alarm
}

// alarm is what a guard found about a generation of an instance.
type alarm struct {
	spec.GuardFinding
	life spec.Life
}

// of reports whether the alarm is about a generation: that an instance is down
// for too long lasts from one to the next.
func (a alarm) of(life spec.Life) bool { return a.life == life || a.Guard.Name == spec.GuardAbsent }

// addTo adds what was found to an instance of a process, nil for none.
func (fs findings) addTo(inst *spec.Instance, p *process) {
	f := fs[inst.ID]
	if p != nil && inst.Phase.Alive() && len(p.Process.Health) > 0 {
		if h := f.health; h != nil && h.Life == inst.Life() {
			inst.Health, inst.HealthSince, inst.Checks = h.Health, h.Since, h.Checks
			inst.RestartCause, inst.Withdrawn = h.RestartCause, h.Withdrawn
		} else {
			inst.Health, inst.HealthSince = spec.HealthUnknown, inst.Started
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(f.alarms)) {
		a := f.alarms[kind]
		if !a.of(inst.Life()) || !p.guardedBy(a.Guard) {
			continue
		}
		if a.Guard.Action == spec.GuardRestart && inst.RestartCause == "" {
			inst.RestartCause = fmt.Sprintf("its guard %q: %s", kind, a.Found())
		}
		inst.GuardFindings = append(inst.GuardFindings, a.GuardFinding)
		inst.Alerts = append(inst.Alerts, fmt.Sprintf("guard %q: %s", kind, &a.GuardFinding))
	}
}

// setHealth records what checks found, and returns what they had found before.
func (fs findings) setHealth(id spec.InstanceID, found *health.Finding) (before *health.Finding) {
	f := fs[id]
	before, f.health = f.health, found
	fs[id] = f
	return before
}

// setAlarm records what a guard found.
func (fs findings) setAlarm(id spec.InstanceID, a alarm) {
	f := fs[id]
	if f.alarms == nil {
		f.alarms = map[spec.GuardKind]alarm{}
	}
	f.alarms[a.Guard.Name] = a
	fs[id] = f
}

// pruneAlarms deletes the alarms of guards that processes no longer have, and
// returns the jobs that had any.
func (fs findings) pruneAlarms(processes map[spec.InstanceID]*process) (jobs []string) {
	for id, f := range fs {
		for kind, a := range f.alarms {
			if !processes[id].guardedBy(a.Guard) {
				delete(f.alarms, kind)
				jobs = append(jobs, id.Job)
			}
		}
	}
	return jobs
}

// restore records what an earlier agent reported of an instance that is seen now,
// unless something has been found since, and reports whether there was anything.
func (fs findings) restore(reported, now *spec.Instance, p *process) (any bool) {
	f := fs[now.ID]
	if f.alarms == nil {
		for _, g := range reported.GuardFindings {
			if a := (alarm{g, reported.Life()}); p.guardedBy(g.Guard) && a.of(now.Life()) {
				fs.setAlarm(now.ID, a)
				any = true
			}
		}
	}
	if f.health == nil && reported.Health != "" && reported.Life() == now.Life() {
		fs.setHealth(now.ID, &health.Finding{
			Life: now.Life(), Health: reported.Health, Since: reported.HealthSince, Checks: reported.Checks,
			RestartCause: reported.RestartCause, Withdrawn: reported.Withdrawn,
		})
		any = true
	}
	return any
}
