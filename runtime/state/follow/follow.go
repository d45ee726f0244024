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
	"slices"
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
	// Restored says that the store was put back, as from a backup: indexes of
	// before mean nothing any more, and Changed is all that is there.
	Restored bool
}

// Watch sends what is under the prefix, then every change of it, until the
// context ends. It sends a first update even if nothing is there. While the
// receiver is busy, changes are coalesced. A store that cannot be reached is
// asked again; only its closing ends the watch with an error.
func Watch(ctx context.Context, store state.Store, prefix string, out chan<- Update, logger hclog.Logger) error {
	known := map[string]uint64{}
	first := true
	var last uint64 // the index of the last answer
	for index := uint64(0); ; {
		entries, next, err := store.Watch(ctx, prefix, index)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, state.ErrClosed) {
			return err
		}
		if err != nil {
			index = 0 // a deletion may be forgotten by the time that the store is back
			logger.Warn("cannot watch the store, trying again", "prefix", prefix, "retry_in", retryDelay, "error", err)
			if !sleep(ctx, retryDelay) {
				return nil
			}
			continue
		}
		update := compare(known, prefix, entries, next)
		if next < last || wentBack(update.Changed, last) {
			logger.Warn("the store was put back to an earlier state", "prefix", prefix, "index", next, "was", last)
			update.Restored, update.Changed = true, entries
		}
		index, last = next, next
		if !first && !update.Restored && len(update.Changed) == 0 && len(update.Removed) == 0 {
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

// wentBack reports whether an entry changed at an index up to the last one,
// which can't be unless the store was put back.
func wentBack(changed []state.Entry, last uint64) bool {
	return slices.ContainsFunc(changed, func(e state.Entry) bool { return e.ModifyIndex <= last })
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
