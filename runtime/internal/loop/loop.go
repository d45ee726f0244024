// Package loop holds what meshrun's small loops have in common: a signal that
// coalesces, a wait that ends with its context, a step that repeats, and a delay
// that doubles.
//
// It decides nothing. A loop that works under a lock is a follow.Role; this
// package is below it.
package loop

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Signal wakes one receiver. Any number of calls of Set before the receiver
// looks are one signal: a loop that is woken reads the state, so it needs to
// know that something changed and not how often.
//
// The receiver reads from the channel. A nil Signal is never ready, and Set
// does nothing on it.
type Signal chan struct{}

// NewSignal returns a signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set makes the signal ready. It does not block and may be called by anybody.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Sleep waits for d, or until ctx ends; then it returns the context's error. A
// d of zero or less returns at once.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Run calls step at once, then whenever wake is set or the delay that step
// returned is over, until ctx ends. After a delay of zero it waits for wake alone.
func Run(ctx context.Context, wake Signal, step func(now time.Time) time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		if wait := step(time.Now()); wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// Backoff is a delay that doubles with each failure in a row, from Min to Max.
// Its zero value with Min and Max set is ready for use by one goroutine.
type Backoff struct {
	Min, Max time.Duration

	failures int
	next     time.Duration
}

// Failures is how many failures there have been since the last Reset.
func (b *Backoff) Failures() int { return b.failures }

// Next counts a failure and returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	d := max(b.next, b.Min)
	b.failures++
	b.next = min(2*d, b.Max)
	return d
}

// Reset counts a success: the next delay is Min again.
func (b *Backoff) Reset() { b.failures, b.next = 0, 0 }

// warnEvery is how many failures in a row make one warning.
const warnEvery = 10

// Failed is Next, and logs the failure: the first in a row and every tenth one
// as a warning, the others for debugging.
func (b *Backoff) Failed(logger hclog.Logger, problem string, err error) time.Duration {
	level := hclog.Debug
	if b.failures%warnEvery == 0 {
		level = hclog.Warn
	}
	d := b.Next()
	logger.Log(level, problem, "failures", b.failures, "retry_in", d, "error", err)
	return d
}

// Recovered is Reset, and logs the recovery if there was a failure.
func (b *Backoff) Recovered(logger hclog.Logger, recovery string) {
	if b.failures > 0 {
		logger.Info(recovery, "failures", b.failures)
	}
	b.Reset()
}
