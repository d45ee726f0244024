package watchdog

import (
	"fmt"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// The bounds of leases.
const (
	// StopMargin is how long before its lease expires an instance is asked to
	// end. It is the only grace period: at the expiry the instance is killed.
	StopMargin = 2 * time.Second
	// startMargin is how much of a lease must be left to start an instance
	// under it, so that it is not asked to end a moment later, nor comes up too
	// late on a busy machine.
	startMargin = StopMargin + 500*time.Millisecond
	// maxLease bounds a lease, so that one that was granted by mistake expires.
	maxLease = time.Minute
	// maxLeases is how many may be held at once. An agent has one, and two for
	// a moment when its session is replaced.
	maxLeases = 64
	// maxSession bounds the name of a session.
	maxSession = 256
)

// leaseIsOver is why an instance is killed when its lease expires.
const leaseIsOver = "its lease has expired"

// verdict is what a lease means for the instances that run under it or wait for
// it. A greater one allows more.
type verdict uint8

// The verdicts.
const (
	leaseOver    verdict = iota // kill; an unknown lease counts as expired
	leaseEnds                   // ask to end
	leaseHolds                  // keep running, but start nothing
	leaseGranted                // may be started
)

// verdictAt says what a lease that expires at until means now. Both are on the
// clock of Boottime.
func verdictAt(until, now time.Duration) verdict {
	switch left := until - now; {
	case left <= 0:
		return leaseOver
	case left <= StopMargin:
		return leaseEnds
	case left <= startMargin:
		return leaseHolds
	}
	return leaseGranted
}

// nextChange returns when the verdict on a lease next changes for running
// instances, unless it is renewed; 0 if it has expired.
func nextChange(until, now time.Duration) time.Duration {
	switch {
	case now < until-StopMargin:
		return until - StopMargin
	case now < until:
		return until
	}
	return 0
}

// checkLease refuses an invalid lease.
func checkLease(l spec.Lease, now time.Duration) error {
	switch {
	case l.Session == "":
		return refuse("the lease names no session")
	case checkSession(l.Session) != nil:
		return checkSession(l.Session)
	case l.Until < 0:
		return refuse("the lease of session %s ends at the negative time %d: want nanoseconds of CLOCK_BOOTTIME, or 0 to revoke it", l.Session, l.Until)
	case time.Duration(l.Until)-now > maxLease:
		return refuse("the lease of session %s would last %s, at most %s is allowed: want nanoseconds of CLOCK_BOOTTIME",
			l.Session, (time.Duration(l.Until) - now).Round(time.Second), maxLease)
	}
	return nil
}

// checkSession refuses an invalid session name, which becomes part of a
// process's environment.
func checkSession(session string) error {
	if len(session) > maxSession || strings.ContainsAny(session, "\x00\n") {
		return refuse("a session name must have at most %d bytes and no NUL or line break", maxSession)
	}
	return nil
}

// leases is what the leases meant when the loop last checked them.
type leases struct {
	fence    *fence
	verdicts map[string]verdict // of the leases in use
	stale    bool               // instances or verdicts have changed since
}

// changed reports whether a lease may mean something else for an instance than
// when this was last asked. It costs nothing while no lease is in use.
func (l *leases) changed() bool {
	for lease, was := range l.verdicts {
		l.stale = l.stale || l.fence.verdict(lease) != was
	}
	if !l.stale {
		return false
	}
	l.stale = false
	clear(l.verdicts)
	return true
}

// verdict is what a lease means; it stays the same until changed is asked again.
func (l *leases) verdict(lease string) verdict {
	v, ok := l.verdicts[lease]
	if !ok {
		v = l.fence.verdict(lease)
		l.verdicts[lease] = v
	}
	return v
}

// guard makes a process live under a lease; empty for none.
func (l *leases) guard(p *process, lease string) {
	if lease != "" {
		l.fence.guard(p, lease)
		l.stale = true
	}
}

// checkLeases lets the table decide about the instances of every lease if one
// means something else than before. The loop calls it each time round.
//
// What it asks for is late by one round of the loop at most: by startBatch
// forks, a batch of the kernel's events, a request or a write of the journal.
// The kill at a lease's end does not wait for it; see fence.
func (lc *lifecycle) checkLeases(now time.Time) {
	if !lc.leases.changed() {
		return
	}
	for _, in := range lc.sorted() {
		if in.Phase == fenced && lc.leases.verdict(in.launch.Lease) == leaseGranted {
			lc.step(in, evGrant, now)
		}
		if in.proc == nil || in.proc.dead || in.Lease == "" {
			continue
		}
		switch lc.leases.verdict(in.Lease) {
		case leaseEnds:
			lc.cede(in, evCede, "its lease was not renewed", now)
		case leaseOver:
			lc.cede(in, evFence, leaseIsOver, now)
		}
	}
}

// cede ends an instance whose lease expires soon or has expired.
func (lc *lifecycle) cede(in *instance, e event, why string, now time.Time) {
	next, acts := Next(in.Phase, e)
	if next == in.Phase && len(acts) == 0 {
		return
	}
	if in.Blame == "" {
		in.Blame = why
	}
	if next == in.Phase {
		lc.step(in, e, now)
		return
	}
	in.Blame = why
	message := why + ": stopping at once"
	if e == evCede {
		message = fmt.Sprintf("%s: stopping; killed in %s at the latest", why, StopMargin)
	}
	lc.step(in, e, now, note{kind: spec.EventFenced, severity: spec.Critical, message: message})
}

// awaitLease makes an instance wait until its lease is renewed.
func (lc *lifecycle) awaitLease(in *instance, now time.Time) {
	lc.step(in, evFence, now, note{kind: spec.EventWaiting, message: waitsFor(in)})
}

// waitsFor says why an instance is fenced.
func waitsFor(in *instance) string {
	return "waits for its lease: the agent does not renew session " + in.launch.Lease
}
