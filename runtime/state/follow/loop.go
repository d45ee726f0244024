package follow

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Step is one turn of a loop: it takes the updates in and acts on them. It is
// called again with the next updates, or without any at wake or when the loop
// is poked, whichever comes first; a zero wake means not by time. An error ends
// the loop.
type Step func(ctx context.Context, updates []Update) (wake time.Time, err error)

// Loop watches prefixes, each in a goroutine of its own, and calls step: first
// once with all of what is there, then whenever something has changed, with
// all the changes that have come in meanwhile, or poke tells. It returns when ctx ends, when
// step returns an error, or when the store is closed, and has then stopped its
// goroutines.
func Loop(ctx context.Context, store state.Store, prefixes []string, poke <-chan struct{}, logger hclog.Logger, step Step) error {
	group, ctx := errgroup.WithContext(ctx)
	updates := make(chan Update)
	for _, prefix := range prefixes {
		group.Go(func() error { return Watch(ctx, store, prefix, updates, logger) })
	}
	group.Go(func() error { return turn(ctx, updates, poke, len(prefixes), step) })
	return group.Wait()
}

// turn is the loop's only goroutine that acts.
func turn(ctx context.Context, updates <-chan Update, poke <-chan struct{}, prefixes int, step Step) error {
	batch := make([]Update, 0, prefixes)
	for len(batch) < prefixes { // the first of each: acting on half would undo the rest
		select {
		case u := <-updates:
			batch = append(batch, u)
		case <-ctx.Done():
			return nil
		}
	}
	for {
		wake, err := step(ctx, batch)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if batch = next(ctx, updates, poke, wake); batch == nil {
			return nil
		}
	}
}

// next waits for updates, a poke or wake, and takes all updates that are there. It
// returns nil if the context ended.
func next(ctx context.Context, updates <-chan Update, poke <-chan struct{}, wake time.Time) []Update {
	var alarm <-chan time.Time
	if !wake.IsZero() {
		timer := time.NewTimer(time.Until(wake))
		defer timer.Stop()
		alarm = timer.C
	}
	batch := []Update{}
	select {
	case u := <-updates:
		batch = append(batch, u)
	case <-poke:
	case <-alarm:
	case <-ctx.Done():
		return nil
	}
	for {
		select {
		case u := <-updates:
			batch = append(batch, u)
		default:
			return batch
		}
	}
}
