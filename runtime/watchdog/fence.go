package watchdog

import (
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// clock is CLOCK_BOOTTIME, which also runs while the machine is suspended, with
// one alarm.
type clock interface {
	// Now is the time since boot.
	Now() time.Duration
	// Alarm makes Wait return at a time, or at once if that is past. It replaces
	// the alarm before; 0 is none.
	Alarm(at time.Duration)
	// Wait blocks until the alarm goes off; false once the clock is closed.
	Wait() bool
	// Close ends Wait.
	Close()
}

// fence knows until when each lease is valid, and kills the processes that run
// under a lease when it expires. Its goroutine waits for nothing but its clock,
// so that the kill depends neither on the loop, which a disk or a long queue of
// forks may hold up, nor on the agent or the store. It is late by the time that
// the scheduler needs to run a goroutine: a few milliseconds on a busy machine.
// The loop asks instances to end before that, and records their end after it.
//
// While no watchdog runs, nobody can enforce a lease. The deadlines are in a
// file, and a successor kills the processes that have outlived them as soon as
// it has found them. That gap is the time to notice the death of the watchdog
// and to start a program; TestSuccessorFencesWhatItAdopts measures it. A
// watchdog that is suspended (SIGSTOP) enforces nothing until it is resumed;
// see KillOutlived.
type fence struct {
	log   hclog.Logger
	clock clock
	kill  func(p *process, sig syscall.Signal) error // signals the whole group
	file  *leaseFile
	// changed is set when a lease may mean something else.
	changed loop.Signal
	wg      sync.WaitGroup

	mu      sync.Mutex               // guards all below
	until   map[string]time.Duration // by session; an expired one counts as unknown
	guarded map[string]map[*process]struct{}
	killed  map[*process]struct{} // and not released yet
}

// newFence returns a fence without leases; see open.
func newFence(log hclog.Logger, c clock, file *leaseFile, kill func(*process, syscall.Signal) error) *fence {
	return &fence{log: log, clock: c, kill: kill, file: file, changed: loop.NewSignal(),
		until: map[string]time.Duration{}, guarded: map[string]map[*process]struct{}{}, killed: map[*process]struct{}{}}
}

// open reads the leases of a predecessor and begins to enforce.
func (f *fence) open() {
	left, err := f.file.read()
	if err != nil {
		f.log.Warn("cannot read the previous watchdog's leases: instances under a lease are stopped", "error", err)
	}
	now := f.clock.Now()
	f.mu.Lock()
	for session, until := range left {
		if v := verdictAt(until, now); v != leaseOver && until-now <= maxLease {
			f.until[session] = until
		}
	}
	f.mu.Unlock()
	f.wg.Go(func() {
		for f.clock.Wait() {
			f.enforce()
		}
	})
}

// close stops the enforcement and waits. Processes keep running.
func (f *fence) close() {
	f.clock.Close()
	f.wg.Wait()
	f.file.settle()
}

// enforce kills what runs under expired leases, and makes the loop check all of
// them.
func (f *fence) enforce() {
	f.mu.Lock()
	now := f.clock.Now()
	for lease := range f.guarded {
		if verdictAt(f.until[lease], now) == leaseOver {
			f.killUnder(lease)
		}
	}
	f.arm(now)
	f.mu.Unlock()
	f.changed.Set()
}

// killUnder kills the processes under a lease. The loop repeats that as long as
// one of them lives. f.mu is held.
func (f *fence) killUnder(lease string) {
	for p := range f.guarded[lease] {
		if err := f.kill(p, syscall.SIGKILL); err != nil {
			f.log.Error("cannot kill a process whose lease has expired", "pid", p.pid, "session", lease, "error", err)
		}
		f.killed[p] = struct{}{}
	}
	delete(f.guarded, lease)
}

// arm sets the alarm for the next change of a lease that a process runs under.
// f.mu is held.
func (f *fence) arm(now time.Duration) {
	var next time.Duration
	for lease := range f.guarded {
		if at := nextChange(f.until[lease], now); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	f.clock.Alarm(next)
}

// renew makes a lease valid until a time, later or earlier than before; the
// last call counts. It does not wait for the loop.
func (f *fence) renew(l spec.Lease) error {
	f.mu.Lock()
	now := f.clock.Now()
	if err := checkLease(l, now); err != nil {
		f.mu.Unlock()
		return err
	}
	for session, until := range f.until {
		if verdictAt(until, now) == leaseOver {
			delete(f.until, session)
		}
	}
	until := time.Duration(l.Until)
	was := f.until[l.Session]
	if was == 0 && len(f.until) >= maxLeases {
		f.mu.Unlock()
		return refuse("%d leases are held already: revoke one first", maxLeases)
	}
	if verdictAt(until, now) == leaseOver {
		delete(f.until, l.Session)
		f.killUnder(l.Session)
	} else {
		f.until[l.Session] = until
	}
	f.arm(now)
	f.mu.Unlock()
	if verdictAt(was, now) != verdictAt(until, now) {
		f.changed.Set()
	}
	if was != until {
		f.file.write(f.snapshot, until < was)
	}
	return nil
}

// snapshot returns a copy of the leases.
func (f *fence) snapshot() map[string]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]time.Duration, len(f.until))
	for session, until := range f.until {
		out[session] = until
	}
	return out
}

// verdict says what a lease means now.
func (f *fence) verdict(lease string) verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	return verdictAt(f.until[lease], f.clock.Now())
}

// allows reports whether a process may be started under a lease; without one it
// always may. A cleanup may start until the lease expires, and is killed then.
func (f *fence) allows(lease string, cleanup bool) bool {
	if lease == "" {
		return true
	}
	v := f.verdict(lease)
	return v == leaseGranted || (cleanup && v != leaseOver)
}

// guard makes a process run under a lease until it is released. If the lease
// has expired, the process is killed at once.
func (f *fence) guard(p *process, lease string) {
	if lease == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.guarded[lease] == nil {
		f.guarded[lease] = map[*process]struct{}{}
	}
	f.guarded[lease][p] = struct{}{}
	now := f.clock.Now()
	if verdictAt(f.until[lease], now) == leaseOver {
		f.killUnder(lease)
	}
	f.arm(now)
}

// release removes a process: it has ended, and its descriptor and PID may soon
// belong to another.
func (f *fence) release(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.killed, p)
	for lease, processes := range f.guarded {
		delete(processes, p)
		if len(processes) == 0 {
			delete(f.guarded, lease)
		}
	}
}

// hasKilled reports whether a process that is not released yet was killed
// because its lease expired, even if that was renewed since.
func (f *fence) hasKilled(p *process) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.killed[p]
	return ok
}

// guards reports whether a process runs under a lease.
func (f *fence) guards(p *process) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, processes := range f.guarded {
		if _, ok := processes[p]; ok {
			return true
		}
	}
	return false
}
