package watchdog

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// succession runs a first watchdog, then a second one on its journal and on
// the same kernel, with what happened in between.
func succession(t *testing.T, first, between, second func(w *world)) {
	t.Helper()
	inWorld(t, func(w *world) {
		first(w)
		w.stop()
		between(w)
		second(w.successor())
	})
}

func TestSuccessorAdoptsWhatLivesAndRestartsWhatDied(t *testing.T) {
	lives, dies, waits, done := job("lives"), job("dies"), job("waits"), job("done")
	done.Restart.Policy = spec.RestartOnFailure
	var pid int
	succession(t, func(w *world) {
		w.set(lives, dies, waits, done)
		w.exits(waits.ID, 1)
		w.exits(done.ID, 0)
		pid = w.see(lives.ID).PID
	}, func(w *world) {
		delete(w.fake.live, w.fake.byID[dies.ID].token)
	}, func(w *world) {
		if v := w.wants(lives.ID, spec.PhaseRunning, 1); v.PID != pid {
			t.Errorf("adopted as process %d, was %d", v.PID, pid)
		}
		if v := w.wants(dies.ID, spec.PhaseBackoff, 1); !v.LastExit.Unknown {
			t.Errorf("an end that nobody saw is told as %v", v.LastExit)
		}
		w.wants(done.ID, spec.PhaseCompleted, 1)
		w.pass(2 * time.Second)
		w.wants(dies.ID, spec.PhaseRunning, 2)
		w.wants(waits.ID, spec.PhaseRunning, 2)
		w.wants(done.ID, spec.PhaseCompleted, 1)
	})
}

// Out of descriptors, say: who lives cannot be told. What is started then could
// be the second of its kind.
func TestSuccessorThatCannotTellWhoLivesStartsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.set(job("a"))
		w.stop()
		w.fake.findErr = errors.New("too many open files")
		next := newWorld(t, w.dir, w.fake)
		err := next.adopt(next.replayed(), time.Now())
		if err == nil || !strings.Contains(err.Error(), "adopt instance test/a/0: too many open files") {
			t.Errorf("adopting said %v", err)
		}
		next.journal.close()
		if len(w.fake.live) != 1 || len(next.queue.waiting) != 0 {
			t.Errorf("%d processes live and %d are to be started", len(w.fake.live), len(next.queue.waiting))
		}
		// Its own successor, with descriptors, finds all as it was.
		w.fake.findErr = nil
		w.successor().wants(job("a").ID, spec.PhaseRunning, 1)
	})
}

func TestSuccessorGoesOnWithAStop(t *testing.T) {
	l := job("a")
	succession(t, func(w *world) {
		w.fake.onSignal = ignores
		w.set(l)
		w.drop(l.ID)
	}, func(*world) {}, func(w *world) {
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(11 * time.Second)
		if v := w.see(l.ID); v.Phase != "" {
			t.Errorf("it is still there: %+v", v)
		}
	})
}

func TestBackoffAndAttemptsSurvive(t *testing.T) {
	l := job("a")
	succession(t, func(w *world) {
		w.set(l)
		for range 3 {
			w.exits(l.ID, 1)
			w.pass(5 * time.Second)
		}
	}, func(*world) {}, func(w *world) {
		w.exits(l.ID, 1)
		w.wants(l.ID, spec.PhaseFailed, 4)
	})
}

func TestABackoffEndsThoughTheClockWasSetBackMeanwhile(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		w.exits(l.ID, 1)
		w.stop()
		next := newWorld(t, w.dir, w.fake)
		r := next.replayed()
		e := r.entries[l.ID]
		e.Instance.NextStart = e.Instance.NextStart.Add(24 * time.Hour) // by a clock that was ahead
		next.start(r)
		next.pass(l.Restart.MaxDelay.Std() + time.Second)
		if v := next.see(l.ID); v.Phase != spec.PhaseRunning {
			t.Errorf("after the longest delay it is %s, its next start in %s", v.Phase, time.Until(v.NextStart))
		}
		next.stop()
	})
}

// forkingEntry is what the journal holds of an instance whose fork was begun.
func forkingEntry(l spec.Launch) *replayed {
	e := &entry{Launch: l, Instance: spec.Instance{ID: l.ID, Phase: spec.PhasePending, Generation: 1},
		Keep: keep{Phase: pending, Nonce: "abc", Forking: true}}
	return &replayed{seq: 7, entries: map[spec.InstanceID]*entry{l.ID: e}}
}

func TestForkThatTheJournalDidNotSeeIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k := job("a"), newFakeKernel(t)
		p, err := k.startOne(start{launch: &l})
		if err != nil {
			t.Fatal(err)
		}
		k.seen = []foundProcess{
			{id: l.ID, generation: 1, nonce: "abc", pid: p.pid, pgid: p.pid, session: p.pid, startTicks: p.startTicks},
			{id: l.ID, generation: 1, nonce: "abc", pid: p.pid + 1, pgid: p.pid, session: p.pid, startTicks: p.startTicks + 1},
		}
		w := newWorld(t, t.TempDir(), k)
		w.start(forkingEntry(l))
		if v := w.wants(l.ID, spec.PhaseRunning, 1); v.PID != p.pid {
			t.Errorf("adopted %d, want %d", v.PID, p.pid)
		}
		w.stop()
	})
}

// Who has set himself free does not become the main process by outliving it.
func TestSuccessorTakesNobodyElseForTheMainProcess(t *testing.T) {
	l := job("a")
	succession(t, func(w *world) { w.set(l) }, func(w *world) {
		w.fake.live = map[uint64]*fakeProcess{}
		p, err := w.fake.startOne(start{launch: &l})
		if err != nil {
			t.Fatal(err)
		}
		delete(w.fake.byID, l.ID)
		w.fake.seen = []foundProcess{{id: l.ID, generation: 1, nonce: w.byID[l.ID].Nonce,
			pid: p.pid, pgid: p.pid, session: p.pid, startTicks: p.startTicks}}
	}, func(w *world) {
		w.pass(5 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestForkThatNeverWasIsDoneAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k := job("a"), newFakeKernel(t)
		w := newWorld(t, t.TempDir(), k)
		begin := time.Now()
		w.start(forkingEntry(l))
		w.wants(l.ID, spec.PhaseRunning, 2)
		if took := time.Since(begin); took < forkGrace || took > 2*forkGrace {
			t.Errorf("looked for it for %s", took)
		}
		w.stop()
	})
}

func TestAnotherBootStartsWhatWasUp(t *testing.T) {
	up, once, done := job("up"), job("once"), job("done")
	once.Restart.Policy = spec.RestartNever
	done.Restart.Policy = spec.RestartNever
	succession(t, func(w *world) {
		w.set(up, once, done)
		w.exits(done.ID, 0)
	}, func(w *world) {
		w.fake.live, w.fake.boot = map[uint64]*fakeProcess{}, "another boot"
	}, func(w *world) {
		w.wants(up.ID, spec.PhaseRunning, 2)
		w.wants(once.ID, spec.PhaseRunning, 2)
		w.wants(done.ID, spec.PhaseCompleted, 1)
	})
}

func TestLostReadinessDoesNotKillWhatLives(t *testing.T) {
	l := notifying("a")
	l.Watchdog = nil
	succession(t, func(w *world) { w.set(l) }, func(*world) {}, func(w *world) {
		w.wants(l.ID, spec.PhaseStarting, 1)
		w.pass(31 * time.Second)
		if v := w.wants(l.ID, spec.PhaseRunning, 1); v.Reason == "" {
			t.Error("no word about the unknown readiness")
		}
	})
}
