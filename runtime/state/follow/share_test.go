package follow_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/runtime/state/statetest"
)

func TestASharedStoreKeepsTheContract(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store {
		s := follow.Share(local.OpenMemory(local.Options{}), nil)
		t.Cleanup(func() { s.Close() })
		return s
	}, statetest.Options{Virtual: true})
}

// counter counts the blocking queries that a store is asked.
type counter struct {
	state.Store
	mu         sync.Mutex // guards both below
	asked, now int
	fail       error
}

func (c *counter) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	if after == 0 {
		return c.Store.Watch(ctx, prefix, 0)
	}
	c.mu.Lock()
	c.asked++
	c.now++
	c.mu.Unlock()
	entries, index, err := c.Store.Watch(ctx, prefix, after)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	if c.fail != nil {
		return nil, 0, c.fail
	}
	return entries, index, err
}

func (c *counter) counts() (asked, now int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, c.now
}

// shareOf returns a shared store and what counts its queries.
func shareOf(t *testing.T) (state.Store, *counter) {
	c := &counter{Store: local.OpenMemory(local.Options{})}
	s := follow.Share(c, nil)
	t.Cleanup(func() { s.Close() })
	return s, c
}

// waiter is somebody who watches once.
type waiter struct {
	index uint64
	names int
	err   error
	back  bool
}

func watchOnce(ctx context.Context, s state.Store, after uint64) *waiter {
	w := &waiter{}
	go func() {
		entries, index, err := s.Watch(ctx, prefix, after)
		*w = waiter{index: index, names: len(entries), err: err, back: true}
	}()
	synctest.Wait()
	return w
}

func TestAllWhoWaitForAPrefixShareOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := shareOf(t)
		first := put(t, s, "a", 1)
		second := put(t, s, "b", 1)
		now := elsewhere(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		waiters := []*waiter{watchOnce(ctx, s, now), watchOnce(ctx, s, second), watchOnce(ctx, s, now)}
		if _, running := c.counts(); running != 1 {
			t.Fatalf("three wait, and %d queries run", running)
		}
		if late := watchOnce(ctx, s, first); !late.back || late.names != 2 || late.index < second {
			t.Fatalf("who missed a change got %+v", late)
		}
		at := put(t, s, "c", 1)
		synctest.Wait()
		for i, w := range waiters {
			if !w.back || w.err != nil {
				t.Errorf("waiter %d got %+v, the change is of %d", i, w, at)
			}
		}
		gone := watchOnce(ctx, s, at)
		cancel()
		synctest.Wait()
		if _, running := c.counts(); running != 0 || !gone.back {
			t.Errorf("nobody waits, and %d queries run", running)
		}
	})
}

// elsewhere moves the store's index, and nothing under the prefix.
func elsewhere(t *testing.T, s state.Store) uint64 {
	at, err := s.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: "elsewhere", Value: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAChangeCostsOneQueryHoweverManyFollowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := shareOf(t)
		at := put(t, s, "a", 0)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		for follower := range 8 {
			done.Go(func() {
				for index := at; ; {
					_, next, err := s.Watch(ctx, prefix, index)
					if err != nil {
						return
					}
					index = next
					time.Sleep(time.Duration(follower) * time.Millisecond) // virtual: some are slower
				}
			})
		}
		const changes = 20
		for n := range changes {
			time.Sleep(time.Second)
			put(t, s, "a", n+1)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if asked, running := c.counts(); asked > changes+1 || running != 1 {
			t.Errorf("%d changes cost %d queries, and %d run", changes, asked, running)
		}
		cancel()
		done.Wait()
	})
}

func TestOneWhoGivesUpLeavesTheOthersWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := shareOf(t)
		at := put(t, s, "a", 1)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		impatient, patient := watchOnce(short, s, at), watchOnce(t.Context(), s, at)
		time.Sleep(2 * time.Second) // virtual
		synctest.Wait()
		if !errors.Is(impatient.err, context.DeadlineExceeded) || patient.back {
			t.Fatalf("one got %+v, the other %+v", impatient, patient)
		}
		put(t, s, "a", 2)
		synctest.Wait()
		if asked, running := c.counts(); !patient.back || patient.err != nil || asked != 1 || running != 0 {
			t.Fatalf("the other got %+v; %d queries, %d running", patient, asked, running)
		}
	})
}

func TestAnErrorGoesToAllAndTheNextAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := shareOf(t)
		at := put(t, s, "a", 1)
		c.fail = state.ErrUnavailable
		waiters := []*waiter{watchOnce(t.Context(), s, at), watchOnce(t.Context(), s, at)}
		at = put(t, s, "a", 2)
		synctest.Wait()
		for _, w := range waiters {
			if !errors.Is(w.err, state.ErrUnavailable) {
				t.Errorf("got %+v", w)
			}
		}
		c.mu.Lock()
		c.fail = nil
		c.mu.Unlock()
		w := watchOnce(t.Context(), s, at-1)
		if !w.back || w.err != nil || w.index < at {
			t.Errorf("then got %+v", w)
		}
	})
}

func TestClosingEndsAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := shareOf(t)
		at := put(t, s, "a", 1)
		waiters := []*waiter{watchOnce(t.Context(), s, at), watchOnce(t.Context(), s, at)}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		waiters = append(waiters, watchOnce(t.Context(), s, at))
		for _, w := range waiters {
			if !errors.Is(w.err, state.ErrClosed) {
				t.Errorf("got %+v", w)
			}
		}
		if _, running := c.counts(); running != 0 {
			t.Errorf("%d queries still run", running)
		}
	})
}
