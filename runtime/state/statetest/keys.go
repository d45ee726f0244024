package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synergymesh/meshrun/runtime/state"
)

var keyTests = []test{
	{"a missing key is ErrNotFound", func(s *suite) { s.missing("nothing") }},

	{"a value is read back as it was written", func(s *suite) {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		for i, want := range [][]byte{nil, {}, []byte("text"), all} {
			name := fmt.Sprint("k", i)
			s.txn(state.Op{Kind: state.OpSet, Key: name, Value: want})
			if got := s.get(name).Value; !bytes.Equal(got, want) {
				s.Errorf("got %q, want %q", got, want)
			}
		}
	}},

	{"list returns the keys under a prefix in order and nothing else", func(s *suite) {
		for _, name := range []string{"b/2", "a", "b/1", "b", "bb", "b/10", "c/1"} {
			s.txn(set(name, "v"))
		}
		for prefix, want := range map[string][]string{
			"":     {"a", "b", "b/1", "b/10", "b/2", "bb", "c/1"},
			"b":    {"b", "b/1", "b/10", "b/2", "bb"},
			"b/":   {"b/1", "b/10", "b/2"},
			"b/1":  {"b/1", "b/10"},
			"d":    nil,
			"b/1/": nil,
		} {
			if got, _ := s.list(prefix); !slices.Equal(got, want) {
				s.Errorf("list %q: got %q, want %q", prefix, got, want)
			}
		}
	}},

	{"list is one moment, not torn between transactions", func(s *suite) {
		s.txn(set("x", "0"), set("y", "0"))
		done := make(chan struct{})
		s.tasks.Go(func() {
			defer close(done)
			for i := 1; i <= 50; i++ {
				v := fmt.Sprint(i)
				if _, err := s.try(set("x", v), set("y", v)); err != nil {
					s.Errorf("transaction: %v", err)
					return
				}
			}
		})
		for writing := true; writing; {
			select {
			case <-done:
				writing = false
			default:
			}
			entries, _, err := s.store.List(s.ctx(), s.root)
			if err != nil || len(entries) != 2 {
				s.Fatalf("list: %d entries, error %v", len(entries), err)
			}
			if !bytes.Equal(entries[0].Value, entries[1].Value) {
				s.Fatalf("list saw x=%s and y=%s", entries[0].Value, entries[1].Value)
			}
		}
	}},

	{"a context that is over ends every call", func(s *suite) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, getErr := s.store.Get(ctx, s.key("k"))
		_, _, listErr := s.store.List(ctx, s.root)
		_, txnErr := s.store.Txn(ctx, set(s.key("k"), "v"))
		_, _, watchErr := s.store.Watch(ctx, s.root, 1<<40)
		_, createErr := s.store.CreateSession(ctx, state.SessionConfig{})
		for name, err := range map[string]error{"get": getErr, "list": listErr, "txn": txnErr, "watch": watchErr, "create session": createErr} {
			if !errors.Is(err, context.Canceled) {
				s.Errorf("%s: got error %v, want context.Canceled", name, err)
			}
		}
		s.missing("k")
	}},
}

var limitTests = []test{
	{"a transaction of the most operations is done", func(s *suite) {
		s.txn(manySets(state.MaxTxnOps)...)
		if keys, _ := s.list(""); len(keys) != state.MaxTxnOps {
			s.Errorf("%d keys, want %d", len(keys), state.MaxTxnOps)
		}
	}},

	{"one operation more is ErrTooLarge and nothing is written", func(s *suite) {
		s.tooLarge("", manySets(state.MaxTxnOps+1)...)
		if keys, _ := s.list(""); len(keys) != 0 {
			s.Errorf("keys %q were written", keys)
		}
	}},

	{"a transaction of the most bytes is done, and one byte more is ErrTooLarge", func(s *suite) {
		ops := []state.Op{set("small", "v"), set("big", "")}
		room := state.MaxTxnBytes - state.TxnSize(s.under(ops))
		ops[1].Value = bytes.Repeat([]byte("x"), room/4*3)
		s.txn(ops...)
		if got := len(s.get("big").Value); got != room/4*3 {
			s.Errorf("value has %d bytes, want %d", got, room/4*3)
		}
		ops[1].Value = append(ops[1].Value, "more"...)
		s.tooLarge("big", ops...)
	}},

	{"a value beyond the limit is ErrTooLarge and names its key", func(s *suite) {
		s.tooLarge("huge", set("k", "v"), set("huge", strings.Repeat("x", state.MaxValueBytes+1)))
		s.missing("k")
	}},

	{"the longest key can be used and a longer one is ErrTooLarge", func(s *suite) {
		longest := strings.Repeat("k", state.MaxKeyBytes-len(s.root))
		s.txn(set(longest, "v"))
		s.value(longest, "v")
		s.tooLarge("", set(longest+"k", "v"))
	}},

	{"a key is ErrInvalid that would not come back as it was sent", func(s *suite) {
		for _, bad := range []string{"a//b", "a/./b", "a/../b", ".", "..", "a/..", "/a", "a\x00b", "a\nb", "a\xffb"} {
			key := s.root + bad
			_, getErr := s.store.Get(s.ctx(), key)
			_, _, listErr := s.store.List(s.ctx(), key)
			_, _, watchErr := s.store.Watch(s.ctx(), key, 0)
			_, txnErr := s.store.Txn(s.ctx(), set(key, "v"))
			for name, err := range map[string]error{"get": getErr, "list": listErr, "txn": txnErr, "watch": watchErr} {
				if !errors.Is(err, state.ErrInvalid) {
					s.Errorf("%s %q: got error %v, want ErrInvalid", name, bad, err)
				}
			}
		}
	}},

	{"every other character can be in a key", func(s *suite) {
		for _, name := range []string{"a b", "ü", "a%2Fb", "a%b", "a?b#c", "a&b=c;d+e", "<\"\\'>", "a/b/", "...", "a.b", "日本", "~:@!$()*,[]{}|^`"} {
			_, index := s.list(name)
			s.txn(set(name, name))
			s.value(name, name)
			if keys, _ := s.list(name); !slices.Equal(keys, []string{name}) {
				s.Errorf("list %q: got %q", name, keys)
			}
			if _, _, err := s.store.Watch(s.ctx(), s.key(name), index); err != nil {
				s.Errorf("watch %q: %v", name, err)
			}
			s.txn(del(name))
			s.missing(name)
		}
	}},

	{"what makes no sense is ErrInvalid", func(s *suite) {
		for name, bad := range map[string]state.Op{
			"empty key":              {Kind: state.OpSet},
			"leading slash":          {Kind: state.OpSet, Key: "/k"},
			"unknown kind":           {Kind: "frobnicate", Key: "k"},
			"lock without a session": {Kind: state.OpLock, Key: s.key("k")},
		} {
			if _, err := s.store.Txn(s.ctx(), bad); !errors.Is(err, state.ErrInvalid) {
				s.Errorf("%s: got error %v, want ErrInvalid", name, err)
			}
		}
	}},
}

func manySets(n int) []state.Op {
	ops := make([]state.Op, n)
	for i := range ops {
		ops[i] = set(fmt.Sprintf("k%03d", i), "v")
	}
	return ops
}

// tooLarge demands ErrTooLarge, and the name in its words.
func (s *suite) tooLarge(name string, ops ...state.Op) {
	s.Helper()
	_, err := s.try(ops...)
	if !errors.Is(err, state.ErrTooLarge) || !strings.Contains(fmt.Sprint(err), name) {
		s.Errorf("got error %v, want ErrTooLarge that names %q", err, name)
	}
}
