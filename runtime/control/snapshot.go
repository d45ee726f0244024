package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// SaveSnapshot writes the whole state as portable text.
func (b *Node) SaveSnapshot(ctx context.Context, w io.Writer) (int, error) {
	return state.Export(ctx, b.storeFor(ctx), w, time.Now())
}

// RestoreSnapshot writes what SaveSnapshot wrote into a state without jobs.
func (b *Node) RestoreSnapshot(ctx context.Context, r io.Reader) (int, error) {
	store := b.storeFor(ctx)
	keys, err := state.Import(ctx, store, r)
	switch {
	case errors.Is(err, state.ErrNotEmpty), errors.Is(err, state.ErrDamaged), errors.Is(err, state.ErrTooLarge), errors.Is(err, state.ErrInvalid):
		return 0, api.Errorf(api.ErrInvalid, "%v", err)
	case err != nil:
		return 0, err
	}
	op, err := state.EventOp(spec.Event{
		Time: time.Now().UTC(), Type: spec.EventStateRestored, Severity: spec.Warning, Node: b.cfg.Node, Who: api.Who(ctx),
		Message: fmt.Sprintf("%d keys were restored from a snapshot", keys),
	})
	if err == nil {
		_, err = store.Txn(ctx, op)
	}
	if err != nil {
		b.cfg.Logger.Warn("record the restoring of a snapshot", "error", err)
	}
	return keys, nil
}
