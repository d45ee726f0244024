package watchdog

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// The shortest delays, whatever a policy says, where a delay of 0 would loop
// without end: before the next attempt to take a lock that another copy holds,
// and between restarts after the attempts are exhausted.
const (
	minLockDelay  = 50 * time.Millisecond
	minRetryDelay = 100 * time.Millisecond
)

// history is what the restart policy remembers of an instance.
type history struct {
	// Tries are the times of the restarts within the window, oldest first.
	Tries []time.Time `json:"tries,omitempty"`
	// Streak counts the restarts since the instance was last stable: the
	// exponent of the backoff.
	Streak int `json:"streak,omitempty"`
	// Exhausted is set once the attempts are exhausted, until it is stable.
	Exhausted bool `json:"exhausted,omitempty"`
}

// ending is how a generation ended, as far as the policy cares.
type ending struct {
	// success: it exited with 0, as far as is known, and not because meshrun
	// killed it.
	success bool
	// locked: it was not started, since another copy holds its lock. That counts
	// as no attempt.
	locked bool
}

// decision is what the restart policy decides.
type decision struct {
	event event     // evRetry, evDone or evGiveUp
	at    time.Time // of the next start, for evRetry
	// exhausted is set if the attempts have just been exhausted, for an alert.
	exhausted bool
	reason    string
	history   history
}

// decide says whether and when an instance that ended at now is restarted. The
// seed determines the jitter: the same seed gives the same answer.
func decide(p spec.Restart, h history, end ending, now time.Time, seed uint64) decision {
	if end.locked {
		wait := max(delay(p, h.Streak, seed), minLockDelay)
		h.Streak++
		return decision{event: evRetry, at: now.Add(wait), history: h, reason: "another copy still holds the lock"}
	}
	switch {
	case p.Policy == spec.RestartNever && end.success, p.Policy == spec.RestartOnFailure && end.success:
		return decision{event: evDone, history: h}
	case p.Policy == spec.RestartNever:
		return decision{event: evGiveUp, history: h, reason: "its restart policy is never"}
	}
	h.Tries = recent(h.Tries, p.Window.Std(), now)
	if len(h.Tries) < p.Attempts {
		wait := delay(p, h.Streak, seed)
		h.Tries = append(h.Tries[:len(h.Tries):len(h.Tries)], now)
		h.Streak++
		return decision{event: evRetry, at: now.Add(wait), history: h}
	}
	first := !h.Exhausted
	h.Exhausted = true
	if p.Exhausted != spec.ExhaustedRetry {
		return decision{event: evGiveUp, exhausted: true, reason: usedUp(p), history: h}
	}
	h.Streak++
	wait := max(jitter(p.MaxDelay.Std(), seed), minRetryDelay)
	return decision{event: evRetry, at: now.Add(wait), exhausted: first, history: h,
		reason: usedUp(p) + "; retrying every " + p.MaxDelay.String()}
}

func usedUp(p spec.Restart) string {
	if p.Attempts == 1 {
		return fmt.Sprintf("the one restart within %s is used up", p.Window)
	}
	return fmt.Sprintf("%d restarts within %s are used up", p.Attempts, p.Window)
}

// recent returns the tries within the window; all of them if there is no
// window. Times in the future (the clock was set back) count.
func recent(tries []time.Time, window time.Duration, now time.Time) []time.Time {
	if window <= 0 {
		return tries
	}
	for len(tries) > 0 && now.Sub(tries[0]) >= window {
		tries = tries[1:]
	}
	return tries
}

// delay is the wait before the restart after n others: Delay, doubled n times,
// at most MaxDelay, with jitter.
func delay(p spec.Restart, n int, seed uint64) time.Duration {
	d, limit := p.Delay.Std(), p.MaxDelay.Std()
	for ; n > 0 && d > 0 && d < limit; n-- {
		d *= 2
	}
	if limit > 0 {
		d = min(d, max(limit, p.Delay.Std()))
	}
	return jitter(d, seed)
}

// jitter changes a wait by up to a tenth, so that instances that failed
// together do not restart together. Zero stays zero.
func jitter(d time.Duration, seed uint64) time.Duration {
	const steps = 2001
	tenth := int64(d) / 10
	off := int64(seed%steps) - steps/2 // -1000 … 1000
	return d + time.Duration(tenth/1000*off+tenth%1000*off/1000)
}

// seedOf is the seed of an instance's generation.
func seedOf(id spec.InstanceID, generation uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s#%d", id, generation)
	return h.Sum64()
}

// stable is the history of an instance that ran for its stable time: its
// backoff begins anew, while its restarts still count in their window.
func (h history) stable() history {
	h.Streak, h.Exhausted = 0, false
	return h
}
