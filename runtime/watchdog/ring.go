package watchdog

import (
	"sync"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ringSize is how many events are kept in memory, for clients that wait for
// more, and for all clients while the disk is full.
const ringSize = 512

// burstPause is how often waiting clients are woken during a burst: what they
// do with a thousand starts takes processor time from the processes that are
// still to be forked.
const burstPause = 250 * time.Millisecond

// ring keeps the last events and wakes those who wait for more. Adding never
// blocks: a slow reader reads from the journal's files.
type ring struct {
	mu     sync.Mutex // guards all below
	events []spec.Event
	start  int // index of the oldest once the ring is full
	last   uint64
	more   chan struct{} // closed when there is an event since it was made
	added  int           // number of events since more was closed
	woken  time.Time     // when more was closed last
}

// newRing returns a ring whose next event follows number last.
func newRing(last uint64) *ring { return &ring{last: last, more: make(chan struct{})} }

// add adds events and drops the oldest beyond the bound. It wakes those who
// wait, but only now and then if more events will follow at once.
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
	r.added += len(events)
	if r.added == 0 || (more && r.added < ringSize/2 && time.Since(r.woken) < burstPause) {
		return
	}
	close(r.more)
	r.more = make(chan struct{})
	r.added, r.woken = 0, time.Now()
}

// after returns up to limit events after seq, and whether the ring goes back
// that far. The channel is closed when there are later events.
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

// bounds returns the number of the oldest event in the ring, or of the next one
// if it is empty, and the number of the last event.
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
