package agent

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
)

// trimEvery is after how many events of its own an agent sees to it that the
// store keeps no more of them than it should.
const trimEvery = 1000

// janitor keeps the number of recorded decisions within its bound: it counts
// what its own agent writes, so that where nothing is decided, it does nothing
// and watches nothing.
type janitor struct {
	state.Store
	written atomic.Int64
	wake    loop.Signal
	logger  hclog.Logger
}

// newJanitor returns a janitor, which is the store to write to.
func newJanitor(store state.Store, logger hclog.Logger) *janitor {
	j := &janitor{Store: store, wake: loop.NewSignal(), logger: logger.Named("janitor")}
	j.written.Store(trimEvery - 1) // what agents before this one left is looked at once
	return j
}

// Txn does what the store's does, and counts events.
func (j *janitor) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	index, err := j.Store.Txn(ctx, ops...)
	if err != nil {
		return index, err
	}
	var events int64
	for _, op := range ops {
		if op.Kind == state.OpSet && strings.HasPrefix(op.Key, state.EventsPrefix) {
			events++
		}
	}
	if events > 0 && j.written.Add(events) >= trimEvery {
		j.wake.Set()
	}
	return index, nil
}

// run trims whenever there is reason to, until the context ends.
func (j *janitor) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
		}
		j.written.Store(0)
		if _, err := state.Trim(ctx, j.Store, state.DefaultKeepEvents); err != nil && ctx.Err() == nil {
			j.logger.Warn("trim events", "error", err)
		}
	}
}
