package statetest

import (
	"errors"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

const (
	ttl = state.MinSessionTTL
	// slack is what a store may be late by: a request's way and a timer.
	slack = time.Second
)

// gone reports whether the session has ended.
func (s *suite) gone(id string) bool {
	s.Helper()
	_, err := s.store.Session(s.ctx(), id)
	if err != nil && !errors.Is(err, state.ErrSessionNotFound) {
		s.Fatalf("get session: %v", err)
	}
	return err != nil
}

var sessionTests = []test{
	{"a session is read back as it was created", func(s *suite) {
		cfg := state.SessionConfig{Name: "a/scheduler", Node: "node-1", TTL: 30 * time.Second, LockDelay: 5 * time.Second, Behavior: state.BehaviorDelete}
		id := s.session(cfg)
		got, err := s.store.Session(s.ctx(), id)
		if err != nil {
			s.Fatal(err)
		}
		if got.ID != id || got.SessionConfig != cfg || got.CreateIndex == 0 {
			s.Errorf("got %+v, want %+v", got, cfg)
		}
		s.destroy(id)
	}},

	{"every session has an ID of its own", func(s *suite) {
		a, b := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		if a == b || a == "" {
			s.Errorf("got %q and %q", a, b)
		}
		s.destroy(a)
		s.destroy(b)
	}},

	{"what no session can be is ErrInvalid", func(s *suite) {
		for _, cfg := range []state.SessionConfig{
			{TTL: state.MinSessionTTL - 1}, {TTL: state.MaxSessionTTL + 1}, {TTL: -1},
			{LockDelay: state.MaxLockDelay + 1}, {LockDelay: -1}, {Behavior: "explode"}, {Node: "a/b"},
		} {
			if _, err := s.store.CreateSession(s.ctx(), cfg); !errors.Is(err, state.ErrInvalid) {
				s.Errorf("%+v: got error %v, want ErrInvalid", cfg, err)
			}
		}
	}},

	{"a destroyed session is not found, and destroying it again is no error", func(s *suite) {
		id := s.session(state.SessionConfig{TTL: ttl})
		s.destroy(id)
		if !s.gone(id) {
			s.Error("it is still there")
		}
		if err := s.store.RenewSession(s.ctx(), id); !errors.Is(err, state.ErrSessionNotFound) {
			s.Errorf("renew: got error %v, want ErrSessionNotFound", err)
		}
		s.destroy(id)
	}},

	{"renewing a session that never was is ErrSessionNotFound", func(s *suite) {
		err := s.store.RenewSession(s.ctx(), "7d6e9f3c-0000-4000-8000-000000000000")
		if !errors.Is(err, state.ErrSessionNotFound) {
			s.Errorf("got error %v", err)
		}
	}},

	{"an unrenewed session ends no earlier than its TTL and no later than twice that", func(s *suite) {
		before := time.Now()
		id := s.session(state.SessionConfig{TTL: ttl})
		after := time.Now()
		s.txn(lock("l", "v", id))
		index := s.get("l").ModifyIndex
		time.Sleep(time.Until(before.Add(ttl - slack)))
		if s.gone(id) {
			s.Fatal("it ended before its TTL")
		}
		// The lock's watcher must be told; nobody asks about the session.
		entries, _, err := s.store.Watch(s.ctx(), s.key("l"), index)
		if err != nil || len(entries) != 1 || entries[0].Session != "" {
			s.Fatalf("watch of the lock: %+v, error %v", entries, err)
		}
		if took := time.Since(after); took < ttl-slack || took > 2*ttl+slack {
			s.Errorf("the lock was freed after %v, with a TTL of %v", took, ttl)
		}
		if !s.gone(id) {
			s.Error("the session is still there")
		}
	}},

	{"a renewed session lives on, and ends when renewing ends", func(s *suite) {
		id := s.session(state.SessionConfig{TTL: ttl})
		for range 5 {
			time.Sleep(ttl / 2)
			if err := s.store.RenewSession(s.ctx(), id); err != nil {
				s.Fatal(err)
			}
		}
		time.Sleep(ttl - slack)
		if s.gone(id) {
			s.Fatal("it ended within its TTL")
		}
		time.Sleep(ttl + 2*slack)
		if !s.gone(id) {
			s.Error("it outlived twice its TTL")
		}
	}},

	{"a session without a TTL does not end by time", func(s *suite) {
		id := s.session(state.SessionConfig{})
		time.Sleep(2*ttl + slack)
		if s.gone(id) {
			s.Error("it ended")
		}
		s.destroy(id)
	}},
}
