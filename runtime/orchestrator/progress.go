package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// refusedGrace is how long after it was made a version may be refused by a node
// before that is a failure: the node retries every 10 s.
const refusedGrace = 15 * time.Second

// failure returns why the rollout of the process has failed, "" if it has not. It
// fails when a shard whose definition was never good before fails for good, or
// does not become healthy in time.
func (g *gate) failure() string {
	if g.def.process.Update == nil || g.def.version <= g.good || g.done {
		return ""
	}
	if why := g.previousFailure(); why != "" {
		return why
	}
	u := g.def.process.Update
	last := g.progressStart()
	for i := range g.shards {
		m := &g.shards[i]
		in := m.in
		if m.refused() && in.Refused == g.def.version {
			// The node may become able to: a port is freed, a user is created.
			if end := g.Job.When.Add(refusedGrace); g.now.Before(end) {
				g.wake(end)
				continue
			}
			return fmt.Sprintf("shard %d cannot be launched: %s", m.to.shard, in.Reason)
		}
		if in == nil || m.entry == nil || m.entry.Version != g.def.version || in.Version != g.def.version || g.failedBefore(m) {
			continue
		}
		if in.Phase == spec.PhaseFailed && !g.triesElsewhere(m) {
			return fmt.Sprintf("shard %d %s", m.to.shard, unhealthyReason(in))
		}
		if at, healthy := in.HealthyAt(); healthy {
			last = later(last, at)
			continue
		}
		if !in.Since.IsZero() && in.Phase != spec.PhaseCompleted && !m.restartRequested() {
			if end := m.deadline(g.Job.When, u.HealthyDeadline.Std()); g.now.Before(end) {
				g.wake(end)
			} else {
				return fmt.Sprintf("shard %d %s, %s after it was changed", m.to.shard, unhealthyReason(in), u.HealthyDeadline)
			}
		}
	}
	if g.order.Paused || g.waitsForPromotion() || g.waitsForDependency() || last.IsZero() || g.settledBut(g.failedBefore) {
		return ""
	}
	end := last.Add(u.ProgressDeadline.Std())
	if g.now.Before(end) {
		g.wake(end)
		return ""
	}
	return fmt.Sprintf("nothing became healthy within %s: %s", u.ProgressDeadline, cmp.Or(g.down, g.unplaced))
}

// triesElsewhere reports whether a shard with exhausted restarts is about to be
// tried on another node, or the scheduler has yet to decide that.
func (g *gate) triesElsewhere(m *shardState) bool {
	if !g.def.process.Restart.Reschedules() {
		return false
	}
	spent := slices.Contains(g.Placement.SpentOn(m.to.process, m.to.shard), m.at.node)
	return !spent || m.at.node != m.to.node
}

// deadline returns until when the shard has to be healthy: for the given time
// after its change, or after it failed again if it was healthy in between. A
// node's clock may be behind, but no shard was changed before its version was
// made.
func (m *shardState) deadline(made time.Time, long time.Duration) time.Time {
	end := later(m.in.Since, made).Add(long)
	broke := m.in.HealthSince
	if m.in.LastExit != nil {
		broke = later(broke, m.in.LastExit.At)
	}
	if broke.After(end) {
		return broke.Add(long)
	}
	return end
}

// progressStart returns the start of the progress deadline: when the version was
// made, or when a wait for an operator ended.
func (g *gate) progressStart() time.Time {
	was := g.Rollout
	if was == nil || was.Version != g.Job.Version {
		return g.Job.When
	}
	switch was.State {
	case spec.RolloutWaiting, spec.RolloutPaused:
		return g.now
	case spec.RolloutRunning:
		return later(g.Job.When, was.Since)
	}
	return g.Job.When
}

// failedBefore reports whether a shard's healthy deadline had passed before this
// version was made: then this version is not why it is down.
func (g *gate) failedBefore(m *shardState) bool {
	return m.in != nil && g.updated(m) && !m.in.Since.IsZero() &&
		m.in.Since.Add(g.bounds().HealthyDeadline.Std()).Before(g.Job.When)
}

// previousFailure returns why the rollout had failed already, as long as nothing
// is better: a shard that alternates between up and down is not healthy because
// it is up just now, and healthy shards with the previous definition prove
// nothing.
func (g *gate) previousFailure() string {
	tried, _ := g.canaries()
	if was := g.Rollout; was != nil && was.Version == g.Job.Version && was.State == spec.RolloutFailed && (g.down != "" || tried == 0) {
		if was.TooLarge { // of all processes together
			return was.Reason
		}
		if was.Process == g.def.process.Name {
			return was.Waits
		}
	}
	return ""
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// complete reports whether every shard is as wanted, and available.
func (g *gate) complete() bool { return g.settledBut(func(*shardState) bool { return false }) }

// settledBut is complete for all shards but those that except selects. A process
// none of whose shards is placed is never complete.
func (g *gate) settledBut(except func(*shardState) bool) bool {
	return g.allUnplaced == "" && !slices.ContainsFunc(g.shards, func(m shardState) bool {
		return (m.down != "" || !g.updated(&m)) && !except(&m)
	})
}

// updated reports whether a shard is assigned as wanted.
func (g *gate) updated(m *shardState) bool {
	return m.entry != nil && m.at == m.to && m.entry.Version == g.def.version &&
		m.entry.Epochs[m.to.shard] == g.Job.Order(m.to.process, m.to.shard).Epoch
}

// waitsForPromotion reports whether the canaries are healthy and nobody has
// promoted them yet.
func (g *gate) waitsForPromotion() bool {
	u := g.bounds()
	if u.AutoPromote || !g.onTrial() {
		return false
	}
	tried, well := g.canaries()
	return tried >= u.Canary && well && tried < len(g.shards)
}

// waitsForDependency reports whether a shard is not available because it waits
// for a dependency, which is not the definition's fault. Any other fault shows
// after that.
func (g *gate) waitsForDependency() bool {
	return slices.ContainsFunc(g.shards, func(m shardState) bool { return g.stopping[m.to] != "" || (m.down != "" && m.held() != "") })
}

// report returns the progress of the process.
func (g *gate) report() spec.Progress {
	p := spec.Progress{Process: g.def.process.Name, Wanted: len(g.shards), State: spec.RolloutRunning, Waits: cmp.Or(g.down, g.unplaced)}
	for i := range g.shards {
		m := &g.shards[i]
		if !g.updated(m) {
			continue
		}
		p.Updated++
		if m.down == "" {
			p.Healthy++
		}
	}
	switch {
	case g.complete() || (g.ignored() && p.Updated == p.Wanted):
		p.State = spec.RolloutDone
	case g.failed != "":
		p.State, p.Waits = spec.RolloutFailed, g.failed
	case g.order.Paused && p.Updated < p.Wanted:
		p.State, p.Waits = spec.RolloutPaused, fmt.Sprintf("it is %s, until: meshrun resume %s/%s", g.order.PausedText(), g.job, p.Process)
	case g.trial && g.waitsForPromotion():
		p.State, p.Waits = spec.RolloutWaiting, g.trialWaitReason()
	}
	return p
}

// ignored reports whether the process does not count for whether a version is
// good: one that runs to its end and has no update block may be complete, or may
// have failed because of its input.
func (g *gate) ignored() bool { return g.def.process.Update == nil && g.def.process.Ends() }

// rolloutRecord returns the record of the job's rollout to be stored, nil for
// none: only jobs with update blocks need one.
func (r *rollout) rolloutRecord() *spec.Rollout {
	if r.Job == nil || !r.recorded {
		return nil
	}
	next := spec.Rollout{Job: r.job, Version: r.Job.Version, State: spec.RolloutDone, Good: r.good, Promoted: r.promoted}
	worst := 0
	for _, p := range r.progress {
		if rank := slices.Index(statesByRank, p.State); rank > worst {
			worst, next.State, next.Process, next.Waits = rank, p.State, p.Process, p.Waits
		}
	}
	if r.done {
		next.State = spec.RolloutDone
	}
	if next.State == spec.RolloutRunning || next.State == spec.RolloutDone {
		next.Process, next.Waits = "", "" // they change too often to be stored
	}
	next.SetReason()
	ran := slices.ContainsFunc(r.progress, func(p spec.Progress) bool { return p.Wanted > 0 })
	if next.State == spec.RolloutDone && ran { // a stopped version proves nothing
		next.Good = r.Job.Version
	}
	if len(next.Promoted) == 0 {
		next.Promoted = nil
	}
	next.Since = r.now.UTC()
	if was := r.Rollout; was != nil && was.Version == next.Version && was.State == next.State {
		next.Since = was.Since
	}
	return &next
}

// statesByRank orders states by precedence: a job has the last state that one of
// its processes has.
var statesByRank = []spec.RolloutState{
	spec.RolloutDone, spec.RolloutRunning, spec.RolloutWaiting, spec.RolloutPaused, spec.RolloutFailed,
}

// revert returns the version to go back to, 0 for none, and why.
func (r *rollout) revert() (uint64, string) {
	if r.Job == nil || r.good == 0 || r.good >= r.Job.Version || r.Job.IsRevert() {
		return 0, ""
	}
	for _, p := range r.progress {
		u := r.defs[p.Process].process.Update
		if paused := r.Job.Orders[p.Process].Paused; p.State == spec.RolloutFailed && u != nil && u.AutoRevert && !paused {
			return r.good, p.Process + ": " + p.Waits
		}
	}
	return 0, ""
}

// loadRecord reads the stored record of the rollout.
func (r *rollout) loadRecord() {
	r.promoted = map[string]uint64{}
	if r.Job == nil {
		return
	}
	r.recorded = r.Job.InSteps()
	if was := r.Rollout; was != nil {
		r.good = was.Good
		r.done = was.Version == r.Job.Version && was.State == spec.RolloutDone
		for process, version := range was.Promoted {
			if r.defs[process] != nil && r.defs[process].version == version {
				r.promoted[process] = version
			}
		}
	}
}

// wake requests another decision at a time.
func (r *rollout) wake(at time.Time) {
	if r.next.IsZero() || at.Before(r.next) {
		r.next = at
	}
}

// sameRecord reports whether two records are equal but for their times.
func sameRecord(a, b *spec.Rollout) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Version == b.Version && a.State == b.State && a.Reason == b.Reason && a.Good == b.Good && maps.Equal(a.Promoted, b.Promoted)
}
