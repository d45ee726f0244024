package orchestrator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// gate bounds the disruption of a process. Every restart, move and change of its
// shards passes it, whatever the cause: at most as many shards are down or being
// changed as the update block allows. A shard that is down already may always be
// changed, so that a good version can repair a bad one.
type gate struct {
	*rollout
	def    *definition
	order  spec.Order   // of the process as a whole
	shards []shardState // by shard
	// block says why no shard may get the wanted definition now; "" if it may.
	block string
	// trial is set while only canaries may change, and left is how many more may.
	trial bool
	left  int
	// free is how many more shards may be disrupted.
	free   int
	hashes map[*spec.AssignedProcess]string // see hashAs
	// down names the first shard that is not available.
	down string
	// failed says why the rollout has failed, before any step is decided.
	failed string
	// allUnplaced says why a shard is not placed, if no shard of the process is.
	allUnplaced string
	// unplacedCount is how many shards are not placed, and unplaced names the first.
	// They are down and count against the bound of a new definition. Moves and single
	// restarts do not wait for them: draining a node and restarting an unhealthy shard
	// cannot wait until somebody adds a node.
	unplacedCount int
	unplaced      string
}

// step is what a wanted shard is assigned as now.
type step struct {
	// old is the entry with the definition to keep or start with; nil for the
	// wanted one.
	old    *spec.AssignedProcess
	epoch  uint64
	expire spec.Expire
}

// gates passes every process of the job through its gate.
func (r *rollout) gates() {
	if r.Job == nil {
		return
	}
	for i := range r.Job.Job.Processes {
		p := &r.Job.Job.Processes[i]
		steps := r.Job.Steps(p)
		if p.Schedule != nil || (!steps && !r.expiring[p.Name] && !r.recorded) {
			continue // nothing to bound
		}
		g := &gate{rollout: r, def: r.defs[p.Name], order: r.Job.Orders[p.Name]}
		g.gather()
		g.failed = g.failure()
		if steps || r.expiring[p.Name] {
			g.open()
			g.keepPreviousDefinition()
		}
		r.progress = append(r.progress, g.report())
	}
}

// bounds returns the process's update block; without one, nothing is bounded.
func (g *gate) bounds() spec.Update {
	if g.def.process.Update != nil {
		return *g.def.process.Update
	}
	return spec.Update{MaxParallel: spec.MaxShards}
}

// gather collects the shards of the process and finds which of them are
// available.
func (g *gate) gather() {
	p := g.def.process
	for node, shards := range g.Placement.Processes[p.Name] {
		for _, shard := range shards {
			to := shardOnNode{node, p.Name, shard}
			if g.wanted[to] || g.staying[to] || g.stopping[to] != "" {
				g.shards = append(g.shards, g.shardState(to))
			}
		}
	}
	slices.SortFunc(g.shards, func(a, b shardState) int { return cmp.Compare(a.to.shard, b.to.shard) })
	for _, u := range g.Placement.Unplaced {
		if u.Process != p.Name || u.Shard >= p.Shards || g.Job.Order(p.Name, u.Shard).Stopped {
			continue
		}
		if g.unplacedCount++; g.unplaced == "" {
			g.unplaced = fmt.Sprintf("shard %d is not placed: %s", u.Shard, u.Reason)
		}
	}
	if len(g.shards) == 0 {
		g.allUnplaced, g.down = g.unplaced, g.unplaced
	}
	g.free = g.bounds().MaxParallel
	for i := range g.shards {
		m := &g.shards[i]
		if m.down = g.unavailableReason(m); m.down != "" {
			g.free--
			if g.down == "" {
				g.down = fmt.Sprintf("shard %d %s", m.to.shard, m.down)
			}
		}
	}
}

func (g *gate) shardState(to shardOnNode) shardState {
	m := shardState{to: to}
	for _, node := range g.at[instanceKey{to.process, to.shard}] {
		at := shardOnNode{node, to.process, to.shard}
		if e := g.current[at]; e != nil && (m.entry == nil || node == to.node) {
			m.at, m.entry, m.in = at, e, g.seen[at]
		}
	}
	return m
}

// open decides for each shard whether its pending change happens now.
func (g *gate) open() {
	g.findBlock()
	for _, m := range g.queue() {
		pending, what := g.pendingChange(m)
		why := g.waitReason(m, pending)
		var old *spec.AssignedProcess
		if pending == changeReplace && why != "" {
			if also, text := g.pendingRestart(m); also != changeNone {
				pending, what, old, why = also, text, m.entry, g.waitReason(m, also)
			}
		}
		switch {
		case pending == changeStart && (g.block != "" || g.trial):
			g.steps[m.to] = step{old: g.previousDefinition(m.to), epoch: g.Job.Order(m.to.process, m.to.shard).Epoch}
		case why != "":
			g.postpone(m, pending, what+" is pending: "+why)
		default:
			g.apply(m, pending, old)
		}
	}
}

// queue returns the shards in the order in which they may change: first those
// that are down, since changing them disrupts nothing; then those that move,
// since their node is to be emptied and a move also brings the wanted definition;
// then the rest.
func (g *gate) queue() []*shardState {
	var down, move, rest []*shardState
	for i := range g.shards {
		switch m := &g.shards[i]; {
		case !g.Live[m.to.node]:
		case m.down != "":
			down = append(down, m)
		case m.entry != nil && m.at.node != m.to.node:
			move = append(move, m)
		default:
			rest = append(rest, m)
		}
	}
	return slices.Concat(down, move, rest)
}

// findBlock finds out whether any shard may get the wanted definition now.
func (g *gate) findBlock() {
	if !slices.ContainsFunc(g.shards, func(m shardState) bool {
		n, _ := g.pendingChange(&m)
		return n == changeReplace || (n == changeStart && g.previousDefinition(m.to) != nil)
	}) {
		return
	}
	u := g.bounds()
	if g.order.Paused {
		g.block = "the rollout is " + g.order.PausedText()
		return
	}
	if g.failed != "" {
		g.block = "the rollout has failed: " + g.failed
		return
	}
	if !g.onTrial() || g.promoted[g.def.process.Name] == g.def.version {
		return
	}
	tried, well := g.canaries()
	if u.AutoPromote && tried >= u.Canary && well {
		g.promoted[g.def.process.Name] = g.def.version
		return
	}
	g.trial, g.left = true, u.Canary-tried
}

// onTrial reports whether canaries have to try the wanted definition first. The
// version that replaces a failed one needs no trial: it was good before.
func (g *gate) onTrial() bool {
	return g.bounds().Canary > 0 && g.def.version > g.good && !g.order.Promoted && !g.Job.IsRevert()
}

// canaries counts the shards that have the wanted definition, and reports whether
// all of them are available.
func (g *gate) canaries() (tried int, well bool) {
	well = true
	for i := range g.shards {
		if m := &g.shards[i]; m.entry != nil && m.entry.Version == g.def.version {
			tried++
			well = well && m.down == ""
		}
	}
	return tried, well
}

// waitReason returns why a shard's change has to wait, "" if it may happen now.
func (g *gate) waitReason(m *shardState, pending pendingChange) string {
	switch pending {
	case changeNone, changeLive, changeStart:
		return ""
	case changeReplace:
		if why := g.blockReason(); why != "" {
			return why
		}
		if m.in == nil && m.entry.Held[m.to.shard] == "" {
			return "it is about to start"
		}
	}
	if m.down != "" {
		return ""
	}
	if stagger := g.bounds().Stagger.Std(); stagger > 0 {
		if next := g.lastChange().Add(stagger); g.now.Before(next) {
			g.wake(next)
			return fmt.Sprintf("the last change is less than %s ago (stagger)", g.bounds().Stagger)
		}
	}
	free := g.free
	if pending == changeReplace {
		free -= g.unplacedCount
	}
	if free <= 0 {
		return cmp.Or(g.down, g.unplaced) + g.failedHint()
	}
	return ""
}

// failedHint says what to do when a failed version uses up the bound: it does not
// recover by itself, so a drain or a restart would wait for an operator.
func (g *gate) failedHint() string {
	switch {
	case g.failed == "":
		return ""
	case g.good == 0 || g.good >= g.Job.Version:
		return fmt.Sprintf("; version %d has failed: apply one that works", g.Job.Version)
	}
	return fmt.Sprintf("; version %d has failed: go back with `meshrun revert %s`, or apply one that works", g.Job.Version, g.job)
}

// blockReason returns why no further shard may get the wanted definition now, ""
// if one may.
func (g *gate) blockReason() string {
	if g.block == "" && g.trial && g.left <= 0 {
		return g.trialWaitReason()
	}
	return g.block
}

// trialWaitReason returns what a trial waits for.
func (g *gate) trialWaitReason() string {
	if _, well := g.canaries(); !well {
		return "waiting for the canaries to become healthy: " + g.down
	}
	return fmt.Sprintf("the canaries are healthy and wait for: meshrun promote %s/%s", g.job, g.def.process.Name)
}

// lastChange returns when a shard was last declared anew.
func (g *gate) lastChange() time.Time {
	var last time.Time
	for i := range g.shards {
		if in := g.shards[i].in; in != nil && in.Since.After(last) {
			last = in.Since
		}
	}
	return last
}

// apply changes a shard to what is wanted, or restarts it with its old
// definition.
func (g *gate) apply(m *shardState, pending pendingChange, old *spec.AssignedProcess) {
	t := step{old: old, epoch: g.Job.Order(m.to.process, m.to.shard).Epoch, expire: m.currentRequest()}
	switch pending {
	case changeRestartRequest:
		t.expire = spec.Expire{Generation: m.in.Generation, Why: brief(g.restartCause(m)), Planned: m.in.RestartCause == ""}
	case changeReplace:
		g.left--
	}
	if pending != changeNone && pending != changeLive && pending != changeStart && m.down == "" {
		g.free--
		if g.down == "" {
			g.down = fmt.Sprintf("shard %d is being changed", m.to.shard)
		}
	}
	g.steps[m.to] = t
}

// maxWhy bounds why a generation ends, in bytes: a watchdog refuses a launch that
// says more, or says it in several lines.
const maxWhy = 1000

// brief tells a reason in one line that is not too long.
func brief(why string) string {
	why = strings.Join(strings.Fields(strings.ReplaceAll(why, "\x00", "?")), " ")
	if len(why) <= maxWhy {
		return why
	}
	return strings.ToValidUTF8(why[:maxWhy], "") + " …"
}

// currentRequest returns the restart request that the observed generation already
// has.
func (m *shardState) currentRequest() spec.Expire {
	if m.entry == nil {
		return spec.Expire{}
	}
	if e := m.entry.Expire[m.to.shard]; m.in == nil || e.Generation == m.in.Generation {
		return e
	}
	return spec.Expire{}
}

// postpone keeps a shard as it is.
func (g *gate) postpone(m *shardState, pending pendingChange, why string) {
	g.reasons[g.id(m.to.process, m.to.shard)] = why
	if pending == changeMove {
		delete(g.wanted, m.to)
		g.staying[m.at] = true
		return
	}
	t := step{epoch: m.entry.Epochs[m.to.shard], expire: m.currentRequest()}
	if m.entry.Version != g.def.version {
		t.old = m.entry
	}
	g.steps[m.to] = t
}
