// Package statetest holds the suite that every state.Store must pass. Its
// tests say what the contract promises, and nothing that only one
// implementation does.
package statetest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Options say what the implementation can do.
type Options struct {
	// Virtual runs each test in a synctest bubble. Without it the tests of TTLs
	// and lock delays take their real time, about a minute together, in parallel.
	Virtual bool
	// Reopen closes a store and opens it again on the same data. Without it
	// the tests of persistence are left out.
	Reopen func(t *testing.T, s state.Store) state.Store
}

// patience bounds every call of the suite that is expected to return.
const patience = 30 * time.Second

// Run runs the whole suite. open returns a store, which may be shared and
// hold other keys, and closes it with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) state.Store, opts Options) {
	r := runner{open: open, opts: opts}
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"keys", keyTests}, {"transactions", txnTests}, {"limits", limitTests}, {"indexes", indexTests},
		{"watch", watchTests}, {"sessions", sessionTests}, {"locks", lockTests},
	} {
		t.Run(group.name, func(t *testing.T) { r.run(t, group.tests) })
	}
	// rapid reads the test's deadline, which a bubble forbids.
	t.Run("model", func(t *testing.T) { runner{open: open}.run(t, modelTests) })
	if opts.Reopen != nil {
		t.Run("persistence", func(t *testing.T) { r.run(t, r.persistenceTests()) })
	}
}

type test struct {
	name string
	run  func(s *suite)
}

type runner struct {
	open func(t *testing.T) state.Store
	opts Options
}

func (r runner) run(t *testing.T, tests []test) {
	for _, test := range tests {
		body := func(t *testing.T) {
			s := &suite{T: t, store: r.open(t), root: "statetest/" + rand.Text() + "/"}
			defer s.tasks.Wait()
			test.run(s)
		}
		t.Run(test.name, func(t *testing.T) {
			if r.opts.Virtual {
				synctest.Test(t, body)
				return
			}
			t.Parallel()
			body(t)
		})
	}
}

// suite is one test with a store and a prefix of its own. Its methods fail
// the test at once unless the store does what they are named after.
type suite struct {
	*testing.T
	store state.Store
	root  string
	tasks sync.WaitGroup // goroutines of the test, which end before the store does
}

// key returns a key under the test's own prefix.
func (s *suite) key(name string) string { return s.root + name }

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) get(name string) state.Entry {
	s.Helper()
	e, err := s.store.Get(s.ctx(), s.key(name))
	if err != nil {
		s.Fatalf("get %s: %v", name, err)
	}
	return e
}

func (s *suite) missing(name string) {
	s.Helper()
	if _, err := s.store.Get(s.ctx(), s.key(name)); !errors.Is(err, state.ErrNotFound) {
		s.Fatalf("get %s: got error %v, want ErrNotFound", name, err)
	}
}

func (s *suite) value(name, want string) {
	s.Helper()
	if got := string(s.get(name).Value); got != want {
		s.Fatalf("value of %s is %q, want %q", name, got, want)
	}
}

// list returns the keys under a prefix, without the test's own.
func (s *suite) list(prefix string) (keys []string, index uint64) {
	s.Helper()
	entries, index, err := s.store.List(s.ctx(), s.key(prefix))
	if err != nil {
		s.Fatalf("list %s: %v", prefix, err)
	}
	return s.names(entries), index
}

func (s *suite) names(entries []state.Entry) []string {
	var keys []string
	for _, e := range entries {
		keys = append(keys, strings.TrimPrefix(e.Key, s.root))
	}
	return keys
}

// txn does the operations, whose keys are relative to the test's prefix.
func (s *suite) txn(ops ...state.Op) uint64 {
	s.Helper()
	index, err := s.try(ops...)
	if err != nil {
		s.Fatalf("transaction: %v", err)
	}
	return index
}

func (s *suite) try(ops ...state.Op) (uint64, error) {
	return s.store.Txn(s.ctx(), s.under(ops)...)
}

func (s *suite) under(ops []state.Op) []state.Op {
	out := make([]state.Op, len(ops))
	for i, op := range ops {
		op.Key = s.key(op.Key)
		out[i] = op
	}
	return out
}

// conflict demands that the operations fail, and that exactly those that are
// numbered (from 0) are named as the cause.
func (s *suite) conflict(ops []state.Op, guilty ...int) {
	s.Helper()
	_, err := s.try(ops...)
	var txnErr *state.TxnError
	if !errors.Is(err, state.ErrConflict) || !errors.As(err, &txnErr) {
		s.Fatalf("transaction: got error %v, want a *TxnError with ErrConflict", err)
	}
	if len(txnErr.Failures) != len(guilty) {
		s.Fatalf("transaction: got failures %v, want operations %v", txnErr.Failures, guilty)
	}
	for i, n := range guilty {
		f := txnErr.Failures[i]
		if f.Op.Key != s.key(ops[n].Key) || f.Op.Kind != ops[n].Kind || f.Reason == "" {
			s.Fatalf("transaction: failure %d is %v, want operation %d with a reason", i, f, n)
		}
	}
}

func (s *suite) session(cfg state.SessionConfig) string {
	s.Helper()
	id, err := s.store.CreateSession(s.ctx(), cfg)
	if err != nil {
		s.Fatalf("create session: %v", err)
	}
	return id
}

func (s *suite) destroy(id string) {
	s.Helper()
	if err := s.store.DestroySession(s.ctx(), id); err != nil {
		s.Fatalf("destroy session: %v", err)
	}
}

func set(name, value string) state.Op {
	return state.Op{Kind: state.OpSet, Key: name, Value: []byte(value)}
}

func cas(name, value string, index uint64) state.Op {
	return state.Op{Kind: state.OpCAS, Key: name, Value: []byte(value), Index: index}
}

func del(name string) state.Op { return state.Op{Kind: state.OpDelete, Key: name} }

func op(kind state.OpKind, name string, index uint64) state.Op {
	return state.Op{Kind: kind, Key: name, Index: index}
}

func lock(name, value, session string) state.Op {
	return state.Op{Kind: state.OpLock, Key: name, Value: []byte(value), Session: session}
}

func unlock(name, value, session string) state.Op {
	return state.Op{Kind: state.OpUnlock, Key: name, Value: []byte(value), Session: session}
}

func checkSession(name, session string) state.Op {
	return state.Op{Kind: state.OpCheckSession, Key: name, Session: session}
}
