// Package follow holds what every loop over the store needs: one watch of a
// prefix for all who follow it, a cache that follows it, and work that is done
// only while locks are held.
//
//	Share ──▶ Watch ──Update──▶ loop ──▶ View[T].Apply ──▶ names that changed
//	                             │
//	                             └─ own transactions ──▶ View[T].Put
//
// A loop owns its Views and is the only one to touch them. A Role is a loop
// that acts only under its locks.
package follow

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

// retryDelay is how long a follower waits after the store could not be reached.
const retryDelay = time.Second

// Update is what changed under a prefix since the last one.
type Update struct {
	Prefix string
	// Changed are the entries that are new or have another ModifyIndex.
	Changed []state.Entry
	// Removed are the keys that are gone.
	Removed []string
	// Index is the store's index that the update reflects.
	Index uint64
}

// Watch sends what is under the prefix, then every change of it, until the
// context ends. It sends a first update even if nothing is there. While the
// receiver is busy, changes are coalesced. A store that cannot be reached is
// asked again; only its closing ends the watch with an error.
func Watch(ctx context.Context, store state.Store, prefix string, out chan<- Update, logger hclog.Logger) error {
	known := map[string]uint64{}
	first := true
	for index := uint64(0); ; {
		entries, next, err := store.Watch(ctx, prefix, index)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, state.ErrClosed) {
			return err
		}
		if err != nil {
			logger.Warn("cannot watch the store, trying again", "prefix", prefix, "retry_in", retryDelay, "error", err)
			if !sleep(ctx, retryDelay) {
				return nil
			}
			continue
		}
		index = next
		update := compare(known, prefix, entries, next)
		if !first && len(update.Changed) == 0 && len(update.Removed) == 0 {
			continue
		}
		first = false
		select {
		case out <- update:
		case <-ctx.Done():
			return nil
		}
	}
}

// compare brings known up to date and returns what was new to it.
func compare(known map[string]uint64, prefix string, entries []state.Entry, index uint64) Update {
	u := Update{Prefix: prefix, Index: index}
	for _, e := range entries {
		if at, ok := known[e.Key]; !ok || at != e.ModifyIndex {
			known[e.Key] = e.ModifyIndex
			u.Changed = append(u.Changed, e)
		}
	}
	if len(known) == len(entries) {
		return u
	}
	there := make(map[string]struct{}, len(entries))
	for _, e := range entries {
		there[e.Key] = struct{}{}
	}
	for key := range known {
		if _, ok := there[key]; !ok {
			delete(known, key)
			u.Removed = append(u.Removed, key)
		}
	}
	return u
}

// sleep waits, and reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Name returns a key without its prefix.
func Name(prefix, key string) string { return strings.TrimPrefix(key, prefix) }
