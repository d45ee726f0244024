package engine

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/spec"
)

// view is what the node shows and reports: the watchdog's instances, with what
// checks and guards found about them, and the assigned ones that could not be
// declared.
type view struct {
	node string

	mu       sync.Mutex // guards all below
	mirror   mirror
	findings findings
	pending  byJob[Pending]
	// processes are those of assigned instances, and of what still ends.
	processes map[spec.InstanceID]*process
	settled   bool // processes is what is assigned
	version   uint64
	changed   chan struct{}   // closed and replaced with every version
	dirty     map[string]bool // jobs to be reported
	urgent    map[string]bool // of those, the ones that others wait for
	all       []spec.Instance // of this version; nil until asked for
}

func newView(node string, locks *locks) *view {
	return &view{
		node: node, version: 1, changed: make(chan struct{}),
		mirror:   mirror{node: node, locks: locks, running: byJob[spec.Instance]{}, locked: byJob[spec.Instance]{}},
		findings: findings{}, pending: byJob[Pending]{},
		dirty: map[string]bool{}, urgent: map[string]bool{},
	}
}

// bump makes a new version, in which jobs have changed. The caller holds v.mu.
func (v *view) bump(jobs ...string) {
	for _, job := range jobs {
		v.dirty[job] = true
	}
	v.version++
	v.all = nil
	close(v.changed)
	v.changed = make(chan struct{})
}

// reset replaces the mirror by a table that was read when syncLosses was the given
// number, and returns the instances that are gone.
func (v *view) reset(table []spec.Instance, losses int) (removed []spec.InstanceID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	jobs := slices.Collect(maps.Keys(v.mirror.running))
	removed = v.mirror.replace(table, losses)
	for _, id := range removed {
		delete(v.findings, id)
	}
	v.bump(slices.AppendSeq(jobs, maps.Keys(v.mirror.running))...)
	return removed
}

// apply applies one event, and reports whether an instance is gone.
func (v *view) apply(ev *spec.Event) (removed bool) {
	if ev.Instance == nil || ev.Instance.ID.Job == spec.ReservedJob {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	id := ev.Instance.ID
	if removed = ev.Type == spec.EventRemoved; removed {
		v.mirror.remove(id)
		delete(v.findings, id)
	} else {
		v.mirror.set(*ev.Instance)
	}
	v.bump(id.Job)
	return removed
}

// unlocked says which locks are no longer held, and reports whether another node
// may have waited for one of them.
func (v *view) unlocked(ids []spec.InstanceID) (urgent bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if v.mirror.unlocked(id) {
			v.urgent[id.Job], urgent = true, true
			v.bump(id.Job)
		}
	}
	return urgent
}

// unsync says that events are missing.
func (v *view) unsync() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mirror.unsync()
}

// syncLosses counts how often events were missing.
func (v *view) syncLosses() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mirror.losses
}

// running returns the watchdog's instances, or false while they are not known.
func (v *view) running() ([]spec.Instance, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.mirror.synced {
		return nil, false
	}
	return v.mirror.all(), true
}

// has reports whether the watchdog has an instance.
func (v *view) has(id spec.InstanceID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.mirror.running.get(id)
	return ok
}

// setPending replaces what could not be declared and why. An instance that was
// pending and is declared now stays pending until the watchdog reports it, so
// that it is not gone in between.
func (v *view) setPending(pending map[spec.InstanceID]Pending, declared []Wanted) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := byJob[Pending]{}
	for id, p := range pending {
		next.set(id, p)
	}
	for _, w := range declared {
		if _, waited := v.pending.get(w.ID); waited {
			next.set(w.ID, Pending{})
		}
	}
	var changed []string
	for _, jobs := range []byJob[Pending]{v.pending, next} {
		for job := range jobs {
			if !maps.Equal(v.pending[job], next[job]) {
				changed = append(changed, job)
			}
		}
	}
	v.pending = next
	if len(changed) > 0 {
		v.bump(changed...)
	}
}

// setProcesses replaces the processes of what is assigned. What is assigned no
// more keeps its own until it is gone.
func (v *view) setProcesses(next map[spec.InstanceID]*process) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, p := range v.processes {
		_, assigned := next[id]
		if _, runs := v.mirror.running.get(id); runs && !assigned {
			next[id] = p
		}
	}
	changed := v.findings.pruneAlarms(next)
	for _, processes := range []map[spec.InstanceID]*process{v.processes, next} {
		for id := range processes {
			if !shownAlike(v.processes[id], next[id]) {
				changed = append(changed, id.Job)
			}
		}
	}
	if !v.settled || len(changed) > 0 {
		v.bump(changed...)
	}
	v.processes, v.settled = next, true
}

// shownAlike reports whether instances of two processes, nil for none, are
// shown in the same way.
func shownAlike(a, b *process) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.Process.Services, b.Process.Services) && reflect.DeepEqual(a.Process.Health, b.Process.Health)
}

// restore records what an earlier agent reported of instances.
func (v *view) restore(reported []spec.Instance, processes map[spec.InstanceID]*process) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range reported {
		inst, ok := v.mirror.running.get(reported[i].ID)
		if ok && v.findings.restore(&reported[i], &inst, processes[inst.ID]) {
			v.dirty[inst.ID.Job] = true
		}
	}
}

// setHealth records what the checks of an instance found, and returns what they
// found before and the instance; nil if it is gone or in another generation.
func (v *view) setHealth(id spec.InstanceID, found health.Finding) (before *health.Finding, inst *spec.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	seen, ok := v.mirror.running.get(id)
	if !ok || seen.Life() != found.Life {
		return nil, nil
	}
	before = v.findings.setHealth(id, &found)
	v.bump(id.Job)
	v.complete(&seen)
	return before, &seen
}

// health returns what checks found out about an instance; nil if nothing yet.
func (v *view) health(id spec.InstanceID) *health.Finding {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.findings[id].health
}

// setAlarm records that a guard is over its bound, or no more, and returns the
// instance; nil if it is gone or in another generation.
func (v *view) setAlarm(id spec.InstanceID, a alarm, over bool) *spec.Instance {
	v.mu.Lock()
	defer v.mu.Unlock()
	inst, ok := v.mirror.running.get(id)
	if !ok || !a.of(inst.Life()) {
		return nil
	}
	if over {
		v.findings.setAlarm(id, a)
	} else {
		delete(v.findings[id].alarms, a.Guard.Name)
	}
	v.bump(id.Job)
	v.complete(&inst)
	return &inst
}

// alarms returns what guards found about a generation.
func (v *view) alarms(id spec.InstanceID, life spec.Life) (out []spec.GuardFinding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, a := range v.findings[id].alarms {
		if a.of(life) {
			out = append(out, a.GuardFinding)
		}
	}
	return out
}

// complete adds to an instance of the watchdog what the watchdog does not know.
// The caller holds v.mu.
func (v *view) complete(inst *spec.Instance) {
	p := v.processes[inst.ID]
	v.findings.addTo(inst, p)
	inst.Services = inst.Endpoints(p.services())
}

// keptAsItIs begins the reason of what goes on, since what it shall be cannot.
const keptAsItIs = "kept as it is: "

// ofJob returns what is seen of a job, sorted. The caller holds v.mu.
func (v *view) ofJob(job string) []spec.Instance {
	out := make([]spec.Instance, 0, len(v.mirror.running[job])+len(v.pending[job]))
	for id, inst := range v.mirror.running[job] {
		p := v.pending[job][id]
		if p.Reason != "" && inst.Reason == "" {
			inst.Reason = keptAsItIs + p.Reason
		}
		if p.Failed {
			inst.Refused = p.Version
		}
		v.complete(&inst)
		out = append(out, inst)
	}
	for id, inst := range v.mirror.locked[job] {
		if _, ok := v.pending[job][id]; !ok {
			out = append(out, inst)
		}
	}
	for id, p := range v.pending[job] {
		if _, ok := v.mirror.running[job][id]; ok {
			continue
		}
		inst := spec.Instance{ID: id, Node: v.node, Phase: spec.PhasePending, Reason: p.Reason}
		if p.Failed {
			inst.Phase, inst.Refused = spec.PhaseFailed, p.Version
		}
		inst.Services = inst.Endpoints(v.processes[id].services())
		out = append(out, inst)
	}
	slices.SortFunc(out, func(a, b spec.Instance) int { return a.ID.Compare(b.ID) })
	return out
}

// takeDirty moves the jobs to be reported into a set, and calls urgent for those
// that must not wait. It returns false until the table has been read once and
// compared with what is assigned: an instance with checks must not look healthy
// before that.
func (v *view) takeDirty(into map[string]bool, urgent func(job string)) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.settled || (!v.mirror.synced && len(v.mirror.running) == 0) {
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

// markAll makes every job one to be reported.
func (v *view) markAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.Copy(v.dirty, v.jobs())
}

// observed returns what is to be reported of a job.
func (v *view) observed(job string) spec.Observed {
	v.mu.Lock()
	defer v.mu.Unlock()
	return spec.Observed{Job: job, Node: v.node, Instances: v.ofJob(job)}
}

// jobs returns the names of all jobs of which something is seen. The caller holds
// v.mu.
func (v *view) jobs() map[string]bool {
	names := map[string]bool{}
	for _, instances := range []byJob[spec.Instance]{v.mirror.running, v.mirror.locked} {
		for job := range instances {
			names[job] = true
		}
	}
	for job := range v.pending {
		names[job] = true
	}
	return names
}

// wait blocks until there is a version after the given one, and returns all
// instances of it.
func (v *view) wait(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	if err := v.waitFor(ctx, func() bool { return v.version > after }); err != nil {
		return nil, after, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all == nil {
		v.all = []spec.Instance{}
		for _, job := range slices.Sorted(maps.Keys(v.jobs())) {
			v.all = append(v.all, v.ofJob(job)...)
		}
	}
	return slices.Clone(v.all), v.version, nil
}

// isSettled reports whether setProcesses was called.
func (v *view) isSettled() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.settled
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
