package watchdog

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func policy(p spec.RestartPolicy) spec.Restart {
	return spec.Restart{Policy: p, Delay: spec.Duration(time.Second), MaxDelay: spec.Duration(time.Minute),
		Attempts: 3, Window: spec.Duration(5 * time.Minute), Exhausted: spec.ExhaustedFail, Stable: spec.Duration(time.Minute)}
}

func TestPolicyDecidesWhatFollowsAnEnd(t *testing.T) {
	for _, c := range []struct {
		policy  spec.RestartPolicy
		success bool
		want    event
	}{
		{spec.RestartAlways, true, evRetry},
		{spec.RestartAlways, false, evRetry},
		{spec.RestartOnFailure, true, evDone},
		{spec.RestartOnFailure, false, evRetry},
		{spec.RestartNever, true, evDone},
		{spec.RestartNever, false, evGiveUp},
	} {
		if d := decide(policy(c.policy), history{}, ending{success: c.success}, epoch, 1000); d.event != c.want {
			t.Errorf("%s after success=%v: %d, want %d", c.policy, c.success, d.event, c.want)
		}
	}
}

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	p := policy(spec.RestartAlways)
	p.Attempts = 100
	h := history{}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		d := decide(p, h, ending{}, epoch, 1000) // 1000: no jitter
		if got := d.at.Sub(epoch); got != want*time.Second {
			t.Errorf("retry %d waits %s, want %s", i, got, want*time.Second)
		}
		h = d.history
	}
	if d := decide(p, h.stable(), ending{}, epoch, 1000); d.at.Sub(epoch) != time.Second {
		t.Errorf("after a stable time it waits %s", d.at.Sub(epoch))
	}
}

func TestZeroDelayStaysZero(t *testing.T) {
	p := policy(spec.RestartAlways)
	p.Delay, p.Attempts = 0, 1000
	h := history{}
	for seed := range uint64(500) {
		d := decide(p, h, ending{}, epoch, seed)
		if !d.at.Equal(epoch) {
			t.Fatalf("restart %d waits %s", seed, d.at.Sub(epoch))
		}
		h = d.history
	}
}

func TestExhaustedIsToldOnceAndFailsOrGoesOn(t *testing.T) {
	p := policy(spec.RestartAlways)
	h := history{}
	for range p.Attempts {
		d := decide(p, h, ending{}, epoch, 0)
		if d.event != evRetry || d.exhausted {
			t.Fatalf("within its attempts: %+v", d)
		}
		h = d.history
	}
	d := decide(p, h, ending{}, epoch, 0)
	if d.event != evGiveUp || !d.exhausted || !strings.Contains(d.reason, "3 restarts within 5m are used up") {
		t.Errorf("beyond its attempts: %+v", d)
	}
	p.Exhausted = spec.ExhaustedRetry
	first := decide(p, h, ending{}, epoch, 1000)
	second := decide(p, first.history, ending{}, epoch.Add(time.Minute), 1000)
	if first.event != evRetry || !first.exhausted || first.at.Sub(epoch) != time.Minute {
		t.Errorf("retry beyond the attempts: %+v", first)
	}
	if second.event != evRetry || second.exhausted {
		t.Errorf("a second alert for the same trouble: %+v", second)
	}
}

func TestHeldLockUsesUpNoAttempts(t *testing.T) {
	p := policy(spec.RestartNever)
	p.Delay = 0
	d := decide(p, history{}, ending{locked: true}, epoch, 0)
	if d.event != evRetry || len(d.history.Tries) != 0 || d.at.Sub(epoch) != minLockDelay {
		t.Errorf("%+v", d)
	}
}

// TestRestartLaws holds any policy and any run of failures to what a person
// was promised.
func TestRestartLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(name string, low, high int) spec.Duration {
			return spec.Duration(time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Second)
		}
		p := spec.Restart{Policy: spec.RestartAlways, Delay: seconds("delay", 0, 10), MaxDelay: seconds("max", 10, 100),
			Attempts: rapid.IntRange(0, 8).Draw(t, "attempts"), Window: seconds("window", 1, 300),
			Exhausted: rapid.SampledFrom([]spec.Exhausted{spec.ExhaustedFail, spec.ExhaustedRetry}).Draw(t, "exhausted")}
		h, now := history{}, epoch
		var granted []time.Time
		for range rapid.IntRange(1, 40).Draw(t, "failures") {
			seed := rapid.Uint64().Draw(t, "seed")
			d := decide(p, h, ending{}, now, seed)
			if again := decide(p, h, ending{}, now, seed); !again.at.Equal(d.at) || again.event != d.event {
				t.Fatal("the same question has two answers")
			}
			within := 0
			for _, g := range granted {
				if now.Sub(g) < p.Window.Std() {
					within++
				}
			}
			switch {
			case d.event == evRetry && len(d.history.Tries) > 0 && d.history.Tries[len(d.history.Tries)-1].Equal(now) && within < p.Attempts:
				granted = append(granted, now)
			case within < p.Attempts:
				t.Fatalf("%d of %d attempts used, and refused: %+v", within, p.Attempts, d)
			case p.Exhausted == spec.ExhaustedFail && d.event != evGiveUp:
				t.Fatalf("beyond its attempts and not given up: %+v", d)
			}
			if d.event == evGiveUp {
				if d.reason == "" {
					t.Fatal("given up without a reason")
				}
				return
			}
			if wait := d.at.Sub(now); wait < 0 || wait > p.MaxDelay.Std()*11/10 {
				t.Fatalf("waits %s, limit %s", wait, p.MaxDelay)
			}
			if len(d.history.Tries) > p.Attempts {
				t.Fatalf("remembers %d tries", len(d.history.Tries))
			}
			h, now = d.history, d.at.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ran"))*time.Second)
		}
	})
}

func TestJitterIsAtMostATenth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "wait"))
		got := jitter(d, rapid.Uint64().Draw(t, "seed"))
		if got < d-d/10 || got > d+d/10 {
			t.Fatalf("%s became %s", d, got)
		}
	})
}

func TestNoMoreRestartsAreCountedThanMayBeKept(t *testing.T) {
	l := shell("a", "")
	l.Restart.Attempts = spec.MaxAttempts
	if err := checkLaunch(&l); err != nil {
		t.Error(err)
	}
	l.Restart.Attempts++
	if err := checkLaunch(&l); !errors.Is(err, ErrRefused) {
		t.Errorf("one more is answered with %v", err)
	}
}
