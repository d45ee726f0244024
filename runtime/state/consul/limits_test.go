package consul_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
)

func TestATransactionBeyondTheLimitsIsNotEvenSent(t *testing.T) {
	t.Parallel()
	s, err := consul.Open(t.Context(), consul.Options{Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var many []state.Op
	for i := range state.MaxTxnOps + 1 {
		many = append(many, set(fmt.Sprint("k", i), "v"))
	}
	for name, ops := range map[string][]state.Op{
		"one operation too many": many, "129 operations": append(many, many[:2]...), "a large value": {set("k", strings.Repeat("x", state.MaxValueBytes+1))},
	} {
		if _, err := s.Txn(t.Context(), ops...); !errors.Is(err, state.ErrTooLarge) {
			t.Errorf("%s: got error %v, want ErrTooLarge", name, err)
		}
	}
}

func TestTheLargestTransactionsAreTaken(t *testing.T) {
	t.Parallel()
	s := open(t, server, consul.Options{})
	root := rand.Text() + "/"
	var write, remove []state.Op
	for i := range state.MaxTxnOps {
		key := fmt.Sprintf("%sk%03d", root, i)
		write = append(write, state.Op{Kind: state.OpSet, Key: key, Value: []byte("v")})
		remove = append(remove, state.Op{Kind: state.OpDelete, Key: key})
	}
	index := put(t, s, write...)
	if gone := put(t, s, remove...); gone <= index {
		t.Errorf("deleted at %d after %d", gone, index)
	}
	if got, _ := values(t, s, root); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
	// One value as large as fits, beside a deletion, which costs two more.
	ops := []state.Op{{Kind: state.OpSet, Key: root + "big"}, remove[0]}
	ops[0].Value = bytes.Repeat([]byte{0xff}, (state.MaxTxnBytes-state.TxnSize(ops))/4*3)
	put(t, s, ops...)
	if e, err := s.Get(t.Context(), root+"big"); err != nil || !bytes.Equal(e.Value, ops[0].Value) {
		t.Errorf("got %d bytes, error %v; want %d", len(e.Value), err, len(ops[0].Value))
	}
}

func TestAServerWithSmallerLimitsSaysErrTooLarge(t *testing.T) {
	t.Parallel()
	s := open(t, start(t, consultest.Options{Config: "limits { kv_max_value_size = 1024, txn_max_req_len = 4096 }"}), consul.Options{})
	put(t, s, set("k", strings.Repeat("x", 1024)))
	for _, size := range []int{1025, 8192} {
		if _, err := s.Txn(t.Context(), set("k", strings.Repeat("x", size))); !errors.Is(err, state.ErrTooLarge) || !strings.Contains(err.Error(), "large") {
			t.Errorf("%d bytes: got error %v, want ErrTooLarge with Consul's words", size, err)
		}
	}
}
