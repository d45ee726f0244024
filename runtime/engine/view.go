package engine

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/synergymesh/meshrun/spec"
)

// view is what the node sees: the mirror of the watchdog's table, and over it
// what could not be declared.
type view struct {
	node  string
	holds func(spec.InstanceID) bool // the lock of an exclusive shard is held

	mu      sync.Mutex // guards all below
	jobs    map[string]map[spec.InstanceID]spec.Instance
	pending map[string]map[spec.InstanceID]Pending
	// processes are those of assigned instances, and of what still ends.
	processes map[spec.InstanceID]*process
	settled   bool // processes is what is assigned
	findings  map[spec.InstanceID]finding
	// parting holds, as they were last, the instances that are gone while their
	// lock is still held: told is that they are gone only when others can have it.
	parting map[string]map[spec.InstanceID]spec.Instance
	synced  bool // the mirror follows the watchdog now
	losses  int
	version uint64
	changed chan struct{}   // closed and replaced with every version
	dirty   map[string]bool // jobs to be reported
	urgent  map[string]bool // of those, the ones that others wait for
	all     []spec.Instance // of this version; nil until asked for
}

func newView(node string, holds func(spec.InstanceID) bool) *view {
	return &view{
		node: node, holds: holds, version: 1, changed: make(chan struct{}),
		jobs:    map[string]map[spec.InstanceID]spec.Instance{},
		pending: map[string]map[spec.InstanceID]Pending{},
		parting: map[string]map[spec.InstanceID]spec.Instance{}, findings: map[spec.InstanceID]finding{},
		dirty: map[string]bool{}, urgent: map[string]bool{},
	}
}

// bump tells waiters that something has changed. The caller holds v.mu.
func (v *view) bump() {
	v.version++
	v.all = nil
	close(v.changed)
	v.changed = make(chan struct{})
}

// reset replaces the mirror and returns the instances that are gone. The
// mirror follows from now on, unless it was lost since the given count.
func (v *view) reset(instances []spec.Instance, losses int) (gone []spec.InstanceID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.jobs
	v.jobs = map[string]map[spec.InstanceID]spec.Instance{}
	for _, inst := range instances {
		v.put(inst)
	}
	for job, byID := range old {
		v.dirty[job] = true
		for id := range byID {
			if _, ok := v.jobs[job][id]; !ok {
				gone = append(gone, id)
				v.part(byID[id])
				delete(v.findings, id)
			}
		}
	}
	v.synced = v.losses == losses
	v.bump()
	return gone
}

func (v *view) put(inst spec.Instance) {
	if inst.ID.Job == spec.ReservedJob {
		return
	}
	inst.Node = v.node
	byID := v.jobs[inst.ID.Job]
	if byID == nil {
		byID = map[spec.InstanceID]spec.Instance{}
		v.jobs[inst.ID.Job] = byID
	}
	byID[inst.ID] = inst
	delete(v.parting[inst.ID.Job], inst.ID)
	v.dirty[inst.ID.Job] = true
}

// part keeps what is gone until its lock is released. The caller holds v.mu.
func (v *view) part(inst spec.Instance) {
	if !v.holds(inst.ID) {
		return
	}
	if v.parting[inst.ID.Job] == nil {
		v.parting[inst.ID.Job] = map[spec.InstanceID]spec.Instance{}
	}
	v.parting[inst.ID.Job][inst.ID] = inst
}

// parted notes that locks are no longer held, and reports whether somebody may
// have waited for one of them.
func (v *view) parted(ids []spec.InstanceID) (moved bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if _, ok := v.parting[id.Job][id]; !ok {
			continue
		}
		delete(v.parting[id.Job], id)
		if len(v.parting[id.Job]) == 0 {
			delete(v.parting, id.Job)
		}
		v.dirty[id.Job], v.urgent[id.Job], moved = true, true, true
	}
	if moved {
		v.bump()
	}
	return moved
}

// apply takes one event over and reports whether an instance is gone.
func (v *view) apply(ev *spec.Event) (gone bool) {
	if ev.Instance == nil || ev.Instance.ID.Job == spec.ReservedJob {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	id := ev.Instance.ID
	if ev.Type == spec.EventRemoved {
		if was, ok := v.jobs[id.Job][id]; ok {
			v.part(was)
		}
		delete(v.jobs[id.Job], id)
		delete(v.findings, id)
		if len(v.jobs[id.Job]) == 0 {
			delete(v.jobs, id.Job)
		}
		v.dirty[id.Job] = true
		gone = true
	} else {
		v.put(*ev.Instance)
	}
	v.bump()
	return gone
}

// lose notes that the mirror no longer follows.
func (v *view) lose() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.synced = false
	v.losses++
}

// lost counts how often the mirror was lost.
func (v *view) lost() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.losses
}

// running returns the mirror, or false while it does not follow.
func (v *view) running() ([]spec.Instance, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.synced {
		return nil, false
	}
	var out []spec.Instance
	for _, byID := range v.jobs {
		out = slices.AppendSeq(out, maps.Values(byID))
	}
	return out, true
}

// setPending replaces what could not be declared and why. What could not until
// now, and is declared, stays pending until the watchdog tells of it: it isn't
// gone in between.
func (v *view) setPending(pending map[spec.InstanceID]Pending, declared []Wanted) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := map[string]map[spec.InstanceID]Pending{}
	add := func(id spec.InstanceID, p Pending) {
		if next[id.Job] == nil {
			next[id.Job] = map[spec.InstanceID]Pending{}
		}
		next[id.Job][id] = p
	}
	for id, p := range pending {
		add(id, p)
	}
	for _, w := range declared {
		if _, waited := v.pending[w.ID.Job][w.ID]; waited {
			add(w.ID, Pending{})
		}
	}
	same := true
	for _, jobs := range []map[string]map[spec.InstanceID]Pending{v.pending, next} {
		for job := range jobs {
			if !maps.Equal(v.pending[job], next[job]) {
				v.dirty[job], same = true, false
			}
		}
	}
	v.pending = next
	if !same {
		v.bump()
	}
}

// keptAsItIs begins the reason of what goes on, since what it shall be cannot.
const keptAsItIs = "kept as it is: "

// ofJob returns what is seen of a job, sorted. The caller holds v.mu.
func (v *view) ofJob(job string) []spec.Instance {
	out := make([]spec.Instance, 0, len(v.jobs[job])+len(v.pending[job]))
	for id, inst := range v.jobs[job] {
		if p, ok := v.pending[job][id]; ok && p.Reason != "" && inst.Reason == "" {
			inst.Reason = keptAsItIs + p.Reason
		}
		if p, ok := v.pending[job][id]; ok && p.Failed {
			inst.Refused = p.Version
		}
		v.examine(&inst)
		inst.Services = inst.Endpoints(v.processes[id].services())
		out = append(out, inst)
	}
	for id, inst := range v.parting[job] {
		if _, ok := v.pending[job][id]; !ok {
			out = append(out, inst)
		}
	}
	for id, p := range v.pending[job] {
		if _, ok := v.jobs[job][id]; ok {
			continue
		}
		phase := spec.PhasePending
		if p.Failed {
			phase = spec.PhaseFailed
		}
		inst := spec.Instance{ID: id, Node: v.node, Phase: phase, Reason: p.Reason}
		if p.Failed {
			inst.Refused = p.Version
		}
		inst.Services = inst.Endpoints(v.processes[id].services())
		out = append(out, inst)
	}
	slices.SortFunc(out, func(a, b spec.Instance) int { return a.ID.Compare(b.ID) })
	return out
}

// takeDirty returns the jobs to be reported and forgets them, and calls urgent
// for those that must not wait; false until the table has been read once, and
// compared with what is assigned: who has checks must not look healthy before.
func (v *view) takeDirty(into map[string]bool, urgent func(job string)) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.settled || (!v.synced && len(v.jobs) == 0) {
		return false
	}
	maps.Copy(into, v.dirty)
	for job := range v.urgent {
		urgent(job)
	}
	clear(v.dirty)
	clear(v.urgent)
	return true
}

// soil makes every job one to be reported.
func (v *view) soil() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for job := range v.jobs {
		v.dirty[job] = true
	}
	for job := range v.pending {
		v.dirty[job] = true
	}
}

// observed returns what is to be reported of a job.
func (v *view) observed(job string) spec.Observed {
	v.mu.Lock()
	defer v.mu.Unlock()
	return spec.Observed{Job: job, Node: v.node, Instances: v.ofJob(job)}
}

// snapshot returns all instances of this version. The caller holds v.mu and
// must not change them.
func (v *view) snapshot() []spec.Instance {
	if v.all == nil {
		names := map[string]bool{}
		for job := range v.jobs {
			names[job] = true
		}
		for job := range v.pending {
			names[job] = true
		}
		for job := range v.parting {
			names[job] = true
		}
		v.all = []spec.Instance{}
		for _, job := range slices.Sorted(maps.Keys(names)) {
			v.all = append(v.all, v.ofJob(job)...)
		}
	}
	return v.all
}

// wait blocks until there is a version after the given one.
func (v *view) wait(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	for {
		v.mu.Lock()
		if v.version > after {
			defer v.mu.Unlock()
			return slices.Clone(v.snapshot()), v.version, nil
		}
		changed := v.changed
		v.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, after, ctx.Err()
		case <-changed:
		}
	}
}

// ports returns the ports of every instance in the mirror.
func (v *view) ports() map[spec.InstanceID]map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[spec.InstanceID]map[string]int{}
	for _, byID := range v.jobs {
		for id, inst := range byID {
			if len(inst.Ports) > 0 {
				out[id] = inst.Ports
			}
		}
	}
	return out
}

// has reports whether the mirror holds an instance.
func (v *view) has(id spec.InstanceID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.jobs[id.Job][id]
	return ok
}

// waitSettled blocks until setServices was called.
func (v *view) waitSettled(ctx context.Context) error {
	return v.waitFor(ctx, func() bool { return v.settled })
}

// waitSynced blocks until the mirror follows the watchdog.
func (v *view) waitSynced(ctx context.Context) error {
	return v.waitFor(ctx, func() bool { return v.synced })
}

// waitFor blocks until something holds, which is asked with v.mu held.
func (v *view) waitFor(ctx context.Context, holds func() bool) error {
	for {
		v.mu.Lock()
		done, changed := holds(), v.changed
		v.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
