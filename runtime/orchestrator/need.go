package orchestrator

import "github.com/synergymesh/meshrun/spec"

// need is what keeps a shard from being as it is wanted.
type need int

const (
	needNothing need = iota
	needLive         // it may be told without a disturbance
	needStart        // it is assigned nowhere
	needReplace      // another definition, by a restart
	needMove
	needOrder  // a restart that an operator asked for
	needExpire // a restart that a check, a guard or a dependency asks for
)

// need says what keeps a shard from being as it is wanted, and in words.
func (g *gate) need(m *member) (need, string) {
	switch {
	case m.entry == nil:
		return needStart, ""
	case m.at.node != m.to.node:
		return needMove, "move to " + m.to.node
	case m.entry.Version != g.def.version && g.hashOf(m) != g.def.replaceHash():
		return needReplace, "restart with another definition"
	}
	if need, what := g.needAsItIs(m); need != needNothing {
		return need, what
	}
	if m.entry.Version != g.def.version {
		return needLive, ""
	}
	return needNothing, ""
}

// needAsItIs says what a shard needs whichever definition it has: an operator's
// order and a guard's finding do not wait for a rollout to be mended.
func (g *gate) needAsItIs(m *member) (need, string) {
	switch {
	case m.entry.Epochs[m.to.shard] != g.Job.Order(m.to.process, m.to.shard).Epoch:
		return needOrder, "ordered restart"
	case g.ails(m) != "" && !m.expires():
		return needExpire, "restart, as " + g.ails(m)
	}
	return needNothing, ""
}

// hashOf returns the ReplaceHash of what the shard runs, or is about to.
func (g *gate) hashOf(m *member) string {
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

// ails says why the generation that is seen should be restarted; "" if it should not.
func (g *gate) ails(m *member) string {
	switch {
	case m.in == nil || (m.in.Phase != spec.PhaseRunning && m.in.Phase != spec.PhaseStarting):
		return ""
	case m.in.RestartCause != "":
		return m.in.RestartCause
	}
	return g.follows(m.at, m.in)
}
