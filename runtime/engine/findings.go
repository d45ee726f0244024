package engine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/spec"
)

// finding is what checks and guards found out about an instance. It says
// nothing about any other generation than its own.
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

// examine puts what is found into an instance. The caller holds v.mu.
func (v *view) examine(inst *spec.Instance) {
	f := v.findings[inst.ID]
	if p := v.processes[inst.ID]; p != nil && inst.Phase.Alive() && len(p.Process.Health) > 0 {
		if h := f.health; h != nil && h.Life == inst.Life() {
			inst.Health, inst.HealthSince, inst.Checks = h.Health, h.Since, h.Checks
			inst.RestartCause, inst.Withdrawn = h.RestartCause, h.Withdrawn
		} else {
			inst.Health, inst.HealthSince = spec.HealthUnknown, inst.Started
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(f.alarms)) {
		a := f.alarms[kind]
		if !a.of(inst.Life()) || !v.processes[inst.ID].guardedBy(a.Guard) {
			continue
		}
		if a.Guard.Action == spec.GuardRestart && inst.RestartCause == "" {
			inst.RestartCause = fmt.Sprintf("its guard %q: %s", kind, a.Found())
		}
		inst.GuardFindings = append(inst.GuardFindings, a.GuardFinding)
		inst.Alerts = append(inst.Alerts, fmt.Sprintf("guard %q: %s", kind, &a.GuardFinding))
	}
}

// shown returns an instance as it is shown; nil if it is gone or in another
// generation. The caller holds v.mu.
func (v *view) shown(id spec.InstanceID, life spec.Life) *spec.Instance {
	inst, ok := v.jobs[id.Job][id]
	if !ok || inst.Life() != life {
		return nil
	}
	v.examine(&inst)
	inst.Services = inst.Endpoints(v.processes[id].services())
	return &inst
}

// find takes over what the checks of an instance say, and returns what they
// said before and the instance with it; nil if it is gone or in another
// generation, about which nothing is said.
func (v *view) find(id spec.InstanceID, found health.Finding) (before *health.Finding, inst *spec.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shown(id, found.Life) == nil {
		return nil, nil
	}
	f := v.findings[id]
	before, f.health = f.health, &found
	v.findings[id] = f
	v.dirty[id.Job] = true
	v.bump()
	return before, v.shown(id, found.Life)
}

// healthOf returns what was found out about an instance; nil if nothing was.
func (v *view) healthOf(id spec.InstanceID) *health.Finding {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.findings[id].health
}

// alarm takes over that a guard is over its bound, or no more, and returns the
// instance with it; nil as find does.
func (v *view) alarm(id spec.InstanceID, a alarm, over bool) *spec.Instance {
	v.mu.Lock()
	defer v.mu.Unlock()
	inst, ok := v.jobs[id.Job][id]
	if !ok || !a.of(inst.Life()) {
		return nil
	}
	f := v.findings[id]
	if f.alarms == nil {
		f.alarms = map[spec.GuardKind]alarm{}
	}
	if f.alarms[a.Guard.Name] = a; !over {
		delete(f.alarms, a.Guard.Name)
	}
	v.findings[id] = f
	v.dirty[id.Job] = true
	v.bump()
	return v.shown(id, inst.Life())
}

// hush forgets the alarms of guards that are no longer what they were, and
// reports whether there were any. The caller holds v.mu.
func (v *view) hush() (some bool) {
	for id, f := range v.findings {
		for kind, a := range f.alarms {
			if !v.processes[id].guardedBy(a.Guard) {
				delete(f.alarms, kind)
				v.dirty[id.Job], some = true, true
			}
		}
	}
	return some
}

// recall takes over what an earlier agent found out about instances of which
// nothing is known yet.
func (v *view) recall(seen []spec.Instance, processes map[spec.InstanceID]*process) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range seen {
		if len(i.GuardFindings) > 0 {
			v.recallAlarms(&i, processes[i.ID])
		}
		if f := v.findings[i.ID]; i.Health != "" && f.health == nil && v.shown(i.ID, i.Life()) != nil {
			f.health = &health.Finding{
				Life: i.Life(), Health: i.Health, Since: i.HealthSince, Checks: i.Checks,
				RestartCause: i.RestartCause, Withdrawn: i.Withdrawn,
			}
			v.findings[i.ID] = f
			v.dirty[i.ID.Job] = true
		}
	}
}

// recallAlarms takes over the alerts of an instance, of guards that are as they
// were then. The caller holds v.mu.
func (v *view) recallAlarms(seen *spec.Instance, p *process) {
	inst, there := v.jobs[seen.ID.Job][seen.ID]
	f := v.findings[seen.ID]
	if !there || f.alarms != nil {
		return
	}
	for _, alert := range seen.GuardFindings {
		if a := (alarm{alert, seen.Life()}); p.guardedBy(alert.Guard) && a.of(inst.Life()) {
			if f.alarms == nil {
				f.alarms = map[spec.GuardKind]alarm{}
			}
			f.alarms[alert.Guard.Name] = a
		}
	}
	v.findings[seen.ID] = f
	v.dirty[seen.ID.Job] = true
}

// alerts returns what guards found about a generation.
func (v *view) alerts(id spec.InstanceID, life spec.Life) (out []spec.GuardFinding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, a := range v.findings[id].alarms {
		if a.of(life) {
			out = append(out, a.GuardFinding)
		}
	}
	return out
}
