package local_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/runtime/state/statetest"
)

func TestStoreInMemoryKeepsTheContract(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store {
		s := local.OpenMemory(local.Options{})
		t.Cleanup(func() { closeStore(t, s) })
		return s
	}, statetest.Options{Virtual: true})
}

func TestStoreOnDiskKeepsTheContract(t *testing.T) {
	var paths sync.Map
	open := func(t *testing.T, path string) state.Store {
		s, err := local.Open(t.Context(), path, local.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		paths.Store(s, path)
		t.Cleanup(func() { closeStore(t, s) })
		return s
	}
	statetest.Run(t, func(t *testing.T) state.Store {
		return open(t, filepath.Join(t.TempDir(), "state.log"))
	}, statetest.Options{
		Virtual: true,
		Reopen: func(t *testing.T, s state.Store) state.Store {
			closeStore(t, s)
			path, _ := paths.Load(s)
			return open(t, path.(string))
		},
	})
}

func closeStore(t *testing.T, s state.Store) {
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
