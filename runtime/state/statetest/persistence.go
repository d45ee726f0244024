package statetest

import (
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// reopen closes the test's store and goes on with its successor.
func (s *suite) reopen(r runner) {
	s.Helper()
	s.store = r.opts.Reopen(s.T, s.store)
}

func (r runner) persistenceTests() []test {
	return []test{
		{"a reopened store holds every entry as it was", func(s *suite) {
			id := s.session(state.SessionConfig{})
			s.txn(set("a", "1"), set("b", "1"), set("gone", "1"))
			s.txn(set("b", "2"), del("gone"), lock("l", "v", id))
			want, _, _ := s.store.List(s.ctx(), s.root)
			s.reopen(r)
			got, _, err := s.store.List(s.ctx(), s.root)
			if err != nil || len(got) != len(want) {
				s.Fatalf("got %d entries, error %v; want %d", len(got), err, len(want))
			}
			for i := range want {
				if got[i].Key != want[i].Key || string(got[i].Value) != string(want[i].Value) || got[i].CreateIndex != want[i].CreateIndex ||
					got[i].ModifyIndex != want[i].ModifyIndex || got[i].LockIndex != want[i].LockIndex || got[i].Session != want[i].Session {
					s.Errorf("got %+v, want %+v", got[i], want[i])
				}
			}
		}},

		{"indexes go on growing after reopening, also when the last change was a deletion", func(s *suite) {
			s.txn(set("k", "1"))
			last := s.txn(del("k"))
			s.reopen(r)
			if index := s.txn(set("k", "2")); index <= last {
				s.Errorf("index %d after %d", index, last)
			}
		}},

		{"a watch from before reopening is not lost", func(s *suite) {
			s.txn(set("p/a", "1"))
			_, index := s.list("p/")
			s.txn(del("p/a"))
			s.reopen(r)
			if _, _, err := s.store.Watch(s.ctx(), s.key("p/"), index); err != nil {
				s.Error(err)
			}
		}},

		{"a session goes on with its locks, can be renewed, and still ends", func(s *suite) {
			id := s.session(state.SessionConfig{Name: "agent", TTL: ttl})
			s.txn(lock("l", "v", id))
			s.reopen(r)
			if err := s.store.RenewSession(s.ctx(), id); err != nil {
				s.Fatal(err)
			}
			s.txn(checkSession("l", id))
			time.Sleep(2*ttl + slack)
			if !s.gone(id) || s.get("l").Session != "" {
				s.Error("the session did not end")
			}
		}},

		{"a lock delay goes on", func(s *suite) {
			const delay = 5 * time.Second
			a := s.session(state.SessionConfig{LockDelay: delay})
			s.txn(lock("l", "v", a))
			s.destroy(a)
			s.reopen(r)
			b := s.session(state.SessionConfig{})
			s.conflict([]state.Op{lock("l", "b", b)}, 0)
			time.Sleep(delay + quiet)
			s.txn(lock("l", "b", b))
		}},
	}
}
