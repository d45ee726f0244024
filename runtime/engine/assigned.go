package engine

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// process is one assigned process with what is costly to compute of it.
type process struct {
	spec.AssignedProcess
	hash string
}

// services are what instances of the process, nil for none, are listed as.
func (p *process) services() []spec.Service {
	if p == nil {
		return nil
	}
	return p.Process.Services
}

// guardedBy reports whether the process, nil for none, has such a guard.
func (p *process) guardedBy(g spec.Guard) bool {
	return p != nil && slices.Contains(p.Process.Guards, g)
}

// assignments holds the node's assignments decoded: each once per change.
type assignments struct {
	prefix string
	logger hclog.Logger

	mu   sync.Mutex // guards all below
	read bool       // the store has been read
	jobs map[string]*assigned
	// repaired is the store's index when it was repaired before the agent
	// started, 0 if it wasn't. Assignments up to it may be lost or out of date;
	// decided are the jobs that were assigned or unassigned since.
	repaired uint64
	decided  map[string]bool
	// reported is what the node reported before the agent started.
	reported []spec.Instance
}

// assigned is one job's part of the node.
type assigned struct {
	index     uint64
	processes []*process
	// broken tells that a later value could not be read; processes are those
	// of the last one that could, and known tells whether there was one.
	broken, known bool
}

func newAssignments(node string, repaired uint64, logger hclog.Logger) *assignments {
	return &assignments{
		prefix: state.AssignmentsPrefix + node + "/", logger: logger, jobs: map[string]*assigned{},
		repaired: repaired, decided: map[string]bool{},
	}
}

// lost returns the running instances that nothing assigns because the store was
// damaged: they are left as they are until their job is assigned anew.
func (a *assignments) lost(jobs map[string]*assigned, running []spec.Instance) (out []Wanted) {
	if a.repaired == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range running {
		id := running[i].ID
		if id.Job == spec.ReservedJob || a.decided[id.Job] || jobs[id.Job].assigns(id) {
			continue
		}
		out = append(out, protected(id))
	}
	return out
}

// assigns reports whether the job, nil for none, has the shard here.
func (a *assigned) assigns(id spec.InstanceID) bool {
	return a != nil && slices.ContainsFunc(a.processes, func(p *process) bool {
		return p.Process.Name == id.Process && p.Shards.Contains(id.Shard)
	})
}

// mayRun reports whether something may run that an empty store would stop: what
// was assigned, or, before the first reading, what an earlier agent started.
func (a *assignments) mayRun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.read || len(a.jobs) > 0
}

// update takes over what the store holds now.
func (a *assignments) update(entries []state.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read = true
	jobs := make(map[string]*assigned, len(entries))
	for _, e := range entries {
		job := strings.TrimPrefix(e.Key, a.prefix)
		if e.ModifyIndex > a.repaired {
			a.decided[job] = true
		}
		old := a.jobs[job]
		if old != nil && old.index == e.ModifyIndex {
			jobs[job] = old
			continue
		}
		jobs[job] = a.decode(job, e, old)
	}
	for job := range a.jobs {
		if jobs[job] == nil {
			a.decided[job] = true
		}
	}
	a.jobs = jobs
}

// decode reads one assignment. Of a value that cannot be read, the last good
// one stays.
func (a *assignments) decode(job string, e state.Entry, old *assigned) *assigned {
	var value spec.Assignment
	if err := json.Unmarshal(e.Value, &value); err != nil || value.Job != job {
		a.logger.Error("an assignment cannot be read; what runs of the job is left as it is; apply the job again to mend it",
			"key", e.Key, "error", err)
		next := &assigned{index: e.ModifyIndex, broken: true}
		if old != nil {
			next.processes, next.known = old.processes, old.known
		}
		return next
	}
	before := map[string]*process{}
	if old != nil {
		for _, p := range old.processes {
			before[p.Process.Name] = p
		}
	}
	next := &assigned{index: e.ModifyIndex, known: true, processes: make([]*process, len(value.Processes))}
	for i := range value.Processes {
		next.processes[i] = reuse(before[value.Processes[i].Process.Name], &value.Processes[i])
	}
	return next
}

// reuse returns what is known of an assigned process, as far as it has not
// changed: of a thousand processes an edit should cost one.
func reuse(was *process, now *spec.AssignedProcess) *process {
	if was == nil || !reflect.DeepEqual(&was.Process, &now.Process) {
		return &process{AssignedProcess: *now, hash: spec.ReplaceHash(&now.Process)}
	}
	if reflect.DeepEqual(&was.AssignedProcess, now) {
		return was
	}
	return &process{AssignedProcess: *now, hash: was.hash}
}

// setReported records what the node reported earlier.
func (a *assignments) setReported(observed []state.Entry) {
	var instances []spec.Instance
	for _, e := range observed {
		var seen spec.Observed
		if err := json.Unmarshal(e.Value, &seen); err != nil {
			a.logger.Warn("an earlier report cannot be read; ports are chosen anew", "key", e.Key, "error", err)
			continue
		}
		instances = append(instances, seen.Instances...)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reported = instances
}

// takeReported returns what setReported recorded, once.
func (a *assignments) takeReported() []spec.Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	reported := a.reported
	a.reported = nil
	return reported
}

// current returns the jobs as they are assigned; false until they could be
// read once. The map and what it holds must not be changed.
func (a *assignments) current() (map[string]*assigned, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.jobs, a.read
}

// processesOf returns the process of every assigned shard; should a shard be
// assigned twice, that of the newer version.
func processesOf(jobs map[string]*assigned) map[spec.InstanceID]*process {
	out := map[spec.InstanceID]*process{}
	for name, job := range jobs {
		for _, p := range job.processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: name, Process: p.Process.Name, Shard: shard}
				if other, twice := out[id]; !twice || p.Version > other.Version {
					out[id] = p
				}
			}
		}
	}
	return out
}
