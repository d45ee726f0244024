package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// A process may say something else of itself many times a second.
func TestWhatAProcessSaysOfItselfIsReportedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer func() { r.close() }()
		r.assign("shop", proc("web", 0))
		settled()
		observed := func() (uint64, spec.Instance) {
			seen, e, err := state.GetAs[spec.Observed](t.Context(), r.store, state.ObservedKey("n1", "shop"))
			if err != nil || len(seen.Instances) != 1 {
				t.Fatalf("%+v, %v", seen, err)
			}
			return e.ModifyIndex, seen.Instances[0]
		}
		say := func(change func(*spec.Instance)) {
			r.dog.mu.Lock()
			defer r.dog.mu.Unlock()
			inst := r.dog.table[id("shop/web/0")]
			change(&inst)
			r.dog.table[inst.ID] = inst
			r.dog.emit(spec.EventStatus, inst)
		}
		writes, last := 0, uint64(0)
		for range 10 * 60 * 5 {
			say(func(in *spec.Instance) { in.Status = time.Now().String() })
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			if index, _ := observed(); index != last {
				writes, last = writes+1, index
			}
		}
		if writes < 9 || writes > 12 {
			t.Errorf("in ten minutes it was written %d times", writes)
		}
		say(func(in *spec.Instance) { in.Status = "the last word" })
		time.Sleep(statusEvery + time.Second)
		synctest.Wait()
		if _, in := observed(); in.Status != "the last word" {
			t.Errorf("it is said to say %q", in.Status)
		}
		say(func(in *spec.Instance) { in.Status, in.Restarts = "again", 1 })
		settled()
		if _, in := observed(); in.Restarts != 1 || in.Status != "again" {
			t.Errorf("what has happened waits: %+v", in)
		}
	})
}
