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
	burstSize = 8 << 20
)

// rest gives memory back to the system once a burst of work, such as the start
// of a thousand processes, is over: the runtime by itself would keep much of
// the room that the burst took. It costs nothing while nothing happens, for it
// is woken by collections of garbage only.
type rest struct {
	timer *time.Timer

	mu    sync.Mutex // guards freed
	freed uint64     // what had been allocated when memory was last given back
}

// restBetweenBursts does so until the process ends.
func restBetweenBursts() {
	r := &rest{}
	r.timer = time.AfterFunc(restAfter, func() { r.free() })
	r.collected()
}

// collected puts the end of the burst off, now and after every collection.
func (r *rest) collected() {
	r.timer.Reset(restAfter)
	sentinel := new(*rest)
	runtime.AddCleanup(sentinel, (*rest).collected, r)
}

// free gives memory back if there was a burst since it last did, and reports
// whether it has. That collects garbage too, but is no burst.
func (r *rest) free() bool {
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
