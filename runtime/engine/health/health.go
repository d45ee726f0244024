// Package health runs the checks of a node's instances and says what they
// find. What is to be checked comes from the engine, which also shows what was
// found; what follows from it is decided elsewhere.
package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Target is one generation of an instance, with the checks of its process, all
// templates filled in. Exec checks take User, Dir and Env.
type Target struct {
	ID      spec.InstanceID
	Life    spec.Life
	Started time.Time
	// Since is from when on output is this generation's: before Started, which
	// is noted once it runs.
	Since  time.Time
	Ready  bool // the instance has told that it is ready, or needs not tell
	Checks []spec.Health
	User   string
	Dir    string
	Env    []string
	// Hidden names the checks whose address or program is sensitive: what goes
	// wrong with them is told without it.
	Hidden []string
	// Fault says why the checks cannot be made on this node; they fail then.
	Fault string
	// Known is what was found out about this generation before, by an earlier
	// agent; nil if nothing was.
	Known *Finding
}

// Finding is what the checks of one generation say.
type Finding struct {
	Life   spec.Life
	Health spec.HealthState
	Since  time.Time
	Checks []spec.CheckResult
	// RestartCause says why the instance should be restarted; Withdrawn is set if its
	// services are not to be listed. Failing checks ask for either.
	RestartCause string
	Withdrawn    bool
}

// Result is what one check said once.
type Result struct {
	// Err says why the check failed; nil if it passed.
	Err    error
	Output string
}

// MaxOutput is how much of a check's output is kept: its end.
const MaxOutput = 4 << 10

// retell is how often another output of a check that goes on failing is shown.
const retell = 10 * time.Second

// Tally is what is remembered of a check between two runs.
type Tally struct {
	spec.CheckResult
	Failures, Successes int  // in a row
	Passed              bool // once in this generation
	told                time.Time
}

// NewTally returns the tally of a check that has not run yet.
func NewTally(name string) Tally {
	return Tally{CheckResult: spec.CheckResult{Name: name, State: spec.HealthUnknown}}
}

// Known returns the tally of a check of which a result is known from before.
func Known(r spec.CheckResult) Tally {
	t := Tally{CheckResult: r, Passed: r.State == spec.HealthPassing}
	return t
}

// Next returns the tally after a result. Failures before the first success
// don't count within the start period. What people are shown, the embedded
// CheckResult, changes only when the state does, or when a check that fails says
// something new, and that not too often.
func (t Tally) Next(h *spec.Health, r Result, started, now time.Time) Tally {
	state := t.State
	switch {
	case r.Err == nil:
		t.Failures, t.Passed = 0, true
		if t.Successes++; t.Successes >= h.Successes {
			state = spec.HealthPassing
		}
	case !t.Passed && now.Before(started.Add(h.StartPeriod.Std())):
		t.Successes = 0
	default:
		t.Successes = 0
		if t.Failures++; t.Failures >= h.Failures {
			state = spec.HealthFailing
		}
	}
	text := r.text()
	switch {
	case state != t.State:
		t.State, t.Since, t.Output, t.told = state, now, text, now
	case state != spec.HealthPassing && r.Err != nil && text != t.Output && !now.Before(t.told.Add(retell)):
		t.Output, t.told = text, now
	}
	t.Failures, t.Successes = min(t.Failures, h.Failures), min(t.Successes, h.Successes)
	return t
}

// text is what people are shown of a result.
func (r Result) text() string {
	output := tail(strings.TrimSpace(strings.ToValidUTF8(r.Output, "\uFFFD")), MaxOutput)
	switch {
	case r.Err == nil:
		return output
	case output == "":
		return tail(r.Err.Error(), MaxOutput)
	}
	return r.Err.Error() + "\n" + output
}

// tail returns the end of a text, whole letters of it.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[len(s)-n:], "")
}

// Combine returns what checks say together: failing if one is, passing if all
// are, and unknown before that.
func Combine(checks []spec.CheckResult) spec.HealthState {
	state := spec.HealthPassing
	for _, c := range checks {
		switch c.State {
		case spec.HealthFailing:
			return spec.HealthFailing
		case spec.HealthUnknown:
			state = spec.HealthUnknown
		}
	}
	return state
}

// Find returns what the tallies of an instance's checks say at a time, given
// what was found before.
func Find(life spec.Life, checks []spec.Health, tallies []Tally, before *Finding, now time.Time) Finding {
	f := Finding{Life: life, Since: now, Checks: make([]spec.CheckResult, len(tallies))}
	for i := range tallies {
		f.Checks[i] = tallies[i].CheckResult
		if tallies[i].State != spec.HealthFailing {
			continue
		}
		switch checks[i].OnFailure {
		case spec.HealthRestart:
			if f.RestartCause == "" {
				f.RestartCause = fmt.Sprintf("its check %q fails", checks[i].Name)
			}
		case spec.HealthWithdraw:
			f.Withdrawn = true
		}
	}
	f.Health = Combine(f.Checks)
	if before != nil && before.Health == f.Health {
		f.Since = before.Since
	}
	return f
}
