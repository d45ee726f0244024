package engine

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// A failed transaction is a write to Consul's log: it must not be repeated as
// long as the holder lives.
func TestLockOfALiveHolderIsNotHammered(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		others := r.create("n2")
		r.seize("shop/solo/0", others)
		r.spy.counts()
		r.assign("shop", exclusive("solo", 0))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		gets, locks := r.spy.counts()
		if locks != 1 || gets > 10*60/5+10 {
			t.Errorf("in ten minutes it was tried %d times and read %d times", locks, gets)
		}
		for range 100 {
			r.Refresh()
			synctest.Wait()
		}
		time.Sleep(time.Second)
		if gets, locks := r.spy.counts(); locks != 0 || gets > 5 {
			t.Errorf("a hundred refreshes at once tried it %d times and read it %d times", locks, gets)
		}
		op := state.Op{Kind: state.OpUnlock, Key: state.ShardLock(id("shop/solo/0")), Session: others}
		if _, err := r.store.Txn(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lockBusy + lockBusy/5 + time.Second)
		synctest.Wait()
		want(t, r.started("shop/solo/0"), 1)
	})
}

func TestRetryTriesAFreedLockAtOnce(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		others := r.create("n2")
		r.seize("shop/solo/0", others)
		r.assign("shop", exclusive("solo", 0))
		time.Sleep(time.Hour)
		op := state.Op{Kind: state.OpUnlock, Key: state.ShardLock(id("shop/solo/0")), Session: others}
		if _, err := r.store.Txn(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		r.Retry()
		time.Sleep(lockFirst + 10*time.Millisecond)
		synctest.Wait()
		want(t, r.started("shop/solo/0"), 1)
	})
}

func TestLockDelayIsWaitedFor(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		others := r.create("n2")
		r.seize("shop/solo/0", others)
		if err := r.store.DestroySession(t.Context(), others); err != nil {
			t.Fatal(err)
		}
		r.spy.counts()
		r.assign("shop", exclusive("solo", 0))
		time.Sleep(testDelay + lockRetry)
		synctest.Wait()
		want(t, r.started("shop/solo/0"), 1)
		if _, locks := r.spy.counts(); locks > 9 {
			t.Errorf("it was tried %d times in a lock delay of 5s", locks)
		}
	})
}

// The shards of a node that is lost are placed within its lock delay. Who was
// told when it went takes their locks as soon as that is over.
func TestALockIsTakenInTheMomentInWhichItsDelayEnds(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		for _, late := range []time.Duration{0, 120 * time.Millisecond, 3 * time.Second} {
			name := "solo" + strings.Repeat("o", int(late/(100*time.Millisecond)))
			others := r.create("n2")
			r.seize("shop/"+name+"/0", others)
			if err := r.store.DestroySession(t.Context(), others); err != nil {
				t.Fatal(err)
			}
			r.Retry()
			time.Sleep(late)
			r.spy.counts()
			r.assign("shop", exclusive(name, 0))
			time.Sleep(testDelay - late - time.Millisecond)
			synctest.Wait()
			want(t, r.started("shop/"+name+"/0"), 0)
			time.Sleep(time.Millisecond + lockSoon)
			synctest.Wait()
			want(t, r.started("shop/"+name+"/0"), 1)
			if _, locks := r.spy.counts(); locks > 10 {
				t.Errorf("assigned %v after the loss, it was tried %d times", late, locks)
			}
		}
	})
}

// A node may be lost in the delay of another one: each has its own end.
func TestASecondLossPutsOffNoLockOfTheFirst(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		first, second := r.create("n2"), r.create("n3")
		r.seize("shop/solo/0", first)
		r.seize("shop/solo/1", second)
		r.assign("shop", exclusive("solo", 0, 1))
		settled()
		lose := func(session string) {
			if err := r.store.DestroySession(t.Context(), session); err != nil {
				t.Fatal(err)
			}
			r.Retry()
		}
		lose(first)
		time.Sleep(1700 * time.Millisecond)
		lose(second)
		time.Sleep(testDelay - 1700*time.Millisecond + lockSoon)
		synctest.Wait()
		want(t, r.started("shop/solo/0"), 1)
		want(t, r.started("shop/solo/1"), 0)
		time.Sleep(1700 * time.Millisecond)
		synctest.Wait()
		want(t, r.started("shop/solo/1"), 1)
	})
}

// The other node may have a longer fence, or have been lost later than it seemed.
func TestALockThatOpensLaterThanItShouldIsNotHammered(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		others, err := r.store.CreateSession(t.Context(), state.SessionConfig{Node: "n2", LockDelay: 50 * time.Second, Behavior: state.BehaviorDelete})
		if err != nil {
			t.Fatal(err)
		}
		r.seize("shop/solo/0", others)
		if err := r.store.DestroySession(t.Context(), others); err != nil {
			t.Fatal(err)
		}
		r.Retry()
		r.spy.counts()
		r.assign("shop", exclusive("solo", 0))
		time.Sleep(50*time.Second + lockRetry)
		synctest.Wait()
		want(t, r.started("shop/solo/0"), 1)
		if _, locks := r.spy.counts(); locks > 51+int(lockRetry/lockSoon)+5 {
			t.Errorf("it was tried %d times in 50 s", locks)
		}
	})
}

// The store was put back to when this node had the lock; another one runs the
// shard. The agent gives its session up when it reads its orders of then.
func TestALockThatAStorePutBackReturnsIsNotUsed(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		own, others := r.session, r.create("n2")
		r.seize("shop/solo/0", others)
		r.assign("shop", exclusive("solo", 0)) // and waits for the other one
		settled()
		r.spy.mu.Lock()
		r.spy.fresh = func() { r.become("") }
		r.spy.mu.Unlock()
		op := state.Op{Kind: state.OpUnlock, Key: state.ShardLock(id("shop/solo/0")), Session: others}
		if _, err := r.store.Txn(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		holder, _ := r.lock("shop/solo/0")
		if want(t, r.started("shop/solo/0"), 0); holder != own {
			t.Fatalf("it was not tried: the lock is held by %q", holder)
		}
	})
}

// All nodes hear of each that comes or goes.
func TestANodeThatComesCostsNobodyAReadOfAllLocks(t *testing.T) {
	fenced(t, func(t *testing.T, r *fencedRig) {
		r.assign("shop", exclusive("solo", 0), proc("web", 0))
		settled()
		r.spy.mu.Lock()
		before := r.spy.lists
		r.spy.mu.Unlock()
		for range 10 {
			r.Retry()
			settled()
		}
		r.spy.mu.Lock()
		after := r.spy.lists
		r.spy.mu.Unlock()
		want(t, after-before, 0)

		// And yet it is seen that somebody has taken a lock away.
		r.seize("shop/solo/0", r.create("n2"))
		r.Retry()
		settled()
		if phases := r.observed("shop"); len(phases) == 0 || strings.HasPrefix(phases[0], "shop/solo/0 running") {
			t.Errorf("its lock is another's, and seen is %q", phases)
		}
	})
}
