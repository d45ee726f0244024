package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// storeTimeout ends every call of the store but a watch.
	storeTimeout = 10 * time.Second
	// lockRetry is how long a lock that others hold is left alone: nothing
	// tells when a lock delay ends.
	lockRetry = time.Second
	// lockBatch is how many locks are taken in a transaction, with room for
	// their values.
	lockBatch = state.MaxTxnOps / 2
)

// ShardHolder is the value of an exclusive shard's lock. The token is the
// ModifyIndex of the lock's key, which nobody writes while it is held.
type ShardHolder struct {
	Node    string `json:"node"`
	Session string `json:"session"`
}

// locks takes and releases the locks of exclusive shards. Its goroutine is the
// only one that talks to the store, so that a slow store delays exclusive
// shards only.
type locks struct {
	store   state.Store
	session func() string
	node    string
	logger  hclog.Logger
	changed func() // told after every change of held or refused
	wake    chan struct{}

	// holding is the session that holds held; only run's goroutine knows it.
	holding string

	mu      sync.Mutex                 // guards all below
	wanted  map[spec.InstanceID]bool   // true: take or keep; false: release
	held    map[spec.InstanceID]uint64 // tokens
	refused map[spec.InstanceID]string
}

func newLocks(cfg *Config, changed func()) *locks {
	return &locks{
		store: cfg.Store, session: cfg.Session, node: cfg.Node, logger: cfg.Logger.Named("locks"),
		changed: changed, wake: make(chan struct{}, 1),
		wanted: map[spec.InstanceID]bool{}, held: map[spec.InstanceID]uint64{}, refused: map[spec.InstanceID]string{},
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// want says which locks to hold: all of take, and of the others only those
// that may not be released yet.
func (l *locks) want(take map[spec.InstanceID]bool, keep func(spec.InstanceID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := false
	for id := range take {
		if !l.wanted[id] {
			l.wanted[id], moved = true, true
		}
	}
	for id, want := range l.wanted {
		if want && !take[id] && !keep(id) {
			l.wanted[id], moved = false, true
		}
	}
	if moved {
		signal(l.wake)
	}
}

// token returns the fencing token of a lock that is held, or why it is not.
func (l *locks) token(id spec.InstanceID) (uint64, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token, ok := l.held[id]; ok {
		return token, ""
	}
	if why := l.refused[id]; why != "" {
		return 0, why
	}
	return 0, "waits for its shard's lock"
}

// run takes and releases locks until ctx is done.
func (l *locks) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if retry := l.step(ctx); retry > 0 {
			timer.Reset(retry)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// step does what is to be done now and returns when to try the rest again; 0
// means only when woken.
func (l *locks) step(ctx context.Context) (retry time.Duration) {
	take, release := l.due()
	session := l.session()
	if len(take)+len(release) == 0 && (session == "" || session == l.holding) {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if session == "" {
		l.refuse(take, "waits for a session with the store")
		return lockRetry
	}
	if session != l.holding {
		if err := l.resume(ctx, session); err != nil {
			return l.failed(take, err)
		}
		take, release = l.due()
	}
	for batch := range slices.Chunk(take, lockBatch) {
		if err := l.take(ctx, session, batch); err != nil {
			return l.failed(batch, err)
		}
	}
	for _, id := range release {
		if err := l.release(ctx, session, id); err != nil {
			return l.failed(nil, err)
		}
	}
	if rest, _ := l.due(); len(rest) > 0 {
		return lockRetry
	}
	return 0
}

func (l *locks) failed(ids []spec.InstanceID, err error) time.Duration {
	l.logger.Warn("shard locks are delayed", "error", err)
	l.refuse(ids, "waits for the store: "+err.Error())
	return lockRetry
}

// due returns the locks to take and to release.
func (l *locks) due() (take, release []spec.InstanceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, want := range l.wanted {
		_, held := l.held[id]
		switch {
		case want && !held:
			take = append(take, id)
		case !want && held:
			release = append(release, id)
		case !want:
			delete(l.wanted, id)
			delete(l.refused, id)
		}
	}
	slices.SortFunc(take, spec.InstanceID.Compare)
	slices.SortFunc(release, spec.InstanceID.Compare)
	return take, release
}

// resume takes over the locks that the session holds already: an agent that
// comes back goes on with the same tokens. What nobody wants any more is
// released.
func (l *locks) resume(ctx context.Context, session string) error {
	entries, _, err := l.store.List(ctx, state.ShardLocksPrefix)
	if err != nil {
		return fmt.Errorf("list shard locks: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = session
	clear(l.held)
	for _, e := range entries {
		id, err := spec.ParseInstanceID(e.Key[len(state.ShardLocksPrefix):])
		if err != nil || e.Session != session {
			continue
		}
		l.held[id] = e.ModifyIndex
		if _, ok := l.wanted[id]; !ok {
			l.wanted[id] = true // until the first want says otherwise
		}
	}
	defer l.changed()
	return nil
}

// take takes a batch of locks in one transaction, without those that others
// hold.
func (l *locks) take(ctx context.Context, session string, ids []spec.InstanceID) error {
	value, err := json.MarshalIndent(ShardHolder{Node: l.node, Session: session}, "", "  ")
	if err != nil {
		return fmt.Errorf("take shard locks: %w", err)
	}
	for len(ids) > 0 {
		ops := make([]state.Op, len(ids))
		for i, id := range ids {
			ops[i] = state.Op{Kind: state.OpLock, Key: state.ShardLock(id), Value: value, Session: session}
		}
		index, err := l.store.Txn(ctx, ops...)
		if err == nil {
			l.mu.Lock()
			for _, id := range ids {
				l.held[id] = index
				delete(l.refused, id)
			}
			l.mu.Unlock()
			l.changed()
			return nil
		}
		var conflict *state.TxnError
		if !errors.As(err, &conflict) || len(conflict.Failures) == 0 {
			if errors.Is(err, state.ErrSessionNotFound) {
				l.holding = ""
			}
			return fmt.Errorf("take shard locks: %w", err)
		}
		left := l.without(ctx, ids, conflict.Failures)
		if len(left) == len(ids) {
			return fmt.Errorf("take shard locks: %w", err)
		}
		ids = left
	}
	return nil
}

// without returns the IDs whose operations did not fail, and notes who holds
// the others' locks.
func (l *locks) without(ctx context.Context, ids []spec.InstanceID, failures []state.OpFailure) []spec.InstanceID {
	lost := map[string]string{}
	for _, f := range failures {
		lost[f.Op.Key] = f.Reason
	}
	var left []spec.InstanceID
	for _, id := range ids {
		key := state.ShardLock(id)
		reason, ok := lost[key]
		if !ok {
			left = append(left, id)
			continue
		}
		why := "shard is locked: " + reason
		if e, err := l.store.Get(ctx, key); err == nil && e.Session != "" {
			var holder ShardHolder
			_ = json.Unmarshal(e.Value, &holder) // a value of others may say nothing
			why = fmt.Sprintf("shard is locked by session %s on node %s", e.Session, cmp.Or(holder.Node, "unknown"))
		}
		l.refuse([]spec.InstanceID{id}, why)
	}
	return left
}

// release gives a lock up and removes its key.
func (l *locks) release(ctx context.Context, session string, id spec.InstanceID) error {
	key := state.ShardLock(id)
	_, err := l.store.Txn(ctx,
		state.Op{Kind: state.OpUnlock, Key: key, Session: session},
		state.Op{Kind: state.OpDelete, Key: key})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		return fmt.Errorf("release shard lock of %s: %w", id, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, id)
	return nil
}

// refuse notes why locks cannot be had.
func (l *locks) refuse(ids []spec.InstanceID, why string) {
	l.mu.Lock()
	before := maps.Clone(l.refused)
	for _, id := range ids {
		l.refused[id] = why
	}
	moved := !maps.Equal(before, l.refused)
	l.mu.Unlock()
	if moved {
		l.changed()
	}
}
