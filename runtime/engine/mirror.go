package engine

import (
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// byJob holds something of instances, by job.
type byJob[T any] map[string]map[spec.InstanceID]T

func (m byJob[T]) get(id spec.InstanceID) (T, bool) {
	v, ok := m[id.Job][id]
	return v, ok
}

func (m byJob[T]) set(id spec.InstanceID, v T) {
	if m[id.Job] == nil {
		m[id.Job] = map[spec.InstanceID]T{}
	}
	m[id.Job][id] = v
}

func (m byJob[T]) delete(id spec.InstanceID) {
	delete(m[id.Job], id)
	if len(m[id.Job]) == 0 {
		delete(m, id.Job)
	}
}

// mirror is a copy of the watchdog's table, kept up to date by events. view owns
// it and guards it.
type mirror struct {
	node  string
	locks *locks

	running byJob[spec.Instance]
	// locked holds removed instances whose shard lock this node still holds, as
	// they were last. They are reported until another node can have the lock.
	locked byJob[spec.Instance]
	// synced is set while running is what the watchdog has; losses counts how
	// often it no longer was.
	synced bool
	losses int
}

// replace takes over a table that was read when losses was the given number, and
// returns the instances that it no longer has.
func (m *mirror) replace(table []spec.Instance, losses int) (removed []spec.InstanceID) {
	old := m.running
	m.running = byJob[spec.Instance]{}
	for _, inst := range table {
		m.set(inst)
	}
	for _, instances := range old {
		for id, inst := range instances {
			if _, ok := m.running.get(id); !ok {
				removed = append(removed, id)
				m.keepLocked(inst)
			}
		}
	}
	m.synced = m.losses == losses
	return removed
}

func (m *mirror) set(inst spec.Instance) {
	if inst.ID.Job == spec.ReservedJob {
		return
	}
	inst.Node = m.node
	m.running.set(inst.ID, inst)
	m.locked.delete(inst.ID)
}

func (m *mirror) remove(id spec.InstanceID) {
	if inst, ok := m.running.get(id); ok {
		m.keepLocked(inst)
	}
	m.running.delete(id)
}

// keepLocked keeps a removed instance until its lock is released.
func (m *mirror) keepLocked(inst spec.Instance) {
	if m.locks.holds(inst.ID) {
		m.locked.set(inst.ID, inst)
	}
}

// unlocked says that the lock of an instance is no longer held, and reports
// whether the instance was kept for that.
func (m *mirror) unlocked(id spec.InstanceID) bool {
	_, kept := m.locked.get(id)
	m.locked.delete(id)
	return kept
}

// unsync says that events are missing.
func (m *mirror) unsync() {
	m.synced = false
	m.losses++
}

// all returns the running instances, in no order.
func (m *mirror) all() (out []spec.Instance) {
	for _, instances := range m.running {
		out = slices.AppendSeq(out, maps.Values(instances))
	}
	return out
}
