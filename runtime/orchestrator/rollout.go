package orchestrator

import (
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Snapshot is the input of Rollout: everything it knows of a job.
type Snapshot struct {
	// Job is the wanted version, nil if the job was removed.
	Job *spec.JobVersion
	// Placement is where its shards are placed; nil if there is none yet.
	Placement *spec.Placement
	// Live are the nodes that are members of the mesh.
	Live map[string]bool
	// Current are the job's present assignments, by node.
	Current map[string]spec.Assignment
	// Observed is what the nodes report of the job's instances, by node.
	Observed map[string]spec.Observed
	// Others are the jobs that this one's processes depend on (see Needs).
	Others map[string]Other
	// Dependents are the jobs that depend on this one. They are only needed if
	// Decision.Unassigns was set without them.
	Dependents map[string]Dependent
	// Rollout is the stored record of the job's rollout; nil if there is none.
	Rollout *spec.Rollout
	// Runs are the stored records of the runs of the job's processes with a schedule.
	Runs []spec.Run
}

// Decision is the output of Rollout.
type Decision struct {
	// Assignments is the complete set, by node. The assignment of a node that is
	// not in it is to be deleted.
	Assignments map[string]spec.Assignment
	// Reasons says why instances do not, or not yet, run as the job wants.
	Reasons map[spec.InstanceID]string
	// NextWake is when to decide again even if nothing changes; zero for never.
	NextWake time.Time
	// Settled is set if no observation can change the decision.
	Settled bool
	// Unassigns is set if a shard is unassigned, or waits to be, so that
	// Snapshot.Dependents matters.
	Unassigns bool
	// Progress is the progress of each process that passes a gate: those of a job
	// with update blocks, and those with a restart request.
	Progress []spec.Progress
	// Rollout is the record of the rollout to be stored; nil for none.
	Rollout *spec.Rollout
	// Revert is the version to revert the job to, 0 for none, and Why the reason.
	Revert uint64
	Why    string
	// Runs are the run records that change. They are written before the assignments,
	// so that an assigned run is always recorded as begun.
	Runs []RunChange
}

// Rollout decides what each node runs of a job now. A version replaces the one
// before as fast as the update blocks allow (see gate), or at once without one, by
// these rules:
//
//   - An instance waits until its dependency meets its condition: until then it is
//     not started, and not restarted for a change. A running one stays as it is.
//     The wanted definition of the dependency has to meet it, not an earlier one.
//   - When a dependency fails later, its dependents are stopped, or restarted once
//     it has restarted and meets the condition again, if their on_failure says so
//     (see stopDependents and restartDependents).
//   - Shards are unassigned in reverse dependency order: a shard stays assigned
//     until everything that depends on it and is to end too is gone, in this job
//     or another one.
//   - A shard that moves is not assigned to its new node before it is gone from
//     its old one. So each shard is assigned at most once.
//   - Until the placement is the one of this version, everything stays.
//   - What is assigned or observed on a lost node counts as gone as soon as it is
//     placed elsewhere. Until then it stays assigned, so that nothing changes for
//     a node that comes back.
//   - A process with a schedule runs at its times only, and passes no gate (see
//     scheduledProcess).
//
// A process whose definition has not changed keeps the version that it is assigned
// with, so that a change of other processes does not affect its instances.
func Rollout(s Snapshot, now time.Time) Decision {
	r := newRollout(s)
	r.now = now
	if s.Job != nil && (s.Placement == nil || s.Placement.Version != s.Job.Version) {
		r.keepAll()
		d := r.decision()
		d.Rollout = s.Rollout
		return d
	}
	r.want()
	r.schedules()
	r.stopDependents()
	r.restartDependents()
	r.loadRecord()
	r.gates()
	r.delayStops()
	r.assign()
	return r.decision()
}

// shardOnNode is one shard of a process on a node.
type shardOnNode struct {
	node, process string
	shard         int
}

// rollout is the working state of one call of Rollout.
type rollout struct {
	Snapshot
	job string

	// current is the entry of Current under which a shard is assigned, and seen the
	// instance that is observed there.
	current map[shardOnNode]*spec.AssignedProcess
	seen    map[shardOnNode]*spec.Instance
	// at lists the nodes on which a shard is assigned or observed.
	at map[instanceKey][]string

	wanted  map[shardOnNode]bool // to be assigned in the end
	staying map[shardOnNode]bool // to be unassigned, but not yet

	defs         map[string]*definition // of the wanted processes, by name
	dependencies map[demand]string      // why each is unmet, if computed

	ofOtherJob    bool                // of another job, on which this one depends
	unreadable    bool                // some of what is known of it cannot be read
	otherRollouts map[string]*rollout // the other jobs, by name
	// stopping says why instances must not run for now, and stoppedProcesses are the
	// processes all of whose instances are stopping. failures says which dependencies
	// have failed, if computed. restartsDue are the generations to be restarted with
	// their dependencies, whose own generations are in generations, if computed.
	stopping         map[shardOnNode]string
	stoppedProcesses map[string]bool
	failures         map[spec.Dependency]bool
	restartsDue      map[shardOnNode]uint64
	generations      map[spec.Dependency]string

	now  time.Time
	next time.Time // when to decide again
	// recorded is set if the job's rollout has a record. good is its last good
	// version, done is set if the present one is good, and promoted are the versions
	// of definitions whose canaries were promoted automatically, by process.
	recorded bool
	good     uint64
	done     bool
	promoted map[string]uint64
	progress []spec.Progress
	// expiring are the processes with an instance that should be restarted or has a
	// restart request, and steps what the gates decide for shards.
	expiring map[string]bool
	steps    map[shardOnNode]step
	// records are the run records that change, runEpochs the epochs of runs, down
	// says what shards wait for between runs, and since from when ticks count.
	records   []RunChange
	runEpochs map[instanceKey]uint64
	down      map[shardOnNode]string
	since     map[string]time.Time

	groups    map[entryKey]*spec.AssignedProcess
	out       map[string]*spec.Assignment
	reasons   map[spec.InstanceID]string
	settled   bool
	unassigns bool
}

type instanceKey struct {
	process string
	shard   int
}

func newRollout(s Snapshot) *rollout {
	assigned, seen := 0, 0
	for _, a := range s.Current {
		assigned += len(a.Processes)
	}
	for _, o := range s.Observed {
		seen += len(o.Instances)
	}
	r := &rollout{
		Snapshot: s,
		current:  make(map[shardOnNode]*spec.AssignedProcess, assigned), seen: make(map[shardOnNode]*spec.Instance, seen),
		at:      make(map[instanceKey][]string, max(assigned, seen)),
		wanted:  make(map[shardOnNode]bool, assigned),
		staying: map[shardOnNode]bool{}, defs: map[string]*definition{},
		dependencies: map[demand]string{}, groups: make(map[entryKey]*spec.AssignedProcess, assigned),
		otherRollouts: map[string]*rollout{}, stoppedProcesses: map[string]bool{}, stopping: map[shardOnNode]string{}, failures: map[spec.Dependency]bool{}, restartsDue: map[shardOnNode]uint64{}, generations: map[spec.Dependency]string{},
		expiring: map[string]bool{}, steps: map[shardOnNode]step{},
		runEpochs: map[instanceKey]uint64{}, down: map[shardOnNode]string{}, since: map[string]time.Time{},
		out: map[string]*spec.Assignment{}, reasons: map[spec.InstanceID]string{}, settled: true,
	}
	r.index()
	return r
}

// index indexes what is assigned and what is observed.
func (r *rollout) index() {
	note := func(where shardOnNode) {
		key := instanceKey{where.process, where.shard}
		for _, node := range r.at[key] {
			if node == where.node {
				return
			}
		}
		r.at[key] = append(r.at[key], where.node)
	}
	for node, a := range r.Current {
		r.job = a.Job
		if !r.Live[node] {
			continue
		}
		for i := range a.Processes {
			if len(a.Processes[i].Expire) > 0 {
				r.expiring[a.Processes[i].Process.Name] = true
			}
			for _, shard := range a.Processes[i].Shards {
				where := shardOnNode{node, a.Processes[i].Process.Name, shard}
				r.current[where] = &a.Processes[i]
				note(where)
			}
		}
	}
	for node, o := range r.Observed {
		r.job = o.Job
		if !r.Live[node] {
			continue
		}
		for i := range o.Instances {
			where := shardOnNode{node, o.Instances[i].ID.Process, o.Instances[i].ID.Shard}
			r.seen[where] = &o.Instances[i]
			if o.Instances[i].RestartCause != "" {
				r.expiring[where.process] = true
			}
			note(where)
		}
	}
	if r.Job != nil {
		r.job = r.Job.Job.Name
	}
}

// keepAll keeps every assignment as it is.
func (r *rollout) keepAll() {
	for node, a := range r.Current {
		if len(a.Processes) > 0 {
			r.out[node] = &a
		}
	}
}

// want finds where each shard is to be assigned in the end.
func (r *rollout) want() {
	if r.Job == nil {
		return
	}
	versions := r.versions()
	for i := range r.Job.Job.Processes {
		p := &r.Job.Job.Processes[i]
		r.defs[p.Name] = r.define(p, versions[p.Name])
		for node, shards := range r.Placement.Processes[p.Name] {
			for _, shard := range shards {
				switch {
				case shard >= p.Instances():
				case r.Job.Order(p.Name, shard).Stopped:
					r.reasons[r.id(p.Name, shard)] = "stopped by an operator"
				case !r.Live[node]:
					r.keepOnLostNode(shardOnNode{node, p.Name, shard})
				default:
					r.wanted[shardOnNode{node, p.Name, shard}] = true
				}
			}
		}
	}
	for _, u := range r.Placement.Unplaced {
		r.reasons[r.id(u.Process, u.Shard)] = u.Reason
	}
}

// keepOnLostNode keeps a shard assigned to a node that is lost until it is placed
// on another node.
func (r *rollout) keepOnLostNode(where shardOnNode) {
	r.settled = false
	r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("waits to be placed on another node: %s is gone", where.node)
	for i := range r.Current[where.node].Processes {
		if p := &r.Current[where.node].Processes[i]; p.Process.Name == where.process && p.Shards.Contains(where.shard) {
			r.current[where] = p
			r.staying[where] = true
			r.at[instanceKey{where.process, where.shard}] = append(r.at[instanceKey{where.process, where.shard}], where.node)
		}
	}
}

func (r *rollout) id(process string, shard int) spec.InstanceID {
	return spec.InstanceID{Job: r.job, Process: process, Shard: shard}
}

func (r *rollout) decision() Decision {
	d := Decision{
		Assignments: make(map[string]spec.Assignment, len(r.out)), Reasons: r.reasons, Settled: r.settled && !r.unsettled(),
		Unassigns: r.unassigns, NextWake: r.next, Progress: r.progress, Rollout: r.rolloutRecord(), Runs: r.records,
	}
	d.Revert, d.Why = r.revert()
	for node, a := range r.out {
		d.Assignments[node] = *a
	}
	return d
}

// unsettled reports whether an observation could change the decision although
// nothing waits: the job has a rollout in steps, a check or guard that may
// request a restart, or a run that may end.
func (r *rollout) unsettled() bool {
	return r.Job != nil && (r.recorded || slices.ContainsFunc(r.Job.Job.Processes, func(p spec.Process) bool {
		return len(p.Health) > 0 || len(p.Guards) > 0 || p.Schedule != nil
	}))
}
