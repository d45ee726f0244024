package agent

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// restAfter is how long no garbage must have been collected for a burst of
	// work to count as over.
	restAfter = 3 * time.Second
	// burstSize is how much must have been allocated for it to be a burst.
	burstSize = 1 << 20
	// While a burst goes on, garbage may become as much as what is in use before
	// it is collected, as is usual. With more, what stays would lie scattered
	// among what goes, in pages that cannot be given back.
	burstGarbage = 100
	// Else garbage may become but a fifth: who has come to rest collects no more,
	// and would hold it for good.
	restGarbage = 20
)

// rest gives memory back to the system once a burst of work, such as the start
// of a thousand processes, is over: the runtime by itself would keep much of
// the room that the burst took. It costs nothing while nothing happens, for it
// is woken by collections of garbage only.
type rest struct {
	timer *time.Timer

	mu    sync.Mutex // guards what is below, and the runtime's setting
	freed uint64     // what had been allocated when memory was last given back
	burst bool       // burstGarbage is set, in the place of restGarbage
}

// restBetweenBursts does so until the process ends.
func restBetweenBursts() {
	r := &rest{}
	r.timer = time.AfterFunc(restAfter, func() { r.free() })
	r.collected()
}

// collected puts the end of the burst off, now and after every collection.
func (r *rest) collected() {
	r.allow(true)
	r.timer.Reset(restAfter)
	sentinel := new(*rest)
	runtime.AddCleanup(sentinel, (*rest).collected, r)
}

// allow sets how much garbage there may be.
func (r *rest) allow(burst bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.burst == burst {
		return
	}
	r.burst = burst
	percent := restGarbage
	if burst {
		percent = burstGarbage
	}
	debug.SetGCPercent(percent)
}

// free gives memory back if there was a burst since it last did, and reports
// whether it has. That collects garbage too, but is no burst.
func (r *rest) free() bool {
	r.allow(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	if allocated()-r.freed < burstSize {
		return false
	}
	debug.FreeOSMemory()
	r.freed = allocated()
	return true
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
