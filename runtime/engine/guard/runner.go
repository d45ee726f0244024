package guard

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// Alarm says that a guard has found a value above its bound for long enough, or
// within it again.
type Alarm struct {
	spec.GuardFinding
	Target *Target
	Over   bool
}

// Config is what a Runner is made of.
type Config struct {
	// Alarm is called when a guard's state changes. It must not block, nor call
	// the Runner. Required.
	Alarm  func(Alarm)
	Logger hclog.Logger
	// Processes returns the processes of the node; nil for the real ones.
	Processes func() ([]Process, error)
}

// Runner looks at targets, each at its time. Make it with New; Run does the work.
type Runner struct {
	cfg  Config
	wake loop.Signal // there are other targets

	mu      sync.Mutex // guards watches
	watches map[spec.InstanceID]*watch
	failed  bool // the last look; Run's own
}

type watch struct {
	target  *Target
	tallies []Tally
	next    []time.Time
}

// New returns a runner without targets. It starts nothing.
func New(cfg Config) *Runner {
	if cfg.Processes == nil {
		cfg.Processes = Processes
	}
	return &Runner{cfg: cfg, wake: loop.NewSignal(), watches: map[spec.InstanceID]*watch{}}
}

// Set replaces what is looked at; targets must not be changed after it. Another
// generation is looked at afresh, but for how long an instance has been down.
func (r *Runner) Set(targets []*Target, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[spec.InstanceID]*watch, len(targets))
	for _, t := range targets {
		w := &watch{target: t, tallies: make([]Tally, len(t.Guards)), next: make([]time.Time, len(t.Guards))}
		old := r.watches[t.ID]
		for i := range t.Guards {
			g := &t.Guards[i]
			// Those of one interval are due together, so that one look does for all.
			w.next[i] = after(now, g.Interval.Std())
			if old == nil {
				for _, a := range t.Known {
					if a.Guard == *g {
						w.tallies[i] = Tally{Value: a.Value, Since: a.Since, Over: true}
					}
				}
				continue
			}
			for k := range old.target.Guards {
				if old.target.Guards[k] == *g && (old.target.Life == t.Life || g.Name == spec.GuardAbsent) {
					w.tallies[i], w.next[i] = old.tallies[k], old.next[k]
				}
			}
		}
		next[t.ID] = w
	}
	r.watches = next
	r.wake.Set()
}

// Run looks at targets until ctx is done.
func (r *Runner) Run(ctx context.Context) {
	loop.Run(ctx, r.wake, r.step)
}

// step looks at what is due, and returns how long nothing is; 0 for ever.
func (r *Runner) step(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all *Table
	var next time.Time
	for _, w := range r.watches {
		for i := range w.target.Guards {
			g := &w.target.Guards[i]
			if w.next[i].Sub(now) > g.Interval.Std() {
				w.next[i] = after(now, g.Interval.Std()) // the clock was set back
			}
			if !now.Before(w.next[i]) {
				if all == nil && g.Name != spec.GuardAbsent {
					all = r.processes()
				}
				r.look(w, i, all, now)
				w.next[i] = after(now, g.Interval.Std())
			}
			if next.IsZero() || w.next[i].Before(next) {
				next = w.next[i]
			}
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Millisecond)
}

// after returns the next multiple of an interval. What Truncate returns has no
// monotonic reading: a clock that is set back would put off all guards.
func after(now time.Time, interval time.Duration) time.Time {
	return now.Add(interval - now.Sub(now.Truncate(interval)))
}

// processes reads the processes of the node; none if that fails.
func (r *Runner) processes() *Table {
	all, err := r.cfg.Processes()
	switch {
	case err != nil && !r.failed:
		r.cfg.Logger.Warn("guards cannot look at processes; they try again", "error", err)
	case err == nil && r.failed:
		r.cfg.Logger.Info("guards can look at processes again")
	}
	r.failed = err != nil
	return NewTable(all)
}

// look asks one guard. The caller holds r.mu.
func (r *Runner) look(w *watch, i int, all *Table, now time.Time) {
	l := Look{Down: w.target.Down}
	if w.target.PID != 0 && all != nil {
		l.Usage, l.Measured = all.Sum(w.target.PID, w.target.Life.StartTicks)
	}
	g := &w.target.Guards[i]
	was := w.tallies[i].Over
	tally := w.tallies[i].Next(g, l, now)
	w.tallies[i] = tally
	if tally.Over != was {
		r.cfg.Alarm(Alarm{GuardFinding: spec.GuardFinding{Guard: *g, Value: tally.Value, Since: tally.Since}, Target: w.target, Over: tally.Over})
	}
}
