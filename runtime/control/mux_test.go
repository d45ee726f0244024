package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// beat is a value with a time, and where it came from.
type beat struct {
	at   time.Time
	from int
}

func atOf(b *beat) time.Time { return b.at }

// However slow the sources are, what has an end comes in exact order.
func TestWhatHasAnEndIsMergedExactly(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Unix(1700000000, 0)
		sources := rapid.IntRange(0, 5).Draw(rt, "sources")
		times := make([][]int, sources)
		pauses := make([]time.Duration, sources)
		for n := range sources {
			times[n] = rapid.SliceOfN(rapid.IntRange(0, 1000), 0, 3*muxQueue).Draw(rt, "times")
			slices.Sort(times[n])
			pauses[n] = time.Duration(rapid.IntRange(0, 3).Draw(rt, "pause")) * time.Minute
		}
		synctest.Test(t, func(t *testing.T) {
			m := newMux(atOf, false)
			var tasks sync.WaitGroup
			total := 0
			for n := range sources {
				out := m.add()
				total += len(times[n])
				tasks.Go(func() {
					defer out.end()
					for _, at := range times[n] {
						time.Sleep(pauses[n])
						if err := out.put(t.Context(), beat{start.Add(time.Duration(at) * time.Second), n}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			m.closeSources()
			var got []beat
			if err := m.run(t.Context(), func(b beat) error { got = append(got, b); return nil }); err != nil {
				t.Fatal(err)
			}
			tasks.Wait()
			if len(got) != total || !slices.IsSortedFunc(got, func(a, b beat) int { return a.at.Compare(b.at) }) {
				t.Fatalf("%d values of %d, or not in order", len(got), total)
			}
		})
	})
}

func TestAFollowedValueWaitsAMomentForEarlierOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := newMux(atOf, true)
		a, b, silent := m.add(), m.add(), m.add()
		start := time.Now()
		type out struct {
			beat
			when time.Duration
		}
		var got []out
		done := make(chan error, 1)
		go func() {
			done <- m.run(ctx, func(v beat) error { got = append(got, out{v, time.Since(start)}); return nil })
		}()
		put := func(s *source[beat], at time.Time, from int) {
			if err := s.put(ctx, beat{at, from}); err != nil {
				t.Error(err)
			}
		}
		put(a, start.Add(-time.Second), 1)
		time.Sleep(50 * time.Millisecond)
		put(b, start.Add(-2*time.Second), 2) // late, and earlier
		time.Sleep(time.Second)
		put(a, start, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		want := []out{
			{beat{start.Add(-2 * time.Second), 2}, muxBegin}, // one source has said nothing yet
			{beat{start.Add(-time.Second), 1}, muxBegin},
			{beat{start, 3}, 1050*time.Millisecond + muxPatience},
		}
		if !slices.Equal(got, want) {
			t.Errorf("came %v, want %v", got, want)
		}
		for n := range 3 * muxQueue { // a burst is not held back by who is silent
			put(a, start.Add(time.Second), 4+n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		silent.end()
	})
}

func TestAMuxEndsWithAnErrorOfWhoReads(t *testing.T) {
	m := newMux(atOf, false)
	out := m.add()
	if err := out.put(t.Context(), beat{}); err != nil {
		t.Fatal(err)
	}
	out.end()
	enough := errors.New("enough")
	if err := m.run(t.Context(), func(beat) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
}
