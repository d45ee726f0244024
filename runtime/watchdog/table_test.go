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

// passes are the events that say that a process of the generation has ended and
// another one follows.
var passes = []event{evHooked, evClean}

func TestAGenerationGoesOnOnlyUntilItIsCleanedUp(t *testing.T) {
	for p := range numPhases {
		next, _ := Next(p, evClean)
		switch {
		case p == hooking || p == starting || p == running || p == cleaning:
			if next != cleaning {
				t.Errorf("%v: while after_stop runs it is %v", p, next)
			}
		case next != p:
			t.Errorf("%v: while after_stop runs it is %v", p, next)
		}
		if next, _ := Next(p, evHooked); next != p {
			t.Errorf("%v: a hook that ended well leads to %v", p, next)
		}
	}
}

func TestStartIsQueuedOnlyWhereNoProcessIsAlive(t *testing.T) {
	for p := range numPhases {
		for e := range numEvents {
			next, acts := Next(p, e)
			queued := slices.Contains(acts, actQueue)
			if queued && p.alive() && !slices.Contains(ends, e) && !slices.Contains(passes, e) {
				t.Errorf("%v × event %d queues a start beside a live process", p, e)
			}
			begins := next == pending && p != pending
			goesOn := (e == evHooked && p == hooking) || (e == evClean && p.alive() && p != cleaning)
			if queued != (begins || goesOn) {
				t.Errorf("%v × event %d: has a process to be forked and is not queued, or the contrary", p, e)
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

// life is an instance as the loop handles it, with processes that are counted.
type life struct {
	t             *rapid.T
	p             phase
	before, after bool // the hooks that it has
	queued        bool
	process       string // that lives: before, program, after, or none
	dirty         bool   // something ran that was not cleaned up
	removed       bool
}

func (l *life) step(e event) {
	next, acts := Next(l.p, e)
	l.p = next
	if slices.Contains(acts, actQueue) {
		if l.removed && next == pending {
			l.t.Fatalf("%v: started again although removed", l.p)
		}
		l.queued = true
	}
}

// turn does what the loop does when the instance's turn in the queue comes.
func (l *life) turn() {
	l.queued = false
	switch {
	case l.p == pending && l.dirty && l.after:
		l.t.Fatalf("the next generation comes before after_stop")
	case l.p == pending && l.before:
		l.fork("before", evHooking)
	case l.p == pending, l.p == hooking:
		l.fork("program", rapid.SampledFrom([]event{evForked, evUp}).Draw(l.t, "fork"))
	case l.p.alive() && l.after && l.dirty:
		l.process, l.dirty = "after", false
	case l.p.alive():
		l.step(rapid.SampledFrom(ends).Draw(l.t, "judged"))
	}
}

func (l *life) fork(process string, e event) {
	if l.process != "" {
		l.t.Fatalf("%s is forked beside %s in %v", process, l.process, l.p)
	}
	l.process, l.dirty = process, true
	l.step(e)
}

// end ends the process that lives.
func (l *life) end() {
	was := l.process
	l.process = ""
	switch {
	case was == "before" && l.p == hooking && rapid.Bool().Draw(l.t, "well"):
		l.step(evHooked)
	case was != "after" && l.after:
		l.step(evClean)
	default:
		l.dirty = false
		l.step(rapid.SampledFrom(ends).Draw(l.t, "end"))
	}
}

// TestNeverTwoGenerations plays random events and counts processes as the loop
// does: it forks what is queued, and only live processes end.
func TestNeverTwoGenerations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{t: t, p: pending, queued: true, before: rapid.Bool().Draw(t, "before"), after: rapid.Bool().Draw(t, "after")}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			e := event(rapid.IntRange(0, int(numEvents)-1).Draw(t, "event"))
			switch {
			case slices.Contains(ends, e) || slices.Contains(passes, e):
				if l.process != "" {
					l.end()
				}
			case e == evForked || e == evUp || e == evHooking:
				if l.queued {
					l.turn()
				}
			default:
				if e == evRemove {
					l.removed = true
				}
				if e == evReplace && l.p != gone {
					l.removed = false
				}
				l.step(e)
			}
			if (!l.p.alive() && l.process != "") || (l.p.alive() && l.process == "" && !l.queued) {
				t.Fatalf("%v with process %q, queued %v", l.p, l.process, l.queued)
			}
			if l.p == gone && l.dirty && l.after {
				t.Fatalf("forgotten before after_stop")
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
