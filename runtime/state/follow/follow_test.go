package follow_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
)

const prefix = "test/"

type thing struct {
	N int `json:"n"`
}

// open returns a store that ends with the test.
func open(t *testing.T) state.Store {
	store := local.OpenMemory(local.Options{})
	t.Cleanup(func() { store.Close() })
	return store
}

func put(t *testing.T, store state.Store, name string, n int) uint64 {
	t.Helper()
	at, err := store.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: prefix + name, Value: state.Encode(thing{n})})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestLoopSeesAllOnceAndThenWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		put(t, store, "a", 1)
		put(t, store, "b", 1)
		ctx, cancel := context.WithCancel(t.Context())
		view := follow.NewView[thing](prefix)
		var turns [][]string
		done := make(chan error)
		go func() {
			done <- follow.Loop(ctx, store, []string{prefix, "other/"}, nil, hclog.NewNullLogger(), func(_ context.Context, updates []follow.Update) (time.Time, error) {
				var names []string
				for _, u := range updates {
					if u.Prefix == prefix {
						names = append(names, view.Apply(u)...)
					}
				}
				turns = append(turns, names)
				return time.Time{}, nil
			})
		}()
		synctest.Wait()
		put(t, store, "b", 2)
		synctest.Wait()
		if _, err := store.Txn(ctx, state.Op{Kind: state.OpDelete, Key: prefix + "a"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := [][]string{{"a", "b"}, {"b"}, {"a"}}
		if !slices.EqualFunc(turns, want, slices.Equal) {
			t.Fatalf("turns %v, want %v", turns, want)
		}
		if b, _, err := view.Get("b"); err != nil || b.N != 2 || view.Has("a") {
			t.Fatalf("b is %v, %v; there are %v", b, err, view.Names())
		}
	})
}

func TestLoopWakesWhenItWasAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		began := time.Now()
		var woken time.Duration
		end := errors.New("end")
		err := follow.Loop(t.Context(), store, []string{prefix}, nil, hclog.NewNullLogger(), func(context.Context, []follow.Update) (time.Time, error) {
			if time.Since(began) == 0 {
				return began.Add(time.Minute), nil
			}
			woken = time.Since(began)
			return time.Time{}, end
		})
		if !errors.Is(err, end) || woken != time.Minute {
			t.Fatalf("woken after %v, %v", woken, err)
		}
	})
}

func TestAViewNeverGoesBackBehindItsOwnersWrites(t *testing.T) {
	view := follow.NewView[thing](prefix)
	entry := func(name string, at uint64) state.Entry {
		return state.Entry{Key: prefix + name, Value: []byte(`{"n": 1}`), ModifyIndex: at}
	}
	view.Apply(follow.Update{Prefix: prefix, Index: 5, Changed: []state.Entry{entry("a", 5), entry("b", 5)}})
	view.Put("a", &thing{2}, 8)
	view.Put("b", nil, 8)
	view.Put("c", &thing{3}, 8)
	// What was read before the writes comes in after them.
	view.Apply(follow.Update{Prefix: prefix, Index: 7, Changed: []state.Entry{entry("a", 6), entry("b", 7)}, Removed: []string{prefix + "c"}})
	if a, at, _ := view.Get("a"); a.N != 2 || at != 8 {
		t.Errorf("a went back to %v at %d", a, at)
	}
	if view.Has("b") || !view.Has("c") {
		t.Errorf("there are %v", view.Names())
	}
	view.Apply(follow.Update{Prefix: prefix, Index: 9, Changed: []state.Entry{entry("b", 9)}, Removed: []string{prefix + "c"}})
	if !view.Has("b") || view.Has("c") {
		t.Errorf("later there are %v", view.Names())
	}
}

func TestAViewTellsWhatCannotBeRead(t *testing.T) {
	view := follow.NewView[thing](prefix)
	view.Apply(follow.Update{Prefix: prefix, Index: 1, Changed: []state.Entry{{Key: prefix + "a", Value: []byte("{"), ModifyIndex: 1}}})
	for range 2 {
		if a, at, err := view.Get("a"); err == nil || a != nil || at != 1 {
			t.Fatalf("got %v at %d, %v", a, at, err)
		}
	}
}
