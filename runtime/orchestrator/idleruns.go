package orchestrator

import (
	"fmt"

	"github.com/synergymesh/meshrun/spec"
)

// NextRunFormat is the layout of the time of a run in messages.
const NextRunFormat = "2006-01-02 15:04 MST"

// decideShards decides for each shard whether it runs now, on which node, and
// with which epoch.
func (a *scheduledProcess) decideShards(fault error) {
	name := a.def.process.Name
	why := a.idleReason(fault)
	for shard := range a.shards() {
		key := instanceKey{name, shard}
		if run := a.active(shard); run != nil {
			a.runEpochs[key] = run.Epoch
			a.keepRun(run, shard)
			continue
		}
		a.runEpochs[key] = a.lastEpoch(shard)
		for node := range a.Live {
			where := shardOnNode{node, name, shard}
			if !a.wanted[where] {
				continue
			}
			if in := a.seen[where]; in != nil && present(in) && in.Phase != spec.PhasePending {
				// It started before the process had a schedule, or its run has failed without it.
				delete(a.wanted, where)
				a.reasons[a.id(name, shard)] = "is stopped, as no run of it is active"
				continue
			}
			a.down[where] = why
			a.steps[where] = step{epoch: a.epoch(name, shard)}
		}
	}
}

// idleReason returns what a shard waits for between runs.
func (a *scheduledProcess) idleReason(fault error) string {
	name := a.def.process.Name
	if fault != nil {
		return "never runs: " + fault.Error()
	}
	if o := a.Job.Orders[name]; o.Paused {
		return fmt.Sprintf("its schedule is "+o.PausedText()+", until: meshrun resume %s/%s", a.job, name)
	}
	next := a.cron.Next(a.now)
	if next.IsZero() {
		return "no further run is due"
	}
	return "next run at " + next.Format(NextRunFormat)
}

// keepRun leaves the shard of an active run on its node, with the definition that
// the run began with.
func (a *scheduledProcess) keepRun(run *spec.Run, shard int) {
	name := a.def.process.Name
	node, _ := a.assignedNode(run, shard)
	if node == "" || !a.Live[node] {
		node = a.wantedNode(shard)
	}
	if node == "" {
		return
	}
	where := shardOnNode{node, name, shard}
	for other := range a.Live {
		delete(a.wanted, shardOnNode{other, name, shard})
	}
	a.wanted[where] = true
	delete(a.reasons, a.id(name, shard))
	t := step{epoch: a.epoch(name, shard)}
	if e := a.current[where]; e != nil && e.Epochs[shard] == t.epoch {
		if e.Version != a.def.version {
			t.old = e
		}
		m := shardState{to: where, at: where, entry: e, in: a.seen[where]}
		why := (&gate{rollout: a.rollout, def: a.def}).restartCause(&m)
		if t.expire = m.currentRequest(); why != "" && !m.restartRequested() {
			t.expire = spec.Expire{Generation: m.in.Generation, Why: brief(why)}
		}
	}
	a.steps[where] = t
}

// lastEpoch returns the epoch of a shard's last run, which the shard keeps until
// its next run.
func (a *scheduledProcess) lastEpoch(shard int) uint64 {
	name := a.def.process.Name
	var last uint64
	for i := range a.runs {
		if run := &a.runs[i]; run.Shard == shard || run.Shard < 0 {
			last = max(last, run.Epoch)
		}
	}
	ordered := a.Job.Order(name, shard).Epoch
	for _, node := range a.at[instanceKey{name, shard}] {
		if e := a.current[shardOnNode{node, name, shard}]; last == 0 && e != nil && e.Epochs[shard] > ordered {
			last = e.Epochs[shard] - ordered
		}
	}
	return last
}

// epoch returns the epoch of a shard: the number of restarts that operators
// requested plus the epoch of its run.
func (r *rollout) epoch(process string, shard int) uint64 {
	return r.Job.Order(process, shard).Epoch + r.runEpochs[instanceKey{process, shard}]
}
