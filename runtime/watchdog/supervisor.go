package watchdog

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// The bounds of the loop.
const (
	maxInstances = 100_000

	// sweepDelay gathers deaths of orphans before they are reaped.
	sweepDelay = time.Second
	// exitWait is how long to wait for the exit code of an adopted process,
	// which its new parent has to reap first.
	exitWait = 1500 * time.Millisecond
	// lostEvery is how often lost output is reported at most, per instance.
	lostEvery = time.Minute
	// journalRetry is how often a write to a full disk is repeated.
	journalRetry = time.Second
)

// errClosed: the loop has ended.
var errClosed = errors.New("watchdog is shutting down")

// supervisor is the loop: the one goroutine in run owns all of it.
type supervisor struct {
	life     *lifecycle
	requests chan func()
	orphans  loop.Signal // a child has died, known or not
	retryAt  time.Time   // of the journal; zero unless it fails

	shutdown *shutdown // not nil once everything is to end
	done     chan struct{}
}

// newSupervisor returns a loop without instances; see adopt and run.
func newSupervisor(log hclog.Logger, k kernel, f *fence, j *journal, nonce func() string) *supervisor {
	lc := &lifecycle{registry: newRegistry(), log: log, kern: k, journal: j, nonce: nonce,
		queue:  forkQueue{between: map[*instance]bool{}},
		leases: leases{fence: f, verdicts: map[string]verdict{}}, limits: limits{kern: k, journal: j}}
	j.table = lc.entries
	return &supervisor{life: lc, requests: make(chan func()), orphans: loop.NewSignal(), done: make(chan struct{})}
}

// run is the loop. It ends when a shutdown is complete, or when ctx ends, which
// leaves all processes running.
func (s *supervisor) run(ctx context.Context) {
	defer close(s.done)
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for !s.finished() {
		if len(s.life.queue.waiting) > 0 {
			s.handle(ctx)
			s.life.fork()
			continue
		}
		s.flush()
		if s.finished() {
			break
		}
		wake.Reset(s.untilNext(time.Now()))
		select {
		case <-ctx.Done():
			s.flush()
			return
		case f := <-s.requests:
			f()
		case batch := <-s.life.kern.Events():
			s.kernelEvents(batch)
		case <-s.life.kern.Dropped():
			s.outputDropped(time.Now())
		case <-s.orphans:
			s.life.planSweep(time.Now())
		case <-s.life.leases.fence.changed: // tick checks them
		case <-wake.C:
		}
		s.tick(time.Now())
	}
	s.flush()
}

// handle does what is due and handles one waiting request or batch of kernel
// events, if there is one. The loop calls it between two batches of forks, so
// that a long queue delays neither exits nor requests, nor they the queue.
func (s *supervisor) handle(ctx context.Context) {
	s.tick(time.Now())
	select {
	case <-ctx.Done():
		s.life.queue.waiting = nil
	case f := <-s.requests:
		f()
	case batch := <-s.life.kern.Events():
		s.kernelEvents(batch)
	default:
	}
}

// flush journals what was recorded, and wakes those who read the events.
func (s *supervisor) flush() {
	if !s.life.journal.flush(len(s.life.queue.waiting) > 0) && s.retryAt.IsZero() {
		s.retryAt = time.Now().Add(journalRetry)
	}
}

// untilNext is the time until something is due.
func (s *supervisor) untilNext(now time.Time) time.Duration {
	if s.life.leases.stale {
		return 0
	}
	next := now.Add(time.Hour)
	if len(s.life.timers) > 0 && s.life.timers[0].at.Before(next) {
		next = s.life.timers[0].at
	}
	for _, t := range [...]time.Time{s.life.sweepAt, s.retryAt} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return max(next.Sub(now), 0)
}

// tick does what is due.
func (s *supervisor) tick(now time.Time) {
	s.life.checkLeases(now)
	for t := s.life.timers.due(now); t != nil; t = s.life.timers.due(now) {
		s.life.expired(t.in, t.kind, now)
	}
	if !s.life.sweepAt.IsZero() && !now.Before(s.life.sweepAt) {
		s.life.sweepAt = time.Time{}
		s.sweep()
	}
	if !s.retryAt.IsZero() && !now.Before(s.retryAt) {
		s.retryAt = time.Time{}
		s.flush()
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
	<-ran // the loop runs it now
	return nil
}

// kernelEvents handles a batch. A token that is not registered belongs to a
// late event.
func (s *supervisor) kernelEvents(batch []kernelEvent) {
	for _, e := range batch {
		if e.notify {
			if in := s.life.bySocket[e.token]; in != nil {
				s.life.readNotifications(in, time.Now())
			}
			continue
		}
		if in := s.life.byProcess[e.token]; in != nil {
			s.life.died(in, false, time.Now())
		}
	}
}

// sweep reaps orphans. A known child that the kernel reports before them is
// handled as if its own event had come.
func (s *supervisor) sweep() {
	s.life.tidy(time.Now())
	byPID := make(map[int]uint64, len(s.life.byProcess))
	for token, in := range s.life.byProcess {
		byPID[in.proc.pid] = token
	}
	known := func(pid int) (uint64, bool) { t, ok := byPID[pid]; return t, ok }
	for range maxInstances {
		tokens := s.life.kern.Orphans(known)
		if len(tokens) == 0 {
			return
		}
		for _, t := range tokens {
			in := s.life.byProcess[t]
			if in == nil {
				return
			}
			s.life.died(in, false, time.Now())
			if in.proc != nil && in.proc.token == t {
				return // not readable yet: its own event comes
			}
		}
	}
}

// outputDropped records output that could not be kept.
func (s *supervisor) outputDropped(now time.Time) {
	for id, n := range s.life.kern.TakeDropped() {
		in := s.life.byID[id]
		if in == nil {
			continue
		}
		in.view.DroppedBytes += n
		in.lost += n
		if t := in.timers[timerLost]; t == nil || t.index < 0 {
			s.life.reportLost(in, now)
		}
	}
}

// table returns all instances.
func (s *supervisor) table() spec.Table {
	s.flush()
	t := spec.Table{Seq: s.life.journal.seq, Halting: s.shutdown != nil && !s.shutdown.keep,
		Unlimited: s.life.limits.problem(s.life.byID), Instances: make([]spec.Instance, 0, len(s.life.byID))}
	for _, in := range s.life.sorted() {
		t.Instances = append(t.Instances, in.view)
	}
	return t
}

// health returns the state of the loop.
func (s *supervisor) health() Health {
	h := Health{Seq: s.life.journal.seq, Instances: len(s.life.byID), Processes: len(s.life.byProcess), Queued: len(s.life.queue.waiting)}
	if err := s.life.journal.err; err != nil {
		h.Problems = append(h.Problems, "cannot write the journal: "+err.Error())
	}
	if problem := s.life.leases.fence.file.problem(); problem != "" {
		h.Problems = append(h.Problems, problem)
	}
	h.OK = len(h.Problems) == 0
	return h
}
