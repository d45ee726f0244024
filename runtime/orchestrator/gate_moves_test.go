package orchestrator

import (
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// drain moves all shards of p to node b.
func (w *world) drain() {
	for node, shards := range w.Placement.Processes["p"] {
		if node != "b" {
			w.Placement.Processes["p"] = map[string]spec.ShardSet{"b": append(shards, w.Placement.Processes["p"]["b"]...)}
		}
	}
}

func TestANodeIsDrainedThoughARolloutHasFailedThere(t *testing.T) {
	for _, command := range []string{"bad", "slow"} {
		w := up(t, 3, nil)
		w.release(version(2, rolled(command, 3, nil)))
		if d := w.pass(6*time.Minute, time.Minute); d.Rollout.State != spec.RolloutFailed {
			t.Fatalf("%s: it is %+v", command, d.Rollout)
		}
		w.drain()
		for range 600 {
			w.now = w.now.Add(time.Second)
			w.decide()
			w.act(nil)
			if up := len(w.running()); up < 2 {
				t.Fatalf("%s: only %d of 3 shards are up", command, up)
			}
		}
		d := w.decide()
		if left := w.Current["a"].Processes; len(left) > 0 || len(w.running()) != 3 {
			t.Errorf("%s: node a still has %+v: %v", command, left, d.Reasons)
		}
		if d.Rollout.State != spec.RolloutFailed || !strings.Contains(d.Rollout.Reason, "shard 0") {
			t.Errorf("%s: it moved with the definition before, and the rollout is %+v", command, d.Rollout)
		}
	}
}

func TestWhatAFailedRolloutHoldsBackSaysHowToGoOn(t *testing.T) {
	causes := map[string]func(w *world){
		"move to b":                        func(w *world) { w.Placement.Processes["p"] = map[string]spec.ShardSet{"c": {0}, "b": {1, 2}} },
		"restart, as memory is over 1 GiB": func(w *world) { w.instance("a", "p", 1).RestartCause = "memory is over 1 GiB" },
	}
	for what, cause := range causes {
		w := up(t, 3, nil)
		w.release(version(2, rolled("bad", 3, nil)))
		w.pass(time.Minute, time.Second)
		w.Placement.Processes["p"] = map[string]spec.ShardSet{"c": {0}, "a": {1, 2}}
		w.pass(0, time.Second)
		w.release(version(3, rolled("bad", 3, nil))) // applied again: shard 0 gets it on node c
		w.Placement.Processes["p"] = map[string]spec.ShardSet{"c": {0}, "a": {1, 2}}
		w.pass(time.Minute, time.Second)
		cause(w)
		d := w.pass(time.Minute, time.Second)
		want := what + " is pending: shard 0 has failed; version 3 has failed: go back with `meshrun revert j`, or apply one that works"
		if why := d.Reasons[spec.InstanceID{Job: "j", Process: "p", Shard: 1}]; why != want {
			t.Errorf("it says %q, want %q", why, want)
		}
	}
}

func TestAMoveComesBeforeOtherChangesAndBringsTheNewDefinition(t *testing.T) {
	w := up(t, 3, nil)
	w.release(version(2, rolled("v2", 3, nil)))
	w.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {0, 1}, "b": {2}}
	w.pass(0, time.Second)
	if in := w.instance("b", "p", 2); in == nil || in.Version != 2 {
		t.Errorf("shard 2 has not moved first: %+v", w.Current)
	}
}

func TestAPauseHoldsWhatIsAppliedLater(t *testing.T) {
	ordered := map[string]spec.Order{"p": {Paused: true, PausedBy: "ann", PausedAt: dawn}}
	for name, bound := range map[string]bool{"in steps": true, "at once": false} {
		release := func(w *world, v *spec.JobVersion) {
			if v.Orders = ordered; !bound {
				v.Job.Processes[0].Update = nil
			}
			w.release(v)
		}
		w := up(t, 3, nil)
		release(w, version(2, rolled("v1", 3, nil)))
		w.pass(time.Minute, time.Second)
		release(w, version(3, rolled("v2", 3, nil)))
		d := w.pass(time.Hour, time.Minute)
		if got := w.commands(); got != "v1 v1 v1" || d.Rollout.State != spec.RolloutPaused {
			t.Fatalf("%s: paused: %s, %+v", name, got, d.Rollout)
		}
		if want := "p: it is paused by ann since 2030-01-01 06:00 UTC, until: meshrun resume j/p"; d.Rollout.Reason != want {
			t.Errorf("%s: it says %q", name, d.Rollout.Reason)
		}
		ordered = nil
		release(w, version(4, rolled("v2", 3, nil)))
		w.pass(time.Hour, time.Minute)
		if got := w.commands(); got != "v2 v2 v2" {
			t.Errorf("%s: resumed: %s", name, got)
		}
		ordered = map[string]spec.Order{"p": {Paused: true, PausedBy: "ann", PausedAt: dawn}}
	}
}

func TestNothingIsTakenBackWhileItIsPaused(t *testing.T) {
	revert := func(u *spec.Update) { u.AutoRevert = true }
	w := up(t, 3, revert)
	w.release(version(2, rolled("bad", 3, revert)))
	w.decide()
	w.act(nil)
	paused := *w.Job
	paused.Version, paused.Orders = 3, map[string]spec.Order{"p": {Paused: true}}
	w.release(&paused)
	if d := w.pass(time.Hour, time.Minute); d.Revert != 0 || d.Rollout.State != spec.RolloutFailed {
		t.Errorf("it goes back to %d: %+v", d.Revert, d.Rollout)
	}
}

func TestAShardIsRestartedAsItIsWhileItsRolloutIsHeld(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary, u.MaxParallel = 1, 2 }
	held := map[string]func(*spec.JobVersion){
		"paused": func(v *spec.JobVersion) { v.Orders = map[string]spec.Order{"p": {Paused: true}} },
		"failed": func(v *spec.JobVersion) { v.Job.Processes[0].Command[0] = "bad" },
		"trial":  func(*spec.JobVersion) {},
	}
	for name, hold := range held {
		w := up(t, 3, canary)
		v := version(2, rolled("v2", 3, canary))
		hold(v)
		w.release(v)
		w.pass(time.Minute, time.Second)
		before := *w.instance("a", "p", 2)
		w.instance("a", "p", 2).RestartCause = "memory is over 1 GiB"
		w.pass(time.Minute, time.Second)
		if in := w.instance("a", "p", 2); in.Generation == before.Generation || in.Version != 1 {
			t.Errorf("%s: a guard asks for a restart, and it is %+v", name, in)
		}
		before = *w.instance("a", "p", 2)
		ordered := *w.Job
		ordered.Version, ordered.Orders = 3, map[string]spec.Order{"p/2": {Epoch: 1}, "p": w.Job.Orders["p"]}
		w.release(&ordered)
		w.pass(0, time.Second)
		if in := w.instance("a", "p", 2); in.Epoch != 1 || in.Hash != before.Hash {
			t.Errorf("%s: an operator orders a restart, and it is %+v", name, in)
		}
	}
}
