package agent

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// idleHeap is how many bytes the heap holds for nothing.
func idleHeap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestTheRoomOfABurstIsGivenBackOnce(t *testing.T) {
	r := &rest{freed: allocated()}
	if r.free() {
		t.Error("memory was given back though nothing had happened")
	}
	burst := make([][]byte, 64)
	for i := range burst {
		burst[i] = make([]byte, 1<<20)
	}
	runtime.KeepAlive(burst)
	if !r.free() {
		t.Error("after a burst nothing was given back")
	}
	if n := idleHeap(); n > 16<<20 {
		t.Errorf("%d bytes are still held for nothing", n)
	}
	if r.free() {
		t.Error("one burst is over twice")
	}
}

func TestABurstMayMakeMoreGarbageUntilItIsOver(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := func() int {
		n := debug.SetGCPercent(100)
		debug.SetGCPercent(n)
		return n
	}
	r := &rest{freed: allocated()}
	r.allow(true)
	if n := percent(); n != burstGarbage {
		t.Errorf("in a burst there may be %d%% garbage", n)
	}
	r.free()
	if n := percent(); n != restGarbage {
		t.Errorf("after a burst there may be %d%% garbage", n)
	}
}
