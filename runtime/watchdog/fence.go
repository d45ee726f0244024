package watchdog

import (
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// clock is CLOCK_BOOTTIME, which goes on while the machine sleeps, with one
// alarm.
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

// fence knows until when each lease holds, and kills at its end what lives
// under it. It has a goroutine of its own that waits for nothing but its clock,
// so that the kill depends neither on the loop, which may be held up by a disk
// or by a long queue of forks, nor on the agent or the store. It is late by
// what the scheduler needs to run a goroutine, a few milliseconds on a busy
// machine. The loop asks politely before that and tells what happened after.
//
// While no watchdog runs nobody can enforce a lease. Its deadlines are in a
// file, and the successor kills what has outlived them as soon as it has found
// it; that gap is as long as it takes to notice the death and to start a
// program, and TestSuccessorFencesWhatItAdopts measures it. A watchdog that is
// stopped (SIGSTOP) enforces nothing either, until it goes on.
type fence struct {
	log   hclog.Logger
	clock clock
	kill  func(p *process, sig syscall.Signal) error // signals the whole group
	file  *leaseFile
	// changed is set when a lease may mean something else.
	changed loop.Signal
	wg      sync.WaitGroup

	mu      sync.Mutex               // guards all below
	until   map[string]time.Duration // by session; what is over is as good as unknown
	guarded map[string]map[*process]struct{}
	killed  map[*process]struct{} // and not released yet
}

// newFence returns a fence that knows no lease yet; see open.
func newFence(log hclog.Logger, c clock, file *leaseFile, kill func(*process, syscall.Signal) error) *fence {
	return &fence{log: log, clock: c, kill: kill, file: file, changed: loop.NewSignal(),
		until: map[string]time.Duration{}, guarded: map[string]map[*process]struct{}{}, killed: map[*process]struct{}{}}
}

// open takes over the leases that a predecessor left and begins to enforce.
func (f *fence) open() {
	left, err := f.file.read()
	if err != nil {
		f.log.Warn("cannot read the previous watchdog's leases: instances under a lease are stopped", "error", err)
	}
	now := f.clock.Now()
	f.mu.Lock()
	for session, until := range left {
		if v := judge(until, now); v != leaseOver && until-now <= maxLease {
			f.until[session] = until
		}
	}
	f.mu.Unlock()
	f.wg.Go(func() {
		for f.clock.Wait() {
			f.ring()
		}
	})
}

// close ends the enforcing and waits. What lives lives on.
func (f *fence) close() {
	f.clock.Close()
	f.wg.Wait()
	f.file.settle()
}

// ring does what is due, and tells the loop to look.
func (f *fence) ring() {
	f.mu.Lock()
	now := f.clock.Now()
	for lease := range f.guarded {
		if judge(f.until[lease], now) == leaseOver {
			f.cut(lease)
		}
	}
	f.arm(now)
	f.mu.Unlock()
	f.changed.Set()
}

// cut kills what lives under a lease. The loop repeats it as long as somebody
// is left. f.mu is held.
func (f *fence) cut(lease string) {
	for p := range f.guarded[lease] {
		if err := f.kill(p, syscall.SIGKILL); err != nil {
			f.log.Error("cannot kill a process whose lease has expired", "pid", p.pid, "session", lease, "error", err)
		}
		f.killed[p] = struct{}{}
	}
	delete(f.guarded, lease)
}

// arm sets the alarm for the next turn of a lease that somebody lives under.
// f.mu is held.
func (f *fence) arm(now time.Duration) {
	var next time.Duration
	for lease := range f.guarded {
		if at := nextTurn(f.until[lease], now); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	f.clock.Alarm(next)
}

// renew makes a lease hold until a time, later or earlier than before; the last
// word counts. It does not wait for the loop.
func (f *fence) renew(l spec.Lease) error {
	f.mu.Lock()
	now := f.clock.Now()
	if err := checkLease(l, now); err != nil {
		f.mu.Unlock()
		return err
	}
	for session, until := range f.until {
		if judge(until, now) == leaseOver {
			delete(f.until, session) // nobody misses it
		}
	}
	until := time.Duration(l.Until)
	was := f.until[l.Session]
	if was == 0 && len(f.until) >= maxLeases {
		f.mu.Unlock()
		return refuse("%d leases are held already: revoke one first", maxLeases)
	}
	if judge(until, now) == leaseOver {
		delete(f.until, l.Session)
		f.cut(l.Session)
	} else {
		f.until[l.Session] = until
	}
	f.arm(now)
	f.mu.Unlock()
	if judge(was, now) != judge(until, now) {
		f.changed.Set()
	}
	if was != until {
		f.file.write(f.snapshot, until < was)
	}
	return nil
}

// snapshot returns the leases as they are.
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
	return judge(f.until[lease], f.clock.Now())
}

// allows reports whether something may be started under a lease; under none it
// always may. What only cleans up after another may be as long as the lease
// holds, and is killed at its end.
func (f *fence) allows(lease string, cleans bool) bool {
	if lease == "" {
		return true
	}
	v := f.verdict(lease)
	return v == leaseGranted || (cleans && v != leaseOver)
}

// guard makes a process live under a lease until it is released. If that is
// over, the process is killed at once.
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
	if judge(f.until[lease], now) == leaseOver {
		f.cut(lease)
	}
	f.arm(now)
}

// release lets go of a process: it has ended, and its descriptor and number
// may soon be somebody else's.
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

// hasKilled reports whether a process that is not released yet was killed at
// the end of its lease, whatever has become of that since.
func (f *fence) hasKilled(p *process) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.killed[p]
	return ok
}

// guards reports whether a process lives under a lease.
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
