package engine

import (
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/spec"
)

// finding is what checks and guards found out about an instance. It says
// nothing about any other generation than its own.
type finding struct {
	health *health.Finding // nil before the first
	life   spec.Life       // of alarms
	// alarms are those of guards that want a restart, in words.
	alarms map[spec.GuardKind]string
}

// examine puts what is found into an instance. The caller holds v.mu.
func (v *view) examine(inst *spec.Instance) {
	f := v.findings[inst.ID]
	if p := v.processes[inst.ID]; p != nil && inst.Phase.Alive() && len(p.Process.Health) > 0 {
		if h := f.health; h != nil && h.Life == inst.Life() {
			inst.Health, inst.HealthSince, inst.Checks = h.Health, h.Since, h.Checks
			inst.Ailing, inst.Withdrawn = h.Ailing, h.Withdrawn
		} else {
			inst.Health, inst.HealthSince = spec.HealthUnknown, inst.Started
		}
	}
	if f.life != inst.Life() {
		return
	}
	for _, kind := range slices.Sorted(maps.Keys(f.alarms)) {
		if inst.Ailing == "" {
			inst.Ailing = f.alarms[kind]
		}
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

// alarm takes over why a guard wants a generation restarted, "" if it doesn't,
// and returns the instance with it; nil as find does.
func (v *view) alarm(id spec.InstanceID, life spec.Life, kind spec.GuardKind, why string) *spec.Instance {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shown(id, life) == nil {
		return nil
	}
	f := v.findings[id]
	next := map[spec.GuardKind]string{}
	if f.life == life {
		maps.Copy(next, f.alarms)
	}
	if next[kind] = why; why == "" {
		delete(next, kind)
	}
	f.life, f.alarms = life, next
	v.findings[id] = f
	v.dirty[id.Job] = true
	v.bump()
	return v.shown(id, life)
}

// recall takes over what an earlier agent found out about instances of which
// nothing is known yet.
func (v *view) recall(seen []spec.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range seen {
		if f := v.findings[i.ID]; i.Health != "" && f.health == nil && v.shown(i.ID, i.Life()) != nil {
			f.health = &health.Finding{
				Life: i.Life(), Health: i.Health, Since: i.HealthSince, Checks: i.Checks,
				Ailing: i.Ailing, Withdrawn: i.Withdrawn,
			}
			v.findings[i.ID] = f
			v.dirty[i.ID.Job] = true
		}
	}
}
