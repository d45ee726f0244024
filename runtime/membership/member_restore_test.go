package membership

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/spec"
)

// consulNode is a membership on a Consul server.
type consulNode struct {
	*Member
	store state.Store

	mu      sync.Mutex // guards revoked
	revoked map[string]time.Time
}

func (n *consulNode) revokedAt(session string) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.revoked[session]
}

func joinConsul(t *testing.T, server *consultest.Server, name string) *consulNode {
	t.Helper()
	store, err := consul.Open(t.Context(), consul.Options{Address: server.Address()})
	if err != nil {
		t.Fatal(err)
	}
	n := &consulNode{revoked: map[string]time.Time{}}
	n.store = follow.Share(store, func() { n.StoreRestored() })
	n.Member = New(Config{
		Store: n.store, Node: spec.Node{Name: name}, Dir: t.TempDir(), Fence: testFence, BootID: "boot",
		Clock: func() int64 { return int64(watchdog.Boottime()) },
		Lease: func(_ context.Context, l spec.Lease) error {
			if l.Until == 0 {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.revoked[l.Session] = time.Now()
			}
			return nil
		},
		Changed: func() {}, Moved: func() {}, Problem: func(string) {}, Logger: hclog.NewNullLogger(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = n.store.Close()
	})
	waitFor(t, name+" to be a member", func() bool { return n.Session() != "" })
	return n
}

// another reports whether a node has a session, and not that one.
func another(n *consulNode, than string) bool {
	s := n.Session()
	return s != "" && s != than
}

// A backup of Consul from when a had the lock of a shard that b has now.
func TestARestoredBackupLeavesNobodyWithTheLocksOfThen(t *testing.T) {
	server, err := consultest.Start(t.Context(), consultest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	a, b := joinConsul(t, server, "a"), joinConsul(t, server, "b")
	ofA, ofB := a.Session(), b.Session()
	lock := state.ShardLock(spec.InstanceID{Job: "j", Process: "p"})
	txn := func(ops ...state.Op) {
		t.Helper()
		if _, err := a.store.Txn(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	txn(state.Op{Kind: state.OpLock, Key: lock, Session: ofA})
	var backup []byte
	if err := server.Call(t.Context(), http.MethodGet, "/v1/snapshot", nil, &backup); err != nil {
		t.Fatal(err)
	}
	txn(state.Op{Kind: state.OpUnlock, Key: lock, Session: ofA}, state.Op{Kind: state.OpDelete, Key: lock})
	txn(state.Op{Kind: state.OpLock, Key: lock, Session: ofB})
	// All watch the nodes, and one has come since.
	joinConsul(t, server, "c")
	for _, n := range []*consulNode{a, b} {
		if nodes, _, err := n.store.Watch(t.Context(), state.NodesPrefix, 0); err != nil || len(nodes) != 3 {
			t.Fatalf("%d nodes, %v", len(nodes), err)
		}
	}
	if err := server.Call(t.Context(), http.MethodPut, "/v1/snapshot", backup, nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); !another(a, ofA) || !another(b, ofB); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a has session %q, b %q; they had %s and %s", a.Session(), b.Session(), ofA, ofB)
		}
	}
	again := time.Now() // nobody has the lock before
	for name, at := range map[string]time.Time{"a": a.revokedAt(ofA), "b": b.revokedAt(ofB)} {
		if at.IsZero() || again.Sub(at) < testFence {
			t.Errorf("%s: what lives under its lease was ended at %v, and locks are had again at %v", name, at, again)
		}
	}
	if e, err := a.store.Get(t.Context(), lock); err == nil && e.Session != "" {
		t.Errorf("the lock is still held, by %s", e.Session)
	}
}

// A restored backup may say that this session holds what others run by now.
func TestAStoreThatWasPutBackCostsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		old := n.Session()
		lock := state.ShardLock(spec.InstanceID{Job: "j", Process: "p"})
		if _, err := n.store.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: lock, Session: old}); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		n.StoreRestored()
		if n.Session() != "" {
			t.Error("the session is given out when it is known to be worth nothing")
		}
		synctest.Wait()
		if !slices.Contains(n.told(), spec.Lease{Session: old}) {
			t.Errorf("the lease was not revoked: %+v", n.lastLease())
		}
		if _, err := n.store.Session(t.Context(), old); err != nil {
			t.Errorf("the old session has ended before others can have seen the store: %v", err)
		}
		pass(partAfter + renewEvery)
		if _, err := n.store.Session(t.Context(), old); !errors.Is(err, state.ErrSessionNotFound) {
			t.Errorf("the old session lives: %v", err)
		}
		for n.Session() == "" {
			pass(100 * time.Millisecond)
			if time.Since(back) > time.Minute {
				t.Fatal("it does not come back")
			}
		}
		if took := time.Since(back); took < testFence+FenceSlack || n.Session() == old {
			t.Errorf("it has session %s (was %s) after %v: others may still run what it takes", n.Session(), old, took)
		}
		if holder(t, n.store, "a") != n.Session() || n.problem() != "" {
			t.Errorf("the record is held by %q, the problem is %q", holder(t, n.store, "a"), n.problem())
		}
	})
}

// The backup may be older than the session, and free what others run.
func TestNothingIsTakenRightAfterASessionWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		op := state.Op{Kind: state.OpDelete, Key: state.NodeKey("a")} // so that no lock delay protects it
		if _, err := n.store.Txn(t.Context(), op, state.Op{Kind: state.OpSet, Key: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := n.store.DestroySession(t.Context(), n.Session()); err != nil {
			t.Fatal(err)
		}
		pass(renewEvery)
		for lost := time.Now(); time.Since(lost) < testFence; pass(100 * time.Millisecond) {
			if s := n.Session(); s != "" {
				t.Fatalf("session %s holds locks %v after the last one was lost", s, time.Since(lost))
			}
		}
		pass(FenceSlack + renewEvery)
		if n.Session() == "" {
			t.Error("it does not come back")
		}
	})
}
