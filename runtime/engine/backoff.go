package engine

import (
	"context"
	"time"
)

// backoff is a wait that doubles.
type backoff struct{ wait time.Duration }

func newBackoff() *backoff { return &backoff{wait: firstRetry} }

// next returns how long to wait now.
func (b *backoff) next() time.Duration {
	wait := b.wait
	b.wait = min(2*wait, lastRetry)
	return wait
}

func (b *backoff) reset() { b.wait = firstRetry }

// sleep waits, unless ctx is done first.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
