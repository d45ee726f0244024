package follow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// locksDir holds the locks of the tests' role.
const locksDir = state.LocksPrefix + "test/"

// tally counts what its nodes ask of the store.
type tally struct {
	state.Store
	mu            sync.Mutex // guards both below
	lists, writes int
}

func (c *tally) List(ctx context.Context, p string) ([]state.Entry, uint64, error) {
	c.mu.Lock()
	c.lists++
	c.mu.Unlock()
	return c.Store.List(ctx, p)
}

func (c *tally) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Store.Txn(ctx, ops...)
}

func (c *tally) counts() (lists, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lists, c.writes
}

// member is a node with a role. As Work, it notes what it holds.
type member struct {
	t     *testing.T
	store state.Store
	name  string
	role  *follow.Role
	leave context.CancelFunc
	done  chan error

	mu      sync.Mutex // guards all below
	session string
	holds   []string
	ended   error                     // why the last context of Act ended
	busy    func(ctx context.Context) // what Act does
	act     func(*follow.Term) error  // what Act returns
	took    map[string]struct{}       // what Take was given
}

// anyOne lets every node that isn't draining have the one lock.
func anyOne(nodes []spec.Node) map[string][]string {
	return map[string][]string{locksDir + "one": follow.Available(nodes)}
}

// divided gives each of four locks to one node.
func divided(nodes []spec.Node) map[string][]string {
	out := map[string][]string{}
	for lock, n := range follow.Divide([]string{locksDir + "0", locksDir + "1", locksDir + "2", locksDir + "3"}, follow.Available(nodes)) {
		out[lock] = []string{n}
	}
	return out
}

func join(t *testing.T, store state.Store, name string, may follow.Candidates) *member {
	m := &member{t: t, store: store, name: name, done: make(chan error, 1), took: map[string]struct{}{}}
	m.role = follow.NewRole(follow.RoleConfig{
		Store: store, Node: name, Session: m.Session, Locks: locksDir, May: may,
		Prefixes: []string{prefix}, Work: m, Logger: hclog.NewNullLogger(),
	})
	m.enter()
	ctx, cancel := context.WithCancel(t.Context())
	m.leave = cancel
	go func() { m.done <- m.role.Run(ctx) }()
	synctest.Wait()
	return m
}

// enter gives the member a session and its record.
func (m *member) enter() {
	session, err := m.store.CreateSession(m.t.Context(), state.SessionConfig{Node: m.name, LockDelay: 5 * time.Second, Behavior: state.BehaviorDelete})
	if err != nil {
		m.t.Fatal(err)
	}
	for {
		_, err := m.store.Txn(m.t.Context(), state.Op{Kind: state.OpLock, Key: state.NodeKey(m.name), Session: session, Value: state.Encode(spec.Node{Name: m.name})})
		if err == nil {
			break
		}
		time.Sleep(time.Second) // virtual: its own lock delay
	}
	m.setSession(session)
}

func (m *member) Session() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

func (m *member) setSession(session string) {
	m.mu.Lock()
	m.session = session
	m.mu.Unlock()
	m.role.Refresh()
}

func (m *member) Take(u follow.Update) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range u.Changed {
		m.took[e.Key] = struct{}{}
	}
}

func (m *member) Act(ctx context.Context, term *follow.Term) (time.Time, error) {
	m.mu.Lock()
	m.holds = nil
	for lock := range term.Locks {
		m.holds = append(m.holds, lock)
	}
	slices.Sort(m.holds)
	busy, act := m.busy, m.act
	m.mu.Unlock()
	if busy != nil {
		busy(ctx)
		m.mu.Lock()
		m.ended = context.Cause(ctx)
		m.mu.Unlock()
	}
	if act != nil {
		return time.Time{}, act(term)
	}
	return time.Time{}, nil
}

// holders says who holds each lock.
func holders(t *testing.T, store state.Store) map[string]string {
	entries, _, err := store.List(t.Context(), locksDir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		h := follow.HolderOf(e)
		if node, err := store.Get(t.Context(), state.NodeKey(h.Node)); err == nil && node.Session == h.Session {
			out[strings.TrimPrefix(e.Key, locksDir)] = h.Node
		}
	}
	return out
}

// gather starts members and ends them with the test.
func gather(t *testing.T, may follow.Candidates, names ...string) (*tally, map[string]*member) {
	store := &tally{Store: local.OpenMemory(local.Options{})}
	members := map[string]*member{}
	for _, name := range names {
		members[name] = join(t, store, name, may)
	}
	time.Sleep(time.Minute) // virtual
	synctest.Wait()
	return store, members
}

func end(t *testing.T, store state.Store, members map[string]*member) {
	for _, m := range members {
		m.leave()
	}
	for _, m := range members {
		if err := <-m.done; err != nil {
			t.Error(err)
		}
	}
	store.Close()
}

// resign ends a member as an agent ends that is told to stop.
func (m *member) resign() {
	m.leave()
	if err := <-m.done; err != nil {
		m.t.Error(err)
	}
	m.done <- nil
	if err := m.store.DestroySession(m.t.Context(), m.Session()); err != nil {
		m.t.Error(err)
	}
	synctest.Wait()
}

// crash ends a member's session under it.
func (m *member) crash() {
	if err := m.store.DestroySession(m.t.Context(), m.Session()); err != nil {
		m.t.Error(err)
	}
	m.setSession("")
	synctest.Wait()
}

func TestOneLeadsAndTheNextTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, anyOne, "a", "b", "c")
		defer end(t, store, members)
		first := holders(t, store)["one"]
		_, before := store.counts()
		put(t, store, "x", 1)
		members[first].resign()
		time.Sleep(2 * time.Second) // virtual: who resigns leaves no lock delay
		synctest.Wait()
		second := holders(t, store)["one"]
		if second == "" || second == first {
			t.Fatalf("%s resigned, and %q leads", first, second)
		}
		// The change, giving the lock back and taking it: nobody else tried.
		if _, after := store.counts(); after-before != 3 {
			t.Errorf("the change of leader cost %d transactions", after-before-1)
		}
		for name, m := range members {
			if _, known := m.took[prefix+"x"]; !known && name != first {
				t.Errorf("%s didn't follow while it stood by", name)
			}
		}
	})
}

func TestWhoLosesTheSessionStepsDownBeforeTheNextLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, anyOne, "a", "b")
		defer end(t, store, members)
		first := members[holders(t, store)["one"]]
		first.mu.Lock()
		first.busy = func(ctx context.Context) { <-ctx.Done() }
		first.mu.Unlock()
		put(t, store, "x", 1)
		synctest.Wait()
		_, before := store.counts()
		first.crash()
		if !errors.Is(first.ended, follow.ErrDeposed) {
			t.Fatalf("its work goes on: %v", first.ended)
		}
		// At once: every write checks the lock, so that no lock delay is needed.
		if now := holders(t, store)["one"]; now == first.name || now == "" {
			t.Fatalf("in the moment of its loss %q leads", now)
		}
		if _, after := store.counts(); after-before != 1 {
			t.Errorf("the change of leader cost %d transactions", after-before)
		}
	})
}

func TestNobodyAsksForALockThatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, anyOne, "a", "b", "c")
		defer end(t, store, members)
		lists, writes := store.counts()
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if l, w := store.counts(); l != lists || w != writes {
			t.Errorf("an idle hour cost %d lists and %d transactions", l-lists, w-writes)
		}
	})
}

func TestLocksAreHandedOverWhenANodeComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, divided, "a")
		defer end(t, store, members)
		a := members["a"]
		if len(a.holds) != 4 {
			t.Fatalf("alone it holds %v", a.holds)
		}
		step := make(chan struct{})
		a.mu.Lock()
		a.busy = func(context.Context) { <-step }
		a.mu.Unlock()
		put(t, store, "x", 1)
		synctest.Wait()
		members["b"] = join(t, store, "b", divided)
		time.Sleep(time.Minute) // virtual: a is in the middle of a step
		synctest.Wait()
		if now := holders(t, store); len(now) != 4 || now["0"] != "a" || now["1"] != "a" {
			t.Fatalf("in the middle of a step the locks are of %v", now)
		}
		began := time.Now()
		a.mu.Lock()
		a.busy = nil
		a.mu.Unlock()
		close(step)
		synctest.Wait()
		if took := time.Since(began); took != 0 || len(members["b"].holds) != 2 || len(a.holds) != 2 {
			t.Fatalf("%v after the step a holds %v and b %v", took, a.holds, members["b"].holds)
		}
		drain(t, store, "a")
		if now := holders(t, store); now["0"] != "b" || now["1"] != "b" || now["2"] != "b" || now["3"] != "b" {
			t.Fatalf("a drains, and the locks are of %v", now)
		}
		a.mu.Lock()
		a.holds = nil
		a.mu.Unlock()
		put(t, store, "x", 2)
		synctest.Wait()
		if len(a.holds) != 0 {
			t.Fatalf("a acts under %v that it gave up", a.holds)
		}
	})
}

// drain marks a node as draining.
func drain(t *testing.T, store state.Store, name string) {
	if _, err := store.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: state.NodeKey(name), Value: state.Encode(spec.Node{Name: name, Draining: true})}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestWhoSaysThatTheLockIsLostActsOnlyIfItHoldsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, anyOne, "a")
		defer end(t, store, members)
		a := members["a"]
		a.mu.Lock()
		a.act = func(term *follow.Term) error {
			_, err := store.Txn(t.Context(), term.Check(locksDir+"one"), state.Op{Kind: state.OpSet, Key: "decision", Value: []byte("x")})
			return err
		}
		a.mu.Unlock()
		before, err := store.Get(t.Context(), locksDir+"one")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: locksDir + "one"}); err != nil {
			t.Fatal(err)
		}
		put(t, store, "x", 1)
		synctest.Wait()
		if _, err := store.Get(t.Context(), "decision"); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("it decided without the lock: %v", err)
		}
		time.Sleep(3 * time.Second) // virtual
		synctest.Wait()
		after, err := store.Get(t.Context(), locksDir+"one")
		if err != nil || after.CreateIndex == before.CreateIndex || follow.HolderOf(after).Session != a.Session() {
			t.Fatalf("the lock is %+v, %v", after, err)
		}
		if _, err := store.Get(t.Context(), "decision"); err != nil {
			t.Fatalf("and then: %v", err)
		}
	})
}

// Its name is there again, and what it had is not its own any more.
func TestWhoComesBackWithAnotherSessionHoldsNothingOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, anyOne, "a")
		defer end(t, store, members)
		a := members["a"]
		before, err := store.Get(t.Context(), locksDir+"one")
		if err != nil {
			t.Fatal(err)
		}
		a.crash()
		if now := holders(t, store); len(now) != 0 {
			t.Fatalf("nobody is there, and %v leads", now)
		}
		a.enter()
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		after, err := store.Get(t.Context(), locksDir+"one")
		if err != nil || after.ModifyIndex == before.ModifyIndex || follow.HolderOf(after).Session != a.Session() {
			t.Errorf("the lock is %+v, %v", after, err)
		}
		if _, err := store.Txn(t.Context(), (&follow.Term{Locks: map[string]uint64{locksDir + "one": before.ModifyIndex}}).Check(locksDir+"one")); !follow.Lost(err) {
			t.Errorf("what it decides as of before: %v", err)
		}
	})
}

// An agent from before holds the lock by its session, and leaves it with its
// name on it when it gives it up.
func TestALockOfAnAgentFromBeforeIsTakenWhenThatLetsGoOfIt(t *testing.T) {
	for name, leave := range map[string]func(m *member, value []byte){
		"gives it up": func(m *member, value []byte) {
			if _, err := m.store.Txn(m.t.Context(), state.Op{Kind: state.OpUnlock, Key: locksDir + "one", Session: m.session, Value: value}); err != nil {
				m.t.Fatal(err)
			}
			drain(m.t, m.store, m.name)
		},
		"is lost": func(m *member, _ []byte) {
			if err := m.store.DestroySession(m.t.Context(), m.session); err != nil {
				m.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &tally{Store: local.OpenMemory(local.Options{})}
				old := &member{t: t, store: store, name: "old", role: follow.NewRole(follow.RoleConfig{Session: func() string { return "" }})}
				old.enter()
				value := []byte(`{"node": "old", "session": "` + old.session + `"}`)
				if _, err := store.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: locksDir + "one", Session: old.session, Value: value}); err != nil {
					t.Fatal(err)
				}
				members := map[string]*member{"a": join(t, store, "a", anyOne)}
				defer end(t, store, members)
				time.Sleep(time.Minute) // virtual
				synctest.Wait()
				if len(members["a"].holds) != 0 {
					t.Fatal("it was taken from the agent that holds it")
				}
				leave(old, value)
				time.Sleep(time.Second) // virtual: a is the second of two
				synctest.Wait()
				if len(members["a"].holds) != 1 {
					t.Error("nobody holds it")
				}
			})
		})
	}
}

// A session that comes back after it was unknown goes on with what it holds.
func TestAnAgentThatKnowsItsSessionAgainGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, members := gather(t, divided, "a", "b")
		defer end(t, store, members)
		a := members["a"]
		session := a.Session()
		before := holders(t, store)
		a.setSession("")
		time.Sleep(time.Minute) // virtual
		a.mu.Lock()
		a.holds = nil
		a.mu.Unlock()
		put(t, store, "x", 1)
		synctest.Wait()
		if len(a.holds) != 0 {
			t.Fatalf("it acts under %v without a session", a.holds)
		}
		_, writes := store.counts()
		a.setSession(session)
		synctest.Wait()
		if _, w := store.counts(); len(a.holds) != 2 || w != writes || fmt.Sprint(holders(t, store)) != fmt.Sprint(before) {
			t.Fatalf("it holds %v after %d writes", a.holds, w-writes)
		}
	})
}

func TestEveryKeyHasOneNodeAndNoNodeMoreThanItsPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := make([]string, rapid.IntRange(0, 20).Draw(t, "keys"))
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		nodes := make([]string, rapid.IntRange(1, 9).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i] = fmt.Sprint("n", i)
		}
		owners := follow.Divide(keys, nodes)
		has := map[string]int{}
		for _, key := range keys {
			if has[owners[key]]++; !slices.Contains(nodes, owners[key]) || has[owners[key]] > (len(keys)+len(nodes)-1)/len(nodes) {
				t.Fatalf("%v own %v", nodes, owners)
			}
		}
		if again := follow.Divide(keys, rapid.Permutation(nodes).Draw(t, "shuffled")); fmt.Sprint(again) != fmt.Sprint(owners) {
			t.Fatalf("in another order %v, not %v", again, owners)
		}
	})
}
