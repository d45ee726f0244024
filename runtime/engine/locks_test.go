package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

func TestExclusiveShardsRunUnderTheirLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		session := func(node string) string {
			s, err := r.store.CreateSession(t.Context(), state.SessionConfig{Node: node})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		mine, others := session("n1"), session("n2")
		r.agent.session = func() string { return mine }
		value, _ := json.Marshal(LockOwner{Node: "n2"})
		lock := state.Op{Kind: state.OpLock, Key: state.ShardLock(id("shop/solo/1")), Value: value, Session: others}
		if _, err := r.store.Txn(t.Context(), lock); err != nil {
			t.Fatal(err)
		}
		r.start()
		defer func() { r.close() }()
		solo := proc("solo", 0, 1)
		solo.Process.Exclusive = true
		r.assign("shop", solo, proc("web", 0))
		settled()
		e, err := r.store.Get(t.Context(), state.ShardLock(id("shop/solo/0")))
		if err != nil || e.Session != mine {
			t.Fatalf("lock: %+v, %v", e, err)
		}
		token := fmt.Sprintf("MESHRUN_TOKEN=%d", e.ModifyIndex)
		if env := r.dog.launches[id("shop/solo/0")].Env; !slices.Contains(env, token) {
			t.Errorf("%s is not in %q", token, env)
		}
		want(t, r.observed("shop"), []string{
			"shop/solo/0 running",
			"shop/solo/1 pending shard is locked by session " + others + " on node n2",
			"shop/web/0 running",
		})

		r.stop()
		r.start() // the same session: the same token
		settled()
		if env := r.dog.launches[id("shop/solo/0")].Env; !slices.Contains(env, token) {
			t.Errorf("after a restart %s is not in %q", token, env)
		}

		lock.Kind = state.OpUnlock
		if _, err := r.store.Txn(t.Context(), lock); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lockRetry)
		settled()
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/solo/0"): 1, id("shop/solo/1"): 1, id("shop/web/0"): 1})

		r.dog.mu.Lock()
		r.dog.slow = true
		r.dog.mu.Unlock()
		r.assign("shop", proc("web", 0))
		settled()
		if e, err := r.store.Get(t.Context(), state.ShardLock(id("shop/solo/0"))); err != nil || e.Session != mine {
			t.Errorf("the lock was given up while its shard still runs: %+v, %v", e, err)
		}
		r.dog.mu.Lock()
		r.dog.gone(id("shop/solo/0"))
		r.dog.mu.Unlock()
		settled()
		if e, err := r.store.Get(t.Context(), state.ShardLock(id("shop/solo/0"))); err == nil {
			t.Errorf("the lock is kept though its shard is gone: %+v", e)
		}
	})
}

func TestANewSessionMeansNewTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		create := func() string {
			s, err := r.store.CreateSession(t.Context(), state.SessionConfig{Node: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		var session atomic.Value
		session.Store(create())
		r.agent.session = func() string { return session.Load().(string) }
		r.start()
		defer func() { r.close() }()
		solo := proc("solo", 0)
		solo.Process.Exclusive = true
		r.assign("shop", solo)
		settled()
		before := r.dog.launches[id("shop/solo/0")].Env
		if err := r.store.DestroySession(t.Context(), session.Load().(string)); err != nil {
			t.Fatal(err)
		}
		session.Store(create())
		r.Refresh()
		settled()
		e, err := r.store.Get(t.Context(), state.ShardLock(id("shop/solo/0")))
		token := fmt.Sprintf("MESHRUN_TOKEN=%d", e.ModifyIndex)
		if env := r.dog.launches[id("shop/solo/0")].Env; err != nil || slices.Contains(before, token) || !slices.Contains(env, token) {
			t.Errorf("%s: before %q, now %q, %v", token, before, env, err)
		}
		want(t, r.dog.starts[id("shop/solo/0")], 1)
	})
}
