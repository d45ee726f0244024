package engine

import (
	"math/rand/v2"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// lockFirst doubles with every try of a lock that cannot be had: up to
	// lockRetry while nobody holds it, and up to lockBusy, with jitter, while
	// somebody does. Refresh makes it be tried again before that, at most every
	// lockFirst.
	lockFirst = 250 * time.Millisecond
	lockRetry = time.Second
	lockBusy  = 5 * time.Second
	// lockSoon goes before these in the lockRetry after a lock delay should have
	// ended. Nothing tells when one does, but who saw the node go knows about when.
	lockSoon = 50 * time.Millisecond
)

// attempt is what came of trying a lock.
type attempt struct {
	tries int
	last  time.Time // when it was tried
	next  time.Time // when it is tried again
	opens time.Time // when its lock delay should end; zero if that is not known
	busy  bool      // somebody holds it
	why   string
}

// pause is how long to leave a lock alone, but for jitter, that could not be had
// now.
func (a *attempt) pause(now time.Time) time.Duration {
	limit := lockRetry
	if a.busy {
		limit = lockBusy
	}
	wait := limit
	if a.tries < 6 { // doubled so often, it is longer than any limit
		wait = min(lockFirst<<a.tries, limit)
	}
	switch left := a.opens.Sub(now); {
	case a.opens.IsZero() || left <= -lockRetry:
		return wait
	case left > 0:
		return min(wait, left)
	}
	return lockSoon
}

// retry takes note that a node has come or gone now: the locks that could not
// be had are tried again soon, and those that are held confirmed, at a cost that
// grows with these alone.
func (l *locks) retry(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved = now
	l.soon()
}

// soon makes the locks be tried and confirmed. The caller holds l.mu.
func (l *locks) soon() {
	l.doubt = true
	for id, a := range l.attempts {
		if soon := a.last.Add(lockFirst); soon.Before(a.next) {
			a.next = soon
			l.attempts[id] = a
		}
	}
	l.wake.Set()
}

// refuse notes that a lock could not be had, and why.
func (l *locks) refuse(id spec.InstanceID, why string, busy bool, now time.Time) {
	l.mu.Lock()
	a := l.attempts[id]
	moved := a.why != why
	if busy != a.busy {
		a.tries, a.opens = 0, time.Time{}
	}
	if end := l.moved.Add(l.delay); !busy && a.opens.IsZero() && end.After(now) {
		a.opens = end
	}
	a.busy, a.why, a.last = busy, why, now
	wait := a.pause(now)
	if wait == lockBusy {
		wait += rand.N(lockBusy / 5)
	}
	a.next = now.Add(wait)
	a.tries++
	l.attempts[id] = a
	l.mu.Unlock()
	if moved {
		l.changed()
	}
}
