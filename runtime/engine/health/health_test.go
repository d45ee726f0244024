package health

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

var (
	began    = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	passed   = Result{Output: "ok"}
	wrong    = Result{Err: errors.New("refused")}
	longAway = Result{Err: errors.New("no answer in time")}
)

// TestFlips runs a check every second and writes down its states: p, f and u.
func TestFlips(t *testing.T) {
	check := func(failures, successes int, period time.Duration) spec.Health {
		h := spec.DefaultHealth("x")
		h.Failures, h.Successes, h.StartPeriod = failures, successes, spec.Duration(period)
		return h
	}
	tests := map[string]struct {
		health  spec.Health
		results string // + passes, - fails
		states  string
	}{
		"one success is enough":                         {check(3, 1, 0), "+", "p"},
		"successes in a row":                            {check(3, 3, 0), "++-+++", "uuuuup"},
		"failures in a row":                             {check(3, 1, 0), "+--+---", "ppppppf"},
		"failing before the first success":              {check(2, 1, 0), "--", "uf"},
		"back again":                                    {check(1, 2, 0), "+-++", "uffp"},
		"failures of the start don't count":             {check(2, 1, 4*time.Second), "------", "uuuuuf"},
		"they do after the first success":               {check(2, 1, 10*time.Second), "-+--", "uppf"},
		"a success in the start period begins a streak": {check(1, 2, 4*time.Second), "+-", "uf"},
	}
	for name, test := range tests {
		tally, got := NewTally("x"), ""
		for i, r := range test.results {
			result := passed
			if r == '-' {
				result = wrong
			}
			tally = tally.Next(&test.health, result, began, began.Add(time.Duration(i)*time.Second))
			got += string(tally.State[0])
		}
		if got != test.states {
			t.Errorf("%s: after %s it was %s, want %s", name, test.results, got, test.states)
		}
	}
}

// A state holds as long as no streak is long enough to end it.
func TestFlipNeedsAStreak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := spec.DefaultHealth("x")
		h.StartPeriod = 0
		h.Failures, h.Successes = rapid.IntRange(1, 4).Draw(t, "failures"), rapid.IntRange(1, 4).Draw(t, "successes")
		tally, streak, last := NewTally("x"), 0, true
		for i := range rapid.IntRange(1, 40).Draw(t, "checks") {
			ok := rapid.Bool().Draw(t, "passes")
			if streak++; ok != last {
				streak, last = 1, ok
			}
			before, result := tally.State, wrong
			if ok {
				result = passed
			}
			tally = tally.Next(&h, result, began, began.Add(time.Duration(i)*time.Second))
			want := before
			if ok && streak >= h.Successes {
				want = spec.HealthPassing
			} else if !ok && streak >= h.Failures {
				want = spec.HealthFailing
			}
			if tally.State != want {
				t.Fatalf("after a streak of %d (passes: %t) it is %s, want %s", streak, ok, tally.State, want)
			}
		}
	})
}

func TestWhatIsShownChangesRarely(t *testing.T) {
	h := spec.DefaultHealth("x")
	h.Failures = 1
	tally := NewTally("x").Next(&h, wrong, began, began)
	shown := []string{}
	for i := range 30 {
		result := wrong
		if i >= 5 {
			result = Result{Err: fmt.Errorf("failed %d", i)}
		}
		before := tally.CheckResult
		if tally = tally.Next(&h, result, began, began.Add(time.Duration(i)*time.Second)); tally.CheckResult != before {
			shown = append(shown, tally.Output)
		}
	}
	if got := strings.Join(shown, ", "); got != "failed 10, failed 20" {
		t.Errorf("shown were %s", got)
	}
	tally = tally.Next(&h, passed, began, began.Add(time.Hour))
	for i, output := range []string{"ok", "still ok"} {
		before := tally.CheckResult
		tally = tally.Next(&h, Result{Output: output}, began, began.Add(2*time.Hour+time.Duration(i)*time.Minute))
		if tally.CheckResult != before {
			t.Error("what passes has nothing new to say")
		}
	}
}

func TestOutputIsBoundedAndWhole(t *testing.T) {
	h := spec.DefaultHealth("x")
	tally := NewTally("x").Next(&h, Result{Output: strings.Repeat("ä", MaxOutput) + "\xff"}, began, began)
	if n := len(tally.Output); n > MaxOutput || n < MaxOutput-4 || strings.ToValidUTF8(tally.Output, "") != tally.Output {
		t.Errorf("%d bytes are kept, ending in %q", n, tally.Output[n-5:])
	}
}

func TestFindingOfSeveralChecks(t *testing.T) {
	checks := []spec.Health{{Name: "a", OnFailure: spec.HealthAlert}, {Name: "b", OnFailure: spec.HealthWithdraw}, {Name: "c", OnFailure: spec.HealthRestart}}
	tests := []struct {
		states    string
		health    spec.HealthState
		ailing    string
		withdrawn bool
	}{
		{"uuu", spec.HealthUnknown, "", false},
		{"ppu", spec.HealthUnknown, "", false},
		{"ppp", spec.HealthPassing, "", false},
		{"fup", spec.HealthFailing, "", false},
		{"pfp", spec.HealthFailing, "", true},
		{"uuf", spec.HealthFailing, `its check "c" fails`, false},
		{"fff", spec.HealthFailing, `its check "c" fails`, true},
	}
	for _, test := range tests {
		tallies := make([]Tally, len(checks))
		for i, s := range test.states {
			tallies[i] = NewTally(checks[i].Name)
			tallies[i].State = map[rune]spec.HealthState{'u': spec.HealthUnknown, 'p': spec.HealthPassing, 'f': spec.HealthFailing}[s]
		}
		f := Find(spec.Life{}, checks, tallies, nil, began)
		if f.Health != test.health || f.RestartCause != test.ailing || f.Withdrawn != test.withdrawn {
			t.Errorf("%s: got %+v", test.states, f)
		}
		again := Find(spec.Life{}, checks, tallies, &f, began.Add(time.Hour))
		if !again.Since.Equal(began) {
			t.Errorf("%s: it has not changed since %s", test.states, again.Since)
		}
	}
}

// A result that is known from an earlier agent counts on.
func TestKnownResultGoesOn(t *testing.T) {
	h := spec.DefaultHealth("x")
	h.StartPeriod = spec.Duration(time.Hour)
	tally := Known(spec.CheckResult{Name: "x", State: spec.HealthPassing})
	for range 3 {
		tally = tally.Next(&h, longAway, began, began)
	}
	if tally.State != spec.HealthFailing {
		t.Errorf("it is %s, though it has passed before", tally.State)
	}
}
