package statetest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
)

// model is what a store must hold, in the simplest form: values and indexes
// by key.
type model map[string]state.Entry

// pending stands for the index of the transaction at hand, which is known only
// once it is done.
const pending = math.MaxUint64

// apply does the operations on a copy, and reports whether they may happen.
func (m model) apply(ops []state.Op) (model, bool) {
	n := maps.Clone(m)
	for _, op := range ops {
		e, exists := n[op.Key]
		write := func() {
			if !exists || string(e.Value) != string(op.Value) {
				e.Value, e.ModifyIndex = op.Value, pending
			}
			n[op.Key] = e
		}
		switch op.Kind {
		case state.OpSet:
			write()
		case state.OpCAS:
			if e.ModifyIndex != op.Index {
				return m, false
			}
			write()
		case state.OpDelete:
			delete(n, op.Key)
		case state.OpDeleteCAS:
			if exists && e.ModifyIndex != op.Index {
				return m, false
			}
			delete(n, op.Key)
		case state.OpCheckIndex:
			if !exists || e.ModifyIndex != op.Index {
				return m, false
			}
		case state.OpCheckMissing:
			if exists {
				return m, false
			}
		}
	}
	return n, true
}

var modelTests = []test{
	{"any sequence of transactions leaves what a plain map would hold", func(s *suite) {
		round := 0
		rapid.Check(s.T, func(t *rapid.T) {
			round++
			prefix := fmt.Sprint("m", round, "/")
			m := model{}
			for range rapid.IntRange(1, 12).Draw(t, "transactions") {
				m = s.step(t, m, prefix)
			}
		})
	}},

	{"concurrent increments by cas are a line: none is lost", func(s *suite) {
		const workers, increments = 4, 10
		s.txn(set("n", "0"))
		done := make(chan error, workers)
		for range workers {
			s.tasks.Go(func() { done <- s.increment("n", increments) })
		}
		for range workers {
			if err := <-done; err != nil {
				s.Fatal(err)
			}
		}
		s.value("n", fmt.Sprint(workers*increments))
	}},
}

// step draws a transaction, does it in store and model, and compares.
func (s *suite) step(t *rapid.T, m model, prefix string) model {
	names := rapid.SampledFrom([]string{"a", "a/b", "a/c", "ab", "b"})
	var ops []state.Op
	for range rapid.IntRange(1, 5).Draw(t, "operations") {
		op := state.Op{Key: prefix + names.Draw(t, "key")}
		op.Kind = rapid.SampledFrom([]state.OpKind{
			state.OpSet, state.OpSet, state.OpCAS, state.OpDelete, state.OpDeleteCAS,
			state.OpCheckIndex, state.OpCheckMissing,
		}).Draw(t, "kind")
		if op.Kind == state.OpSet || op.Kind == state.OpCAS {
			op.Value = []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value"))
		}
		if rapid.Bool().Draw(t, "right index") {
			op.Index = m[s.key(op.Key)].ModifyIndex
		}
		ops = append(ops, op)
	}
	index, err := s.try(ops...)
	next, ok := m.apply(s.under(ops))
	for key, e := range next {
		if e.ModifyIndex == pending {
			e.ModifyIndex = index
			next[key] = e
		}
	}
	if ok != (err == nil) || (err != nil && !errors.Is(err, state.ErrConflict)) {
		t.Fatalf("transaction %v: got error %v; the model says %v", ops, err, ok)
	}
	entries, _, err := s.store.List(s.ctx(), s.key(prefix))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s=%s@%d", e.Key, e.Value, e.ModifyIndex))
	}
	var want []string
	for key, e := range next {
		want = append(want, fmt.Sprintf("%s=%s@%d", key, e.Value, e.ModifyIndex))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("after %v:\ngot  %q\nwant %q", ops, got, want)
	}
	return next
}

// increment adds 1 to a number n times, trying again on conflicts.
func (s *suite) increment(name string, n int) error {
	for range n {
		for {
			e, err := s.store.Get(s.ctx(), s.key(name))
			if err != nil {
				return err
			}
			var v int
			fmt.Sscan(string(e.Value), &v)
			_, err = s.try(cas(name, fmt.Sprint(v+1), e.ModifyIndex))
			if err == nil {
				break
			}
			if !errors.Is(err, state.ErrConflict) {
				return err
			}
		}
	}
	return nil
}
