package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// ownersFor is how long it is remembered who owns the control shards: less
// than the shortest TTL, so that no heartbeat that went astray costs an engine
// its place.
const ownersFor = 5 * time.Second

// Registry holds the engines that meshrun did not start. Their records are in
// the store and are written only when they change; heartbeats are counted in
// the memory of the agent that owns the engine's control shard, which also
// forgets engines that stop beating. An agent that becomes the owner gives
// each of them one TTL.
//
//	engine ─PUT─▶ any agent ─Local─▶ owner ─▶ engines/<name>, if it changed
type Registry struct {
	node   string
	store  state.Store
	owns   Owner
	logger hclog.Logger
	wake   loop.Signal // an engine was registered here

	mu     sync.Mutex // guards all below
	beats  map[string]beatOf
	owners []string // by control shard
	asked  time.Time
}

// Owner tells which control shards this agent owns. The orchestrator does.
type Owner interface {
	// Holds reports whether the lock of one is held, and Check returns the
	// operation that a write under it begins with.
	Holds(lock string) bool
	Check(lock string) (op state.Op, holds bool)
	// Turned is ready when that may have changed.
	Turned() <-chan struct{}
}

// beatOf is what an owner knows of an engine.
type beatOf struct {
	engine spec.Engine
	index  uint64    // of its record
	since  time.Time // heard of, or owned since
	heard  bool
}

func (b *beatOf) expires() time.Time { return b.since.Add(b.engine.TTL.Std()) }

// NewRegistry returns a registry that knows no engine; Run must run.
func NewRegistry(node string, store state.Store, owns Owner, logger hclog.Logger) *Registry {
	return &Registry{
		node: node, store: store, owns: owns, logger: logger.Named("registry"),
		wake: loop.NewSignal(), beats: map[string]beatOf{},
	}
}

// Run looks after the engines of this agent's control shards until the context
// ends. While there is none of them it watches nothing: they are registered here,
// or come with a control shard.
func (r *Registry) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		mine, err := r.mine(ctx)
		if err == nil && mine {
			err = r.look(ctx)
		}
		if errors.Is(err, state.ErrClosed) && ctx.Err() == nil {
			return err
		}
		if err != nil {
			_ = loop.Sleep(ctx, time.Second)
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-r.owns.Turned():
		}
	}
	return nil
}

// mine reports whether there is an engine of this agent's control shards.
func (r *Registry) mine(ctx context.Context) (bool, error) {
	engines, _, err := r.store.List(ctx, state.EnginesPrefix)
	return slices.ContainsFunc(engines, func(e state.Entry) bool {
		return r.owned(follow.Name(state.EnginesPrefix, e.Key))
	}), err
}

// owned reports whether this agent owns the control shard of an engine.
func (r *Registry) owned(name string) bool { return r.owns.Holds(lockOf(name)) }

// lockOf returns the lock of an engine's control shard.
func lockOf(name string) string { return state.OrchestratorLock(orchestrator.ControlShard(name)) }

// look follows the engines until none of them is this agent's.
func (r *Registry) look(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	updates, failed := make(chan follow.Update), make(chan error, 1)
	watch.Go(func() {
		if err := follow.Watch(ctx, r.store, state.EnginesPrefix, updates, r.logger); err != nil {
			failed <- err
		}
	})
	engines, read := follow.NewView[spec.Engine](state.EnginesPrefix), false
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u := <-updates:
			engines.Apply(u)
			read = true
		case <-r.wake:
		case <-r.owns.Turned():
		case <-timer.C:
		}
		if !read {
			continue
		}
		next, any := r.step(ctx, engines, time.Now())
		if !any {
			return nil
		}
		timer.Reset(next)
	}
}

// step forgets engines that are due, and returns when the next one is; false
// if none is this agent's.
func (r *Registry) step(ctx context.Context, engines *follow.View[spec.Engine], now time.Time) (next time.Duration, any bool) {
	mine := map[string]bool{}
	wake := now.Add(time.Hour)
	for _, name := range engines.Names() {
		engine, index, err := engines.Get(name)
		if err != nil || !r.owned(name) {
			continue
		}
		mine[name] = true
		due := r.keep(*engine, index, now)
		if due.After(now) {
			if due.Before(wake) {
				wake = due
			}
			continue
		}
		if err := r.expire(ctx, engine, index, now); err != nil && ctx.Err() == nil {
			r.logger.Warn("cannot forget an engine, trying again", "engine", name, "error", err)
			wake = now.Add(time.Second)
		}
	}
	r.forget(mine)
	return wake.Sub(now), len(mine) > 0
}

// keep notes that this agent looks after an engine, and returns when it
// expires.
func (r *Registry) keep(engine spec.Engine, index uint64, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, known := r.beats[engine.Name]
	if !known {
		b = beatOf{since: now}
	}
	if index >= b.index {
		b.engine, b.index = engine, index
	}
	r.beats[engine.Name] = b
	return b.expires()
}

// forget drops the engines that this agent does not look after.
func (r *Registry) forget(mine map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.beats, func(name string, _ beatOf) bool { return !mine[name] })
}

// expire removes an engine that has stopped beating.
func (r *Registry) expire(ctx context.Context, engine *spec.Engine, index uint64, now time.Time) error {
	event, err := state.EventOp(spec.Event{
		Time: now.UTC(), Type: spec.EventEngineExpired, Severity: spec.Warning, Node: r.node, Who: "agent",
		Message: fmt.Sprintf("engine %s (%s) was not heard of for %s and is forgotten", engine.Name, engine.Kind, engine.TTL),
	})
	if err != nil {
		return err
	}
	check, _ := r.owns.Check(lockOf(engine.Name))
	_, err = r.store.Txn(ctx, check,
		state.Op{Kind: state.OpDeleteCAS, Key: state.EngineKey(engine.Name), Index: index}, event)
	return err
}

// register makes an engine known, or keeps it known, as the owner of its
// control shard. It returns ErrUnavailable if this agent is not the owner.
func (r *Registry) register(ctx context.Context, store state.Store, engine spec.Engine, now time.Time) (api.EngineStatus, error) {
	engine.Normalize()
	if err := engine.Validate(); err != nil {
		return api.EngineStatus{}, api.Errorf(api.ErrInvalid, "%v", err)
	}
	if status, ok := r.beat(engine, now); ok {
		return status, nil
	}
	check, owner := r.owns.Check(lockOf(engine.Name))
	known, entry, err := state.GetAs[spec.Engine](ctx, store, state.EngineKey(engine.Name))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return api.EngineStatus{}, fmt.Errorf("register engine %s: %w", engine.Name, err)
	}
	if engine.Registered = known.Registered; engine.Registered.IsZero() {
		engine.Registered = now.UTC()
	}
	index := entry.ModifyIndex
	ops := []state.Op{check}
	changed := !reflect.DeepEqual(known, engine)
	if changed {
		event, err := state.EventOp(spec.Event{
			Time: now.UTC(), Type: spec.EventEngineRegistered, Severity: spec.Info, Node: r.node, Who: api.Who(ctx),
			Message: fmt.Sprintf("engine %s (%s) is registered, at %s", engine.Name, engine.Kind, engine.Address),
		})
		if err != nil {
			return api.EngineStatus{}, err
		}
		ops = append(ops, state.Op{Kind: state.OpCAS, Key: state.EngineKey(engine.Name), Index: index, Value: state.Encode(engine)}, event)
	}
	if !owner {
		return api.EngineStatus{}, api.Errorf(api.ErrUnavailable, "node %s does not own engine %s now: try again", r.node, engine.Name)
	}
	at, err := store.Txn(ctx, ops...)
	switch {
	case errors.Is(err, state.ErrConflict):
		return api.EngineStatus{}, api.Errorf(api.ErrUnavailable, "node %s does not own engine %s now, or its record was changed at the same time: try again", r.node, engine.Name)
	case err != nil:
		return api.EngineStatus{}, fmt.Errorf("register engine %s: %w", engine.Name, err)
	}
	if changed {
		index = at
	}
	r.mu.Lock()
	b := beatOf{engine: engine, index: index, since: now, heard: true}
	r.beats[engine.Name] = b
	r.mu.Unlock()
	r.wake.Set()
	return r.status(&b), nil
}

// beat takes a heartbeat that changes nothing.
func (r *Registry) beat(engine spec.Engine, now time.Time) (api.EngineStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, known := r.beats[engine.Name]
	engine.Registered = b.engine.Registered
	if !known || !reflect.DeepEqual(b.engine, engine) {
		return api.EngineStatus{}, false
	}
	b.since, b.heard = now, true
	r.beats[engine.Name] = b
	return r.status(&b), true
}

func (r *Registry) status(b *beatOf) api.EngineStatus {
	s := api.EngineStatus{Engine: b.engine, Node: r.node, Expires: b.expires()}
	if b.heard {
		s.Beat = b.since
	}
	return s
}

// own returns the engines that this agent looks after, by name.
func (r *Registry) own() map[string]api.EngineStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]api.EngineStatus{}
	for name, b := range r.beats {
		out[name] = r.status(&b)
	}
	return out
}

// all returns the engines in the store, ordered by name, with what this agent
// knows of its own.
func (r *Registry) all(ctx context.Context, store state.Store) ([]api.EngineStatus, error) {
	engines, _, err := state.ListAs[spec.Engine](ctx, store, state.EnginesPrefix)
	if err != nil {
		return nil, fmt.Errorf("read engines: %w", err)
	}
	own := r.own()
	out := make([]api.EngineStatus, 0, len(engines))
	for _, e := range engines {
		status, mine := own[e.Name]
		if !mine {
			status = api.EngineStatus{Engine: e}
		}
		out = append(out, status)
	}
	return out, nil
}

// owner returns the node that owns an engine's control shard; "" while none
// does. Fresh asks the store even if it was asked a moment ago.
func (r *Registry) owner(ctx context.Context, name string, fresh bool) (string, error) {
	shard := orchestrator.ControlShard(name)
	r.mu.Lock()
	if !fresh && time.Since(r.asked) < ownersFor {
		defer r.mu.Unlock()
		return r.owners[shard], nil
	}
	r.mu.Unlock()
	locks, _, err := r.store.List(ctx, state.OrchestratorLocksPrefix)
	if err != nil {
		return "", fmt.Errorf("read who owns the control shards: %w", err)
	}
	nodes, _, err := r.store.List(ctx, state.NodesPrefix)
	if err != nil {
		return "", fmt.Errorf("read nodes: %w", err)
	}
	c, err := clusterOf(nodes, locks, nil, nil)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owners, r.asked = c.ControlShards, time.Now()
	return r.owners[shard], nil
}
