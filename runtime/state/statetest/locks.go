package statetest

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

var lockTests = []test{
	{"locking a key writes it, names the holder and counts", func(s *suite) {
		id := s.session(state.SessionConfig{})
		index := s.txn(lock("l", "mine", id))
		e := s.get("l")
		if string(e.Value) != "mine" || e.Session != id || e.LockIndex != 1 || e.ModifyIndex != index {
			s.Errorf("got %+v", e)
		}
		s.destroy(id)
	}},

	{"a lock has one holder", func(s *suite) {
		a, b := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		s.txn(lock("l", "a", a))
		s.conflict([]state.Op{lock("l", "b", b)}, 0)
		s.value("l", "a")
		s.destroy(a)
		s.destroy(b)
	}},

	{"the holder may lock again: the value is written and LockIndex stays", func(s *suite) {
		id := s.session(state.SessionConfig{})
		first := s.txn(lock("l", "1", id))
		second := s.txn(lock("l", "2", id))
		e := s.get("l")
		if string(e.Value) != "2" || e.LockIndex != 1 || e.Session != id || e.ModifyIndex != second || second <= first {
			s.Errorf("got %+v", e)
		}
		s.destroy(id)
	}},

	{"unlocking writes the value and frees the lock at once, whatever the lock delay", func(s *suite) {
		a := s.session(state.SessionConfig{LockDelay: state.MaxLockDelay})
		b := s.session(state.SessionConfig{})
		s.txn(lock("l", "a", a))
		s.txn(unlock("l", "left", a))
		e := s.get("l")
		if string(e.Value) != "left" || e.Session != "" || e.LockIndex != 1 {
			s.Errorf("got %+v", e)
		}
		s.txn(lock("l", "b", b))
		if e := s.get("l"); e.LockIndex != 2 {
			s.Errorf("LockIndex is %d after two locks", e.LockIndex)
		}
		s.destroy(a)
		s.destroy(b)
	}},

	{"only the holder can unlock", func(s *suite) {
		a, b := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		s.conflict([]state.Op{unlock("l", "", a)}, 0)
		s.txn(lock("l", "v", a))
		s.conflict([]state.Op{unlock("l", "", b)}, 0)
		s.txn(unlock("l", "", a))
		s.conflict([]state.Op{unlock("l", "", a)}, 0)
		s.destroy(a)
		s.destroy(b)
	}},

	{"a session that does not exist locks nothing", func(s *suite) {
		id := s.session(state.SessionConfig{})
		s.destroy(id)
		s.conflict([]state.Op{lock("l", "v", id)}, 0)
		s.missing("l")
	}},

	{"check-session passes for the holder only", func(s *suite) {
		a, b := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		s.conflict([]state.Op{checkSession("l", a)}, 0)
		s.txn(lock("l", "v", a))
		s.txn(checkSession("l", a), set("decision", "a"))
		s.conflict([]state.Op{checkSession("l", b), set("decision", "b")}, 0)
		s.txn(unlock("l", "v", a))
		s.conflict([]state.Op{checkSession("l", a), set("decision", "late")}, 0)
		s.value("decision", "a")
		s.destroy(a)
		s.destroy(b)
	}},

	{"locks are advisory: anybody can write a locked key, and the lock stays", func(s *suite) {
		id := s.session(state.SessionConfig{})
		s.txn(lock("l", "mine", id))
		s.txn(set("l", "written"))
		s.value("l", "written")
		s.txn(checkSession("l", id))
		s.destroy(id)
	}},

	{"deleting a locked key releases it without delay", func(s *suite) {
		a := s.session(state.SessionConfig{LockDelay: state.MaxLockDelay})
		b := s.session(state.SessionConfig{})
		s.txn(lock("l", "a", a))
		s.txn(del("l"))
		s.txn(lock("l", "b", b))
		s.destroy(a)
		if e := s.get("l"); e.Session != b {
			s.Errorf("held by %q, want %q", e.Session, b)
		}
		s.destroy(b)
	}},

	{"destroying a session frees all its locks and keeps their values", func(s *suite) {
		a, b := s.session(state.SessionConfig{}), s.session(state.SessionConfig{})
		s.txn(lock("l/1", "v1", a), lock("l/2", "v2", a), lock("l/3", "v3", b))
		s.destroy(a)
		for name, holder := range map[string]string{"l/1": "", "l/2": "", "l/3": b} {
			if e := s.get(name); e.Session != holder || string(e.Value) != "v"+name[2:] {
				s.Errorf("%s: got %+v, want holder %q", name, e, holder)
			}
		}
		s.txn(lock("l/1", "again", b))
		s.destroy(b)
	}},

	{"destroying a session that deletes removes the keys that it holds and no others", func(s *suite) {
		id := s.session(state.SessionConfig{Behavior: state.BehaviorDelete})
		s.txn(lock("held", "v", id), set("other", "v"), lock("freed", "v", id))
		s.txn(unlock("freed", "v", id))
		s.destroy(id)
		s.missing("held")
		s.value("other", "v")
		s.value("freed", "v")
	}},

	{"after the holder's end a lock can't be taken for the lock delay, then it can", func(s *suite) {
		for _, behavior := range []state.Behavior{state.BehaviorRelease, state.BehaviorDelete} {
			const delay = 3 * time.Second
			name := "l/" + string(behavior)
			a := s.session(state.SessionConfig{LockDelay: delay, Behavior: behavior})
			b := s.session(state.SessionConfig{})
			s.txn(lock(name, "a", a))
			before := time.Now()
			s.destroy(a)
			after := time.Now()
			for time.Since(before) < delay-slack {
				s.conflict([]state.Op{lock(name, "b", b)}, 0)
				time.Sleep(quiet)
			}
			time.Sleep(time.Until(after.Add(delay + quiet)))
			s.txn(lock(name, "b", b))
			s.destroy(b)
		}
	}},

	{"a lock delay holds for the keys that were locked and no others", func(s *suite) {
		a := s.session(state.SessionConfig{LockDelay: state.MaxLockDelay})
		b := s.session(state.SessionConfig{})
		s.txn(lock("held", "v", a), lock("freed", "v", a))
		s.txn(unlock("freed", "v", a))
		s.destroy(a)
		s.conflict([]state.Op{lock("held", "v", b)}, 0)
		s.txn(lock("freed", "v", b), lock("new", "v", b))
		s.destroy(b)
	}},

	{"under contention there is one holder at a time, and its token is the highest so far", func(s *suite) {
		const contenders, rounds = 4, 10
		type turn struct{ token, seen uint64 }
		turns := make(chan turn, contenders*rounds)
		for c := range contenders {
			id := s.session(state.SessionConfig{Name: fmt.Sprint("contender", c)})
			s.tasks.Go(func() {
				for done := 0; done < rounds; {
					token, err := s.try(lock("l", id, id))
					if err != nil {
						time.Sleep(time.Millisecond)
						continue
					}
					// Inside the lock: nobody else may be here.
					e, err := s.store.Get(s.ctx(), s.key("l"))
					if err != nil || e.Session != id || string(e.Value) != id {
						s.Errorf("inside the lock of %s: %+v, error %v", id, e, err)
					}
					turns <- turn{token, e.ModifyIndex}
					if _, err := s.try(unlock("l", "", id)); err != nil {
						s.Errorf("unlock: %v", err)
					}
					done++
				}
			})
		}
		var last uint64
		for range contenders * rounds {
			t := <-turns
			if t.token <= last || t.token != t.seen {
				s.Errorf("token %d (read as %d) after %d", t.token, t.seen, last)
			}
			last = t.token
		}
	}},
}
