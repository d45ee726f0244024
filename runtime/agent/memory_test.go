package agent

import (
	"runtime"
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
