package agent

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

// janitorPause is how much time lies between two rounds of the janitor, at the
// least; where nothing is decided it does nothing at all.
const janitorPause = 10 * time.Minute

// janitor keeps the number of recorded decisions within its bound.
func janitor(ctx context.Context, store state.Store, logger hclog.Logger) error {
	var index uint64
	for {
		_, next, err := store.Watch(ctx, state.EventsPrefix, index)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			index = next
			_, err = state.Trim(ctx, store, state.DefaultKeepEvents)
		}
		if err != nil && ctx.Err() == nil {
			logger.Warn("trim events", "error", err)
		}
		pause(ctx, janitorPause)
	}
}
