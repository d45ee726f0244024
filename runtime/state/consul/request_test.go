package consul

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
)

// consulMaxTxnBytes and consulMaxTxnOps are what Consul takes.
const (
	consulMaxTxnBytes = 512 << 10
	consulMaxTxnOps   = 128
)

func TestWhatTheContractAllowsFitsInWhatConsulTakes(t *testing.T) {
	client, err := newClient(Options{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{client: client}
	kinds := rapid.SampledFrom([]state.OpKind{
		state.OpSet, state.OpCAS, state.OpDelete, state.OpDeleteCAS, state.OpCheckIndex, state.OpCheckMissing, state.OpCheckSession, state.OpLock, state.OpUnlock,
	})
	rapid.Check(t, func(t *rapid.T) {
		longest := rapid.IntRange(1, state.MaxKeyBytes).Draw(t, "longest key")
		ops := make([]state.Op, rapid.SampledFrom([]int{1, 2, state.MaxTxnOps}).Draw(t, "operations"))
		for i := range ops {
			op := state.Op{Kind: kinds.Draw(t, "kind"), Key: strings.Repeat("k", longest), Session: "7d6e9f3c-0000-4000-8000-000000000000"}
			op.Index = rapid.SampledFrom([]uint64{0, 12345678, math.MaxUint64}).Draw(t, "index")
			ops[i] = op
		}
		// Fill the rest with values.
		if room := state.MaxTxnBytes - state.TxnSize(ops); room > 0 {
			ops[0].Value = make([]byte, min(room/4*3, state.MaxValueBytes))
		}
		if err := state.CheckOps(ops); err != nil {
			t.Fatal(err)
		}
		request := s.request(ops)
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		if len(body)+1 > consulMaxTxnBytes || len(request) > consulMaxTxnOps { // the encoder ends with a newline
			t.Fatalf("%d operations take %d bytes", len(request), len(body)+1)
		}
	})
}

func TestNoMoreThanTheLastAnswersAreRemembered(t *testing.T) {
	var r recent
	for i := range 3 * maxRecent {
		r.put(fmt.Sprint("p", i%7), uint64(i), uint64(i))
		r.put(fmt.Sprint("p", i%7), uint64(i), uint64(i)) // twice takes no second place
	}
	if len(r.digests) != maxRecent {
		t.Errorf("%d are remembered, want %d", len(r.digests), maxRecent)
	}
	for i := range 3 * maxRecent {
		digest, ok := r.get(fmt.Sprint("p", i%7), uint64(i))
		if want := i >= 2*maxRecent; ok != want || (ok && digest != uint64(i)) {
			t.Fatalf("answer %d: remembered %v, want %v", i, ok, want)
		}
	}
}
