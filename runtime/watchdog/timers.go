package watchdog

import (
	"container/heap"
	"time"
)

// timerKind is what an instance can wait for. Each instance has at most one
// timer of each kind.
type timerKind uint8

// The kinds of timers.
const (
	timerStart    timerKind = iota // the next start is due
	timerReady                     // READY=1 is overdue
	timerStop                      // the stop is overdue
	timerStable                    // has run for its stable time
	timerWatchdog                  // WATCHDOG=1 is overdue
	timerExit                      // give up waiting for the exit code
	timerLost                      // lost output may be reported again
	timerLock                      // try again to take the lock
	numTimers
)

// timer is one deadline of an instance.
type timer struct {
	at    time.Time
	in    *instance
	kind  timerKind
	index int // in the heap; -1 if not set
}

// timerHeap orders timers by their time: the loop sleeps until the first.
type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push and Pop are heap.Interface's.
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}

// set arms an instance's timer, or moves it.
func (h *timerHeap) set(in *instance, kind timerKind, at time.Time) {
	t := in.timers[kind]
	if t == nil {
		t = &timer{in: in, kind: kind, index: -1}
		in.timers[kind] = t
	}
	t.at = at
	if t.index >= 0 {
		heap.Fix(h, t.index)
	} else {
		heap.Push(h, t)
	}
}

// clear disarms an instance's timers of the kinds.
func (h *timerHeap) clear(in *instance, kinds ...timerKind) {
	for _, k := range kinds {
		if t := in.timers[k]; t != nil && t.index >= 0 {
			heap.Remove(h, t.index)
		}
	}
}

// due removes and returns the first timer if its time has come.
func (h *timerHeap) due(now time.Time) *timer {
	if len(*h) == 0 || (*h)[0].at.After(now) {
		return nil
	}
	return heap.Pop(h).(*timer)
}

// extend moves the deadlines of what an instance is doing to a later time.
func (h *timerHeap) extend(in *instance, until time.Time) {
	for _, k := range [...]timerKind{timerReady, timerStop, timerWatchdog} {
		if t := in.timers[k]; t != nil && t.index >= 0 && t.at.Before(until) {
			h.set(in, k, until)
		}
	}
}
