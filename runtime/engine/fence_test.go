package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

func TestExclusiveShardsLiveUnderTheLeaseOfTheirSession(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0), proc("web", 0))
		settled()
		holder, index := r.lock("shop/solo/0")
		lease, token := r.launch("shop/solo/0")
		if holder != r.session || lease != r.session || token != fmt.Sprint(index) {
			t.Errorf("locked by %q at %d, declared under %q with token %s", holder, index, lease, token)
		}
		if lease, _ := r.launch("shop/web/0"); lease != "" {
			t.Errorf("what is not exclusive lives under %q", lease)
		}
	})
}

func TestWithoutASessionNothingIsDeclaredAndNothingEnds(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0))
		settled()
		old := r.session
		_, before := r.launch("shop/solo/0")
		r.dog.takeCalls()
		r.spy.counts()
		r.become("")
		edited := exclusive("solo", 0, 1)
		edited.Process.Command = append(edited.Process.Command, "-v")
		r.assign("shop", edited, proc("web", 0))
		time.Sleep(time.Hour)
		synctest.Wait()
		// Others count the node as gone: what they assign meanwhile is no order.
		want(t, r.dog.takeCalls(), nil)
		if gets, locks := r.spy.counts(); gets+locks != 0 {
			t.Errorf("without a session %d locks were read and %d tried", gets, locks)
		}
		want(t, r.observed("shop"), []string{"shop/solo/0 running"})

		// The next session has to take the lock anew, and must wait for its delay.
		if err := r.store.DestroySession(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		r.become(r.create("n1"))
		settled()
		want(t, r.started("shop/solo/0"), 1)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		lease, after := r.launch("shop/solo/0")
		if lease != r.session || after <= before && len(after) == len(before) {
			t.Errorf("declared under %q with token %s, before it was %s", lease, after, before)
		}
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/solo/0"): 2, id("shop/solo/1"): 1, id("shop/web/0"): 1})
	})
}

// What the session before held says nothing of the next one.
func TestNewSessionDeclaresNothingUnderTheOldOnesTokens(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0))
		settled()
		r.dog.takeCalls()
		r.spy.mu.Lock()
		r.spy.away = true
		r.spy.mu.Unlock()
		r.become(r.create("n1"))
		edited := exclusive("solo", 0)
		edited.Process.Command = append(edited.Process.Command, "-v")
		r.assign("shop", edited)
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, r.dog.takeCalls(), nil)
	})
}

// The session has ended, and the agent does not know it yet.
func TestEndedSessionTakesNoLockAndStopsNothing(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0))
		settled()
		r.dog.takeCalls()
		if err := r.store.DestroySession(t.Context(), r.session); err != nil {
			t.Fatal(err)
		}
		r.Refresh()
		settled()
		r.assign("shop", exclusive("solo", 0, 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, r.dog.takeCalls(), nil)
		r.become(r.create("n1"))
		settled()
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/solo/0"): 2, id("shop/solo/1"): 1})
	})
}

// Others start what is reported gone: so its lock is free by then.
func TestLockIsReleasedBeforeItsShardIsReportedGone(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0), proc("web", 0))
		settled()
		var order []string
		var released, gone time.Time
		r.spy.mu.Lock()
		r.spy.before = func(ops []state.Op) {
			r.law(ops)
			for _, op := range ops {
				switch {
				case op.Kind == state.OpUnlock:
					time.Sleep(20 * time.Millisecond) // the store takes its time
					released, order = time.Now(), append(order, "released")
				case op.Key == state.ObservedKey("n1", "shop") && !strings.Contains(string(op.Value), "solo"):
					gone, order = time.Now(), append(order, "gone")
				}
			}
		}
		r.spy.mu.Unlock()
		r.assign("shop", proc("web", 0))
		settled()
		want(t, order, []string{"released", "gone"})
		if late := gone.Sub(released); late > 10*time.Millisecond {
			t.Errorf("it was reported %s after its lock was free", late)
		}
		want(t, r.observed("shop"), []string{"shop/web/0 running"})
		want(t, len(r.Instances()), 1)
	})
}

func TestManyLocksAreReleasedTogether(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		shards := make([]int, 100)
		for i := range shards {
			shards[i] = i
		}
		r.assign("shop", exclusive("solo", shards...))
		settled()
		if _, locks := r.spy.counts(); locks != 2 {
			t.Errorf("100 locks were taken in %d transactions", locks)
		}
		r.seize("shop/solo/7", r.create("n2")) // of these one is not ours any more
		unlocks := 0
		r.spy.mu.Lock()
		r.spy.before = func(ops []state.Op) {
			r.law(ops)
			if ops[0].Kind == state.OpUnlock {
				unlocks++
			}
		}
		r.spy.mu.Unlock()
		r.assign("shop")
		settled()
		if unlocks > 25 {
			t.Errorf("100 locks were released in %d transactions", unlocks)
		}
		left, _, err := r.store.List(t.Context(), state.ShardLocksPrefix)
		if err != nil || len(left) != 1 || left[0].Session == r.session {
			t.Errorf("left are %+v, %v", left, err)
		}
		want(t, r.observed("shop"), nil)
	})
}

// An operator has deleted the key. Somebody may have had the lock since.
func TestLostLockStopsItsShardAndIsTakenAnew(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0), proc("web", 0))
		settled()
		_, before := r.launch("shop/solo/0")
		r.dog.takeCalls()
		op := state.Op{Kind: state.OpDelete, Key: state.ShardLock(id("shop/solo/0"))}
		if _, err := r.store.Txn(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		r.Refresh()
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"-shop/solo/0"}, {"+shop/solo/0"}})
		holder, index := r.lock("shop/solo/0")
		_, token := r.launch("shop/solo/0")
		if holder != r.session || token != fmt.Sprint(index) || token == before {
			t.Errorf("locked by %q at %d; the token was %s and is %s", holder, index, before, token)
		}
		want(t, r.observed("shop"), []string{"shop/solo/0 running", "shop/web/0 running"})
	})
}

func TestLockThatAnotherTookStopsItsShard(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		held := exclusive("solo", 0)
		r.assign("shop", held)
		settled()
		others := r.create("n2")
		r.seize("shop/solo/0", others)
		held.Held = map[int]string{0: "waits for db"} // is no reason to go on
		r.assign("shop", held)
		r.Refresh()
		settled()
		want(t, len(r.dog.table), 0)
		delete(held.Held, 0)
		r.assign("shop", held)
		settled()
		want(t, r.observed("shop"), []string{"shop/solo/0 pending shard is locked by session " + others + " on node n2"})
		if holder, _ := r.lock("shop/solo/0"); holder != others {
			t.Errorf("it is locked by %q", holder)
		}
	})
}

// The answer of the watchdog is lost and the shard is withdrawn before anything
// is heard of it. It runs: its lock must be kept.
func TestDoubtfulDeclarationKeepsItsLock(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", proc("web", 0))
		settled()
		r.dog.mu.Lock()
		r.dog.mute, r.dog.slow = true, true
		r.dog.answer = func() error {
			r.dog.answer = nil
			r.assign("shop", proc("web", 0))
			return errAway
		}
		r.dog.mu.Unlock()
		r.assign("shop", exclusive("solo", 0), proc("web", 0))
		settled()
		if holder, _ := r.lock("shop/solo/0"); holder != r.session {
			t.Errorf("its lock is held by %q while it is %s", holder, r.dog.table[id("shop/solo/0")].Phase)
		}
		r.dog.mu.Lock()
		r.dog.mute = false
		r.dog.gone(id("shop/solo/0"))
		r.dog.mu.Unlock()
		settled()
		if holder, _ := r.lock("shop/solo/0"); holder != "" {
			t.Errorf("its lock is held by %q though it is gone", holder)
		}
		want(t, r.observed("shop"), []string{"shop/web/0 running"})
	})
}

// The store has taken the lock, and its answer is lost.
func TestLockThatWasTakenUnheardIsFound(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.spy.mu.Lock()
		r.spy.mute = true
		r.spy.mu.Unlock()
		r.assign("shop", exclusive("solo", 0))
		settled()
		holder, index := r.lock("shop/solo/0")
		if _, token := r.launch("shop/solo/0"); holder != r.session || token != fmt.Sprint(index) {
			t.Errorf("its token is %s, the lock was taken at %d", token, index)
		}
	})
}

func TestStopOfAWantedShardRemovesIt(t *testing.T) {
	x := id("shop/solo/0")
	stop := []Wanted{{ID: x, Why: "its lock is lost", Stop: true}}
	for name, c := range map[string]struct {
		running  []spec.Instance
		declared map[spec.InstanceID]Declared
		remove   bool
	}{
		"runs":            {running: []spec.Instance{{ID: x}}, remove: true},
		"declared":        {declared: map[spec.InstanceID]Declared{x: {Digest: 1}}, remove: true},
		"unknown":         {},
		"removed already": {[]spec.Instance{{ID: x}}, map[spec.InstanceID]Declared{x: {Removed: true}}, false},
	} {
		a := Converge(stop, c.running, c.declared)
		if slices.Contains(a.Remove, x) != c.remove || len(a.Declare) > 0 || a.Pending[x].Reason == "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestTableThatWasReadBeforeTheMirrorWasLostIsNotFollowed(t *testing.T) {
	v := newView("n1", &locks{})
	before := v.syncLosses()
	v.unsync()
	v.reset(nil, before)
	if _, synced := v.running(); synced {
		t.Error("what was read before is taken for what is")
	}
	v.reset(nil, v.syncLosses())
	if _, synced := v.running(); !synced {
		t.Error("what was read since is not taken over")
	}
}

// Who moves to a cluster starts its agent on an empty store, and then brings
// the state there.
func TestAStoreThatNeverHadAJobStopsNothing(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", proc("web", 0))
		settled()
		r.stop()
		r.wipe()
		r.dog.takeCalls()
		r.start()
		settled()
		want(t, r.dog.takeCalls(), nil)
		r.put(state.HistoryKey("other", 1))
		r.assign("other", proc("new", 0))
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+other/new/0", "-shop/web/0"}})
	})
}

func TestAStoreThatHasLostEverythingStopsNothing(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", proc("web", 0))
		settled()
		r.dog.takeCalls()
		r.wipe()
		settled()
		want(t, r.dog.takeCalls(), nil)
	})
}
