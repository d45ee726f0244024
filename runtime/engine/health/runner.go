package health

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
	"golang.org/x/sync/errgroup"
)

const (
	// workers is how many checks run at the same time at most.
	workers = 64
	// soon is when a new check is run for the first time, at the latest: whoever
	// waits for health shall not wait for an interval. Only then are checks spread
	// over their intervals.
	soon = time.Second
	// grid is what times are rounded to: checks that run together wake the node
	// once.
	grid = 100 * time.Millisecond
)

// Config is what a Runner is made of.
type Config struct {
	// Found is called with every finding that says something new. It must not
	// block, nor call the Runner. Required.
	Found func(*Target, Finding)
	Host  Host
	// Random returns numbers in [0,1); nil for random ones.
	Random func() float64
	// make makes checkers; nil for the real ones.
	make func(*Target, *spec.Health, Tally, func() bool) (checker, error)
}

// Runner runs the checks of targets, each at its time. Make it with New; Run
// does the work.
type Runner struct {
	cfg        Config
	transports *transports
	wake       loop.Signal // the heap's first is another one

	mu      sync.Mutex // guards all below, and what is in it
	targets map[spec.InstanceID]*watch
	due     probes
	closed  bool // Run has ended
}

// watch is one target that is checked.
type watch struct {
	target *Target
	probes []*probe
	found  Finding
	ready  bool
	over   bool
	// ctx is done once the target is gone.
	ctx    context.Context
	cancel context.CancelFunc
}

// probe is one check of a watch.
type probe struct {
	watch   *watch
	health  *spec.Health
	checker checker // nil until it first runs; belongs to who runs it
	tally   Tally
	at      time.Time
	spread  bool // at has been spread over the interval
	index   int  // in the heap; -1 while it runs
}

// New returns a runner without targets. It starts nothing.
func New(cfg Config) *Runner {
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	r := &Runner{cfg: cfg, transports: newTransports(), wake: loop.NewSignal(), targets: map[spec.InstanceID]*watch{}}
	if r.cfg.make == nil {
		d := &deps{transports: r.transports, host: cfg.Host}
		r.cfg.make = func(t *Target, h *spec.Health, known Tally, ready func() bool) (checker, error) {
			return newChecker(t, h, known, d, ready)
		}
	}
	return r
}

// Set replaces what is checked; targets must not be changed after it. A target that has not changed, but for Ready
// and Known, goes on as it is; another generation or other checks begin anew.
// Found is called for each target that begins.
func (r *Runner) Set(targets []*Target, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	next := make(map[spec.InstanceID]*watch, len(targets))
	for _, t := range targets {
		old := r.targets[t.ID]
		if old != nil && same(old.target, t) {
			next[t.ID] = old
			delete(r.targets, t.ID)
			r.setReady(old, t.Ready, now)
			continue
		}
		known := t.Known
		if old != nil && old.target.Life == t.Life {
			f := old.found
			known = &f
		}
		next[t.ID] = r.begin(t, known, now)
	}
	for _, w := range r.targets {
		r.end(w)
	}
	r.targets = next
	r.wake.Set()
}

// same reports whether two targets are checked in the same way.
func same(a, b *Target) bool {
	return a == b || a.Life == b.Life && a.User == b.User && a.Dir == b.Dir && a.Fault == b.Fault && slices.Equal(a.Env, b.Env) && slices.Equal(a.Hidden, b.Hidden) &&
		reflect.DeepEqual(a.Checks, b.Checks)
}

// setReady notes that an instance is ready; who waits for that is told at once.
func (r *Runner) setReady(w *watch, ready bool, now time.Time) {
	if w.ready == ready {
		return
	}
	w.ready = ready
	for _, p := range w.probes {
		if p.health.Notify && p.index >= 0 {
			p.at = now
			heap.Fix(&r.due, p.index)
		}
	}
}

// begin takes up a target. The caller holds r.mu.
func (r *Runner) begin(t *Target, known *Finding, now time.Time) *watch {
	w := &watch{target: t, ready: t.Ready}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	tallies := make([]Tally, len(t.Checks))
	for i := range t.Checks {
		h := &w.target.Checks[i]
		p := &probe{watch: w, health: h, tally: NewTally(h.Name)}
		if known != nil && known.Life == t.Life {
			for _, c := range known.Checks {
				if c.Name == h.Name {
					p.tally = Known(c)
				}
			}
		}
		tallies[i] = p.tally
		wait := time.Duration(r.cfg.Random() * float64(min(h.Interval.Std(), soon)))
		if p.tally.State == spec.HealthPassing {
			wait = time.Duration(r.cfg.Random() * float64(h.Interval.Std()))
			p.spread = true
		}
		p.at = onGrid(now.Add(wait))
		heap.Push(&r.due, p)
		w.probes = append(w.probes, p)
	}
	w.found = Find(t.Life, w.target.Checks, tallies, known, now)
	r.cfg.Found(w.target, w.found)
	return w
}

// end lets go of a target. The caller holds r.mu.
func (r *Runner) end(w *watch) {
	w.over = true
	w.cancel()
	for _, p := range w.probes {
		if p.index >= 0 {
			heap.Remove(&r.due, p.index)
			p.close()
		}
	}
}

func (p *probe) close() {
	if p.checker != nil {
		p.checker.close()
		p.checker = nil
	}
}

// Run runs checks until ctx is done, and returns once none runs any more.
// Nothing is found out after that.
func (r *Runner) Run(ctx context.Context) {
	var checks errgroup.Group
	checks.SetLimit(workers)
	// A check that runs ends with ctx, so the loop does not wait for it.
	stop := context.AfterFunc(ctx, r.endAll)
	defer stop()
	loop.Run(ctx, r.wake, func(now time.Time) time.Duration {
		for {
			p, wait := r.next(now)
			if p == nil {
				return wait
			}
			checks.Go(func() error {
				r.run(p)
				return nil
			})
			now = time.Now()
		}
	})
	r.endAll()
	_ = checks.Wait()
	r.transports.close()
}

// endAll lets go of all targets, for good.
func (r *Runner) endAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.targets {
		r.end(w)
	}
	r.targets, r.closed = map[spec.InstanceID]*watch{}, true
}

// next takes the check that is due, or tells how long none is.
func (r *Runner) next(now time.Time) (*probe, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.due) == 0 {
		return nil, 0
	}
	for p := r.due[0]; p.at.Sub(now) > p.health.Interval.Std(); p = r.due[0] {
		// Whatever became of the clock, no check waits for longer than its interval.
		p.at = now.Add(p.health.Interval.Std())
		heap.Fix(&r.due, 0)
	}
	if wait := r.due[0].at.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&r.due).(*probe), 0
}

// onGrid rounds a time down to the grid. Truncate would strip its monotonic
// reading: a clock that is set back would put off all checks.
func onGrid(t time.Time) time.Time { return t.Add(-t.Sub(t.Truncate(grid))) }

// run runs one check.
func (r *Runner) run(p *probe) {
	w := p.watch
	ctx, cancel := context.WithTimeout(w.ctx, p.health.Timeout.Std())
	defer cancel()
	var result Result
	if p.checker == nil {
		// The tally changes only in done, which is yet to come.
		p.checker, result.Err = r.cfg.make(w.target, p.health, p.tally, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return w.ready
		})
		if result.Err != nil {
			p.checker = nil
		}
	}
	if p.checker != nil {
		result = p.checker.check(ctx)
	}
	if result.Err != nil && slices.Contains(w.target.Hidden, p.health.Name) {
		result.Err = errHidden
		if len(p.health.Command) == 0 { // of a command, it is its own to say
			result.Output = ""
		}
	}
	r.done(p, result, time.Now())
}

// errHidden stands for what a check found whose words would tell a secret.
var errHidden = errors.New("it failed; why is not told, as a sensitive variable is in its address or program")

// done takes over the result of a check, and sets its next time.
func (r *Runner) done(p *probe, result Result, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := p.watch
	if w.over {
		p.close()
		return
	}
	r.take(p, result, now)
	interval := p.health.Interval.Std()
	if p.spread {
		p.at = p.at.Add(interval)
	} else {
		p.spread = true
		p.at = onGrid(p.at.Add(time.Duration((0.1 + 0.9*r.cfg.Random()) * float64(interval))))
	}
	if p.at.Before(now) {
		p.at = now
	}
	heap.Push(&r.due, p)
	if p.index == 0 {
		r.wake.Set()
	}
}

// take takes over a result. The caller holds r.mu.
func (r *Runner) take(p *probe, result Result, now time.Time) {
	w := p.watch
	before := p.tally.CheckResult
	p.tally = p.tally.Next(p.health, result, w.target.Started, now)
	if p.tally.CheckResult == before {
		return
	}
	tallies := make([]Tally, len(w.probes))
	for i, other := range w.probes {
		tallies[i] = other.tally
	}
	w.found = Find(w.target.Life, w.target.Checks, tallies, &w.found, now)
	r.cfg.Found(w.target, w.found)
}

// probes is a heap of checks by their time.
type probes []*probe

func (h probes) Len() int           { return len(h) }
func (h probes) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h probes) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push and Pop are heap.Interface's.
func (h *probes) Push(x any) {
	p := x.(*probe)
	p.index = len(*h)
	*h = append(*h, p)
}

func (h *probes) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.index = -1
	return p
}
