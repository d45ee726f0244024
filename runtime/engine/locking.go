package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// compare reads which locks the session holds. With another session than
// before those are all that is held: an agent that comes back goes on with the
// same tokens, and a new session begins with none. With the same session what
// the store does not have is lost.
func (l *locks) compare(ctx context.Context, session string) error {
	entries, _, err := l.store.List(ctx, state.ShardLocksPrefix)
	if err != nil {
		return fmt.Errorf("list shard locks: %w", err)
	}
	found, others := map[spec.InstanceID]hold{}, map[spec.InstanceID]state.Entry{}
	for _, e := range entries {
		id, err := spec.ParseInstanceID(strings.TrimPrefix(e.Key, state.ShardLocksPrefix))
		switch {
		case err != nil: // no lock of ours
		case e.Session == session:
			found[id] = hold{token: e.ModifyIndex, session: session}
		default:
			others[id] = e
		}
	}
	if l.lacks(session, found) {
		// The locks may be gone with the session: those who live under its lease
		// are ended by that, and a new session takes them again.
		if _, err := l.store.Session(ctx, session); err != nil {
			if errors.Is(err, state.ErrSessionNotFound) {
				l.forgo()
			}
			return fmt.Errorf("look at the session of shard locks: %w", err)
		}
	}
	if err := l.stands(ctx, session); err != nil {
		return err
	}
	l.adopt(session, found, others)
	return nil
}

// errMoved: the session that locks were read or taken for is not the node's any
// more.
var errMoved = errors.New("the node's session has changed meanwhile")

// stands makes sure that what the store has just said of the session's locks is
// worth something. A store that was put back to an earlier state may say that
// the session holds what others have had since, and run. But then this node's
// orders were others too, and reading them afresh tells the agent, which gives
// the session up (see follow.Share).
func (l *locks) stands(ctx context.Context, session string) error {
	if l.delay == 0 {
		return nil
	}
	if _, _, err := l.store.Watch(ctx, state.AssignmentsPrefix+l.node+"/", 0); err != nil {
		return fmt.Errorf("read assignments: %w", err)
	}
	if l.session() != session {
		return errMoved
	}
	return nil
}

// confirm asks the store whether the session holds what it is thought to, if
// that is in doubt, and makes it be compared if not.
func (l *locks) confirm(ctx context.Context, session string) error {
	l.mu.Lock()
	ids := slices.Collect(maps.Keys(l.held))
	needless := !l.doubt || l.look || session != l.holding
	l.doubt = false
	l.mu.Unlock()
	if needless {
		return nil
	}
	for batch := range slices.Chunk(ids, state.MaxTxnOps) {
		ops := make([]state.Op, len(batch))
		for i, id := range batch {
			ops[i] = state.Op{Kind: state.OpCheckSession, Key: state.ShardLock(id), Session: session}
		}
		_, err := l.store.Txn(ctx, ops...)
		if errors.Is(err, state.ErrConflict) {
			l.mu.Lock()
			l.look = true
			l.mu.Unlock()
			return nil
		}
		if err != nil {
			return fmt.Errorf("confirm shard locks: %w", err)
		}
	}
	return nil
}

// lacks reports whether something that the same session held is not found.
func (l *locks) lacks(session string, found map[spec.InstanceID]hold) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, h := range l.held {
		if _, ok := found[id]; !ok && h.session == session {
			return true
		}
	}
	return false
}

// adopt makes what was found what is held. What nobody wants of it is released
// after the next want.
func (l *locks) adopt(session string, found map[spec.InstanceID]hold, others map[spec.InstanceID]state.Entry) {
	l.mu.Lock()
	var gone []spec.InstanceID
	for id, h := range l.held {
		if _, ok := found[id]; ok {
			continue
		}
		gone = append(gone, id)
		if h.session == session {
			l.lost[id] = "its shard's lock is gone from the store"
			if e, ok := others[id]; ok && e.Session != "" {
				l.lost[id] = "its shard's lock was taken away: " + holderOf(&e)
			}
			l.logger.Error("a shard's lock is not held any more: its instance is stopped", "instance", id.String(), "reason", l.lost[id])
		}
	}
	for id := range found {
		if _, ok := l.wanted[id]; !ok {
			l.wanted[id] = true // until the first want says otherwise
		}
		delete(l.attempts, id)
	}
	l.holding, l.held, l.look = session, found, false
	l.mu.Unlock()
	l.freed(gone)
	l.changed()
}

// forgo forgets all that is held: the session is gone.
func (l *locks) forgo() {
	l.mu.Lock()
	var gone []spec.InstanceID
	for id := range l.held {
		gone = append(gone, id)
	}
	clear(l.held)
	l.holding = ""
	l.mu.Unlock()
	l.freed(gone)
	l.changed()
}

// holderOf says who holds a lock.
func holderOf(e *state.Entry) string {
	var holder LockOwner
	_ = json.Unmarshal(e.Value, &holder) // a value of others may say nothing
	return fmt.Sprintf("shard is locked by session %s on node %s", e.Session, cmp.Or(holder.Node, "unknown"))
}

// free returns the locks that it is worth trying: of those that somebody held,
// only the ones that nobody does any more. To look costs the store less than a
// transaction that fails.
func (l *locks) free(ctx context.Context, ids []spec.InstanceID, now time.Time) ([]spec.InstanceID, error) {
	var out []spec.InstanceID
	for _, id := range ids {
		l.mu.Lock()
		busy := l.attempts[id].busy
		l.mu.Unlock()
		if busy {
			e, err := l.store.Get(ctx, state.ShardLock(id))
			switch {
			case err == nil && e.Session != "":
				l.refuse(id, holderOf(&e), true, now)
				continue
			case err != nil && !errors.Is(err, state.ErrNotFound):
				return ids, fmt.Errorf("look at shard lock of %s: %w", id, err)
			}
		}
		out = append(out, id)
	}
	return out, nil
}

// take takes a batch of locks in one transaction, without those that others
// hold.
func (l *locks) take(ctx context.Context, session string, ids []spec.InstanceID, now time.Time) error {
	value, err := json.MarshalIndent(LockOwner{Node: l.node, Session: session}, "", "  ")
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
			if err := l.stands(ctx, session); err != nil {
				return fmt.Errorf("take shard locks: %w", err)
			}
			l.took(ids, hold{token: index, session: session})
			return nil
		}
		failed := failures(err)
		if errors.Is(err, state.ErrSessionNotFound) || (len(failed) > 0 && l.isGone(ctx, session)) {
			l.forgo()
			return fmt.Errorf("take shard locks: %w", err)
		}
		left, refused := split(ids, failed)
		if len(refused) == 0 {
			return fmt.Errorf("take shard locks: %w", err)
		}
		for _, id := range refused {
			why, busy := "shard is locked: "+failed[state.ShardLock(id)], false
			if e, err := l.store.Get(ctx, state.ShardLock(id)); err == nil && e.Session != "" {
				why, busy = holderOf(&e), true
			}
			l.refuse(id, why, busy, now)
		}
		ids = left
	}
	return nil
}

// isGone reports whether the session is known to have ended.
func (l *locks) isGone(ctx context.Context, session string) bool {
	_, err := l.store.Session(ctx, session)
	return errors.Is(err, state.ErrSessionNotFound)
}

// took notes locks that were taken.
func (l *locks) took(ids []spec.InstanceID, h hold) {
	l.mu.Lock()
	for _, id := range ids {
		l.held[id] = h
		delete(l.attempts, id)
	}
	l.mu.Unlock()
	l.changed()
}

// failures returns why each key's operation failed.
func failures(err error) map[string]string {
	var conflict *state.TxnError
	if !errors.As(err, &conflict) {
		return nil
	}
	out := make(map[string]string, len(conflict.Failures))
	for _, f := range conflict.Failures {
		out[f.Op.Key] = f.Reason
	}
	return out
}

// split parts IDs into those whose lock's operation did not fail, and the rest.
func split(ids []spec.InstanceID, failed map[string]string) (left, rest []spec.InstanceID) {
	for _, id := range ids {
		if _, ok := failed[state.ShardLock(id)]; ok {
			rest = append(rest, id)
		} else {
			left = append(left, id)
		}
	}
	return left, rest
}

// release gives a batch of locks up and removes their keys. Those that are not
// the session's any more are let go of as well.
func (l *locks) release(ctx context.Context, session string, ids []spec.InstanceID) error {
	for len(ids) > 0 {
		ops := make([]state.Op, 0, 2*len(ids))
		for _, id := range ids {
			key := state.ShardLock(id)
			ops = append(ops, state.Op{Kind: state.OpUnlock, Key: key, Session: session}, state.Op{Kind: state.OpDelete, Key: key})
		}
		_, err := l.store.Txn(ctx, ops...)
		if err == nil {
			l.let(ids)
			return nil
		}
		left, rest := split(ids, failures(err))
		if len(rest) == 0 {
			return fmt.Errorf("release shard locks: %w", err)
		}
		l.let(rest)
		ids = left
	}
	return nil
}

// let lets go of locks.
func (l *locks) let(ids []spec.InstanceID) {
	l.mu.Lock()
	for _, id := range ids {
		delete(l.held, id)
	}
	l.mu.Unlock()
	l.freed(ids)
}
