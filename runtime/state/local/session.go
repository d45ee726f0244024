package local

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// expireRetry is the wait before an expiry is tried again that could not be
// written.
const expireRetry = time.Second

// CreateSession starts a session and returns its ID.
func (s *Store) CreateSession(ctx context.Context, cfg state.SessionConfig) (string, error) {
	if cfg.Behavior == "" {
		cfg.Behavior = state.BehaviorRelease
	}
	if err := cfg.Check(); err != nil {
		return "", err
	}
	id := newSessionID()
	err := s.submit(ctx, func(e *edit) error {
		e.memory.index++
		session := state.Session{ID: id, SessionConfig: cfg, CreateIndex: e.memory.index}
		e.sessions, _, _ = e.sessions.Insert([]byte(id), session)
		e.dirty[recordID{kindSession, id}] = struct{}{}
		e.born = append(e.born, session)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("create session %q: %w", cfg.Name, err)
	}
	return id, nil
}

// newSessionID returns a random UUID, which is what Consul's IDs look like.
func newSessionID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// RenewSession restarts the session's TTL. It touches no disk, so a slow one
// cannot end a session.
func (s *Store) RenewSession(ctx context.Context, id string) error {
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("renew session %s: %w", id, err)
	}
	session, ok := s.view.Load().sessions.Get([]byte(id))
	if !ok || !s.timers.renew(id, session.TTL, s.now()) {
		return fmt.Errorf("renew session %s: %w", id, state.ErrSessionNotFound)
	}
	return nil
}

// Session returns a session, or state.ErrSessionNotFound.
func (s *Store) Session(ctx context.Context, id string) (state.Session, error) {
	if err := s.ready(ctx); err != nil {
		return state.Session{}, fmt.Errorf("get session %s: %w", id, err)
	}
	session, ok := s.view.Load().sessions.Get([]byte(id))
	if !ok {
		return state.Session{}, fmt.Errorf("get session %s: %w", id, state.ErrSessionNotFound)
	}
	return session, nil
}

// DestroySession ends a session; its lock delay begins.
func (s *Store) DestroySession(ctx context.Context, id string) error {
	if _, ok := s.view.Load().sessions.Get([]byte(id)); !ok && s.ready(ctx) == nil {
		return nil
	}
	err := s.submit(ctx, func(e *edit) error {
		e.destroy(id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("destroy session %s: %w", id, err)
	}
	return nil
}

// destroy removes the session, frees the locks that it holds or deletes their
// keys, and starts the lock delay of each.
func (e *edit) destroy(id string) {
	session, ok := e.sessions.Get([]byte(id))
	if !ok {
		return
	}
	e.forgetDelays()
	c := e.begin()
	it := e.entries.Root().Iterator()
	var held []*state.Entry
	for _, n, ok := it.Next(); ok; _, n, ok = it.Next() {
		if n.Session == id {
			held = append(held, n)
		}
	}
	for _, n := range held {
		if session.Behavior == state.BehaviorDelete {
			c.remove(n.Key)
		} else {
			free := *n
			free.Session = ""
			c.put(free)
		}
		if session.LockDelay > 0 {
			e.setDelay(n.Key, e.now.Add(session.LockDelay))
		}
	}
	e.sessions, _, _ = e.sessions.Delete([]byte(id))
	e.dirty[recordID{kindSession, id}] = struct{}{}
	e.ended = append(e.ended, id)
	c.adopt()
}

// forgetDelays drops the lock delays that are over.
func (e *edit) forgetDelays() {
	var over []string
	it := e.delays.Root().Iterator()
	for k, until, ok := it.Next(); ok; k, until, ok = it.Next() {
		if !until.After(e.now) {
			over = append(over, string(k))
		}
	}
	for _, key := range over {
		e.setDelay(key, time.Time{})
	}
}

// expire ends the sessions whose time is over.
func (s *Store) expire() {
	due := s.timers.take(s.now())
	if len(due) == 0 {
		return
	}
	base := s.view.Load()
	e := newEdit(base, s.now())
	for _, id := range due {
		e.destroy(id)
	}
	if err := s.persist(e); err != nil {
		for _, id := range due {
			s.timers.set(id, expireRetry, s.now())
		}
		return
	}
	for _, id := range due {
		session, _ := base.sessions.Get([]byte(id))
		s.logger.Warn("session has expired: it was not renewed within its TTL", "session", id, "name", session.Name, "ttl", session.TTL)
	}
}

// timers knows when each session with a TTL ends unless it is renewed.
type timers struct {
	mu   sync.Mutex // guards ends
	ends map[string]time.Time
}

// deadline is when a session ends that was renewed now: a TTL is enforced
// between one and two TTLs after its renewal.
func deadline(ttl time.Duration, now time.Time) time.Time { return now.Add(ttl + ttl/2) }

func (t *timers) init(m *memory, now time.Time) {
	t.ends = map[string]time.Time{}
	it := m.sessions.Root().Iterator()
	for id, s, ok := it.Next(); ok; id, s, ok = it.Next() {
		t.set(string(id), s.TTL, now)
	}
}

// set starts a session's time. A TTL of 0 never ends.
func (t *timers) set(id string, ttl time.Duration, now time.Time) {
	if ttl == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends[id] = deadline(ttl, now)
}

// renew starts a session's time afresh and reports false if it is over.
func (t *timers) renew(id string, ttl time.Duration, now time.Time) bool {
	if ttl == 0 {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	end, ok := t.ends[id]
	if !ok || !end.After(now) {
		return false
	}
	t.ends[id] = deadline(ttl, now)
	return true
}

func (t *timers) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ends, id)
}

// take removes and returns the sessions that are over. From then on they
// cannot be renewed.
func (t *timers) take(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []string
	for id, end := range t.ends {
		if !end.After(now) {
			due = append(due, id)
			delete(t.ends, id)
		}
	}
	return due
}

// next returns when the first session ends.
func (t *timers) next() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first time.Time
	for _, end := range t.ends {
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first, !first.IsZero()
}
