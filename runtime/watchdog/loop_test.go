package watchdog

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// job is a launch for the fake kernel.
func job(process string) spec.Launch {
	return spec.Launch{ID: spec.InstanceID{Job: "test", Process: process}, Version: 1, Hash: "h1",
		Argv: []string{"program"}, Restart: policy(spec.RestartAlways),
		Stop: spec.Stop{Signal: "SIGTERM", Timeout: spec.Duration(10 * time.Second)}}
}

// ignores is a process that ends by nothing but SIGKILL.
func ignores(*fakeProcess, syscall.Signal) bool { return false }

func TestFailureIsRetriedAfterItsDelayAndRecovers(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		w.wants(l.ID, spec.PhaseRunning, 1)
		w.exits(l.ID, 1)
		v := w.wants(l.ID, spec.PhaseBackoff, 1)
		if wait := time.Until(v.NextStart); wait < 900*time.Millisecond || wait > 1100*time.Millisecond {
			t.Errorf("next start in %s, want about 1s", wait)
		}
		w.pass(800 * time.Millisecond)
		w.wants(l.ID, spec.PhaseBackoff, 1)
		w.pass(400 * time.Millisecond)
		if v := w.wants(l.ID, spec.PhaseRunning, 2); v.Restarts != 1 {
			t.Errorf("restarts are %d", v.Restarts)
		}
		w.pass(58 * time.Second)
		if n := len(w.told(spec.EventRecovered)); n != 0 {
			t.Errorf("recovered before its stable time: %d", n)
		}
		w.pass(2 * time.Second)
		if n := len(w.told(spec.EventRecovered)); n != 1 {
			t.Errorf("recovered %d times", n)
		}
		w.pass(time.Hour)
		if n := len(w.timers); n != 0 {
			t.Errorf("%d timers are left of a stable instance", n)
		}
	})
}

func TestExhaustedAttemptsAlert(t *testing.T) {
	for _, critical := range []bool{false, true} {
		inWorld(t, func(w *world) {
			l := job("a")
			l.Critical = critical
			w.set(l)
			for range 4 {
				w.exits(l.ID, 1)
				w.pass(10 * time.Second)
			}
			v := w.wants(l.ID, spec.PhaseFailed, 4)
			if !strings.Contains(v.Reason, "used up") {
				t.Errorf("failed because %q", v.Reason)
			}
			alerts := w.told(spec.EventExhausted)
			want := map[bool]spec.Severity{false: spec.Warning, true: spec.Critical}[critical]
			if len(alerts) != 1 || alerts[0].Severity != want || alerts[0].Instance.Phase != spec.PhaseFailed {
				t.Errorf("alerts: %+v, want one of severity %s", alerts, want)
			}
			// An operator's restart brings it back, with all its attempts.
			l.Epoch++
			w.set(l)
			if v := w.wants(l.ID, spec.PhaseRunning, 5); v.Restarts != 0 {
				t.Errorf("restarts are %d", v.Restarts)
			}
		})
	}
}

func TestExhaustedRetryGoesOnAtItsLimitAndAlertsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		l.Restart.Exhausted, l.Restart.Window = spec.ExhaustedRetry, spec.Duration(time.Hour)
		w.set(l)
		for range 10 {
			w.exits(l.ID, 1)
			w.pass(70 * time.Second)
			// The fake is young: it ends before it is stable.
			if v := w.see(l.ID); v.Phase != spec.PhaseRunning {
				t.Fatalf("it is %s", v.Phase)
			}
			w.fake.end(l.ID, spec.Exit{Code: 1})
			w.pass(70 * time.Second)
		}
		if n := len(w.told(spec.EventExhausted)); n == 0 || n > 10 {
			t.Errorf("alerted %d times", n)
		}
	})
}

func TestStopIsASignalThenATimeoutThenKill(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := job("a")
		w.set(l)
		w.drop(l.ID)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(9 * time.Second)
		w.wants(l.ID, spec.PhaseStopping, 1)
		w.pass(2 * time.Second)
		if v := w.see(l.ID); v.Phase != "" {
			t.Errorf("it is still there: %+v", v)
		}
		want := []string{"test/a/0 SIGTERM", "test/a/0 SIGKILL"}
		if !slices.Equal(w.fake.signals, want) {
			t.Errorf("signals were %v", w.fake.signals)
		}
		if k := w.told(spec.EventKilled); len(k) != 1 || !strings.Contains(k[0].Message, "did not end within 10s") {
			t.Errorf("told %+v", k)
		}
	})
}

func TestAnotherHashReplacesAndOnlyThat(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := job("a"), job("b")
		w.set(a, b)
		w.set(a, b) // the same again: nothing
		if n := len(w.told(spec.EventDeclared)); n != 2 {
			t.Errorf("declared %d times", n)
		}
		w.fake.onSignal = ignores
		a.Hash = "h2"
		w.set(a, b)
		w.wants(a.ID, spec.PhaseStopping, 1)
		w.exits(a.ID, 0)
		if v := w.wants(a.ID, spec.PhaseRunning, 2); v.Restarts != 0 || v.Hash != "h2" {
			t.Errorf("after a replacement: %+v", v)
		}
		w.wants(b.ID, spec.PhaseRunning, 1)
	})
}

func TestLiveChangeTouchesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		l.Version, l.Restart.Attempts, l.Critical = 2, 9, true
		w.set(l)
		v := w.wants(l.ID, spec.PhaseRunning, 1)
		if v.Version != 2 || !v.Critical || len(w.fake.signals) != 0 || len(w.told(spec.EventUpdated)) != 1 {
			t.Errorf("%+v, signals %v", v, w.fake.signals)
		}
	})
}

func TestShorterLimitShortensABackoff(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		l.Restart.Delay, l.Restart.MaxDelay = spec.Duration(time.Hour), spec.Duration(time.Hour)
		w.set(l)
		w.exits(l.ID, 1)
		w.wants(l.ID, spec.PhaseBackoff, 1)
		l.Restart.Delay, l.Restart.MaxDelay = spec.Duration(time.Second), spec.Duration(2*time.Second)
		w.set(l)
		w.pass(3 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestReloadSignalsWhoRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := job("a")
		l.Reload = &spec.Reload{Signal: "SIGHUP"}
		w.set(l)
		l.ReloadHash = "files2"
		w.set(l)
		w.wants(l.ID, spec.PhaseRunning, 1)
		if !slices.Equal(w.fake.signals, []string{"test/a/0 SIGHUP"}) || len(w.told(spec.EventReloaded)) != 1 {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}

func TestRemovedAndDeclaredAgainWhileItStops(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		l := job("a")
		w.set(l)
		w.drop(l.ID)
		w.set(l)
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestFailedStartGoesThroughThePolicy(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.fake.startErr[l.ID] = errors.New("program \"program\" not found in PATH (1 directory)")
		w.set(l)
		v := w.wants(l.ID, spec.PhaseBackoff, 1)
		if v.LastExit == nil || !strings.Contains(v.LastExit.Error, "not found in PATH") {
			t.Errorf("last exit is %v", v.LastExit)
		}
		w.onLoop(func() error { delete(w.fake.startErr, l.ID); return nil })
		w.pass(2 * time.Second)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestLateEventOfAnEarlierGenerationIsIgnored(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		l.Restart.Delay = 0
		w.set(l)
		old := w.fake.byID[l.ID].token
		w.exits(l.ID, 1)
		w.wants(l.ID, spec.PhaseRunning, 2)
		w.fake.events <- []kernelEvent{{token: old}, {token: 1 << 40}}
		w.pass(time.Millisecond)
		w.wants(l.ID, spec.PhaseRunning, 2)
	})
}

func TestUnreadableExitIsUnknownNeverGuessed(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		l.Restart.Policy = spec.RestartOnFailure
		w.set(l)
		w.fake.byID[l.ID].mute = true
		w.exits(l.ID, 0)
		w.wants(l.ID, spec.PhaseRunning, 1) // its code may still become readable
		w.pass(2 * time.Second)
		if v := w.see(l.ID); !v.LastExit.Unknown || v.LastExit.Success() {
			t.Errorf("last exit is %+v", v.LastExit)
		}
	})
}

func TestLostOutputIsToldOnceAMinute(t *testing.T) {
	inWorld(t, func(w *world) {
		l := job("a")
		w.set(l)
		for range 30 {
			w.onLoop(func() error { w.fake.lost[l.ID] = 10; return nil })
			w.fake.dropped <- struct{}{}
			w.pass(time.Second)
		}
		if n := len(w.told(spec.EventOutputLost)); n != 1 {
			t.Errorf("told %d times in half a minute", n)
		}
		if v := w.see(l.ID); v.DroppedBytes != 300 {
			t.Errorf("dropped %d bytes", v.DroppedBytes)
		}
		w.pass(time.Minute)
		if n := len(w.told(spec.EventOutputLost)); n != 2 {
			t.Errorf("told %d times after a minute", n)
		}
	})
}

func TestHaltStopsTheAgentLast(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		agent := agentLaunch([]string{"meshrun", "agent"}, nil, "/", "/x.sock")
		agent.Ready = nil
		agent.Watchdog = nil
		w.set(agent)
		a, b := job("a"), job("b")
		w.set(a, b)
		w.onLoop(func() error { w.beginShutdown(false, time.Now()); return nil })
		w.fake.end(a.ID, spec.Exit{})
		w.pass(time.Second)
		if slices.Contains(w.fake.signals, "meshrun/agent/0 SIGTERM") {
			t.Fatal("the agent is stopped before the others have ended")
		}
		w.fake.end(b.ID, spec.Exit{})
		w.pass(time.Second)
		if !slices.Contains(w.fake.signals, "meshrun/agent/0 SIGTERM") {
			t.Fatal("the agent is not stopped")
		}
		w.fake.end(AgentID, spec.Exit{})
		<-w.done
		// A successor starts all of them again.
		for id, e := range w.replayed().entries {
			if e.Keep.Phase != pending {
				t.Errorf("%s is left %s", id, e.Keep.Phase)
			}
		}
	})
}

func TestRefusedBatchChangesNothing(t *testing.T) {
	good := job("a")
	for name, c := range map[string]struct {
		change func(l *spec.Launch)
		words  string
	}{
		"no command":   {func(l *spec.Launch) { l.Argv = nil }, "no command"},
		"bad policy":   {func(l *spec.Launch) { l.Restart.Policy = "sometimes" }, "want always, on-failure or never"},
		"bad signal":   {func(l *spec.Launch) { l.Stop.Signal = "TERM" }, "SIGTERM"},
		"relative dir": {func(l *spec.Launch) { l.Dir = "data" }, "not absolute"},
		"reserved":     {func(l *spec.Launch) { l.ID = AgentID }, "reserved"},
		"path in name": {func(l *spec.Launch) { l.ID.Job = ".." }, "invalid instance name"},
		"NUL":          {func(l *spec.Launch) { l.Env = []string{"SECRET=hidden\x00"} }, "SECRET has a NUL"},
		"twice":        {func(l *spec.Launch) { *l = good }, "twice"},
	} {
		bad := job("b")
		c.change(&bad)
		err := checkBatch([]spec.Launch{good, bad}, nil)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the refusal tells a secret: %v", name, err)
		}
	}
	if err := checkBatch([]spec.Launch{good}, []spec.InstanceID{good.ID}); !errors.Is(err, ErrRefused) {
		t.Errorf("set and removed in one batch: %v", err)
	}
}

func TestSignalGoesToAllOrNone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		a, b := job("a"), job("b")
		b.Restart.Policy = spec.RestartNever
		w.set(a, b)
		w.exits(b.ID, 0)
		var err error
		w.onLoop(func() error { err = w.signal([]spec.InstanceID{a.ID, b.ID}, "SIGUSR1"); return nil })
		if !errors.Is(err, ErrRefused) || len(w.fake.signals) != 0 {
			t.Errorf("%v, signals %v", err, w.fake.signals)
		}
		w.onLoop(func() error { return w.signal([]spec.InstanceID{a.ID}, "SIGUSR1") })
		if !slices.Equal(w.fake.signals, []string{"test/a/0 SIGUSR1"}) {
			t.Errorf("signals %v", w.fake.signals)
		}
	})
}
