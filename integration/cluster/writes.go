package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Load is what meshrun costs Consul.
type Load struct {
	// Writes counts the changes of keys that went through raft: single ones
	// and transactions, whether they changed anything or not. Renewals of
	// sessions are none.
	Writes int
	// Sessions counts those that were made and destroyed, which go through
	// raft too.
	Sessions int
}

// Load asks the leader: for what it has applied since it was started.
func (c *Cluster) Load(ctx context.Context) (Load, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return Load{}, fmt.Errorf("measure Consul's load: %w", err)
	}
	m, err := leader.Consul().Metrics(ctx)
	if err != nil {
		return Load{}, fmt.Errorf("measure Consul's load: %w", err)
	}
	return Load{
		Writes:   int(m["consul_fsm_kvs_count"] + m["consul_fsm_txn_count"]),
		Sessions: int(m["consul_fsm_session_count"]),
	}, nil
}

// Waiting counts the blocking queries that wait at the host's Consul agent now:
// those for keys, and those for certificates, which the agent answers from its
// own cache.
func (h *Host) Waiting(ctx context.Context) (keys, certificates int, err error) {
	text, err := h.Consul().do(ctx, http.MethodGet, "/debug/pprof/goroutine?debug=2", nil)
	if err != nil {
		return 0, 0, fmt.Errorf("count blocking queries: %w", err)
	}
	count := func(handler string) int { return strings.Count(string(text), "(*HTTPHandlers)."+handler+"(") }
	return count("KVSGet"), count("AgentConnectCALeafCert") + count("AgentConnectCARoots"), nil
}
