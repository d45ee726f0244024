package orchestrator

import "github.com/synergymesh/meshrun/spec"

// pendingChange is what separates a shard from what is wanted.
type pendingChange int

const (
	changeNone    pendingChange = iota
	changeLive                  // applied without a restart
	changeStart                 // assigned nowhere
	changeReplace               // restart with another definition
	changeMove
	changeRestartOrder   // restart requested by an operator
	changeRestartRequest // restart requested by a check, a guard or a dependency
)

// pendingChange returns what separates a shard from what is wanted, and how to
// describe it.
func (g *gate) pendingChange(m *shardState) (pendingChange, string) {
	switch {
	case m.entry == nil:
		return changeStart, ""
	case m.at.node != m.to.node:
		return changeMove, "move to " + m.to.node
	case m.entry.Version != g.def.version && g.hashOf(m) != g.def.replaceHash():
		return changeReplace, "restart with another definition"
	}
	if pending, what := g.pendingRestart(m); pending != changeNone {
		return pending, what
	}
	if m.entry.Version != g.def.version {
		return changeLive, ""
	}
	return changeNone, ""
}

// pendingRestart returns the restart that a shard needs whichever definition it
// has: an operator's order or a guard's finding does not wait until a failed
// rollout is repaired.
func (g *gate) pendingRestart(m *shardState) (pendingChange, string) {
	switch {
	case m.entry.Epochs[m.to.shard] != g.Job.Order(m.to.process, m.to.shard).Epoch:
		return changeRestartOrder, "requested restart"
	case g.restartCause(m) != "" && !m.restartRequested():
		return changeRestartRequest, "restart, as " + g.restartCause(m)
	}
	return changeNone, ""
}

// hashOf returns the ReplaceHash of what the shard runs, or is about to run.
func (g *gate) hashOf(m *shardState) string {
	switch {
	case m.in == nil || m.in.Hash == "":
		return g.hashAs(m.entry)
	case m.in.Version == g.def.version:
		return g.def.replaceHash()
	}
	return m.in.Hash
}

// hashAs returns the ReplaceHash of an entry.
func (g *gate) hashAs(e *spec.AssignedProcess) string {
	hash := g.hashes[e]
	if hash == "" {
		if g.hashes == nil {
			g.hashes = map[*spec.AssignedProcess]string{}
		}
		hash = spec.ReplaceHash(&e.Process)
		g.hashes[e] = hash
	}
	return hash
}

// restartCause returns why the observed generation should be restarted, "" if it
// should not.
func (g *gate) restartCause(m *shardState) string {
	switch {
	case m.in == nil || (m.in.Phase != spec.PhaseRunning && m.in.Phase != spec.PhaseStarting):
		return ""
	case m.in.RestartCause != "":
		return m.in.RestartCause
	}
	return g.restartReason(m.at, m.in)
}
