package watchdog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

func (k *fakeKernel) Limit(l *spec.Launch, p *process, _ marks) error {
	if k.onLimit == nil {
		return nil
	}
	return k.onLimit(l, p)
}

func (k *fakeKernel) Tidy() bool {
	if k.untidy > 0 {
		k.untidy--
		return false
	}
	return true
}

func bounded(process string, memory spec.Size) spec.Launch {
	l := job(process)
	l.Resources = &spec.Resources{Memory: memory}
	return l
}

func TestLimitsAreSetBeforeAStartAndAtAChange(t *testing.T) {
	inWorld(t, func(w *world) {
		var calls []string
		w.fake.onLimit = func(l *spec.Launch, p *process) error {
			calls = append(calls, fmt.Sprintf("%s %v", l.Resources.Memory, p != nil))
			return nil
		}
		free, l := job("free"), bounded("p", 64<<20)
		w.set(free, l)
		w.exits(l.ID, 1)
		w.pass(5 * time.Second)
		l.Resources = &spec.Resources{Memory: 96 << 20}
		w.set(l)
		l.Version++ // something else
		w.set(l)
		w.wants(l.ID, spec.PhaseRunning, 2)
		if got := strings.Join(calls, ", "); got != "64MiB false, 64MiB false, 96MiB true" {
			t.Errorf("limits were set as %s", got)
		}
	})
}

func TestWhatNobodyMayLimitIsToldOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		unavailable := true
		w.fake.onLimit = func(*spec.Launch, *process) error {
			if unavailable {
				return fmt.Errorf("%w: permission denied", cgroup.ErrUnavailable)
			}
			return nil
		}
		a, b := bounded("a", 64<<20), bounded("b", 64<<20)
		w.set(a, b)
		w.exits(a.ID, 1)
		w.pass(5 * time.Second)
		w.wants(a.ID, spec.PhaseRunning, 2)
		w.wants(b.ID, spec.PhaseRunning, 1)
		told := w.told(spec.EventUnlimited)
		if len(told) != 1 || told[0].Severity != spec.Warning || told[0].Instance != nil || !strings.Contains(told[0].Message, "permission denied") {
			t.Errorf("told %+v", told)
		}
		if w.limits.problem(w.byID) == "" {
			t.Error("the table does not tell")
		}
		unavailable = false
		w.exits(a.ID, 1)
		w.pass(10 * time.Second)
		if why := w.limits.problem(w.byID); why != "" {
			t.Errorf("it is mended, and the table tells %s", why)
		}
	})
}

func TestLimitThatOneInstanceCannotHaveIsToldOfIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onLimit = func(*spec.Launch, *process) error {
			return errors.Join(errors.New("more is in use"), errors.New("no room"))
		}
		l := bounded("a", 64<<20)
		w.set(l)
		told := w.told(spec.EventUnlimited)
		if len(told) != 1 || told[0].Instance == nil || told[0].Message != "runs without some of its limits: more is in use; no room" {
			t.Errorf("told %+v", told)
		}
		if why := w.limits.problem(w.byID); why != "" {
			t.Errorf("the machine is blamed: %s", why)
		}
	})
}

func TestWantOfMemoryIsNotBlamedForMeshrunsOwnKill(t *testing.T) {
	inWorld(t, func(w *world) {
		l := bounded("a", 64<<20)
		w.set(l)
		w.fake.end(l.ID, spec.Exit{Signal: "SIGKILL", OOM: true})
		w.pass(5 * time.Second)
		if v := w.wants(l.ID, spec.PhaseRunning, 2); v.LastExit.String() != "SIGKILL, out of memory" {
			t.Errorf("it ended with %s", v.LastExit)
		}
		w.fake.onSignal = func(_ *fakeProcess, sig unix.Signal) bool { return false }
		l.Hash = "other"
		w.set(l)
		w.pass(l.Stop.Timeout.Std() - time.Second)
		p := w.fake.byID[l.ID]
		w.onLoop(func() error { w.byID[l.ID].killed = true; return nil })
		w.fake.end(p.id, spec.Exit{Signal: "SIGKILL", OOM: true})
		w.pass(time.Second)
		if v := w.wants(l.ID, spec.PhaseRunning, 3); v.LastExit.String() != "SIGKILL" {
			t.Errorf("it ended with %s", v.LastExit)
		}
	})
}

// What a killed process leaves in its cgroup takes a moment to be gone.
func TestCgroupsAreTidiedUntilTheyAreGone(t *testing.T) {
	inWorld(t, func(w *world) {
		l := bounded("a", 64<<20)
		w.set(l)
		w.fake.untidy = 3
		w.drop(l.ID)
		w.pass(10 * time.Second)
		if w.fake.untidy != 0 || !w.sweepAt.IsZero() {
			t.Errorf("%d looks are left, the next is at %v", w.fake.untidy, w.sweepAt)
		}
	})
}

func TestWhatIsReclaimedIsTold(t *testing.T) {
	l := bounded("a", 64<<20)
	before := uint64(0)
	succession(t, func(w *world) { w.set(l) }, func(w *world) {
		before = w.journal.seq
		w.fake.reclaimed = map[string]int{"test.b.0.1": 2, "test.c.0.1": 0}
	}, func(w *world) {
		var told []string
		events, _, _ := w.journal.ring.after(before, ringSize)
		for _, e := range events {
			if e.Type == spec.EventStray {
				told = append(told, e.Message)
			}
		}
		if len(told) != 1 || !strings.HasPrefix(told[0], "killed 2 processes left in cgroup test.b.0.1") {
			t.Errorf("told %q", told)
		}
	})
}
