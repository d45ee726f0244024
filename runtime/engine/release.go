package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// ReleaseLocks gives back the locks of all shards of which the watchdog has no
// process left, for an agent that ends together with what it ran: others take
// them at once, while the end of the session alone would begin a lock delay.
//
// Call it after Run has returned, after the last renewal of the lease was
// answered, and after the lease was revoked at the watchdog. Without that the
// watchdog, or its successor, could start a shard again whose lock is given
// away.
func (e *Engine) ReleaseLocks(ctx context.Context) error {
	session := e.cfg.Session()
	if session == "" {
		return nil
	}
	table, err := e.cfg.Supervisor.Table(ctx)
	if err != nil {
		return fmt.Errorf("release shard locks: read table: %w", err)
	}
	lives := map[spec.InstanceID]bool{}
	for _, inst := range table.Instances {
		lives[inst.ID] = inst.PID != 0 || inst.Phase.Alive()
	}
	ids := slices.DeleteFunc(e.locks.heldBy(session), func(id spec.InstanceID) bool { return lives[id] })
	for batch := range slices.Chunk(ids, lockBatch) {
		if err := e.locks.release(ctx, session, batch); err != nil {
			return err
		}
	}
	return nil
}
