package loop

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestASignalCoalesces(t *testing.T) {
	s := NewSignal()
	s.Set()
	s.Set()
	<-s
	select {
	case <-s:
		t.Error("two calls of Set were two signals")
	default:
	}
	var none Signal
	none.Set() // does not block, and does not panic
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Sleep(t.Context(), time.Second); err != nil || time.Since(began) != time.Second {
			t.Errorf("slept %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended, and Sleep returned %v", err)
		}
		if err := Sleep(ctx, 0); err == nil {
			t.Error("Sleep of nothing hides that the context has ended")
		}
	})
}

func TestABackoffDoublesUpToItsMaximum(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: 300 * time.Millisecond}
	for i, want := range []time.Duration{100, 200, 300, 300} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Errorf("delay %d is %s, want %s", i, got, want*time.Millisecond)
		}
	}
	if b.Failures() != 4 {
		t.Errorf("counted %d failures", b.Failures())
	}
	b.Reset()
	if got := b.Next(); got != b.Min || b.Failures() != 1 {
		t.Errorf("after a success the delay is %s, failures %d", got, b.Failures())
	}
}

func TestRunStepsAtOnceWhenWokenAndAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake, began := NewSignal(), time.Now()
		var delay atomic.Int64
		delay.Store(int64(time.Second))
		var steps []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, wake, func(now time.Time) time.Duration {
				steps = append(steps, now.Sub(began))
				return time.Duration(delay.Load())
			})
		}()
		time.Sleep(1500 * time.Millisecond) // steps at 0 and 1 s
		wake.Set()
		time.Sleep(1500 * time.Millisecond) // at 1.5 s, and 2.5 s
		delay.Store(0)
		wake.Set()
		time.Sleep(time.Hour) // at 3 s, and no more
		cancel()
		<-done
		want := []time.Duration{0, time.Second, 1500 * time.Millisecond, 2500 * time.Millisecond, 3 * time.Second}
		if !slices.Equal(steps, want) {
			t.Errorf("stepped at %v, want %v", steps, want)
		}
	})
}
