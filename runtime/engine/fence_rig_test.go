package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// spyStore counts what is asked of a store and looks at every transaction.
type spyStore struct {
	state.Store
	mu    sync.Mutex // guards all below
	gets  int        // of shard locks
	lists int        // of shard locks
	locks int        // transactions that would take one
	mute  bool       // the answer of the next of those is lost
	away  bool       // locks cannot be listed
	// before, if set, is called before each transaction.
	before func(ops []state.Op)
	// fresh, if set, is called when the assignments are read afresh.
	fresh func()
}

func (s *spyStore) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	s.mu.Lock()
	fresh := s.fresh
	s.mu.Unlock()
	if fresh != nil && after == 0 && strings.HasPrefix(prefix, state.AssignmentsPrefix) {
		fresh()
	}
	return s.Store.Watch(ctx, prefix, after)
}

func (s *spyStore) Get(ctx context.Context, key string) (state.Entry, error) {
	s.mu.Lock()
	if strings.HasPrefix(key, state.ShardLocksPrefix) {
		s.gets++
	}
	s.mu.Unlock()
	return s.Store.Get(ctx, key)
}

func (s *spyStore) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	s.mu.Lock()
	mute := false
	if ops[0].Kind == state.OpLock {
		s.locks++
		mute, s.mute = s.mute, false
	}
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(ops)
	}
	index, err := s.Store.Txn(ctx, ops...)
	if mute {
		return 0, state.ErrUnavailable
	}
	return index, err
}

func (s *spyStore) List(ctx context.Context, prefix string) ([]state.Entry, uint64, error) {
	s.mu.Lock()
	if prefix == state.ShardLocksPrefix {
		s.lists++
	}
	away := s.away && prefix == state.ShardLocksPrefix
	s.mu.Unlock()
	if away {
		return nil, 0, state.ErrUnavailable
	}
	return s.Store.List(ctx, prefix)
}

// counts returns how often shard locks were read and tried since the last time.
func (s *spyStore) counts() (gets, locks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gets, locks = s.gets, s.locks
	s.gets, s.locks = 0, 0
	return gets, locks
}

// testDelay is the lock delay of every session.
const testDelay = 5 * time.Second

// fencedRig is an engine whose exclusive shards live under a lease.
type fencedRig struct {
	*rig
	spy     *spyStore
	mu      sync.Mutex // guards session
	session string
}

// fenced runs a test of a fenced engine. What no test may see is a lock that is
// released while the watchdog has its instance.
func fenced(t *testing.T, test func(*testing.T, *fencedRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &fencedRig{rig: newRig(t)}
		r.spy = &spyStore{Store: r.store}
		r.spy.before = r.law
		r.cfg.Store, r.cfg.LockDelay = r.spy, testDelay
		r.agent.session = func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.session
		}
		r.session = r.create("n1")
		r.put(state.HistoryKey("any", 1)) // there have been jobs
		r.start()
		defer func() { r.close() }()
		test(t, r)
	})
}

func (r *fencedRig) law(ops []state.Op) {
	r.dog.mu.Lock()
	defer r.dog.mu.Unlock()
	for _, op := range ops {
		if op.Kind != state.OpUnlock {
			continue
		}
		if inst, ok := r.dog.table[id(strings.TrimPrefix(op.Key, state.ShardLocksPrefix))]; ok {
			r.t.Errorf("the lock of %s is released while it is %s", inst.ID, inst.Phase)
		}
	}
}

func (r *fencedRig) create(node string) string {
	r.t.Helper()
	s, err := r.store.CreateSession(r.t.Context(), state.SessionConfig{
		Node: node, LockDelay: testDelay, Behavior: state.BehaviorDelete})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// become gives the engine another session, "" for none.
func (r *fencedRig) become(session string) {
	r.mu.Lock()
	r.session = session
	r.mu.Unlock()
	r.Refresh()
}

// lock is what the store says of a shard's lock.
func (r *fencedRig) lock(name string) (session string, token uint64) {
	r.t.Helper()
	e, err := r.store.Get(r.t.Context(), state.ShardLock(id(name)))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		r.t.Fatal(err)
	}
	return e.Session, e.ModifyIndex
}

// launch is what the watchdog was told of an instance last.
func (r *fencedRig) launch(name string) (lease, token string) {
	r.dog.mu.Lock()
	defer r.dog.mu.Unlock()
	l := r.dog.launches[id(name)]
	for _, kv := range l.Env {
		if v, ok := strings.CutPrefix(kv, "MESHRUN_TOKEN="); ok {
			token = v
		}
	}
	return l.Lease, token
}

// started returns how often an instance was started.
func (r *fencedRig) started(name string) int {
	r.dog.mu.Lock()
	defer r.dog.mu.Unlock()
	return r.dog.starts[id(name)]
}

// seize takes a shard's lock for another node.
func (r *fencedRig) seize(name, session string) {
	r.t.Helper()
	value, err := json.Marshal(LockOwner{Node: "n2", Session: session})
	if err == nil {
		_, err = r.store.Txn(r.t.Context(),
			state.Op{Kind: state.OpDelete, Key: state.ShardLock(id(name))},
			state.Op{Kind: state.OpLock, Key: state.ShardLock(id(name)), Value: value, Session: session})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func exclusive(name string, shards ...int) spec.AssignedProcess {
	p := proc(name, shards...)
	p.Process.Exclusive = true
	return p
}

// put writes a key.
func (r *fencedRig) put(key string) {
	r.t.Helper()
	if _, err := r.store.Txn(r.t.Context(), state.Op{Kind: state.OpSet, Key: key, Value: []byte("{}")}); err != nil {
		r.t.Fatal(err)
	}
}

// wipe removes all that the store keeps of jobs.
func (r *fencedRig) wipe() {
	r.t.Helper()
	entries, _, err := r.store.List(r.t.Context(), state.Root)
	if err != nil {
		r.t.Fatal(err)
	}
	var ops []state.Op
	for _, e := range entries {
		ops = append(ops, state.Op{Kind: state.OpDelete, Key: e.Key})
	}
	if _, err := r.store.Txn(r.t.Context(), ops...); err != nil {
		r.t.Fatal(err)
	}
}
