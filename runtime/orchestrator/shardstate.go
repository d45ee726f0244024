package orchestrator

import (
	"fmt"

	"github.com/synergymesh/meshrun/spec"
)

// shardState is a shard that is to run.
type shardState struct {
	to, at shardOnNode           // where it is wanted, and where it is assigned
	entry  *spec.AssignedProcess // under which it is assigned; nil if it is not
	in     *spec.Instance        // observed there; nil if there is none
	down   string                // why it is not available; "" if it is
}

// unavailableReason returns why a shard is not available, "" if it is.
func (g *gate) unavailableReason(m *shardState) string {
	switch in := m.in; {
	case !g.Live[m.to.node]:
		return "is on " + m.to.node + ", which is gone"
	case g.stopping[m.to] != "":
		return "is " + g.stopping[m.to]
	case m.held() != "" && (in == nil || in.Phase == spec.PhasePending):
		return m.held()
	case in == nil || m.entry == nil:
		return "has not started yet"
	case m.refused():
		return "cannot be launched: " + in.Reason
	case in.Epoch != m.entry.Epochs[m.to.shard] || (in.Version != m.entry.Version && in.Hash != g.hashAs(m.entry)):
		return "is being changed" // by a restart; without one it is available as it was
	case in.Phase == spec.PhaseCompleted:
		return ""
	case m.restartRequested():
		return "is being restarted"
	default:
		at, healthy := in.HealthyAt()
		if !healthy {
			return unhealthyReason(in)
		}
		// min_healthy applies to shards that are as wanted. A shard that is still to be
		// changed is up, and counts as disrupted once it is.
		steady := at.Add(g.bounds().MinHealthy.Std())
		if pending, _ := g.pendingChange(m); (pending == changeNone || pending == changeLive) && !at.IsZero() && g.now.Before(steady) {
			g.wake(steady)
			return fmt.Sprintf("has to be healthy for %s", g.bounds().MinHealthy)
		}
		return ""
	}
}

// refused reports whether the node cannot launch what the shard is assigned as.
func (m *shardState) refused() bool {
	return m.in != nil && m.entry != nil && m.in.Refused != 0 && m.in.Refused == m.entry.Version
}

// unhealthyReason says in which way an instance is not healthy.
func unhealthyReason(in *spec.Instance) string {
	switch {
	case in.Phase == spec.PhaseFailed && in.Reason != "" && in.LastExit != nil:
		return fmt.Sprintf("has failed: %s; %s", in.LastExit, in.Reason)
	case in.Phase == spec.PhaseFailed && in.Reason != "":
		return "has failed: " + in.Reason
	case in.Phase == spec.PhaseFailed && in.LastExit != nil:
		return fmt.Sprintf("has failed: %s", in.LastExit)
	case in.Phase == spec.PhaseFailed:
		return "has failed"
	case in.Phase == spec.PhaseBackoff && in.LastExit != nil:
		return fmt.Sprintf("waits for its next start, after %s", in.LastExit)
	case in.Phase == spec.PhaseBackoff:
		return "waits for its next start"
	case in.Phase == spec.PhasePending && in.Reason != "":
		return in.Reason
	case in.Phase != spec.PhaseRunning:
		return "is " + string(in.Phase)
	}
	for _, c := range in.Checks {
		if c.State == in.Health {
			if c.State == spec.HealthFailing {
				return fmt.Sprintf("is not healthy: its check %q fails", c.Name)
			}
			return fmt.Sprintf("is not healthy yet: its check %q has not passed", c.Name)
		}
	}
	return "is not healthy"
}

// held returns what the shard is held for, "" if it is not held.
func (m *shardState) held() string {
	if m.entry == nil {
		return ""
	}
	return m.entry.Held[m.to.shard]
}

// restartRequested reports whether the observed generation has a restart request.
func (m *shardState) restartRequested() bool {
	return m.in != nil && m.entry != nil && m.entry.Expire[m.to.shard].Generation == m.in.Generation && m.in.Generation != 0
}
