package membership

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/spec"
)

// One request that is lost must not end exclusive shards.
func TestOneLostRenewalStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		n.store.setAway(true)
		pass(1500 * time.Millisecond) // exactly one renewal is under way
		n.store.setAway(false)
		least := time.Hour
		for range 5000 {
			least = min(least, time.Duration(n.lastLease().Until-virtual()))
			pass(time.Millisecond)
		}
		if least <= watchdog.StopMargin {
			t.Errorf("only %v were left of the lease: every exclusive shard is asked to end", least)
		}
	})
}

// meddled calls between before the first transaction on the node's record.
type meddled struct {
	state.Store
	armed   atomic.Bool
	between func()
}

func (m *meddled) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	if m.armed.CompareAndSwap(true, false) {
		m.between()
	}
	return m.Store.Txn(ctx, ops...)
}

// An operator drains the node while its upgraded agent writes its record anew.
func TestADrainThatWasAcknowledgedIsNotOverwritten(t *testing.T) {
	store := openFlaky(t)
	m := &meddled{Store: store.Store}
	cfg := Config{
		Store: m, Node: spec.Node{Name: "a", Version: "1"}, Dir: t.TempDir(), Fence: testFence, BootID: "boot", Clock: func() int64 { return int64(watchdog.Boottime()) },
		Lease: func(context.Context, spec.Lease) error { return nil }, Changed: func() {}, Moved: func() {}, Problem: func(string) {},
		Logger: hclog.NewNullLogger(),
	}
	if err := New(cfg).Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.between = func() {
		e, err := store.Get(t.Context(), state.NodeKey("a"))
		node, _ := state.Decode[spec.Node](e)
		node.Draining = true
		if err == nil {
			_, err = store.Txn(t.Context(), state.Op{Kind: state.OpCAS, Key: e.Key, Index: e.ModifyIndex, Value: state.Encode(node)})
		}
		if err != nil {
			t.Error(err)
		}
	}
	m.armed.Store(true)
	cfg.Node.Version = "2"
	second := New(cfg)
	_ = second.Renew(t.Context())
	_ = second.Renew(t.Context())
	e, err := store.Get(t.Context(), state.NodeKey("a"))
	if got, _ := state.Decode[spec.Node](e); err != nil || !got.Draining || got.Version != "2" {
		t.Errorf("the record is %+v, %v: want it to drain, of version 2", got, err)
	}
}

// forgetful is a store that does not find a session for a while.
type forgetful struct {
	state.Store
	calls atomic.Int32 // of renewals that fail
}

func (f *forgetful) RenewSession(ctx context.Context, id string) error {
	if f.calls.Add(-1) >= 0 {
		return state.ErrSessionNotFound
	}
	return f.Store.RenewSession(ctx, id)
}

// A leader that has just been started answers before it has read all.
func TestASessionThatIsOnlyNotFoundYetIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openFlaky(t)
		inner := &forgetful{Store: store.Store}
		store.Store = inner
		n := join(t, store, "a", t.TempDir(), "boot")
		session := n.Session()
		inner.calls.Store(2)
		for range 20 {
			pass(renewEvery)
			if n.Session() != session || slices.Contains(n.told(), spec.Lease{Session: session}) {
				t.Fatalf("it has session %q, and had %q; told was %+v", n.Session(), session, n.lastLease())
			}
		}
	})
}
