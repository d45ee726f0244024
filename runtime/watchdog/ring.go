package watchdog

import (
	"sync"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ringSize is how many of the last events are kept in memory, for those who
// follow, and for all while the disk is full.
const ringSize = 512

// burstPause is how often those who follow are woken while there is more to
// come at once: what they do with a thousand starts takes the processors from
// those that are still to be forked.
const burstPause = 250 * time.Millisecond

// ring holds the last events and wakes those who wait for more. Adding never
// blocks: who reads too slowly reads from the journal's files.
type ring struct {
	mu     sync.Mutex // guards all below
	events []spec.Event
	start  int // index of the oldest once the ring is full
	last   uint64
	more   chan struct{} // closed when there is an event since it was made
	untold int           // how many were added since it was closed
	told   time.Time     // when it was closed last
}

// newRing returns a ring that goes on after event last.
func newRing(last uint64) *ring { return &ring{last: last, more: make(chan struct{})} }

// add keeps events and forgets the oldest beyond the bound. Those who wait are
// woken, but where there are more to come at once, only now and then.
func (r *ring) add(events []spec.Event, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if len(r.events) < ringSize {
			r.events = append(r.events, e)
		} else {
			r.events[r.start] = e
			r.start = (r.start + 1) % ringSize
		}
		r.last = e.Seq
	}
	r.untold += len(events)
	if r.untold == 0 || (more && r.untold < ringSize/2 && time.Since(r.told) < burstPause) {
		return
	}
	close(r.more)
	r.more = make(chan struct{})
	r.untold, r.told = 0, time.Now()
}

// after returns up to limit events that follow seq, and whether the ring goes
// back that far. The channel is closed when there is more than that.
func (r *ring) after(seq uint64, limit int) (events []spec.Event, ok bool, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq == r.last {
		return nil, true, r.more
	}
	n := len(r.events)
	if n == 0 || seq > r.last || seq+1 < r.events[r.start%n].Seq {
		return nil, false, r.more
	}
	skip := int(seq + 1 - r.events[r.start%n].Seq)
	for i := skip; i < n && len(events) < limit; i++ {
		events = append(events, r.events[(r.start+i)%n])
	}
	return events, true, r.more
}

// bounds returns the number of the oldest event in the ring, or of the next
// one if it is empty, and of the last event.
func (r *ring) bounds() (first, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		return r.last + 1, r.last
	}
	return r.events[r.start%len(r.events)].Seq, r.last
}

// wait returns the number of the last event, and a channel that is closed when
// there is a later one.
func (r *ring) wait() (last uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.more
}
