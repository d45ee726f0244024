package watchdog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

func TestLeaseHoldsWarnsAndKills(t *testing.T) {
	const now = 100 * time.Second
	for _, c := range []struct {
		left time.Duration
		want verdict
	}{
		{time.Minute, leaseGranted},
		{startMargin + 1, leaseGranted},
		{startMargin, leaseHolds},
		{StopMargin + 1, leaseHolds},
		{StopMargin, leaseEnds},
		{1, leaseEnds},
		{0, leaseOver},
		{-1, leaseOver},
		{-now, leaseOver}, // revoked, or never heard of
	} {
		if got := verdictAt(now+c.left, now); got != c.want {
			t.Errorf("with %s left it means %d, want %d", c.left, got, c.want)
		}
	}
}

// A lease gets no better by waiting and no worse by a later end, and between
// now and its next turn it means the same to those who live under it.
func TestLeaseLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		moment := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(30*time.Second)).Draw(t, "ns"))
		})
		until, now, more := moment.Draw(t, "until"), moment.Draw(t, "now"), moment.Draw(t, "more")
		v := verdictAt(until, now)
		if later := verdictAt(until, now+more); later > v {
			t.Fatalf("%d becomes %d by waiting", v, later)
		}
		if longer := verdictAt(until+more, now); longer < v {
			t.Fatalf("%d becomes %d by a later end", v, longer)
		}
		if (v == leaseOver) != (now >= until) {
			t.Fatalf("%d with %s left", v, until-now)
		}
		turn := nextChange(until, now)
		if (turn == 0) != (v == leaseOver) || (turn != 0 && turn <= now) {
			t.Fatalf("%d turns at %s, it is %s", v, turn, now)
		}
		to := func(v verdict) verdict { return min(v, leaseHolds) } // to who lives under it
		if turn != 0 && (to(verdictAt(until, turn-1)) != to(v) || to(verdictAt(until, turn)) >= to(v)) {
			t.Fatalf("%d is %d right before its turn, and %d at it", v, verdictAt(until, turn-1), verdictAt(until, turn))
		}
	})
}

// leasedJob is a launch that lives under a lease.
func leasedJob(process, lease string) spec.Launch {
	l := job(process)
	l.Exclusive, l.Lease = true, lease
	return l
}

// renew makes a lease hold for a time from now; 0 revokes it.
func (w *world) renew(lease string, left time.Duration) {
	w.t.Helper()
	until := int64(0)
	if left > 0 {
		until = int64(w.fake.clock.Now() + left)
	}
	if err := w.leases.fence.renew(spec.Lease{Session: lease, Until: until}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func TestLeasedInstanceIsAskedThenKilledAtTheDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		w.renew("s1", 5*time.Second)
		w.set(l, job("other"))
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.pass(3*time.Second - 1)
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.pass(1)
		v := w.wants(l.ID, spec.PhaseStopping, 1)
		if !strings.Contains(v.Reason, "lease was not renewed") {
			t.Errorf("it is stopping because %q", v.Reason)
		}
		w.pass(2*time.Second - 1)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(1)
		v = w.wants(l.ID, spec.PhasePending, 1)
		if !strings.Contains(v.Reason, "waits for its lease") || v.PID != 0 {
			t.Errorf("after its lease it is %+v", v)
		}
		if !slices.Equal(w.fake.signals[:2], []string{"test/a/0 SIGTERM", "test/a/0 SIGKILL"}) {
			t.Errorf("signals were %v", w.fake.signals)
		}
		fences := w.told(spec.EventFenced)
		if len(fences) != 1 || fences[0].Severity != spec.Critical || fences[0].Instance.Phase != spec.PhaseStopping {
			t.Errorf("told %+v", fences)
		}
		w.pass(24 * time.Hour) // its policy is always
		w.wants(l.ID, spec.PhasePending, 1)
		w.wants(job("other").ID, spec.PhaseRunning, 1)
	})
}

func TestRenewedLeaseStartsAgainAndAnotherDoesNot(t *testing.T) {
	inWorld(t, func(w *world) {
		l := leasedJob("a", "s1")
		w.set(l)
		v := w.wants(l.ID, spec.PhasePending, 0)
		if !strings.Contains(v.Reason, "waits for its lease: the agent does not renew session s1") {
			t.Errorf("it waits because %q", v.Reason)
		}
		if told := w.told(spec.EventWaiting); len(told) != 1 || told[0].Severity != spec.Info {
			t.Errorf("told %+v", told)
		}
		w.renew("s2", 5*time.Second)
		w.wants(l.ID, spec.PhasePending, 0)
		w.renew("s1", startMargin) // not enough for a start
		w.wants(l.ID, spec.PhasePending, 0)
		w.renew("s1", 5*time.Second)
		w.wants(l.ID, spec.PhaseRunning, 1)
		for range 60 {
			w.pass(time.Second)
			w.renew("s1", 5*time.Second)
		}
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.pass(6 * time.Second)
		w.wants(l.ID, spec.PhasePending, 1)
		w.renew("s1", 5*time.Second)
		if v := w.wants(l.ID, spec.PhaseRunning, 2); v.Restarts != 0 {
			t.Errorf("the end of a lease counts as %d restarts", v.Restarts)
		}
	})
}

// Renewed while it ends, it ends all the same and is started afresh.
func TestLeaseRenewedWhileItsInstanceEndsStartsItAfterwards(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		w.renew("s1", 5*time.Second)
		w.set(l)
		w.pass(4 * time.Second)
		w.renew("s1", 5*time.Second)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestRevokedLeaseKillsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		a, b := leasedJob("a", "s1"), leasedJob("b", "s2")
		w.renew("s1", 5*time.Second)
		w.renew("s2", 5*time.Second)
		w.set(a, b)
		w.renew("s1", 0)
		w.wants(a.ID, spec.PhasePending, 1)
		w.wants(b.ID, spec.PhaseRunning, 1)
		if slices.Contains(w.fake.signals, "test/a/0 SIGTERM") {
			t.Errorf("signals were %v", w.fake.signals)
		}
		w.renew("s2", time.Second) // shortened, not revoked
		w.wants(b.ID, spec.PhaseStopping, 1)
		w.pass(time.Second)
		w.wants(b.ID, spec.PhasePending, 1)
	})
}

func TestLeaseEndsInEveryPhase(t *testing.T) {
	slow := func(l spec.Launch) spec.Launch {
		l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(time.Hour)}
		return l
	}
	for name, c := range map[string]struct {
		launch spec.Launch
		before func(w *world, l spec.Launch)
		want   spec.Phase // after the deadline; "" if it is forgotten
	}{
		"starting": {slow(leasedJob("a", "s1")), func(*world, spec.Launch) {}, spec.PhasePending},
		"stopping": {leasedJob("a", "s1"), func(w *world, l spec.Launch) { w.drop(l.ID) }, ""},
		"replacing": {leasedJob("a", "s1"), func(w *world, l spec.Launch) {
			l.Epoch++
			w.set(l)
		}, spec.PhasePending},
		"killing": {slow(leasedJob("a", "s1")), func(w *world, l spec.Launch) {
			l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(time.Millisecond)}
			w.set(l)
			w.pass(time.Millisecond)
		}, spec.PhaseBackoff},
		"backoff": {leasedJob("a", "s1"), func(w *world, l spec.Launch) { w.exits(l.ID, 1) }, spec.PhasePending},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.fake.onSignal = ignores
				l := c.launch
				l.Stop.Timeout = spec.Duration(time.Hour)
				w.renew("s1", 5*time.Second)
				w.set(l)
				c.before(w, l)
				w.pass(5 * time.Second)
				if v := w.see(l.ID); v.Phase != c.want || v.PID != 0 {
					t.Errorf("after the deadline it is %+v", v)
				}
				w.pass(time.Hour)
				if n := len(w.fake.live); n != 0 {
					t.Errorf("%d processes live without a lease", n)
				}
			})
		})
	}
}

// The machine sleeps for longer than the lease: what was frozen is killed as
// soon as it wakes, though no other timer has moved.
func TestSleepOfTheMachineCounts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		w.renew("s1", 5*time.Second)
		w.set(l)
		w.fake.clock.sleep(time.Hour)
		w.pass(1)
		w.wants(l.ID, spec.PhasePending, 1)
	})
}

// The old session's lease ends what lives under it also after the instance was
// declared under a new one, and the new one does not prolong the old.
func TestAnotherLeaseRestartsAndTheOldOneStillFences(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		l.Stop.Timeout = spec.Duration(time.Hour)
		w.renew("s1", 5*time.Second)
		w.renew("s2", 30*time.Second)
		w.set(l)
		l.Lease = "s2"
		w.set(l)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(5*time.Second - 1)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(1)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.pass(20 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

// A loop that does not turn, held up by a disk or by an exec that hangs, does
// not keep a process alive.
func TestDeadlineIsKeptWhileTheLoopHangs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		w.renew("s1", 5*time.Second)
		w.set(l)
		w.fake.onStart = func(*spec.Launch) { time.Sleep(time.Minute) }
		w.requests <- func() { _ = w.declare([]spec.Launch{job("hangs")}, nil, time.Now()) }
		w.pass(5*time.Second + 1)
		w.fake.mu.Lock()
		if over := w.fake.byID[l.ID].over; time.Since(over) != 1 {
			t.Errorf("it ended %s ago, want at its deadline 1ns ago", time.Since(over))
		}
		w.fake.mu.Unlock()
		w.pass(time.Minute)
		w.wants(l.ID, spec.PhasePending, 1)
		w.wants(job("hangs").ID, spec.PhaseRunning, 1)
	})
}

func TestFullDiskOfTheJournalDelaysNoFence(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := leasedJob("a", "s1")
		w.renew("s1", 5*time.Second)
		w.set(l)
		w.onLoop(func() error {
			w.journal.close()
			w.journal.dir += "/missing" // nothing can be written any more
			w.journal.lost = true
			return nil
		})
		w.pass(3 * time.Second)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(2 * time.Second)
		w.wants(l.ID, spec.PhasePending, 1)
	})
}

// A long queue of starts is worked off while the lease ends: each one that has
// its turn too late is not started.
func TestQueueThatOutlastsItsLeaseStartsNothingAfterIt(t *testing.T) {
	inWorld(t, func(w *world) {
		var launches []spec.Launch
		for i := range 4 * startBatch {
			l := leasedJob("a", "s1")
			l.ID.Shard = i
			launches = append(launches, l)
		}
		w.fake.onStart = func(*spec.Launch) { time.Sleep(100 * time.Millisecond) }
		w.fake.onSignal = ignores
		w.renew("s1", 5*time.Second)
		deadline := time.Now().Add(5 * time.Second)
		w.set(launches...)
		w.pass(time.Minute)
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		if n := len(w.fake.byID); n == 0 || n > 26 {
			t.Errorf("%d were started", n)
		}
		for id, p := range w.fake.byID {
			if deadline.Sub(p.started) <= startMargin || p.over.After(deadline) || p.over.IsZero() {
				t.Errorf("%s lived from %s to %s before the deadline", id, deadline.Sub(p.started), deadline.Sub(p.over))
			}
		}
	})
}

func TestBadLeasesAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		now := int64(w.fake.clock.Now())
		for _, l := range []spec.Lease{
			{Until: now},
			{Session: strings.Repeat("x", maxSession+1), Until: now},
			{Session: "a\x00b", Until: now},
			{Session: "s1", Until: -1},
			{Session: "s1", Until: now + int64(maxLease) + 1},
			{Session: "s1", Until: 1<<63 - 1},
		} {
			if err := w.leases.fence.renew(l); !errors.Is(err, ErrRefused) {
				t.Errorf("%+v: %v", l, err)
			}
		}
		for i := range maxLeases {
			w.renew(fmt.Sprint("s", i), time.Second)
		}
		if err := w.leases.fence.renew(spec.Lease{Session: "more", Until: now + int64(time.Second)}); !errors.Is(err, ErrRefused) {
			t.Errorf("a lease more than are allowed: %v", err)
		}
		w.pass(time.Second)
		w.renew("more", time.Second) // the others are over, and forgotten
		if n := len(w.leases.fence.snapshot()); n != 1 {
			t.Errorf("%d leases are kept", n)
		}
		bad := leasedJob("a", "s\x001")
		if err := checkBatch([]spec.Launch{bad}, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("a launch under %q: %v", bad.Lease, err)
		}
	})
}
