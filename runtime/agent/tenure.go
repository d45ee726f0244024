package agent

import (
	"sync"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// renewLate is how old the last renewal of a node that is a member may be: one
// that failed once, and is repeated.
const renewLate = renewEvery + 2*renewTimeout

// tenure is what the renewals of this node's session tell: how long it has
// been a member without a break, or how long it has not been heard.
type tenure struct {
	clock func() time.Duration // CLOCK_BOOTTIME

	mu      sync.Mutex // guards all below
	session string     // "" before the first renewal, and once it is lost
	since   time.Duration
	last    time.Duration // when the last renewal was sent
}

func newTenure(clock func() time.Duration) *tenure { return &tenure{clock: clock} }

// note takes a renewal, by the lease that it gives; one that is over takes the
// session back.
func (t *tenure) note(l spec.Lease, fence time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Until == 0 {
		t.session = ""
		return
	}
	sent := time.Duration(l.Until) - fence
	if t.session != l.Session || sent-t.last > renewLate {
		t.since = sent
	}
	t.session, t.last = l.Session, sent
}

// unbroken returns for how long the node has been a member without a break; 0
// if it is none now.
func (t *tenure) unbroken() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if t.session == "" || now-t.last > renewLate {
		return 0
	}
	return now - t.since
}

// silent returns the node's session, if it has one, and how long it has not
// been renewed.
func (t *tenure) silent() (session string, silent time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session, t.clock() - t.last
}
