package watchdog

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func TestSuccessorKnowsTheLeases(t *testing.T) {
	holds, ends, moved := leasedJob("holds", "s1"), leasedJob("ends", "s2"), leasedJob("moved", "s2")
	succession(t, func(w *world) {
		w.fake.onSignal = ignores
		w.renew("s1", 10*time.Second)
		w.renew("s2", 5*time.Second)
		w.set(holds, ends, moved)
		moved.Lease = "s1" // its process is still the old lease's
		w.set(moved)
	}, func(*world) { time.Sleep(4 * time.Second) }, func(w *world) {
		if v := w.wants(holds.ID, spec.PhaseRunning, 1); v.Generation != 1 {
			t.Errorf("it was started again: %+v", v)
		}
		w.wants(ends.ID, spec.PhaseStopping, 1)
		w.wants(moved.ID, spec.PhaseStopping, 1)
		w.pass(time.Second)
		w.wants(ends.ID, spec.PhasePending, 1)
		w.wants(moved.ID, spec.PhaseRunning, 2)
	})
}

func TestSuccessorKillsWhatHasOutlivedItsLease(t *testing.T) {
	l := leasedJob("a", "s1")
	for name, between := range map[string]func(w *world){
		"over":  func(*world) { time.Sleep(6 * time.Second) },
		"slept": func(w *world) { w.fake.clock.slept += 6 * time.Second },
		"lost":  func(w *world) { w.leases.fence.file.retire() },
		"of another boot": func(w *world) {
			rewrite(w, leasesKept{BootID: "other", Until: map[string]time.Duration{"s1": 1 << 60}})
		},
		"later than can be":    func(w *world) { rewrite(w, leasesKept{BootID: "boot", Until: map[string]time.Duration{"s1": 1 << 60}}) },
		"retired by the stop":  func(w *world) { w.leases.fence.file.retire() },
		"of some other tenant": func(w *world) { rewrite(w, leasesKept{BootID: "boot", Until: map[string]time.Duration{"s2": 1 << 60}}) },
	} {
		t.Run(name, func(t *testing.T) {
			succession(t, func(w *world) {
				w.fake.onSignal = ignores
				w.renew("s1", 5*time.Second)
				w.set(l)
				w.wants(l.ID, spec.PhaseRunning, 1)
			}, between, func(w *world) {
				v := w.wants(l.ID, spec.PhasePending, 1)
				if !strings.Contains(v.Reason, "waits for its lease") {
					t.Errorf("it is %+v", v)
				}
				w.renew("s1", 5*time.Second)
				w.wants(l.ID, spec.PhaseRunning, 2)
			})
		})
	}
}

// rewrite puts other leases into the file.
func rewrite(w *world, kept leasesKept) {
	f := w.leases.fence.file
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.replace(kept); err != nil {
		w.t.Fatal(err)
	}
}

func TestSuccessorStartsNothingUnderALeaseThatIsOver(t *testing.T) {
	waits, fenced := leasedJob("waits", "s1"), leasedJob("fenced", "s1")
	succession(t, func(w *world) {
		w.renew("s1", 5*time.Second)
		w.set(waits)
		w.exits(waits.ID, 1)
		fenced.Lease = "s2"
		w.set(fenced)
	}, func(*world) { time.Sleep(time.Minute) }, func(w *world) {
		w.pass(time.Hour)
		w.wants(waits.ID, spec.PhasePending, 1)
		w.wants(fenced.ID, spec.PhasePending, 0)
		w.renew("s2", 5*time.Second)
		w.wants(waits.ID, spec.PhasePending, 1)
		w.wants(fenced.ID, spec.PhaseRunning, 1)
	})
}

// Once all has been stopped, the locks are given away: whoever comes next must
// not go on under what is left of the lease.
func TestStopOfAllLeavesNoLeaseBehind(t *testing.T) {
	l := leasedJob("a", "s1")
	succession(t, func(w *world) {
		w.renew("s1", 30*time.Second)
		w.set(l)
		w.onLoop(func() error { w.beginShutdown(false, time.Now()); return nil })
		_ = w.leases.fence.renew(spec.Lease{Session: "s1", Until: int64(w.fake.clock.Now() + 30*time.Second)})
	}, func(*world) {}, func(w *world) {
		w.wants(l.ID, spec.PhasePending, 1)
		if len(w.fake.live) != 0 {
			t.Error("it was started under a lease of the run before")
		}
	})
}

// A start that could not be journalled tells its lease itself.
func TestForgottenStartIsAdoptedUnderItsOwnLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k := leasedJob("a", "s1"), newFakeKernel(t)
		p, err := k.startOne(start{launch: &l})
		if err != nil {
			t.Fatal(err)
		}
		k.seen = []foundProcess{{id: l.ID, generation: 2, nonce: "new", lease: "s2", unrecorded: true,
			pid: p.pid, pgid: p.pid, session: p.pid, startTicks: p.startTicks}}
		w := newWorld(t, t.TempDir(), k)
		rewrite(w, leasesKept{BootID: "boot", Until: map[string]time.Duration{"s1": k.clock.Now() + 5*time.Second}})
		first := k.byID[l.ID]
		w.start(forkingEntry(l))
		if first.over.IsZero() {
			t.Error("it lives under a lease that nobody renews")
		}
		w.stop()
	})
}
