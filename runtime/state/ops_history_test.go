package state_test

import (
	"slices"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
)

func TestAVersionThatIsKeptTakesThePlaceOfTheOneThatIsTooOld(t *testing.T) {
	for version, gone := range map[uint64][]string{
		1:                      nil,
		state.HistoryKeep:      nil,
		state.HistoryKeep + 1:  {state.HistoryKey("j", 1)},
		state.HistoryKeep + 20: {state.HistoryKey("j", 20)},
	} {
		var dropped []string
		ops := state.HistoryOps("j", version, []byte("v"))
		for _, op := range ops[1:] {
			if op.Kind == state.OpDelete {
				dropped = append(dropped, op.Key)
			}
		}
		if ops[0].Kind != state.OpSet || ops[0].Key != state.HistoryKey("j", version) || !slices.Equal(dropped, gone) {
			t.Errorf("version %d: %+v, want %q to be dropped", version, ops, gone)
		}
	}
}
