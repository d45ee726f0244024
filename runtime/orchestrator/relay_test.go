package orchestrator

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// mortal is a store whose user dies at one of its transactions: with it left
// undone, or done and no answer heard.
type mortal struct {
	state.Store
	die context.CancelFunc

	mu   sync.Mutex // guards all below
	left int        // transactions until it dies; never below 0
	done bool       // the last one is done
	dead bool
}

var errDead = errors.New("dead")

func (m *mortal) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return 0, errDead
	}
	if m.left--; m.left >= 0 {
		return m.Store.Txn(ctx, ops...)
	}
	m.dead = true
	m.die()
	if m.done {
		_, _ = m.Store.Txn(ctx, ops...)
	}
	return 0, errDead
}

// relay is a cluster of one node, whose orchestrator dies once and has a successor.
type relay struct {
	t     *testing.T
	store state.Store
	world *world
}

// A rollout survives the loss of its orchestrator at every step, before and
// after the step is written, and goes on where it was: no more is down than may
// be, and what is told is told once.
func TestARolloutGoesOnWhereItsOrchestratorDied(t *testing.T) {
	careful := func(u *spec.Update) { u.Canary, u.AutoPromote, u.AutoRevert = 1, true, true }
	for command, want := range map[string]string{"v2": "v2 v2 v2 v2", "bad": "v1 v1 v1 v1"} {
		steps := 0
		for ; steps < 100; steps++ {
			died := false
			for _, done := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					r := &relay{t: t, store: local.OpenMemory(local.Options{}), world: newWorld()}
					r.world.bad = map[spec.Template]spec.Phase{"bad": spec.PhaseFailed}
					died = r.run(steps, done, rolled("v1", 4, careful), rolled(command, 4, careful), want)
				})
				if t.Failed() {
					t.Fatalf("the orchestrator of %s died at transaction %d, which was done: %v", command, steps, done)
				}
			}
			if !died {
				break // it had fewer steps
			}
		}
		if steps < 6 {
			t.Errorf("%s had only %d steps", command, steps)
		}
	}
}

func (r *relay) run(left int, done bool, before, after spec.Process, want string) (died bool) {
	defer r.store.Close()
	r.set(state.NodeKey("a"), spec.Node{Name: "a"})
	r.release(version(1, before))
	stop := r.orchestrate(&mortal{Store: r.store, left: 1 << 30})
	r.live(time.Minute)
	stop()

	first := &mortal{Store: r.store, left: left, done: done}
	stop = r.orchestrate(first)
	r.release(version(2, after))
	r.live(2 * time.Minute)
	stop()
	stop = r.orchestrate(&mortal{Store: r.store, left: 1 << 30})
	r.live(2 * time.Minute)
	stop()

	if got := r.world.commands(); got != want {
		r.t.Errorf("in the end %s runs, want %s", got, want)
	}
	told := map[spec.EventType]int{}
	events, _, err := r.store.List(r.t.Context(), state.EventsPrefix)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		if ev, err := state.Decode[spec.Event](e); err == nil && ev.Version > 1 {
			told[ev.Type]++
		}
	}
	reverted := 0
	if strings.Contains(want, "v1") {
		reverted = 1
	}
	if told[spec.EventRolloutDone] != 1 || told[spec.EventRolloutFailed] != reverted || told[spec.EventRolloutReverted] != reverted {
		r.t.Errorf("told %v", told)
	}
	return first.dead
}

// orchestrate starts an orchestrator, and returns what ends it.
func (r *relay) orchestrate(m *mortal) (stop func()) {
	session, err := r.store.CreateSession(r.t.Context(), state.SessionConfig{Name: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	m.die = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = New(m, "a", func() string { return session }, hclog.NewNullLogger()).Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
		if err := r.store.DestroySession(r.t.Context(), session); err != nil {
			r.t.Fatal(err)
		}
	}
}

// live lets the node act on what it is assigned, and the scheduler place what is
// wanted, for a while.
func (r *relay) live(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		synctest.Wait()
		r.world.now = time.Now()
		job, _, err := state.GetAs[spec.JobVersion](r.t.Context(), r.store, state.JobKey("j"))
		if err != nil {
			r.t.Fatal(err)
		}
		r.place(&job)
		a, _, err := state.GetAs[spec.Assignment](r.t.Context(), r.store, state.AssignmentKey("a", "j"))
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			r.t.Fatal(err)
		}
		r.world.Current = map[string]spec.Assignment{"a": a}
		if r.world.act(nil) {
			r.set(state.ObservedKey("a", "j"), r.world.Observed["a"])
		}
		if down := strings.Count(r.world.commands(), "-"); down > 1 {
			r.t.Errorf("%d shards are down", down)
			return
		}
	}
}

func (r *relay) release(v *spec.JobVersion) {
	v.When = time.Now()
	v.Checksum = spec.Checksum(&v.Job)
	_, err := r.store.Txn(r.t.Context(),
		state.Op{Kind: state.OpSet, Key: state.JobKey("j"), Value: state.Encode(v)},
		state.Op{Kind: state.OpSet, Key: state.HistoryKey("j", v.Version), Value: state.Encode(v)})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *relay) place(v *spec.JobVersion) {
	placed, _, err := state.GetAs[spec.Placement](r.t.Context(), r.store, state.PlacementKey("j"))
	if errors.Is(err, state.ErrNotFound) || placed.Version != v.Version {
		r.set(state.PlacementKey("j"), onNode(v, "a"))
	}
}

func (r *relay) set(key string, value any) {
	if _, err := r.store.Txn(r.t.Context(), state.Op{Kind: state.OpSet, Key: key, Value: state.Encode(value)}); err != nil {
		r.t.Fatal(err)
	}
}
