package engine

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// within runs a test of a running engine in a bubble with virtual time.
func within(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer func() { r.close() }()
		test(t, r)
	})
}

func want[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func settled() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func TestOnlyWhatChangedIsDeclared(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", proc("web", 0, 1), proc("db", 0))
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+shop/db/0", "+shop/web/0", "+shop/web/1"}})
		want(t, r.observed("shop"), []string{"shop/db/0 running", "shop/web/0 running", "shop/web/1 running"})

		db := proc("db", 0)
		db.Process.Restart.Attempts = 7 // a policy
		web := proc("web", 0, 1)
		web.Process.Command = append(web.Process.Command, "-v")
		r.assign("shop", web, db)
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+shop/web/0", "+shop/web/1"}, {"+shop/db/0"}})
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/db/0"): 1, id("shop/web/0"): 2, id("shop/web/1"): 2})

		r.assign("shop", web, db) // the same again
		r.assign("other", proc("x", 0))
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+other/x/0"}})

		r.assign("shop")
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"-shop/db/0", "-shop/web/0", "-shop/web/1"}})
		want(t, r.observed("shop"), nil)
		want(t, r.observed("other"), []string{"other/x/0 running"})
	})
}

func TestHeldShardsWaitAndRunningOnesStay(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		held := proc("web", 0)
		held.Held = map[int]string{0: "waits for db"}
		r.assign("shop", held)
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		want(t, r.observed("shop"), []string{"shop/web/0 pending waits for db"})
		r.assign("shop", proc("web", 0))
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+shop/web/0"}})
		held.Process.Command = []spec.Template{"another"}
		r.assign("shop", held)
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		want(t, r.observed("shop"), []string{"shop/web/0 running kept as it is: waits for db"})
	})
}

func TestNothingStopsWhileSomethingIsAway(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", proc("web", 0))
		settled()
		r.dog.takeCalls()
		r.dog.setAway(true)
		settled()
		r.assign("shop", proc("web", 0), proc("db", 0))
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		r.dog.setAway(false)
		time.Sleep(2 * lastRetry)
		settled()
		// What was declared before may be unknown to a new watchdog: told again.
		want(t, r.dog.takeCalls(), [][]string{{"+shop/db/0"}, {"+shop/web/0"}})
		want(t, r.dog.starts[id("shop/web/0")], 1)

		key := state.AssignmentKey("n1", "shop")
		if _, err := r.store.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: key, Value: []byte("{broken")}); err != nil {
			t.Fatal(err)
		}
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		r.stop()
		r.start() // it never saw the good one
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		want(t, len(r.dog.table), 2)
	})
}

// An instance that goes away while a step looks at what runs is not removed
// once more: nothing would ever tell that it is gone, and its lock would stay.
func TestWhatHasJustGoneIsNotRemovedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var meanwhile func()
		account := r.cfg.Host.Account
		r.cfg.Host.Account = func(name string) (Account, error) {
			if f := meanwhile; f != nil {
				meanwhile = nil
				f()
			}
			return account(name)
		}
		r.start()
		defer func() { r.close() }()
		r.assign("shop", proc("web", 0))
		settled()
		r.dog.mu.Lock()
		r.dog.slow = true
		r.dog.mu.Unlock()
		r.assign("shop")
		settled()
		r.dog.takeCalls()
		meanwhile = func() {
			r.dog.mu.Lock()
			r.dog.gone(id("shop/web/0"))
			r.dog.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		r.assign("other", proc("x", 0))
		settled()
		want(t, r.dog.takeCalls(), [][]string{{"+other/x/0"}})
		want(t, r.knows(id("shop/web/0")), false)
	})
}

func TestAgentRestartTouchesNothing(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		web := proc("web", 0, 1)
		web.Process.Ports = []spec.Port{{Name: "http"}}
		web.Process.Command = append(web.Process.Command, "${ports}")
		r.assign("shop", web)
		settled()
		ports := r.dog.launches[id("shop/web/0")].Ports
		if p := ports["http"]; p < FirstPort || p > LastPort {
			t.Errorf("port %d", p)
		}
		r.stop()
		if _, err := r.store.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: state.ObservedKey("n1", "shop")}); err != nil {
			t.Fatal(err)
		}
		r.cfg.Host.PortFree = func(p int) bool { return p != ports["http"] } // its process listens
		r.assign("shop", web, proc("new", 0))
		r.start()
		settled()
		want(t, r.dog.launches[id("shop/web/0")].Ports, ports)
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/web/0"): 1, id("shop/web/1"): 1, id("shop/new/0"): 1})
	})
}

func TestOwnInstancesAreLeftAlone(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.dog.mu.Lock()
		r.dog.table[id("meshrun/agent/0")] = spec.Instance{ID: id("meshrun/agent/0"), Phase: spec.PhaseRunning}
		r.dog.mu.Unlock()
		r.stop()
		r.start()
		settled()
		want(t, len(r.dog.takeCalls()), 0)
		want(t, len(r.Instances()), 0)
		want(t, r.observed("meshrun"), nil)
	})
}

func TestALaunchThatCannotBeMadeStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer func() { r.close() }()
		bad, user := proc("bad", 0), proc("user", 0)
		bad.Process.Command = []spec.Template{"${bad}"}
		user.Process.User = "nobody-here:staff"
		r.assign("shop", bad, user, proc("web", 0))
		settled()
		want(t, r.observed("shop"), []string{
			"shop/bad/0 failed make launch of shop/bad/0: fill in command[0]: no such thing as bad",
			"shop/user/0 failed make launch of shop/user/0: look up user: unknown user nobody-here",
			"shop/web/0 running",
		})
		for _, in := range r.Instances() {
			if refused := in.ID.Process != "web"; (in.Refused == user.Version) != refused {
				t.Errorf("version %d of %s is refused: %v", in.Refused, in.ID, refused)
			}
		}
		time.Sleep(5 * faultRetry)
		want(t, len(r.agent.events), 2)
	})
}

func TestARefusedLaunchStopsNoOther(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("old", proc("x", 0))
		settled()
		refuse := func(ids map[spec.InstanceID]bool) {
			r.dog.mu.Lock()
			defer r.dog.mu.Unlock()
			r.dog.refuses = ids
		}
		refuse(map[spec.InstanceID]bool{id("shop/web/2"): true})
		r.assign("old")
		r.assign("shop", proc("web", 0, 1, 2, 3, 4))
		settled()
		want(t, r.observed("shop"), []string{
			"shop/web/0 running", "shop/web/1 running",
			"shop/web/2 failed the watchdog refused it: refused",
			"shop/web/3 running", "shop/web/4 running",
		})
		want(t, r.observed("old"), nil)
		refuse(nil)
		time.Sleep(2 * faultRetry)
		want(t, r.observed("shop")[2], "shop/web/2 running")
	})
}

func TestAGapInTheEventsReadsTheTableAgain(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", proc("web", 0))
		settled()
		r.dog.mu.Lock()
		inst := r.dog.table[id("shop/web/0")]
		inst.Restarts = 3
		r.dog.table[inst.ID] = inst
		r.dog.events = append(r.dog.events, spec.Event{Seq: uint64(len(r.dog.events) + 1), Type: spec.EventJournalGap})
		close(r.dog.changed)
		r.dog.changed = make(chan struct{})
		r.dog.mu.Unlock()
		settled()
		if got := r.Instances(); len(got) != 1 || got[0].Restarts != 3 {
			t.Errorf("the mirror is stale: %+v", got)
		}
		want(t, r.dog.starts[id("shop/web/0")], 1)
	})
}

func TestReportsAreBatched(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", proc("web", 0))
		settled()
		key := state.ObservedKey("n1", "shop")
		e, _ := r.store.Get(t.Context(), key)
		writes := func() (n int) {
			for range 10 {
				synctest.Wait()
				if now, _ := r.store.Get(t.Context(), key); now.ModifyIndex != e.ModifyIndex {
					e, n = now, n+1
				}
				r.dog.mu.Lock()
				inst := r.dog.table[id("shop/web/0")]
				inst.Restarts++
				r.dog.table[inst.ID] = inst
				r.dog.emit(spec.EventStarted, inst)
				r.dog.mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
			return n
		}
		if n := writes(); n != 1 {
			t.Errorf("%d writes in the first 100 ms, want the first change only", n)
		}
		settled()
		var seen spec.Observed
		last, _ := r.store.Get(t.Context(), key)
		if err := json.Unmarshal(last.Value, &seen); err != nil || seen.Instances[0].Restarts != 10 {
			t.Errorf("the last change was not reported: %+v, %v", seen, err)
		}
		_, index, _ := r.store.List(t.Context(), "")
		time.Sleep(time.Hour)
		if _, after, _ := r.store.List(t.Context(), ""); after != index {
			t.Errorf("an idle engine wrote: index %d, was %d", after, index)
		}
	})
}

func TestOutputsAreHeldWhileInstancesExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		open := &r.dog.open
		r.start()
		r.assign("shop", proc("web", 0, 1, 2))
		settled()
		want(t, open.Load(), 3)
		r.assign("shop", proc("web", 0))
		settled()
		want(t, open.Load(), 1)
		r.close()
		want(t, open.Load(), 0)
	})
}

func TestWaitInstancesReturnsWithEachChange(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		settled()
		_, version, err := r.WaitInstances(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan []spec.Instance)
		go func() {
			var instances []spec.Instance
			for after := version; len(instances) == 0; { // what is assigned may come before what runs
				var err error
				if instances, after, err = r.WaitInstances(t.Context(), after); err != nil {
					break
				}
			}
			done <- instances
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("it returned though nothing had changed")
		default:
		}
		r.assign("shop", proc("web", 0))
		want(t, len(<-done), 1)
	})
}
