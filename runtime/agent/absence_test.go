package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// renewals is a tenure and the clock that it goes by.
type renewals struct {
	*tenure
	now time.Duration
}

func newRenewals() *renewals {
	r := &renewals{now: time.Hour}
	r.tenure = newTenure(func() time.Duration { return r.now })
	return r
}

// renew renews the session every second, for a time.
func (r *renewals) renew(session string, for_ time.Duration) {
	for end := r.now + for_; r.now < end; r.now += time.Second {
		r.note(spec.Lease{Session: session, Until: int64(r.now + testFence)}, testFence)
	}
}

func TestATenureIsBrokenByWhateverBreaksAMembership(t *testing.T) {
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
		"the session's end":      {func(r *renewals) { r.note(spec.Lease{Session: "a"}, testFence) }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRenewals()
			r.renew("a", 30*time.Second)
			c.then(r)
			if session, _ := r.silent(); session != c.session || r.unbroken() != c.unbroken {
				t.Errorf("session %q, unbroken for %v; want %q, %v", session, r.unbroken(), c.session, c.unbroken)
			}
		})
	}
	if r := newRenewals(); r.unbroken() != 0 {
		t.Errorf("before the first renewal: unbroken for %v", r.unbroken())
	}
}

// asked is another node's agent that ends sessions, or does not.
type asked struct {
	apitest.Backend
}

func (*asked) Healthy(context.Context) error { return nil }
func (*asked) Close()                        {}

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
		begun := time.Now()
		tenure := newTenure(func() time.Duration { return time.Since(begun) })
		a := &absence{node: "a", store: store, tenure: tenure, after: testFence, logger: hclog.NewNullLogger(), peer: func(n spec.Node) (peer, error) {
			p := &asked{}
			p.EndSessionFunc = func(_ context.Context, end api.SessionEnd) error {
				mu.Lock()
				questions = append(questions, n.Name)
				mu.Unlock()
				if end.Node != "a" || end.Session != "s" || time.Duration(end.Silent) < testFence {
					t.Errorf("asked for %+v", end)
				}
				if n.Name == "b" {
					return api.ErrUnavailable
				}
				return nil
			}
			return p, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.run(ctx) }()
		renew := func() { tenure.note(spec.Lease{Session: "s", Until: int64(time.Since(begun) + testFence)}, testFence) }
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
		tenure.note(spec.Lease{Session: "s"}, testFence)
		time.Sleep(time.Minute)
		same("it knows that", "b", "d")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestASessionIsEndedForAnotherOnlyByWhoWasAMemberAllTheWhile(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	ctx := t.Context()
	session, err := store.CreateSession(ctx, state.SessionConfig{Name: "agent", Node: "a", Behavior: state.BehaviorDelete})
	if err != nil {
		t.Fatal(err)
	}
	held := state.Op{Kind: state.OpLock, Key: state.NodeKey("a"), Session: session, Value: state.Encode(spec.Node{Name: "a"})}
	if _, err := store.Txn(ctx, held); err != nil {
		t.Fatal(err)
	}
	r := newRenewals()
	b := &backend{store: newJanitor(store, hclog.NewNullLogger()), tenure: r.tenure, logger: hclog.NewNullLogger()}
	end := func(node, session string) error {
		return b.EndSession(ctx, api.SessionEnd{Node: node, Session: session, Silent: spec.Duration(testFence)})
	}
	lives := func() bool { _, err := store.Session(ctx, session); return err == nil }

	if err := end("a", session); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("by one that is no member: %v", err)
	}
	r.renew("b", testFence)
	if err := end("a", session); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("by one that came when the other went: %v", err)
	}
	r.renew("b", time.Second)
	if err := errors.Join(end("a", "another"), end("b", session)); err != nil {
		t.Errorf("a session that is not the node's: %v", err)
	}
	if !lives() {
		t.Fatal("the session has ended")
	}
	if err := end("a", session); err != nil || lives() {
		t.Errorf("by one that was a member all the while: %v, the session lives: %t", err, lives())
	}
}
