package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// quiet is how long a watch must stay silent to count as blocked.
const quiet = 300 * time.Millisecond

// seen is what a watch returned.
type seen struct {
	entries []state.Entry
	index   uint64
	err     error
}

// watch starts a watch of the prefix, and returns when it blocks.
func (s *suite) watch(prefix string, after uint64) <-chan seen {
	s.Helper()
	out := make(chan seen, 1)
	ctx := s.ctx()
	go func() {
		var w seen
		w.entries, w.index, w.err = s.store.Watch(ctx, s.key(prefix), after)
		out <- w
	}()
	s.blocked(out)
	return out
}

// blocked demands that the watch does not return.
func (s *suite) blocked(out <-chan seen) {
	s.Helper()
	select {
	case w := <-out:
		s.Fatalf("watch returned keys %q, index %d, error %v; it was to block", s.names(w.entries), w.index, w.err)
	case <-time.After(quiet):
	}
}

// woken demands that the watch returns exactly the keys.
func (s *suite) woken(out <-chan seen, after uint64, keys ...string) uint64 {
	s.Helper()
	w := <-out
	if w.err != nil {
		s.Fatalf("watch: %v", w.err)
	}
	if got := s.names(w.entries); !slices.Equal(got, keys) {
		s.Fatalf("watch returned keys %q, want %q", got, keys)
	}
	if w.index <= after {
		s.Fatalf("watch returned index %d, not after %d", w.index, after)
	}
	return w.index
}

// wakes demands that a watch of the prefix blocks, and that what happens
// wakes it.
func (s *suite) wakes(prefix string, happens func(), keys ...string) {
	s.Helper()
	_, index := s.list(prefix)
	out := s.watch(prefix, index)
	happens()
	s.woken(out, index, keys...)
}

var watchTests = []test{
	{"index 0 returns at once, also when there is nothing", func(s *suite) {
		entries, index, err := s.store.Watch(s.ctx(), s.root, 0)
		if err != nil || len(entries) != 0 || index == 0 {
			s.Errorf("got %d entries, index %d, error %v", len(entries), index, err)
		}
	}},

	{"a watch from before a change returns at once", func(s *suite) {
		_, index := s.list("p/")
		s.txn(set("p/a", "1"))
		entries, next, err := s.store.Watch(s.ctx(), s.key("p/"), index)
		if err != nil || len(entries) != 1 || next <= index {
			s.Errorf("got %d entries, index %d after %d, error %v", len(entries), next, index, err)
		}
	}},

	{"a watch from before a deletion returns at once", func(s *suite) {
		s.txn(set("p/a", "1"), set("p/b", "1"))
		_, index := s.list("p/")
		s.txn(del("p/a"))
		entries, next, err := s.store.Watch(s.ctx(), s.key("p/"), index)
		if err != nil || len(entries) != 1 || next <= index {
			s.Errorf("got %d entries, index %d after %d, error %v", len(entries), next, index, err)
		}
	}},

	{"it is woken when a key is created, changed and deleted", func(s *suite) {
		s.wakes("p/", func() { s.txn(set("p/a", "1")) }, "p/a")
		s.wakes("p/", func() { s.txn(set("p/a", "2")) }, "p/a")
		s.wakes("p/", func() { s.txn(set("p/b", "1")) }, "p/a", "p/b")
		s.wakes("p/", func() { s.txn(del("p/a")) }, "p/b")
		s.wakes("p/", func() { s.txn(del("p/b")) })
		s.wakes("p/", func() { s.txn(set("p/c", "1")) }, "p/c")
	}},

	{"it is woken when a lock is taken, released and lost", func(s *suite) {
		first, second := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		s.wakes("p/", func() { s.txn(lock("p/l", "v", first)) }, "p/l")
		s.wakes("p/", func() { s.txn(unlock("p/l", "v", first)) }, "p/l")
		s.txn(lock("p/l", "v", second))
		s.wakes("p/", func() { s.destroy(second) }, "p/l")
		s.destroy(first)
	}},

	{"it watches one key as well as many", func(s *suite) {
		s.txn(set("p/key", "1"))
		s.wakes("p/key", func() { s.txn(set("p/key", "2")) }, "p/key")
	}},

	{"it sleeps through changes elsewhere", func(s *suite) {
		s.txn(set("p/a", "1"), set("pp", "1"), set("o", "1"))
		_, index := s.list("p/")
		out := s.watch("p/", index)
		s.txn(set("q/a", "1"), set("pp", "2"), set("p", "1"), del("o"))
		s.blocked(out)
		s.txn(set("p/a", "2"))
		s.woken(out, index, "p/a")
	}},

	{"it sleeps through changes elsewhere when there is nothing under its prefix", func(s *suite) {
		s.txn(set("o", "1"))
		_, index := s.list("p/")
		out := s.watch("p/", index)
		s.txn(set("q/a", "1"), set("pp", "2"), set("p", "1"), del("o"))
		s.txn(del("p"), del("pp"))
		s.blocked(out)
		s.txn(set("p/a", "2"))
		s.woken(out, index, "p/a")
	}},

	{"it sleeps while what is missing is deleted", func(s *suite) {
		s.txn(set("p/a", "1"))
		_, index := s.list("p/")
		out := s.watch("p/", index)
		s.txn(del("p/b"), op(state.OpDeleteCAS, "p/c", index))
		s.blocked(out)
		s.txn(set("p/a", "2"))
		s.woken(out, index, "p/a")
	}},

	{"it sleeps through a transaction that conflicts", func(s *suite) {
		s.txn(set("p/a", "1"))
		_, index := s.list("p/")
		out := s.watch("p/", index)
		s.conflict([]state.Op{set("p/a", "2"), op(state.OpCheckMissing, "p/a", 0)}, 1)
		s.blocked(out)
		s.txn(set("p/a", "3"))
		s.woken(out, index, "p/a")
	}},

	{"it ends with its context", func(s *suite) {
		_, index := s.list("p/")
		ctx, cancel := context.WithTimeout(s.ctx(), quiet)
		defer cancel()
		_, _, err := s.store.Watch(ctx, s.key("p/"), index)
		if !errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("got error %v, want context.DeadlineExceeded", err)
		}
	}},

	{"many watchers of one prefix are all woken", func(s *suite) {
		_, index := s.list("p/")
		var outs []<-chan seen
		for range 8 {
			outs = append(outs, s.watch("p/", index))
		}
		s.txn(set("p/a", "1"))
		for _, out := range outs {
			s.woken(out, index, "p/a")
		}
	}},

	{"no wake-up is lost between one watch and the next", func(s *suite) {
		const writers, writes = 4, 25
		_, index := s.list("n/")
		for w := range writers {
			s.tasks.Go(func() {
				for i := range writes {
					name := fmt.Sprintf("n/%d", w)
					ops := []state.Op{set(name, fmt.Sprint(i))}
					if i%5 == 4 {
						ops = []state.Op{del(name), set(fmt.Sprintf("n/last%d", w), fmt.Sprint(i))}
					}
					if _, err := s.try(ops...); err != nil {
						s.Errorf("transaction: %v", err)
						return
					}
				}
			})
		}
		for finished := 0; finished < writers; {
			entries, next, err := s.store.Watch(s.ctx(), s.key("n/"), index)
			if err != nil {
				s.Fatalf("watch after %d: %v: a wake-up was lost", index, err)
			}
			if next < index {
				s.Fatalf("the index fell from %d to %d", index, next)
			}
			index, finished = next, 0
			for _, e := range entries {
				if string(e.Value) == fmt.Sprint(writes-1) {
					finished++
				}
			}
		}
	}},
}
