package membership

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

const testFence = 5 * time.Second

// flaky is a store that can be out of reach.
type flaky struct {
	state.Store
	mu   sync.Mutex // guards away
	away bool
}

func (f *flaky) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

func (f *flaky) RenewSession(ctx context.Context, id string) error {
	f.mu.Lock()
	away := f.away
	f.mu.Unlock()
	if away {
		<-ctx.Done() // as packets that are dropped
		return ctx.Err()
	}
	return f.Store.RenewSession(ctx, id)
}

// node is a membership under test with what it told others.
type node struct {
	*Member
	store  *flaky
	mu     sync.Mutex // guards all below
	leases []spec.Lease
	fault  string
	end    func()
}

// lastLease is what the watchdog was told last.
func (n *node) lastLease() spec.Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.leases) == 0 {
		return spec.Lease{}
	}
	return n.leases[len(n.leases)-1]
}

// told is all that the watchdog was told.
func (n *node) told() []spec.Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.leases)
}

func (n *node) problem() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fault
}

// virtual is the boot clock of a synctest bubble.
func virtual() int64 { return time.Now().UnixNano() }

// join runs a membership of the name in the bubble.
func join(t *testing.T, store *flaky, name, dir, boot string) *node {
	t.Helper()
	n := &node{store: store}
	n.Member = New(Config{
		Store: store, Node: spec.Node{Name: name}, Dir: dir, Fence: testFence, BootID: boot, Clock: virtual,
		Lease: func(_ context.Context, l spec.Lease) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.leases = append(n.leases, l)
			return nil
		},
		Changed: func() {}, Moved: func() {},
		Problem: func(text string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.fault = text
		},
		Logger: hclog.NewNullLogger(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx)
	}()
	n.end = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.end)
	pass(2 * time.Second)
	return n
}

func openFlaky(t *testing.T) *flaky {
	store := local.OpenMemory(local.Options{})
	t.Cleanup(func() { store.Close() })
	return &flaky{Store: store}
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func holder(t *testing.T, store state.Store, name string) string {
	t.Helper()
	e, err := store.Get(t.Context(), state.NodeKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return e.Session
}

func TestAMemberHoldsItsRecordAndRenewsTheLeaseEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		if n.Session() == "" || holder(t, n.store, "a") != n.Session() {
			t.Fatalf("session %q, the record is held by %q", n.Session(), holder(t, n.store, "a"))
		}
		for range 60 {
			pass(time.Second)
			left := time.Duration(n.lastLease().Until - virtual())
			if left <= testFence-renewEvery-renewTimeout || left > testFence || n.lastLease().Session != n.Session() {
				t.Fatalf("the lease is %+v, %v from now", n.lastLease(), left)
			}
		}
	})
}

func TestAnAgentsRestartGoesOnWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := openFlaky(t), t.TempDir()
		first := join(t, store, "a", dir, "boot")
		session := first.Session()
		_, before, err := store.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		first.end()
		second := join(t, store, "a", dir, "boot")
		if _, after, _ := store.List(t.Context(), ""); second.Session() != session || after != before {
			t.Errorf("session %s → %s, index %d → %d: want nothing to change", session, second.Session(), before, after)
		}
	})
}

func TestACopyOfTheDataDirectoryIsAnotherNode(t *testing.T) {
	for name, copyOf := range map[string]func(t *testing.T, store *flaky, dir string) *node{
		"on another machine": func(t *testing.T, store *flaky, dir string) *node {
			return join(t, store, "a", dir, "another boot")
		},
		"on the same machine": func(t *testing.T, store *flaky, dir string) *node {
			second := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(second, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			return join(t, store, "a", second, "boot")
		},
	} {
		t.Run(name, func(t *testing.T) { isAnother(t, copyOf) })
	}
}

// isAnother demands that a copy of a data directory goes on with nothing.
func isAnother(t *testing.T, copyOf func(t *testing.T, store *flaky, dir string) *node) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := openFlaky(t), t.TempDir()
		first := join(t, store, "a", dir, "boot")
		session := first.Session()
		copied := copyOf(t, store, dir)
		for range 60 {
			pass(time.Second)
			if copied.Session() != "" || first.Session() != session {
				t.Fatalf("the copy has session %q, the first %q (was %q)", copied.Session(), first.Session(), session)
			}
		}
		if copied.problem() == "" || first.problem() != "" {
			t.Errorf("the copy says %q, the first %q", copied.problem(), first.problem())
		}
	})
}

func TestAMemberThatCannotReachTheStoreStepsBackWithinTheFenceAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		session := n.Session()
		n.store.setAway(true)
		until := n.lastLease().Until
		for n.Session() != "" {
			pass(100 * time.Millisecond)
			if virtual() > until+int64(renewTimeout+renewEvery) {
				t.Fatalf("still a member %v after the lease", time.Duration(virtual()-until))
			}
		}
		if n.lastLease().Until > until+int64(renewEvery) {
			t.Errorf("the lease went on to %+v", n.lastLease())
		}
		if n.problem() == "" {
			t.Error("nobody was told")
		}
		n.store.setAway(false)
		pass(5 * time.Second)
		if n.Session() != session || n.problem() != "" {
			t.Errorf("back with session %q, want %q; problem %q", n.Session(), session, n.problem())
		}
	})
}

func TestALostSessionRevokesTheLeaseBeforeTheNextSessionIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		old := n.Session()
		if err := n.store.DestroySession(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		pass(renewEvery)
		revoked := false
		for _, l := range n.told() {
			revoked = revoked || l == spec.Lease{Session: old}
			if revoked && l.Session == old && l.Until > 0 {
				t.Errorf("renewed after it was revoked: %+v", l)
			}
		}
		if !revoked || n.Session() == old {
			t.Fatalf("revoked %v, session %q", revoked, n.Session())
		}
		pass(testFence + 3*renewEvery) // the record is under the lock delay for so long
		if s := n.Session(); s == "" || s == old || holder(t, n.store, "a") != s {
			t.Errorf("session %q, the record is held by %q", s, holder(t, n.store, "a"))
		}
	})
}

func TestANodeThatLeavesLeavesNoLockDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		lock := state.ShardLock(spec.InstanceID{Job: "j", Process: "p"})
		if _, err := n.store.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: lock, Session: n.Session()}); err != nil {
			t.Fatal(err)
		}
		n.end()
		if err := n.Leave(); err != nil {
			t.Fatal(err)
		}
		if got := n.lastLease(); got.Until != 0 {
			t.Errorf("the lease is %+v", got)
		}
		other, err := n.store.CreateSession(t.Context(), state.SessionConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.store.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: lock, Session: other}); err != nil {
			t.Errorf("the next one cannot have the lock at once: %v", err)
		}
		if holder(t, n.store, "a") != "" {
			t.Error("the node is still there")
		}
	})
}

func TestADrainOutlivesTheAgentAndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := openFlaky(t), t.TempDir()
		drain := func(on bool) {
			e, err := store.Get(t.Context(), state.NodeKey("a"))
			if err != nil {
				t.Fatal(err)
			}
			record, err := state.Decode[spec.Node](e)
			if err != nil {
				t.Fatal(err)
			}
			record.Draining = on
			if _, err := store.Txn(t.Context(), state.Op{Kind: state.OpCAS, Key: e.Key, Index: e.ModifyIndex, Value: state.Encode(record)}); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		draining := func() bool {
			e, err := store.Get(t.Context(), state.NodeKey("a"))
			if err != nil {
				t.Fatal(err)
			}
			record, err := state.Decode[spec.Node](e)
			return err == nil && record.Draining
		}
		first := join(t, store, "a", dir, "boot")
		drain(true)
		first.end()
		if err := store.DestroySession(t.Context(), first.Session()); err != nil {
			t.Fatal(err)
		}
		pass(testFence)
		second := join(t, store, "a", dir, "another boot")
		pass(testFence)
		if second.Session() == "" || !draining() {
			t.Fatalf("session %q, draining %v", second.Session(), draining())
		}
		drain(false)
		if _, err := os.Stat(filepath.Join(dir, "draining")); !errors.Is(err, os.ErrNotExist) || draining() {
			t.Errorf("still draining: %v", err)
		}
	})
}

func TestANodesRecordThatSomebodyRemovedIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		if _, err := n.store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: state.NodeKey("a")}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if holder(t, n.store, "a") != n.Session() || n.Session() == "" {
			t.Errorf("session %q, the record is held by %q", n.Session(), holder(t, n.store, "a"))
		}
	})
}

// An agent from before directories were told apart remembers only its session.
func TestAnUpgradedAgentGoesOnWithASessionOfNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := openFlaky(t), t.TempDir()
		first := join(t, store, "a", dir, "boot")
		session := first.Session()
		first.end()
		if err := writeFile(filepath.Join(dir, "session"), `{"session":"`+session+`","boot":"boot"}`); err != nil {
			t.Fatal(err)
		}
		second := join(t, store, "a", dir, "boot")
		text, err := os.ReadFile(filepath.Join(dir, "session"))
		if second.Session() != session || err != nil || !strings.Contains(string(text), `"place"`) {
			t.Errorf("it has session %q, the first had %q; remembered is %s, %v", second.Session(), session, text, err)
		}
	})
}

// A disk that hangs holds up who writes to it, and nobody else.
func TestADrainThatCannotBeNotedHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	m := New(Config{Dir: dir, Clock: virtual, Logger: hclog.NewNullLogger()})
	pipe := filepath.Join(dir, "draining.new")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		m.drain(true) // blocks until somebody reads
	}()
	waitFor(t, "the drain", func() bool { return m.Record().Draining && m.Session() == "" })
	select {
	case <-noted:
		t.Error("it was noted on a disk that hangs")
	default:
	}
	f, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	<-noted
}

func TestAMemberIsUnwellOnceItsSessionIsNotLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, openFlaky(t), "a", t.TempDir(), "boot")
		n.store.setAway(true)
		pass(time.Hour)
		if err := n.Healthy(); err != nil {
			t.Errorf("the store is away: %v", err)
		}
		n.end()
		pass(stuckAfter + time.Second)
		if err := n.Healthy(); err == nil {
			t.Error("nobody looks after the session, and all is said to be well")
		}
	})
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20s", what)
		}
	}
}
