package watchdog

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTableIsTotal(t *testing.T) {
	for p := range numPhases {
		for e := range numEvents {
			next, acts := Next(p, e)
			if next >= numPhases {
				t.Errorf("%v × event %d leads nowhere: %d", p, e, next)
			}
			if next == p && p == gone && len(acts) > 0 {
				t.Errorf("what is gone acts on event %d", e)
			}
		}
	}
}

// ends are the events that say that no process of the generation is alive.
var ends = []event{evRetry, evDone, evGiveUp}

func TestStartIsQueuedOnlyWhereNoProcessIsAlive(t *testing.T) {
	for p := range numPhases {
		for e := range numEvents {
			next, acts := Next(p, e)
			if slices.Contains(acts, actQueue) && p.alive() && !slices.Contains(ends, e) {
				t.Errorf("%v × event %d queues a start beside a live process", p, e)
			}
			if slices.Contains(acts, actQueue) != (next == pending && p != pending) {
				t.Errorf("%v × event %d: pending and not queued, or queued and not pending", p, e)
			}
		}
	}
}

func TestEveryEndLeavesNoLivePhase(t *testing.T) {
	for p := range numPhases {
		for _, e := range ends {
			if next, _ := Next(p, e); p.alive() && next.alive() {
				t.Errorf("%v: after the process has ended (%d) it counts as %v", p, e, next)
			}
		}
	}
}

func TestNothingLeadsOutOfGone(t *testing.T) {
	for e := range numEvents {
		if next, acts := Next(gone, e); next != gone || len(acts) > 0 {
			t.Errorf("event %d leads from gone to %v, %v", e, next, acts)
		}
	}
}

func TestSignalsGoOnlyToLiveProcesses(t *testing.T) {
	for p := range numPhases {
		for e := range numEvents {
			next, acts := Next(p, e)
			if (slices.Contains(acts, actAsk) || slices.Contains(acts, actKill)) && (!p.alive() || !next.alive()) {
				t.Errorf("%v × event %d signals nobody", p, e)
			}
		}
	}
}

// TestNeverTwoGenerations plays random events and counts processes as the loop
// does: it forks what is queued, and only live processes end.
func TestNeverTwoGenerations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, live, queued, removed := pending, 0, true, false
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			e := event(rapid.IntRange(0, int(numEvents)-1).Draw(t, "event"))
			switch {
			case slices.Contains(ends, e):
				if live == 0 {
					continue
				}
				live--
			case e == evForked || e == evUp:
				if !queued || p != pending {
					continue
				}
				queued = false
				live++
			case e == evRemove:
				removed = true
			case e == evReplace && p != gone:
				removed = false
			}
			next, acts := Next(p, e)
			p = next
			if slices.Contains(acts, actQueue) {
				if removed {
					t.Fatalf("%v: started again although removed", p)
				}
				queued = true
			}
			if live > 1 {
				t.Fatalf("two generations are alive in %v", p)
			}
			if p.alive() != (live == 1) {
				t.Fatalf("%v with %d live processes", p, live)
			}
		}
	})
}

func TestPhaseNamesReadBack(t *testing.T) {
	for p := range numPhases {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back phase
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%s reads back as %v (%v)", text, back, err)
		}
		if (p == starting || p == running || p == stopping) && p.public().Alive() != p.alive() {
			t.Errorf("%v is told as %v", p, p.public())
		}
	}
}

// leased are the events that may start an instance whose lease was over.
var leased = []event{evGrant, evReplace}

func TestFencedStartsByAGrantOrAnotherDeclarationAlone(t *testing.T) {
	for e := range numEvents {
		next, acts := Next(fenced, e)
		starts := slices.Contains(acts, actQueue)
		if starts != slices.Contains(leased, e) || (starts != (next == pending)) {
			t.Errorf("event %d leads from fenced to %v, %v", e, next, acts)
		}
		if next != fenced && next != pending && next != gone {
			t.Errorf("event %d leads from fenced to %v", e, next)
		}
	}
}

func TestEndOfALeaseKillsInEveryLivePhase(t *testing.T) {
	for p := range numPhases {
		next, acts := Next(p, evFence)
		if kills := slices.Equal(acts, []action{actKill}); kills != p.alive() {
			t.Errorf("%v: the end of its lease does %v", p, acts)
		}
		if p == pending && next != fenced {
			t.Errorf("what may not be started under its lease is %v, and stays in the queue", next)
		}
	}
}

func TestWhatCedesIsNotRestartedByItsPolicy(t *testing.T) {
	for _, e := range ends {
		if next, acts := Next(ceding, e); next != fenced || len(acts) > 0 {
			t.Errorf("ended by %d it is %v, %v", e, next, acts)
		}
	}
	for p := range numPhases {
		if next, _ := Next(p, evCede); next != p && next != ceding {
			t.Errorf("%v becomes %v", p, next)
		}
	}
}
