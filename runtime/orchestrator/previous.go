package orchestrator

import (
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// previousDefinition returns the definition with which a shard that is assigned
// nowhere starts while the wanted one is on trial: its own on its lost node, or
// else that of the other shards; nil for the wanted one.
func (g *gate) previousDefinition(to shardOnNode) *spec.AssignedProcess {
	var own, others *spec.AssignedProcess
	for node, a := range g.Current {
		for i := range a.Processes {
			e := &a.Processes[i]
			switch {
			case e.Process.Name != to.process:
			case !g.Live[node] && e.Shards.Contains(to.shard):
				own = e
			case e.Version != g.def.version && (others == nil || e.Version > others.Version):
				others = e
			}
		}
	}
	switch {
	case own == nil:
		return others
	case own.Version == g.def.version:
		return nil
	}
	return own
}

// keepPreviousDefinition keeps an entry with the shards' previous definition if a
// shard has no entry now, or soon: previousDefinition may need it.
func (g *gate) keepPreviousDefinition() {
	if !slices.ContainsFunc(g.shards, func(m shardState) bool {
		return m.entry == nil || g.stopping[m.to] != "" || m.at.node != m.to.node
	}) {
		return
	}
	var last *entry
	for _, e := range g.entries() {
		if e.Process.Name != g.def.process.Name || e.Version == g.def.version {
			continue
		}
		if last == nil || e.Version > last.Version || (e.Version == last.Version && e.node < last.node) {
			last = &e
		}
	}
	if last != nil {
		g.group(last.node, last.Process.Name, last.AssignedProcess)
	}
}
