package watchdog

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// The bounds of the loop.
const (
	maxInstances = 100_000

	// sweepDelay gathers deaths of orphans before they are reaped.
	sweepDelay = time.Second
	// exitWait is how long an adopted process's exit code is waited for: its
	// new parent has to reap it first.
	exitWait = 1500 * time.Millisecond
	// lostEvery is how often lost output is told at most, per instance.
	lostEvery = time.Minute
	// journalRetry is how often a full disk is tried again.
	journalRetry = time.Second
)

// errClosed: the loop has ended.
var errClosed = errors.New("watchdog is shutting down")

// supervisor is the loop: the one goroutine in run owns all of it.
type supervisor struct {
	log     hclog.Logger
	kern    kernel
	journal *journal
	nonce   func() string

	instances map[spec.InstanceID]*instance
	procs     map[uint64]*instance // by the token of the live process
	sockets   map[uint64]*instance // by the token of the notify socket
	queue     []*instance          // to be forked, in order
	between   map[*instance]bool   // between two processes of a generation
	timers    timerHeap
	leases    leases

	requests chan func()
	orphans  chan struct{} // a child has died, known or not; capacity 1
	sweepAt  time.Time     // zero if no sweep is due
	retryAt  time.Time     // of the journal; zero unless it fails

	unlimited string // why limits cannot be set here, once that was told

	halt *halt // not nil once everything is to end
	done chan struct{}
}

// halt is how the loop ends.
type halt struct {
	// keep leaves the processes alive, for a successor.
	keep bool
	// agentToo is set once only the agent is left to be stopped.
	agentToo bool
}

// newSupervisor returns a loop without instances; see adoptAll and run.
func newSupervisor(log hclog.Logger, k kernel, f *fence, j *journal, nonce func() string) *supervisor {
	s := &supervisor{log: log, kern: k, journal: j, nonce: nonce, leases: leases{fence: f, verdicts: map[string]verdict{}},
		instances: map[spec.InstanceID]*instance{}, procs: map[uint64]*instance{},
		sockets: map[uint64]*instance{}, between: map[*instance]bool{}, requests: make(chan func()),
		orphans: make(chan struct{}, 1), done: make(chan struct{})}
	j.table = s.entries
	return s
}

// run is the loop. It ends when a halt is through, or when ctx ends, which
// leaves every process alive.
func (s *supervisor) run(ctx context.Context) {
	defer close(s.done)
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for !s.halted() {
		if len(s.queue) > 0 {
			s.handle(ctx)
			s.forkNext()
			continue
		}
		s.settle()
		if s.halted() {
			break
		}
		wake.Reset(s.untilNext(time.Now()))
		select {
		case <-ctx.Done():
			s.settle()
			return
		case f := <-s.requests:
			f()
		case batch := <-s.kern.Events():
			s.kernelEvents(batch)
		case <-s.kern.Dropped():
			s.outputDropped(time.Now())
		case <-s.orphans:
			s.planSweep(time.Now())
		case <-s.leases.fence.turned: // tick looks at them
		case <-wake.C:
		}
		s.tick(time.Now())
	}
	s.settle()
}

// handle does what is due and takes one thing that waits, if there is one:
// between any two batches of a long queue, so that it delays neither exits nor
// requests, and they do not delay it.
func (s *supervisor) handle(ctx context.Context) {
	s.tick(time.Now())
	select {
	case <-ctx.Done():
		s.queue = nil
	case f := <-s.requests:
		f()
	case batch := <-s.kern.Events():
		s.kernelEvents(batch)
	default:
	}
}

// settle ends a turn: what happened is written and told.
func (s *supervisor) settle() {
	if !s.journal.flush(len(s.queue) > 0) && s.retryAt.IsZero() {
		s.retryAt = time.Now().Add(journalRetry)
	}
}

// untilNext is how long nothing is due.
func (s *supervisor) untilNext(now time.Time) time.Duration {
	if s.leases.unheeded {
		return 0
	}
	next := now.Add(time.Hour)
	if len(s.timers) > 0 && s.timers[0].at.Before(next) {
		next = s.timers[0].at
	}
	for _, t := range [...]time.Time{s.sweepAt, s.retryAt} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return max(next.Sub(now), 0)
}

// tick does what is due.
func (s *supervisor) tick(now time.Time) {
	s.heedLeases(now)
	for t := s.timers.due(now); t != nil; t = s.timers.due(now) {
		s.expired(t.in, t.kind, now)
	}
	if !s.sweepAt.IsZero() && !now.Before(s.sweepAt) {
		s.sweepAt = time.Time{}
		s.sweep()
	}
	if !s.retryAt.IsZero() && !now.Before(s.retryAt) {
		s.retryAt = time.Time{}
		s.settle()
	}
}

// do runs f on the loop and waits for it.
func (s *supervisor) do(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	select {
	case s.requests <- func() { f(); close(ran) }:
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-ran // the loop has taken it: it ends soon
	return nil
}

// forkNext forks the first of the queue.
func (s *supervisor) forkNext() {
	var batch []*instance
	for len(s.queue) > 0 && len(batch) < startBatch {
		in := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		in.queued = false
		if s.turn(in, time.Now()) {
			batch = append(batch, in)
		}
	}
	if len(batch) > 0 {
		s.fork(batch)
	}
}

// enqueue puts an instance into the queue of forks, once.
func (s *supervisor) enqueue(in *instance) {
	if in.phase.alive() {
		s.between[in] = true
	}
	if !in.queued {
		in.queued = true
		s.queue = append(s.queue, in)
	}
}

// kernelEvents handles a batch. A token that nobody has is a late event.
func (s *supervisor) kernelEvents(batch []kernelEvent) {
	for _, e := range batch {
		if e.notify {
			if in := s.sockets[e.token]; in != nil {
				s.notified(in, time.Now())
			}
			continue
		}
		if in := s.procs[e.token]; in != nil {
			s.died(in, false, time.Now())
		}
	}
}

func (s *supervisor) planSweep(now time.Time) {
	if s.sweepAt.IsZero() {
		s.sweepAt = now.Add(sweepDelay)
	}
}

// sweep reaps orphans. A known child that stands before them is handled as if
// its own event had come.
func (s *supervisor) sweep() {
	s.tidy(time.Now())
	byPID := make(map[int]uint64, len(s.procs))
	for token, in := range s.procs {
		byPID[in.proc.pid] = token
	}
	known := func(pid int) (uint64, bool) { t, ok := byPID[pid]; return t, ok }
	for range maxInstances {
		tokens := s.kern.Orphans(known)
		if len(tokens) == 0 {
			return
		}
		for _, t := range tokens {
			in := s.procs[t]
			if in == nil {
				return
			}
			s.died(in, false, time.Now())
			if in.proc != nil && in.proc.token == t {
				return // not readable yet: its own event comes
			}
		}
	}
}

// entries is the whole state, for a new segment of the journal.
func (s *supervisor) entries() []entry {
	out := make([]entry, 0, len(s.instances))
	for _, id := range s.sorted() {
		in := s.instances[id]
		out = append(out, entryOf(in.launch, &in.view, in.keep()))
	}
	return out
}
