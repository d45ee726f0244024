package statetest

import (
	"slices"

	"github.com/synergymesh/meshrun/runtime/state"
)

var txnTests = []test{
	{"set writes whatever is there", func(s *suite) {
		s.txn(set("k", "1"))
		s.txn(set("k", "2"))
		s.value("k", "2")
	}},

	{"cas with index 0 creates, and conflicts if the key exists", func(s *suite) {
		s.txn(cas("k", "1", 0))
		s.conflict([]state.Op{cas("k", "2", 0)}, 0)
		s.value("k", "1")
	}},

	{"cas writes at the right index only", func(s *suite) {
		first := s.txn(set("k", "1"))
		second := s.txn(cas("k", "2", first))
		s.conflict([]state.Op{cas("k", "3", first)}, 0)
		s.conflict([]state.Op{cas("k", "3", second+1)}, 0)
		s.value("k", "2")
		s.txn(cas("k", "3", second))
		s.value("k", "3")
	}},

	{"cas of a missing key at an index conflicts", func(s *suite) {
		index := s.txn(set("other", "v"))
		s.conflict([]state.Op{cas("k", "1", index)}, 0)
		s.missing("k")
	}},

	{"of many that cas at the same index exactly one wins", func(s *suite) {
		index := s.txn(set("k", "start"))
		const contenders = 16
		won := make(chan error, contenders)
		for range contenders {
			s.tasks.Go(func() {
				_, err := s.try(cas("k", "taken", index))
				won <- err
			})
		}
		wins := 0
		for range contenders {
			if <-won == nil {
				wins++
			}
		}
		if wins != 1 {
			s.Errorf("%d won", wins)
		}
	}},

	{"delete removes, and a missing key is no conflict", func(s *suite) {
		s.txn(set("k", "1"))
		s.txn(del("k"))
		s.missing("k")
		s.txn(del("k"))
	}},

	{"delete-cas removes at the right index only", func(s *suite) {
		index := s.txn(set("k", "1"))
		s.conflict([]state.Op{op(state.OpDeleteCAS, "k", index+1)}, 0)
		s.value("k", "1")
		s.txn(op(state.OpDeleteCAS, "k", index))
		s.missing("k")
	}},

	{"delete-cas of a missing key is no conflict", func(s *suite) {
		index := s.txn(set("k", "1"))
		s.txn(del("k"))
		s.txn(op(state.OpDeleteCAS, "k", index))
	}},

	{"deleting a key leaves those that begin with it", func(s *suite) {
		s.txn(set("a", "v"), set("a/1", "v"), set("ab", "v"), set("b", "v"))
		s.txn(del("a"))
		if keys, _ := s.list(""); !slices.Equal(keys, []string{"a/1", "ab", "b"}) {
			s.Errorf("left: %q", keys)
		}
	}},

	{"check-index passes at the key's index only", func(s *suite) {
		index := s.txn(set("k", "1"))
		s.txn(op(state.OpCheckIndex, "k", index))
		s.conflict([]state.Op{op(state.OpCheckIndex, "k", index+1)}, 0)
		s.conflict([]state.Op{op(state.OpCheckIndex, "missing", index)}, 0)
	}},

	{"check-missing passes for a missing key only", func(s *suite) {
		s.txn(op(state.OpCheckMissing, "k", 0), set("other", "v"))
		s.txn(set("k", "1"))
		s.conflict([]state.Op{op(state.OpCheckMissing, "k", 0)}, 0)
	}},

	{"one failed check keeps everything else from happening", func(s *suite) {
		s.txn(set("old", "1"), set("gone", "1"))
		s.conflict([]state.Op{
			set("new", "2"), set("old", "2"), del("gone"), op(state.OpCheckMissing, "old", 0), set("after", "2"),
		}, 3)
		s.missing("new")
		s.missing("after")
		s.value("old", "1")
		s.value("gone", "1")
	}},

	{"every failed operation is named, in order", func(s *suite) {
		s.txn(set("k", "1"))
		s.conflict([]state.Op{
			cas("k", "2", 0), set("fine", "v"), op(state.OpCheckMissing, "k", 0), op(state.OpCheckIndex, "none", 7),
		}, 0, 2, 3)
	}},

	{"an operation sees what those before it did", func(s *suite) {
		s.txn(set("k", "1"), del("k"), op(state.OpCheckMissing, "k", 0), cas("k", "2", 0), set("k", "3"))
		s.value("k", "3")
	}},
}

var indexTests = []test{
	{"the returned index is the ModifyIndex of every key written", func(s *suite) {
		index := s.txn(set("a", "1"), set("b", "1"), cas("c", "1", 0))
		for _, name := range []string{"a", "b", "c"} {
			if e := s.get(name); e.ModifyIndex != index || e.CreateIndex != index {
				s.Errorf("%s was created at %d and modified at %d, want %d", name, e.CreateIndex, e.ModifyIndex, index)
			}
		}
	}},

	{"indexes grow with every change", func(s *suite) {
		var last uint64
		for _, ops := range [][]state.Op{
			{set("a", "1")}, {set("a", "2")}, {set("b", "1")}, {del("a")}, {set("a", "3")}, {del("a"), del("b")},
		} {
			index := s.txn(ops...)
			if index <= last {
				s.Fatalf("index %d after %d", index, last)
			}
			last = index
		}
	}},

	{"CreateIndex stays when a key is changed and is new when it is created again", func(s *suite) {
		created := s.txn(set("k", "1"))
		s.txn(set("k", "2"))
		if e := s.get("k"); e.CreateIndex != created {
			s.Errorf("CreateIndex is %d, want %d", e.CreateIndex, created)
		}
		s.txn(del("k"))
		again := s.txn(set("k", "3"))
		if e := s.get("k"); e.CreateIndex != again {
			s.Errorf("CreateIndex is %d, want %d", e.CreateIndex, again)
		}
	}},

	{"writing what is there keeps the ModifyIndex", func(s *suite) {
		index := s.txn(set("k", "same"))
		s.txn(set("k", "same"), set("other", "v"))
		if e := s.get("k"); e.ModifyIndex != index {
			s.Errorf("ModifyIndex is %d, want %d", e.ModifyIndex, index)
		}
	}},

	{"the index of a list is not below that of any change under it, deletions included", func(s *suite) {
		index := s.txn(set("p/a", "1"), set("p/b", "1"))
		if _, got := s.list("p/"); got < index {
			s.Errorf("index %d after writing at %d", got, index)
		}
		index = s.txn(del("p/b"))
		if _, got := s.list("p/"); got < index {
			s.Errorf("index %d after deleting at %d", got, index)
		}
		index = s.txn(del("p/a"))
		if _, got := s.list("p/"); got < index {
			s.Errorf("index %d after deleting the last key at %d", got, index)
		}
	}},

	{"the index of an empty list is not 0", func(s *suite) {
		if _, index := s.list("empty/"); index == 0 {
			s.Error("it is 0, and watching from it would not block")
		}
	}},
}
