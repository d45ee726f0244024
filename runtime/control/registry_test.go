package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func renderer() spec.Engine {
	return spec.Engine{Name: "renderer-1", Kind: "renderer", Address: "10.0.0.9:80", TTL: spec.MinEngineTTL, Capabilities: []string{"png"}}
}

// looking runs a registry until the context ends.
func looking(ctx context.Context, t *testing.T, node string, store state.Store, session string) (r *Registry, ended func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	owns := &ownership{session: session, turned: make(chan struct{}, 1)}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		owns.follow(ctx, store)
	}()
	r = NewRegistry(node, store, owns, hclog.NewNullLogger())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		t.Helper()
		cancel()
		<-watched
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// ownership is what the store says of who holds the control shards.
type ownership struct {
	session string
	turned  chan struct{}
	mu      sync.Mutex // guards mine
	mine    map[string]uint64
}

func (o *ownership) follow(ctx context.Context, store state.Store) {
	for index := uint64(0); ctx.Err() == nil; {
		locks, next, err := store.Watch(ctx, state.OrchestratorLocksPrefix, index)
		if err != nil {
			return
		}
		index = next
		o.mu.Lock()
		o.mine = map[string]uint64{}
		for _, e := range locks {
			if follow.HolderOf(e).Session == o.session {
				o.mine[e.Key] = e.ModifyIndex
			}
		}
		o.mu.Unlock()
		select {
		case o.turned <- struct{}{}:
		default:
		}
	}
}

func (o *ownership) Holds(lock string) bool {
	_, holds := o.Check(lock)
	return holds
}

func (o *ownership) Check(lock string) (state.Op, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	term := follow.Term{Locks: o.mine}
	return term.Check(lock), o.mine[lock] != 0
}

func (o *ownership) Turned() <-chan struct{} { return o.turned }

func registered(t *testing.T, store state.Store) int {
	t.Helper()
	entries, _, err := store.List(t.Context(), state.EnginesPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAnEngineIsKnownAsLongAsItBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.OpenMemory(local.Options{})
		defer store.Close()
		lock := state.OrchestratorLock(orchestrator.ControlShard("renderer-1"))
		session := hold(t, store, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a"}, lock: 1})
		r, end := looking(t.Context(), t, "node-a", store, session)
		defer end()
		synctest.Wait() // it knows what it owns
		first, err := r.register(t.Context(), store, renderer(), time.Now())
		if err != nil || first.Node != "node-a" || first.Registered.IsZero() || first.Expires != time.Now().Add(spec.MinEngineTTL.Std()) {
			t.Fatalf("%+v, %v", first, err)
		}
		_, before, _ := store.List(t.Context(), "")
		for range 100 {
			time.Sleep(9 * time.Second)
			status, err := r.register(t.Context(), store, renderer(), time.Now())
			if err != nil || !status.Beat.Equal(time.Now()) || !status.Registered.Equal(first.Registered) {
				t.Fatalf("%+v, %v", status, err)
			}
		}
		if _, after, _ := store.List(t.Context(), ""); after != before {
			t.Errorf("100 heartbeats moved the store from %d to %d", before, after)
		}
		moved := renderer()
		moved.Address = "10.0.0.10:80"
		if status, err := r.register(t.Context(), store, moved, time.Now()); err != nil || !status.Registered.Equal(first.Registered) {
			t.Errorf("%+v, %v", status, err)
		}
		if e, _, err := state.GetAs[spec.Engine](t.Context(), store, state.EngineKey("renderer-1")); err != nil || e.Address != moved.Address {
			t.Errorf("%+v, %v", e, err)
		}
		time.Sleep(spec.MinEngineTTL.Std() - time.Millisecond)
		synctest.Wait()
		if registered(t, store) != 1 {
			t.Error("it is forgotten too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if registered(t, store) != 0 || len(r.own()) != 0 {
			t.Errorf("it is not forgotten: %+v", r.own())
		}
		events, err := state.Events(t.Context(), store)
		if err != nil || len(events) != 3 || events[2].Type != spec.EventEngineExpired {
			t.Errorf("events %+v, %v", events, err)
		}
	})
}

func TestANewOwnerGivesEveryEngineOneTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.OpenMemory(local.Options{})
		defer store.Close()
		lock := state.OrchestratorLock(orchestrator.ControlShard("renderer-1"))
		a := hold(t, store, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a"}, lock: 1})
		b := hold(t, store, map[string]any{state.NodeKey("node-b"): spec.Node{Name: "node-b"}})
		first, end := looking(t.Context(), t, "node-a", store, a)
		second, endSecond := looking(t.Context(), t, "node-b", store, b)
		defer endSecond()
		synctest.Wait() // node-b has found no engine, and watches none
		if _, err := second.register(t.Context(), store, renderer(), time.Now()); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("not the owner: %v", err)
		}
		if _, err := first.register(t.Context(), store, renderer(), time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		end()
		if err := store.DestroySession(t.Context(), a); err != nil { // node-a is lost
			t.Fatal(err)
		}
		synctest.Wait()
		write(t, store, claimed(lock, b))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if registered(t, store) != 1 || len(second.own()) != 1 || !second.own()["renderer-1"].Beat.IsZero() {
			t.Errorf("within the grace: %+v", second.own())
		}
		if _, err := second.register(t.Context(), store, renderer(), time.Now()); err != nil {
			t.Error(err)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if registered(t, store) != 1 {
			t.Error("it beats, and is forgotten")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if registered(t, store) != 0 {
			t.Error("nobody forgets it")
		}
	})
}

// spied counts the watches of engines that are under way.
type spied struct {
	state.Store
	watches atomic.Int32
}

func (s *spied) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	if prefix == state.EnginesPrefix {
		s.watches.Add(1)
		defer s.watches.Add(-1)
	}
	return s.Store.Watch(ctx, prefix, after)
}

func TestOnlyTheOwnerOfAnEngineWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.OpenMemory(local.Options{})
		defer store.Close()
		lock := state.OrchestratorLock(orchestrator.ControlShard("renderer-1"))
		a := hold(t, store, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a"}, lock: 1})
		b := hold(t, store, map[string]any{state.NodeKey("node-b"): spec.Node{Name: "node-b"}})
		ofA, ofB := &spied{Store: store}, &spied{Store: store}
		first, end := looking(t.Context(), t, "node-a", ofA, a)
		defer end()
		_, endSecond := looking(t.Context(), t, "node-b", ofB, b)
		defer endSecond()
		synctest.Wait()
		if _, err := first.register(t.Context(), store, renderer(), time.Now()); err != nil {
			t.Fatal(err)
		}
		write(t, store, state.Op{Kind: state.OpSet, Key: state.NodeKey("node-c"), Value: state.Encode(spec.Node{Name: "node-c"})})
		synctest.Wait()
		if ofA.watches.Load() != 1 || ofB.watches.Load() != 0 {
			t.Errorf("the owner has %d watches, the other %d", ofA.watches.Load(), ofB.watches.Load())
		}
		time.Sleep(spec.MinEngineTTL.Std() + time.Second)
		synctest.Wait()
		if registered(t, store) != 0 || ofA.watches.Load() != 0 {
			t.Errorf("it is gone, and its owner has %d watches", ofA.watches.Load())
		}
	})
}

func TestARecordWithoutSenseIsRefused(t *testing.T) {
	store := openStore(t)
	r := NewRegistry("node-a", store, &ownership{}, hclog.NewNullLogger())
	for name, spoil := range map[string]func(*spec.Engine){
		"no name": func(e *spec.Engine) { e.Name = "" }, "a slash": func(e *spec.Engine) { e.Name = "a/b" }, "no kind": func(e *spec.Engine) { e.Kind = "" },
		"a short ttl": func(e *spec.Engine) { e.TTL = 1 }, "two lines": func(e *spec.Engine) { e.Address = "a\nb" },
	} {
		e := renderer()
		spoil(&e)
		if _, err := r.register(t.Context(), store, e, time.Now()); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.register(t.Context(), store, renderer(), time.Now()); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("without the lock: %v", err)
	}
}

func TestAnEngineRegistersWithAnyAgent(t *testing.T) {
	n := newNodes(t)
	lock := state.OrchestratorLock(orchestrator.ControlShard("renderer-1"))
	sessions := map[string]string{}
	agentOf := func(name string) *Mesh {
		sessions[name] = hold(t, n.store, map[string]any{state.NodeKey(name): spec.Node{Name: name}})
		r, end := looking(context.Background(), t, name, n.store, sessions[name])
		t.Cleanup(end)
		b := storeBackend(n.store)
		b.cfg.Node, b.cfg.Engines = name, r
		m := n.mesh(name, &withInstances{b, own(name)})
		m.engines = r
		n.join(name, m)
		return m
	}
	a, b, c := agentOf("node-a"), agentOf("node-b"), agentOf("node-c")
	if _, err := a.RegisterEngine(t.Context(), renderer()); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("without an owner: %v", err)
	}
	n.write(claimed(lock, sessions["node-b"]))
	for _, m := range []*Mesh{a, b, c} {
		status, err := m.RegisterEngine(t.Context(), renderer())
		if err != nil || status.Node != "node-b" || status.Beat.IsZero() {
			t.Errorf("at %s: %+v, %v", m.node, status, err)
		}
		if status, err = m.Engine(t.Context(), "renderer-1"); err != nil || status.Node != "node-b" || status.Beat.IsZero() {
			t.Errorf("at %s: %+v, %v", m.node, status, err)
		}
		if all, err := m.Engines(t.Context()); err != nil || len(all) != 1 || all[0].Beat.IsZero() {
			t.Errorf("at %s: %+v, %v", m.node, all, err)
		}
	}
	// The shard changes hands, and a remembers the old owner.
	n.write(claimed(lock, sessions["node-c"]))
	waitFor(t, "node-b to notice", func() bool { return len(b.engines.own()) == 0 })
	if status, err := a.RegisterEngine(t.Context(), renderer()); err != nil || status.Node != "node-c" {
		t.Errorf("after the hand-over: %+v, %v", status, err)
	}
	if _, err := a.Engine(t.Context(), "nope"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
}

// withInstances is a backend that needs no engine of its own.
type withInstances struct {
	*Node
	instances api.Backend
}

func (w *withInstances) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	return w.instances.Instances(ctx, after)
}
