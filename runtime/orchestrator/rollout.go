// Package orchestrator decides when a node shall run what (layer L-C).
// Rollout is the decision, a pure function; Loop watches jobs, placements and
// what is observed, asks Rollout, and writes the assignments.
package orchestrator

import (
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Snapshot is all that Rollout knows of a job.
type Snapshot struct {
	// Job is the wanted version, nil if the job was removed.
	Job *spec.JobVersion
	// Placement says where its shards belong; nil if there is none (yet).
	Placement *spec.Placement
	// Live are the nodes that are there.
	Live map[string]bool
	// Current are the job's assignments as they stand, by node.
	Current map[string]spec.Assignment
	// Observed is what the nodes saw of the job's instances, by node.
	Observed map[string]spec.Observed
	// Others are the jobs that this one's processes depend on (see Needs).
	Others map[string]Other
	// Dependents are the jobs that depend on this one, where Decision.Leaves asks
	// for them.
	Dependents map[string]Dependent
	// Rollout is what was remembered of the job's rollout; nil if nothing was.
	Rollout *spec.Rollout
	// Runs are the runs that are remembered of the job's scheduled processes.
	Runs []spec.Run
}

// Decision is what the nodes shall be told.
type Decision struct {
	// Assignments is the complete wanted set, by node; one of a node that is
	// not in it is to be deleted.
	Assignments map[string]spec.Assignment
	// Reasons says of instances that do not run as the job wants why not (yet).
	Reasons map[spec.InstanceID]string
	// NextWake is when to ask again though nothing has changed; zero for never.
	NextWake time.Time
	// Settled is set if nothing that could be observed would change the decision.
	Settled bool
	// Unassigns is set if something is unassigned, or waits for that, so that those
	// who depend on it and end too should be known.
	Unassigns bool
	// Progress says how far each process of the job is, where anything bounds its
	// rollout or Snapshot asks for it.
	Progress []spec.Progress
	// Rollout is what shall be remembered; nil for nothing.
	Rollout *spec.Rollout
	// Revert is the version that the job shall go back to, and why; 0 for none.
	Revert uint64
	Why    string
	// Runs are the records of runs that change. They are written before the
	// assignments: what is assigned of a run is then known to have begun.
	Runs []RunChange
}

// Rollout decides what each node shall run of a job now. A version replaces
// the one before as fast as the update blocks let it (see gate), at once where
// there is none, and in this order:
//
//   - An instance whose dependency isn't so far is held: it is not started, and
//     not restarted for a change, until it is. One that runs is left as it is.
//     So far means: of what the dependency is wanted to be, not of what it was.
//   - When a dependency fails later, those who say so are stopped, or restarted
//     once it was started anew and is so far again (see halt and follow).
//   - What shall no longer run is stopped in the reverse order: it stays
//     assigned until everything that depends on it, and shall end too, is gone,
//     in this job or another one.
//   - A shard that moves is not assigned to its new node before it is gone from
//     its old one. So each shard is assigned at most once.
//   - While the placement is not yet the one of this version, all stays.
//   - What is assigned or was seen on a node that isn't there counts as gone as
//     soon as it is placed elsewhere; until then it stays as it is assigned, so
//     that nothing has changed for a node that comes back.
//   - A process with a schedule runs at its times only (see scheduledProcess), and outside of
//     any gate.
//
// A process whose definition hasn't changed keeps the version that it is
// assigned with, so that its instances see nothing of an edit of others.
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

// rollout is one run of Rollout.
type rollout struct {
	Snapshot
	job string

	// current tells under which of Current's entries a shardOnNode is assigned, and
	// seen what is observed there.
	current map[shardOnNode]*spec.AssignedProcess
	seen    map[shardOnNode]*spec.Instance
	// at lists the nodes at which a shard is assigned or seen.
	at map[instanceKey][]string

	wanted  map[shardOnNode]bool // shall be assigned in the end
	staying map[shardOnNode]bool // leaves, but not yet

	defs         map[string]*definition // of the wanted processes, by name
	dependencies map[demand]string      // why each isn't so far, as far as known

	ofOtherJob    bool                // it is another job's, on which one depends
	unreadable    bool                // and what is known of that can't be read
	otherRollouts map[string]*rollout // the other jobs, by name
	// stopping are the instances that shall not run for now, and why, and halts the
	// processes of which no other one runs; failures are the dependencies that have
	// failed, as far as known. Due are the instances to be restarted with what they
	// depend on, by generation, and lives what is known of how that lives.
	stopping         map[shardOnNode]string
	stoppedProcesses map[string]bool
	failures         map[spec.Dependency]bool
	restartsDue      map[shardOnNode]uint64
	generations      map[spec.Dependency]string

	now  time.Time
	next time.Time // when to ask again
	// recorded is set if the job's rollout is remembered, good is its last good
	// version, done tells that the present one is good, and promoted are the
	// trials that ended by themselves.
	recorded bool
	good     uint64
	done     bool
	promoted map[string]uint64
	progress []spec.Progress
	// expiring are the processes of which an instance ails or is told to end, and
	// turns what the gates say of shards.
	expiring map[string]bool
	steps    map[shardOnNode]step
	// records are those of runs that change, runEpochs the epochs of runs, down says
	// why shards are down between them, and since from when ticks count.
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

// index looks up what is assigned and what is seen.
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

// keepAll leaves everything as it is assigned.
func (r *rollout) keepAll() {
	for node, a := range r.Current {
		if len(a.Processes) > 0 {
			r.out[node] = &a
		}
	}
}

// want finds the places that shall be assigned in the end.
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

// keepOnLostNode leaves a shard assigned to a node that isn't there, as long as it has
// no other place.
func (r *rollout) keepOnLostNode(where shardOnNode) {
	r.settled = false
	r.reasons[r.id(where.process, where.shard)] = fmt.Sprintf("waits for another place: %s is gone", where.node)
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

// unsettled reports whether what is observed could change the decision though
// nothing waits: a rollout in steps, a check that may ask for a restart, or a run
// that may end.
func (r *rollout) unsettled() bool {
	return r.Job != nil && (r.recorded || slices.ContainsFunc(r.Job.Job.Processes, func(p spec.Process) bool {
		return len(p.Health) > 0 || len(p.Guards) > 0 || p.Schedule != nil
	}))
}
