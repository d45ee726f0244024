package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
)

const (
	// muxQueue bounds how many values of one source wait for the others'.
	muxQueue = 256
	// muxPatience is how long a followed value waits for earlier ones of other
	// sources, and muxBegin how long it does while some have said nothing yet.
	muxPatience = 100 * time.Millisecond
	muxBegin    = 500 * time.Millisecond
)

// mux brings the values of several sources, each in order of time, into one
// order. Where the sources have ends, the order is exact, because each is
// waited for; where they are followed, a value waits for a moment only.
type mux[T any] struct {
	at     func(*T) time.Time
	follow bool
	began  time.Time
	wake   loop.Signal

	mu      sync.Mutex // guards all below, and the sources
	sources []*source[T]
	closed  bool // no more sources will come
}

// source is one of a mux's sources. One goroutine puts values into it.
type source[T any] struct {
	mux   *mux[T]
	room  chan struct{}
	queue []waiting[T]
	spoke bool // it has given a value, or ended
	ended bool
}

type waiting[T any] struct {
	value T
	since time.Time
}

func newMux[T any](at func(*T) time.Time, follow bool) *mux[T] {
	return &mux[T]{at: at, follow: follow, began: time.Now(), wake: loop.NewSignal()}
}

// add returns a new source, which must be ended.
func (m *mux[T]) add() *source[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &source[T]{mux: m, room: make(chan struct{}, muxQueue)}
	m.sources = append(m.sources, s)
	return s
}

// closeSources says that no more sources will be added.
func (m *mux[T]) closeSources() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.poke()
}

func (m *mux[T]) poke() {
	m.wake.Set()
}

// put adds a value, and waits while too many of this source wait already.
func (s *source[T]) put(ctx context.Context, value T) error {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mux.mu.Lock()
	s.queue = append(s.queue, waiting[T]{value, time.Now()})
	s.spoke = true
	s.mux.mu.Unlock()
	s.mux.poke()
	return nil
}

// end says that nothing more comes. What was put is still given out.
func (s *source[T]) end() {
	s.mux.mu.Lock()
	s.ended, s.spoke = true, true
	s.mux.mu.Unlock()
	s.mux.poke()
}

// next takes the value whose turn it is. Otherwise it returns how long to wait
// for one at the most, or that it is over.
func (m *mux[T]) next(now time.Time) (value T, ok bool, wait time.Duration, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = slices.DeleteFunc(m.sources, func(s *source[T]) bool { return s.ended && len(s.queue) == 0 })
	var first *source[T]
	missing, silent, full := false, false, false
	for _, s := range m.sources {
		silent = silent || !s.spoke
		if len(s.queue) == 0 {
			missing = true
			continue
		}
		full = full || len(s.queue) == muxQueue
		if first == nil || m.at(&s.queue[0].value).Before(m.at(&first.queue[0].value)) {
			first = s
		}
	}
	if first == nil {
		return value, false, time.Hour, m.closed && len(m.sources) == 0
	}
	if missing {
		if !m.follow {
			return value, false, time.Hour, false
		}
		due := first.queue[0].since.Add(muxPatience)
		if begun := m.began.Add(muxBegin); silent && begun.After(due) {
			due = begun
		}
		if wait := due.Sub(now); wait > 0 && !full {
			return value, false, wait, false
		}
	}
	value = first.queue[0].value
	first.queue[0] = waiting[T]{} // it is held no longer than needed
	first.queue = first.queue[1:]
	<-first.room
	return value, true, 0, false
}

// run gives out the values until all sources have ended and no more can come,
// the context ends, or each returns an error.
func (m *mux[T]) run(ctx context.Context, each func(T) error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		value, ok, wait, over := m.next(time.Now())
		switch {
		case ok:
			if err := each(value); err != nil {
				return err
			}
			continue
		case over:
			return nil
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.wake:
		case <-timer.C:
		}
	}
}
