package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// staleTable is a watchdog that takes declarations late and tells of them late.
type staleTable struct {
	*fakeWatchdog
	hold   chan struct{} // Declare waits for it, if not nil
	broken chan struct{} // closed: the stream of events breaks off, once
	late   chan struct{} // events are held back until it is closed
}

func (s *staleTable) Declare(ctx context.Context, set []spec.Launch, remove []spec.InstanceID) error {
	if s.hold != nil && len(set) > 0 {
		<-s.hold
	}
	return s.fakeWatchdog.Declare(ctx, set, remove)
}

func (s *staleTable) Events(ctx context.Context, after uint64, fn func(spec.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := s.broken
	go func() {
		select {
		case <-broken:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.fakeWatchdog.Events(ctx, after, func(ev spec.Event) error {
		if s.late != nil {
			<-s.late
		}
		return fn(ev)
	})
	return errors.Join(err, errAway)
}

// The table is read again while a declaration is on its way, and the shard is
// unassigned before its first event is here.
func TestNoLockIsReleasedWhileADeclarationOvertakesTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fencedRig{rig: newRig(t)}
		r.spy = &spyStore{Store: r.store}
		r.spy.before = r.law
		dog := &staleTable{fakeWatchdog: r.dog, hold: make(chan struct{}), broken: make(chan struct{}), late: make(chan struct{})}
		r.cfg.Store, r.cfg.LockDelay, r.cfg.Watchdog = r.spy, testDelay, dog
		r.agent.session = func() string { return r.session }
		r.session = r.create("n1")
		r.put(state.HistoryKey("any", 1))
		r.start()
		defer func() { r.close() }()
		settled()
		r.assign("shop", exclusive("solo", 0)) // the lock is taken, Declare is on its way
		settled()
		old := dog.broken
		dog.broken = make(chan struct{})
		close(old) // the watchdog is upgraded: the stream breaks off, the table is read
		settled()
		r.assign("shop") // meanwhile it is unassigned
		settled()
		close(dog.hold) // Declare arrives
		settled()
		close(dog.late) // and is seen
		settled()
		r.dog.mu.Lock()
		_, runs := r.dog.table[id("shop/solo/0")]
		r.dog.mu.Unlock()
		if runs {
			t.Errorf("what is not assigned runs still")
		}
	})
}

// stalled starts what it is told to, then tells nothing of it (its journal's disk
// hangs, say), and answers no removal.
type stalled struct{ *fakeWatchdog }

func (s *stalled) Declare(ctx context.Context, set []spec.Launch, remove []spec.InstanceID) error {
	if len(remove) > 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.fakeWatchdog.Declare(ctx, set, remove)
}

func (s *stalled) Table(ctx context.Context) (spec.Table, error) {
	s.mu.Lock()
	stuck := s.mute
	s.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return spec.Table{}, ctx.Err()
	}
	return s.fakeWatchdog.Table(ctx)
}

func TestALockIsKeptWhileNobodyKnowsWhatTheWatchdogRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fencedRig{rig: newRig(t)}
		r.spy = &spyStore{Store: r.store}
		r.spy.before = r.law
		r.cfg.Store, r.cfg.LockDelay, r.cfg.Watchdog = r.spy, testDelay, &stalled{r.dog}
		r.agent.session = func() string { return r.session }
		r.session = r.create("n1")
		r.put(state.HistoryKey("any", 1))
		r.start()
		defer func() { r.close() }()
		settled()
		r.dog.mu.Lock()
		r.dog.mute = true
		r.dog.mu.Unlock()
		r.assign("shop", exclusive("solo", 0))
		settled()
		want(t, r.started("shop/solo/0"), 1)
		r.assign("shop") // another node is to have it
		for range 30 {
			settled()
		}
		if holder, _ := r.lock("shop/solo/0"); holder == "" {
			t.Error("the lock is free while the watchdog runs the shard")
		}
	})
}
