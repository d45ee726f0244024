package membership

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// fencing is an enforcer under test, and what lives.
type fencing struct {
	*Enforcer
	alive  map[string]bool // by process name
	killed map[string]time.Time
	events int
}

func fence(t *testing.T, test func(*fencing)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fencing{alive: map[string]bool{"first": true, "second": true, "plain": true}, killed: map[string]time.Time{}}
		of := func(name, lease string) spec.Instance {
			return spec.Instance{ID: spec.InstanceID{Job: "j", Process: name}, PID: 7, Phase: spec.PhaseRunning, Lease: lease}
		}
		f.Enforcer = NewEnforcer(EnforcerConfig{
			Renew:     func(context.Context, spec.Lease) error { return errors.New("the watchdog does not answer") },
			Instances: func() []spec.Instance { return []spec.Instance{of("first", "s1"), of("second", "s2"), of("plain", "")} },
			Kill: func(in *spec.Instance) (bool, error) {
				was := f.alive[in.ID.Process]
				if f.alive[in.ID.Process] = false; was {
					f.killed[in.ID.Process] = time.Now()
				}
				return was, nil
			},
			Clock: virtual, Emit: func(spec.Event) { f.events++ }, Logger: hclog.NewNullLogger(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = f.Run(ctx)
		}()
		test(f)
		cancel()
		<-done
	})
}

func (f *fencing) renewed(session string, left time.Duration) {
	_ = f.Grant(context.Background(), spec.Lease{Session: session, Until: virtual() + int64(left)})
	synctest.Wait()
}

func TestTheAgentKillsWhatAStoppedWatchdogLeavesAliveAfterItsLease(t *testing.T) {
	fence(t, func(f *fencing) {
		for range 10 {
			f.renewed("s1", testFence)
			f.renewed("s2", testFence)
			pass(renewEvery)
		}
		if len(f.killed) != 0 {
			t.Fatalf("killed while its lease holds: %v", f.killed)
		}
		end := time.Now().Add(testFence - renewEvery)
		for range 10 {
			f.renewed("s2", testFence)
			pass(renewEvery)
		}
		late := f.killed["first"].Sub(end)
		if len(f.killed) != 1 || late < 0 || late >= FenceSlack || f.events != 1 {
			t.Errorf("killed %v, %v after the end of the lease; %d events", f.killed, late, f.events)
		}
	})
}

func TestTheAgentKillsWhatAStoppedWatchdogLeavesAliveWhenTheLeaseIsRevoked(t *testing.T) {
	fence(t, func(f *fencing) {
		f.renewed("s1", testFence)
		_ = f.Grant(context.Background(), spec.Lease{Session: "s1"})
		pass(FenceSlack)
		if !f.alive["second"] || f.alive["first"] || !f.alive["plain"] {
			t.Errorf("alive are %v", f.alive)
		}
	})
}

func TestWhatTheWatchdogHasEndedIsNotLookedForForEver(t *testing.T) {
	fence(t, func(f *fencing) {
		f.alive["first"] = false
		f.renewed("s1", testFence)
		pass(time.Hour)
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.leases) != 0 || f.events != 0 {
			t.Errorf("leases %v, %d events", f.leases, f.events)
		}
	})
}

func TestWhatCannotBeKilledAtOnceIsTriedAgain(t *testing.T) {
	fence(t, func(f *fencing) {
		var at []time.Time
		kill := f.cfg.Kill
		f.cfg.Kill = func(in *spec.Instance) (bool, error) {
			at = append(at, time.Now())
			if len(at) < 5 {
				return true, nil
			}
			return kill(in)
		}
		f.renewed("s1", testFence)
		pass(time.Minute)
		if len(at) < 6 || len(at) > enforceTries || !slices.IsSortedFunc(at, time.Time.Compare) {
			t.Errorf("tried %d times", len(at))
		}
	})
}
