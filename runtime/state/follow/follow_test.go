package follow_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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

func TestAViewIsReplacedWhenTheStoreWasPutBack(t *testing.T) {
	view := follow.NewView[thing](prefix)
	entry := func(name string, n int, at uint64) state.Entry {
		return state.Entry{Key: prefix + name, Value: state.Encode(thing{n}), ModifyIndex: at}
	}
	view.Apply(follow.Update{Prefix: prefix, Index: 9, Changed: []state.Entry{entry("a", 9, 9), entry("b", 9, 8)}})
	view.Put("b", nil, 10)
	view.Put("c", &thing{10}, 11)
	names := view.Apply(follow.Update{Prefix: prefix, Index: 5, Restored: true, Changed: []state.Entry{entry("a", 5, 5), entry("b", 4, 4)}})
	if !slices.Equal(names, []string{"a", "b", "c"}) || !slices.Equal(view.Names(), []string{"a", "b"}) {
		t.Fatalf("changed %v, left %v", names, view.Names())
	}
	if a, at, err := view.Get("a"); err != nil || a.N != 5 || at != 5 {
		t.Errorf("a is %v at %d, %v", a, at, err)
	}
}

// scripted is a store whose watches return what they are told to.
type scripted struct {
	state.Store
	answers []answer
	asked   []uint64
}

type answer struct {
	entries []state.Entry
	index   uint64
	err     error
}

func (s *scripted) Watch(ctx context.Context, _ string, after uint64) ([]state.Entry, uint64, error) {
	if len(s.asked) == len(s.answers) {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	a := s.answers[len(s.asked)]
	s.asked = append(s.asked, after)
	return a.entries, a.index, a.err
}

func TestAWatchTellsThatTheStoreWasPutBackAndBeginsAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := state.Entry{Key: prefix + "a", ModifyIndex: 40}, state.Entry{Key: prefix + "b", ModifyIndex: 50}
		older := state.Entry{Key: prefix + "b", ModifyIndex: 45}
		store := &scripted{answers: []answer{
			{entries: []state.Entry{a, b}, index: 50},
			{err: state.ErrUnavailable},
			{entries: []state.Entry{a, b}, index: 50},     // as it was
			{entries: []state.Entry{a, older}, index: 60}, // other indexes, in spite of a higher one
			{entries: []state.Entry{a}, index: 44},
		}}
		ctx, cancel := context.WithCancel(t.Context())
		updates := make(chan follow.Update)
		done := make(chan error, 1)
		go func() { done <- follow.Watch(ctx, store, prefix, updates, hclog.NewNullLogger()) }()
		var got []string
		for range 3 {
			u := <-updates
			got = append(got, fmt.Sprint(u.Index, u.Restored, len(u.Changed), len(u.Removed)))
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := []string{"50 false 2 0", "60 true 2 0", "44 true 1 1"}; !slices.Equal(got, want) {
			t.Errorf("updates %q, want %q", got, want)
		}
		if want := []uint64{0, 50, 0, 50, 60}; !slices.Equal(store.asked, want) {
			t.Errorf("watched after %d, want %d", store.asked, want)
		}
	})
}

func TestWhatIsReadAndNotKeptIsTheLatestToo(t *testing.T) {
	view := follow.NewView[thing](prefix)
	read := func(want *thing, at uint64) {
		t.Helper()
		for range 2 {
			if got, index, err := view.Read("a"); err != nil || !reflect.DeepEqual(got, want) || index != at {
				t.Fatalf("got %v at %d, %v; want %v at %d", got, index, err, want, at)
			}
		}
	}
	told := func(n int, at uint64) follow.Update {
		return follow.Update{Prefix: prefix, Index: at, Changed: []state.Entry{{Key: prefix + "a", Value: state.Encode(thing{n}), ModifyIndex: at}}}
	}
	read(nil, 0)
	view.Apply(told(1, 1))
	read(&thing{1}, 1)
	view.Keep("a", state.Encode(thing{3}), 3)
	view.Apply(told(2, 2))
	read(&thing{3}, 3)
	if got, _, err := view.Get("a"); err != nil || got.N != 3 {
		t.Fatalf("got %v, %v", got, err)
	}
	read(&thing{3}, 3)
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
