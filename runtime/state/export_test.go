package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func setOp(key, value string) state.Op {
	return state.Op{Kind: state.OpSet, Key: key, Value: []byte(value)}
}

func TestAnImportedExportIsTheSameState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		from, to := memory(t), memory(t)
		want := map[string]string{}
		for i := range rapid.IntRange(0, 300).Draw(t, "keys") {
			prefix := rapid.SampledFrom([]string{state.JobsPrefix, state.HistoryPrefix, state.EventsPrefix}).Draw(t, "prefix")
			key := fmt.Sprint(prefix, i)
			want[key] = string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value"))
			if _, err := from.Txn(ctx, setOp(key, want[key])); err != nil {
				t.Fatal(err)
			}
		}
		var text bytes.Buffer
		n, err := state.Export(ctx, from, &text, epoch)
		if err != nil || n != len(want) {
			t.Fatalf("exported %d keys of %d, error %v", n, len(want), err)
		}
		if n, err = state.Import(ctx, to, &text); err != nil || n != len(want) {
			t.Fatalf("imported %d keys of %d, error %v", n, len(want), err)
		}
		entries, _, err := to.List(ctx, "")
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%d keys of %d, error %v", len(entries), len(want), err)
		}
		for _, e := range entries {
			if v, ok := want[e.Key]; !ok || v != string(e.Value) {
				t.Fatalf("%s is %q, want %q", e.Key, e.Value, v)
			}
		}
	})
}

// exported returns the text of a store with some keys.
func exported(t *testing.T) []byte {
	s := memory(t)
	id, err := s.CreateSession(t.Context(), state.SessionConfig{})
	check(t, err)
	_, err = s.Txn(t.Context(),
		setOp(state.JobKey("web"), "job"), setOp(state.HistoryKey("web", 1), "job"), setOp(state.SchedulerLock, ""),
		state.Op{Kind: state.OpLock, Key: state.NodeKey("a"), Session: id},
		setOp("elsewhere", "not ours"))
	check(t, err)
	var text bytes.Buffer
	n, err := state.Export(t.Context(), s, &text, epoch)
	check(t, err)
	if n != 2 {
		t.Errorf("exported %d keys, want the job and its history", n)
	}
	return text.Bytes()
}

func TestADamagedExportIsRefusedWhole(t *testing.T) {
	text := exported(t)
	s := memory(t)
	for size := range len(text) - 1 {
		if _, err := state.Import(t.Context(), s, bytes.NewReader(text[:size])); !errors.Is(err, state.ErrDamaged) {
			t.Fatalf("%d of %d bytes: got error %v", size, len(text), err)
		}
	}
	for at := range len(text) - 1 {
		bad := bytes.Clone(text)
		bad[at] ^= 4
		if _, err := state.Import(t.Context(), s, bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d changed: imported", at)
		}
	}
	if entries, _, err := s.List(t.Context(), ""); err != nil || len(entries) > 0 {
		t.Errorf("%d keys were written, error %v", len(entries), err)
	}
}

func TestAStoreThatHoldsAStateIsNotImportedInto(t *testing.T) {
	s := memory(t)
	_, err := s.Txn(t.Context(), setOp(state.JobKey("mine"), "v"))
	check(t, err)
	_, err = state.Import(t.Context(), s, bytes.NewReader(exported(t)))
	if !errors.Is(err, state.ErrNotEmpty) || !strings.Contains(err.Error(), "mine") {
		t.Errorf("got error %v", err)
	}
}

// failing is a store whose transactions fail from the second on.
type failing struct {
	*local.Store
	txns int
}

func (s *failing) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	s.txns++
	if s.txns == 2 {
		return 0, state.ErrUnavailable
	}
	return s.Store.Txn(ctx, ops...)
}

func TestAnImportThatFailsHalfwayLeavesNothing(t *testing.T) {
	from := memory(t)
	for i := range state.MaxTxnOps + 5 {
		_, err := from.Txn(t.Context(), setOp(state.HistoryKey("web", uint64(i)), "v"))
		check(t, err)
	}
	var text bytes.Buffer
	_, err := state.Export(t.Context(), from, &text, epoch)
	check(t, err)
	to := &failing{Store: memory(t)}
	if _, err := state.Import(t.Context(), to, &text); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("got error %v", err)
	}
	if entries, _, err := to.List(t.Context(), ""); err != nil || len(entries) > 0 {
		t.Errorf("%d keys are left, error %v", len(entries), err)
	}
}

func TestDecodeIsTheInverseOfEncode(t *testing.T) {
	p := spec.Placement{Job: "web", Version: 3, Processes: map[string]map[string]spec.ShardSet{"p": {"a": spec.NewShardSet(0, 1, 2)}}}
	s := memory(t)
	index, err := s.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: state.PlacementKey("web"), Value: state.Encode(p)})
	check(t, err)
	got, e, err := state.GetAs[spec.Placement](t.Context(), s, state.PlacementKey("web"))
	check(t, err)
	if e.ModifyIndex != index || !bytes.Equal(state.Encode(got), state.Encode(p)) {
		t.Errorf("got %+v at %d", got, e.ModifyIndex)
	}
	if !strings.Contains(string(e.Value), "\n  \"version\": 3") {
		t.Errorf("the value is not indented: %s", e.Value)
	}
}

func TestAValueThatIsNoJSONNamesItsKey(t *testing.T) {
	_, err := state.Decode[spec.Node](state.Entry{Key: "nodes/a", Value: []byte("{")})
	if err == nil || !strings.Contains(err.Error(), "nodes/a") {
		t.Errorf("got error %v", err)
	}
}

func TestBatchesKeepTheOrderAndTheLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ops []state.Op
		for i := range rapid.IntRange(0, 400).Draw(t, "operations") {
			size := rapid.SampledFrom([]int{0, 100, 50_000}).Draw(t, "size")
			ops = append(ops, setOp(fmt.Sprint("k", i), strings.Repeat("x", size)))
		}
		var joined []state.Op
		for _, batch := range state.Batches(ops) {
			if err := state.CheckOps(batch); err != nil {
				t.Fatal(err)
			}
			joined = append(joined, batch...)
		}
		if len(joined) != len(ops) {
			t.Fatalf("%d operations of %d", len(joined), len(ops))
		}
		for i := range ops {
			if joined[i].Key != ops[i].Key {
				t.Fatalf("operation %d is %s", i, joined[i].Key)
			}
		}
	})
}
