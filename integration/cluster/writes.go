package cluster

import (
	"context"
	"fmt"
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
	// Waiting is how many blocking queries wait at the servers now, Consul's
	// own included.
	Waiting int
}

// Load asks the servers. Writes and Sessions are those that the leader has
// applied since it was started.
func (c *Cluster) Load(ctx context.Context) (Load, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return Load{}, fmt.Errorf("measure Consul's load: %w", err)
	}
	var sum Load
	for _, s := range c.Servers {
		if !s.Up() {
			continue
		}
		m, err := s.Consul().Metrics(ctx)
		if err != nil {
			return Load{}, fmt.Errorf("measure Consul's load: %w", err)
		}
		sum.Waiting += int(m["consul_rpc_queries_blocking"])
		if s == leader {
			sum.Writes = int(m["consul_fsm_kvs_count"] + m["consul_fsm_txn_count"])
			sum.Sessions = int(m["consul_fsm_session_count"])
		}
	}
	return sum, nil
}
