package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
)

// EndSession ends the session of another node that asks for it. If this node was
// a member before that one fell silent, and without a break since, the store was
// not away for all.
func (b *Node) EndSession(ctx context.Context, end api.SessionEnd) error {
	if b.cfg.Unbroken() <= time.Duration(end.Silent) {
		return fmt.Errorf("end the session of node %s: this node has not been a member for as long as that one is silent, so the store may be away for all: %w", end.Node, api.ErrUnavailable)
	}
	entry, err := b.cfg.Store.Get(ctx, state.NodeKey(end.Node))
	if errors.Is(err, state.ErrNotFound) || err == nil && entry.Session != end.Session {
		return nil // it has ended
	}
	if err == nil {
		err = b.cfg.Store.DestroySession(ctx, end.Session)
	}
	if err != nil {
		return fmt.Errorf("end the session of node %s: %w", end.Node, err)
	}
	b.cfg.Logger.Warn("a node that does not reach the store asked for the end of its session", "node", end.Node, "session", end.Session)
	return nil
}
