package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// maxFollowed bounds the shards of a dependency whose restarts are followed by
// the dependents': what is remembered of them has to fit into an assignment.
const maxFollowed = 256

// Other is what is known of a job on which another one depends.
type Other struct {
	Job       *spec.JobVersion
	Placement *spec.Placement
	Observed  map[string]spec.Observed
	// Unsure is set if some of it can't be read: nobody is started for it, and
	// nobody stopped.
	Unsure bool
}

// on returns the job that a dependency is on, and the name of the process there.
func (r *rollout) on(d spec.Dependency) (*rollout, string) {
	job, process := d.Of(r.job)
	if job == r.job {
		return r, process
	}
	if r.far[job] == nil {
		o := r.Others[job]
		if o.Placement == nil {
			o.Placement = &spec.Placement{}
		}
		far := newRollout(Snapshot{Job: o.Job, Placement: o.Placement, Live: r.Live, Observed: o.Observed})
		far.job, far.foreign, far.unsure = job, true, o.Unsure
		far.want()
		r.far[job] = far
	}
	return r.far[job], process
}

// failed reports whether a dependency has failed: none of its shards that shall
// run is as far as the condition demands, in whichever version, and wherever.
func (r *rollout) failed(d spec.Dependency) bool {
	if failed, known := r.failures[d]; known {
		return failed
	}
	on, name := r.on(d)
	r.failures[d] = !on.unsure && !on.stands(name, d.Condition)
	return r.failures[d]
}

// stands reports whether a shard of a process that shall run is as far as a
// condition demands.
func (r *rollout) stands(name string, c spec.Condition) bool {
	def := r.defs[name]
	if def == nil {
		return false
	}
	for shard := range def.process.Shards {
		if r.Job.Order(name, shard).Stopped {
			continue
		}
		for _, node := range r.at[instanceKey{name, shard}] {
			if in := r.seen[spot{node, name, shard}]; in != nil && meets(in, c) {
				return true
			}
		}
	}
	return false
}

// halt stops the instances whose dependencies have failed and that say so, by
// the definition that they have, and, with them, those that depend on them in
// the same way. What is stopped is not wanted until it is gone; then it is held
// like anything that has not started yet.
func (r *rollout) halt() {
	there := map[string][]spot{}
	for where := range r.wanted {
		if in := r.seen[where]; in != nil && in.Phase != spec.PhasePending && in.Phase != spec.PhaseCompleted {
			there[where.process] = append(there[where.process], where)
		}
	}
	r.inOrder(func(process string) {
		halted := 0
		for _, where := range there[process] {
			why := r.halted(where, r.seen[where])
			if why == "" {
				continue
			}
			halted++
			delete(r.wanted, where)
			r.halting[where] = why
			r.settled = false
			r.reasons[r.id(where.process, where.shard)] = why
		}
		r.halts[process] = halted > 0 && halted == len(there[process])
	})
}

// halted returns why a wanted instance shall not run for now, "" if it may.
func (r *rollout) halted(where spot, in *spec.Instance) string {
	if e := r.current[where]; e != nil {
		if in.Version != e.Version {
			return "" // it goes on with another definition until this one may begin
		}
		return r.haltedBy(&e.Process)
	}
	// It is being stopped, and which definition it had is not known any more.
	why := r.haltedBy(r.defs[where.process].process)
	for _, e := range r.entries() {
		if e.Process.Name == where.process && why == "" {
			why = r.haltedBy(&e.Process)
		}
	}
	return why
}

// haltedBy returns why an instance of a definition shall not run for now, "" if
// it may.
func (r *rollout) haltedBy(p *spec.Process) string {
	for _, d := range p.DependsOn {
		if d.OnFailure != spec.OnFailureStop {
			continue
		}
		if on, name := r.on(d); r.failed(d) || (on == r && r.halts[name]) {
			return fmt.Sprintf("stopped: waits for %s to be %s again", d.Process, d.Condition)
		}
	}
	return ""
}

// inOrder does something for each process that is wanted, after those of the
// job on which it depends.
func (r *rollout) inOrder(do func(process string)) {
	on := map[string][]spec.Dependency{}
	for name, def := range r.defs {
		on[name] = def.process.DependsOn
	}
	for _, e := range r.entries() {
		if name := e.Process.Name; on[name] != nil || len(e.Process.DependsOn) > 0 {
			on[name] = slices.Concat(on[name], e.Process.DependsOn)
		}
	}
	done := map[string]bool{}
	var visit func(process string)
	visit = func(process string) {
		if done[process] || r.defs[process] == nil {
			return
		}
		done[process] = true
		for _, d := range on[process] {
			visit(d.Process)
		}
		do(process)
	}
	for _, process := range sortedKeys(r.defs) {
		visit(process)
	}
}

// follow finds the instances that are to be restarted because a dependency was
// started anew and is so far again, by the definition that they have. They stay
// due until their generation is gone, whoever decides then. What depends on what
// is due waits for its restart, and follows that too with the same one of its own.
func (r *rollout) follow() {
	spots := map[string][]spot{} // of processes that follow others
	for where := range r.wanted {
		if e := r.current[where]; e != nil && len(followed(&e.Process)) > 0 {
			spots[where.process] = append(spots[where.process], where)
		}
	}
	if len(spots) == 0 {
		return
	}
	r.inOrder(func(process string) {
		for _, where := range spots[process] {
			r.followOne(where)
		}
	})
}

// followOne finds out whether an assigned instance is to be restarted.
func (r *rollout) followOne(where spot) {
	e, in := r.current[where], r.seen[where]
	if in == nil || in.Generation == 0 || !(in.Phase.Alive() || in.Phase == spec.PhaseBackoff) {
		return
	}
	due := e.Due[where.shard] == in.Generation
	for _, d := range followed(&e.Process) {
		if had := e.After[d.Process]; had != "" {
			due = due || anew(had, r.after(e, d))
		}
	}
	if due {
		r.due[where] = in.Generation
		r.expiring[where.process] = true
	}
}

// followed returns the dependencies whose restarts a process follows.
func followed(p *spec.Process) []spec.Dependency {
	var out []spec.Dependency
	for _, d := range p.DependsOn {
		if d.OnFailure == spec.OnFailureRestart {
			out = append(out, d)
		}
	}
	return out
}

// after returns what is to be remembered of a dependency by those who are
// assigned as e, which may be nil: how it lives now if it is so far, and else
// what they remember already.
func (r *rollout) after(e *spec.AssignedProcess, d spec.Dependency) string {
	had := ""
	if e != nil {
		had = e.After[d.Process]
	}
	// Who has nothing to compare with yet has it as soon as it may start.
	if r.unmet(demand{d, had != ""}) != "" {
		return had
	}
	if r.lives[d] == "" {
		r.lives[d] = r.living(d)
	}
	return r.lives[d]
}

// living tells with which generations a dependency lives, such as
// "0@node-a:3,1@node-b:1.m5x2k8": one that is declared again counts from one,
// and is known by its start.
func (r *rollout) living(d spec.Dependency) string {
	on, name := r.on(d)
	var b strings.Builder
	for shard := range min(on.defs[name].process.Shards, maxFollowed) {
		nodes := slices.Sorted(slices.Values(on.at[instanceKey{name, shard}]))
		for _, node := range nodes {
			in := on.seen[spot{node, name, shard}]
			if in == nil || !meets(in, d.Condition) {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%d@%s:%d", shard, node, in.Generation)
			if !in.Started.IsZero() {
				b.WriteString("." + strconv.FormatInt(in.Started.UnixMilli(), 36))
			}
			break
		}
	}
	return b.String()
}

// anew reports whether a shard that is in both has been started anew.
func anew(had, now string) bool {
	if had == now || had == "" {
		return false
	}
	lived := map[string]string{}
	for one := range strings.SplitSeq(had, ",") {
		shard, life, _ := strings.Cut(one, "@")
		lived[shard] = life
	}
	for one := range strings.SplitSeq(now, ",") {
		shard, life, _ := strings.Cut(one, "@")
		if was := lived[shard]; was != "" && was != life {
			return true
		}
	}
	return false
}

// follows says why an instance is to be restarted with what it depends on, ""
// if it is not, or not now.
func (r *rollout) follows(where spot, in *spec.Instance) string {
	if due := r.due[where]; due == 0 || due != in.Generation {
		return ""
	}
	var names []string
	for _, d := range followed(&r.current[where].Process) {
		if r.unmet(demand{d, true}) != "" {
			return "" // it would find it down
		}
		names = append(names, d.Process)
	}
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, " or ") + " was started anew"
}

// recall has the assignments remember what their shards live with, and which
// of them are to be restarted yet.
func (r *rollout) recall() {
	for g, a := range r.groups {
		old := r.recalled(g)
		for _, d := range followed(&a.Process) {
			if text := r.after(old, d); text != "" {
				if a.After == nil {
					a.After = map[string]string{}
				}
				a.After[d.Process] = text
			}
		}
		for _, shard := range a.Shards {
			if due := r.due[spot{g.node, g.process, shard}]; due != 0 {
				set(&a.Due, shard, due)
			}
		}
	}
}

// recalled returns the entry of Current that an entry goes on from: its own, or
// that of another version.
func (r *rollout) recalled(g group) *spec.AssignedProcess {
	var found *spec.AssignedProcess
	for i := range r.Current[g.node].Processes {
		e := &r.Current[g.node].Processes[i]
		if e.Process.Name == g.process && (found == nil || e.Version == g.version || (found.Version != g.version && e.Version > found.Version)) {
			found = e
		}
	}
	return found
}

// Needs returns the jobs, sorted, that a job depends on, as it is wanted and as
// it is assigned: what runs an old definition waits for what that one names.
func Needs(job *spec.JobVersion, current map[string]spec.Assignment) []string {
	out := map[string]bool{}
	note := func(j *spec.Job) {
		for _, on := range j.Needs() {
			out[on] = true
		}
	}
	if job != nil {
		note(&job.Job)
	}
	for _, a := range current {
		for i := range a.Processes {
			note(&spec.Job{Name: a.Job, Processes: []spec.Process{a.Processes[i].Process}})
		}
	}
	return slices.SortedFunc(maps.Keys(out), cmp.Compare[string])
}
