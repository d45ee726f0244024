package membership

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// renewals is an uptime and the clock that it goes by.
type renewals struct {
	uptime
	now time.Duration
}

func newRenewals() *renewals { return &renewals{now: time.Hour} }

func (r *renewals) lasts() time.Duration { return r.unbroken(int64(r.now)) }

// renew renews the session every second, for a time.
func (r *renewals) renew(session string, for_ time.Duration) {
	for end := r.now + for_; r.now < end; r.now += time.Second {
		r.note(session, int64(r.now))
	}
}

func TestAnUptimeIsBrokenByWhateverBreaksAMembership(t *testing.T) {
	for name, c := range map[string]struct {
		then     func(r *renewals)
		unbroken time.Duration
		session  string
	}{
		"nothing":                {func(r *renewals) {}, 30 * time.Second, "a"},
		"one renewal that fails": {func(r *renewals) { r.now += time.Second; r.renew("a", 5*time.Second) }, 36 * time.Second, "a"},
		"silence":                {func(r *renewals) { r.now += 4 * time.Second }, 0, "a"},
		"silence that is over":   {func(r *renewals) { r.now += 4 * time.Second; r.renew("a", 3*time.Second) }, 3 * time.Second, "a"},
		"another session":        {func(r *renewals) { r.renew("b", 2*time.Second) }, 2 * time.Second, "b"},
		"the session's end":      {func(r *renewals) { r.note("", 0) }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRenewals()
			r.renew("a", 30*time.Second)
			c.then(r)
			if r.session != c.session || r.lasts() != c.unbroken {
				t.Errorf("session %q, unbroken for %v; want %q, %v", r.session, r.lasts(), c.session, c.unbroken)
			}
		})
	}
	if r := newRenewals(); r.lasts() != 0 {
		t.Errorf("before the first renewal: unbroken for %v", r.lasts())
	}
}

// renewed is a member whose session is renewed by the test.
type renewed struct {
	mu sync.Mutex // guards uptime
	uptime
}

func (r *renewed) Silent() (string, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session, time.Duration(virtual() - r.uptime.renewed)
}

func (r *renewed) note(session string, sent int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uptime.note(session, sent)
}

func TestANodeThatDoesNotReachTheStoreAsksTheOthersInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.OpenMemory(local.Options{})
		defer store.Close()
		for _, n := range []spec.Node{{Name: "a", Address: "a:1"}, {Name: "b", Address: "b:1"}, {Name: "c"}, {Name: "d", Address: "d:1"}} {
			if _, err := store.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: state.NodeKey(n.Name), Value: state.Encode(n)}); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex // guards questions
		var questions []string
		member := &renewed{}
		p := &Partition{Node: "a", Store: store, Silent: member.Silent, After: testFence, Logger: hclog.NewNullLogger(),
			End: func(_ context.Context, other spec.Node, session string, silent time.Duration) error {
				mu.Lock()
				questions = append(questions, other.Name)
				mu.Unlock()
				if session != "s" || silent < testFence {
					t.Errorf("asked for the end of %s after %v", session, silent)
				}
				if other.Name == "b" {
					return errors.New("it is not sure")
				}
				return nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		renew := func() { member.note("s", virtual()) }
		same := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(questions, want) {
				t.Errorf("%s: asked %q, want %q", when, questions, want)
			}
		}
		renew()
		time.Sleep(testFence - time.Second/2)
		same("before it is absent")
		renew()
		time.Sleep(testFence - time.Second/2)
		same("renewed meanwhile")
		time.Sleep(2 * time.Second)
		same("absent", "b", "d")
		time.Sleep(time.Minute)
		same("its session has ended", "b", "d")
		member.note("", 0)
		time.Sleep(time.Minute)
		same("it knows that", "b", "d")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
