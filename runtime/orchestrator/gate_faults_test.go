package orchestrator

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/synergymesh/meshrun/spec"
)

// scaled returns the version that another number of shards makes of the wanted one.
func (w *world) scaled(shards int) *spec.JobVersion {
	next := *w.Job
	next.Job = w.Job.Job.Clone()
	next.Job.Processes[0].Shards = shards
	next.Version, next.Why = w.Job.Version+1, "scale"
	return &next
}

// changed counts the shards of p that are assigned with a command.
func (w *world) changed(command spec.Template) (n int) {
	for _, a := range w.Current {
		for _, p := range a.Processes {
			if p.Process.Command[0] == command {
				n += len(p.Shards)
			}
		}
	}
	return n
}

func TestALiveChangeThatIsOnItsWayFreesNobodyToBeRestarted(t *testing.T) {
	w := up(t, 4, nil)
	w.release(w.scaled(5))
	w.decide() // the node has not heard of it yet
	w.release(version(3, rolled("v3", 5, nil)))
	w.decide()
	w.decide()
	if n := w.changed("v3"); n > 2 { // one in its turn, and the new one
		t.Errorf("%d shards are changed at once, of which one may be down", n)
	}
}

func TestAShardThatWasDownBeforeDoesNotFailAChangeOfTheCount(t *testing.T) {
	for _, phase := range []spec.Phase{spec.PhaseBackoff, spec.PhaseFailed} {
		w := up(t, 3, func(u *spec.Update) { u.AutoRevert = true })
		w.instance("a", "p", 1).Phase = phase
		w.bad["v1"] = phase
		w.release(w.scaled(5))
		w.bad = nil
		for range 60 {
			w.now = w.now.Add(time.Minute)
			d := w.decide()
			if d.Revert != 0 || d.Rollout.State == spec.RolloutFailed {
				t.Fatalf("%s: %+v: %s", phase, d.Rollout, d.Why)
			}
			w.act(nil)
			w.instance("a", "p", 1).Phase = phase
		}
	}
}

func TestAVersionThatTakesTheFailedOnesPlaceNeedsNoTrial(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 1; u.AutoRevert = true }
	w := up(t, 3, canary)
	good := w.Job
	second := version(2, rolled("v2", 3, canary))
	second.Orders = map[string]spec.Order{"p": {Promoted: true}}
	w.release(second)
	w.pass(25*time.Second, time.Second)
	if got := w.commands(); got != "v2 v2 v2" {
		t.Fatalf("promoted, and yet %s", got)
	}
	w.instance("a", "p", 2).Phase = spec.PhaseFailed
	w.bad["v2"] = spec.PhaseFailed
	d := w.decide()
	if d.Revert != 1 {
		t.Fatalf("it goes back to %d: %+v", d.Revert, d.Rollout)
	}
	w.want(Reverted(w.Job, good, w.now))
	d = w.pass(time.Minute, time.Second)
	if got := w.commands(); got != "v1 v1 v1" || d.Rollout.State != spec.RolloutDone {
		t.Errorf("%s: %+v", got, d.Rollout)
	}
}

func TestARestartThatIsOrderedByTheGateDoesNotFailARollout(t *testing.T) {
	slowly := func(u *spec.Update) { u.AutoRevert = true; u.Canary = 1 }
	w := up(t, 3, slowly)
	w.release(version(2, rolled("v2", 3, slowly)))
	w.pass(8*time.Minute, time.Minute)
	in := w.instance("a", "p", 0)
	in.RestartCause = "memory is over 1 GiB"
	w.decide()
	in.RestartCause, in.Phase = "", spec.PhaseStopping
	if d := w.decide(); d.Revert != 0 || d.Rollout.State != spec.RolloutRunning {
		t.Errorf("%+v: %s", d.Rollout, d.Why)
	}
}

func TestAFailedRolloutDoesNotFlapWithAShardThatComesAndGoes(t *testing.T) {
	w := up(t, 3, func(u *spec.Update) { u.MaxParallel = 2 })
	w.release(version(2, rolled("slow", 3, func(u *spec.Update) { u.MaxParallel = 2 })))
	d := w.pass(6*time.Minute, time.Minute)
	if d.Rollout.State != spec.RolloutFailed {
		t.Fatalf("it never got healthy: %+v", d.Rollout)
	}
	was := *d.Rollout
	for i := range 20 {
		for shard := range 2 {
			in := w.instance("a", "p", shard)
			if in.Phase = spec.PhaseRunning; i%2 == 1 {
				in.Phase = spec.PhaseBackoff
			}
			in.ReadyAt = w.now
		}
		d := w.decide()
		if !sameRecord(&was, d.Rollout) {
			t.Fatalf("it is recorded as %+v", d.Rollout)
		}
		w.now = w.now.Add(3 * time.Second)
	}
	w.now = w.now.Add(time.Minute)
	for shard := range 2 {
		w.instance("a", "p", shard).Phase = spec.PhaseRunning
	}
	if d := w.decide(); d.Rollout.State != spec.RolloutRunning {
		t.Errorf("all are well: %+v", d.Rollout)
	}
}

func TestWhatNobodyCanRunIsNeverGood(t *testing.T) {
	w := up(t, 2, func(u *spec.Update) { u.AutoRevert = true })
	w.release(version(2, rolled("v2", 2, func(u *spec.Update) { u.AutoRevert = true })))
	w.Placement.Processes = map[string]map[string]spec.ShardSet{}
	for shard := range 2 {
		w.Placement.Unplaced = append(w.Placement.Unplaced, spec.Unplaced{Process: "p", Shard: shard, Reason: "no node has zone = x"})
	}
	if d := w.pass(9*time.Minute, time.Minute); d.Rollout.State == spec.RolloutDone || d.Rollout.Good != 1 {
		t.Fatalf("nothing of it ran, and yet %+v", d.Rollout)
	}
	if d := w.pass(2*time.Minute, time.Minute); d.Revert != 1 || !strings.Contains(d.Why, "no node has zone = x") {
		t.Errorf("it goes back to %d: %s", d.Revert, d.Why)
	}
}

func TestALostCanaryDoesNotFailATrialThatHasWaitedForLong(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 1; u.AutoRevert = true }
	w := up(t, 3, canary)
	w.release(version(2, rolled("v2", 3, canary)))
	if d := w.pass(3*time.Hour, time.Minute); d.Rollout.State != spec.RolloutWaiting {
		t.Fatalf("it is %+v", d.Rollout)
	}
	o := w.Observed["a"]
	for i := range o.Instances {
		if o.Instances[i].ID.Shard == 0 {
			o.Instances = append(o.Instances[:i], o.Instances[i+1:]...)
			break
		}
	}
	w.Observed["a"] = o
	for range 9 {
		if d := w.decide(); d.Revert != 0 || d.Rollout.State != spec.RolloutRunning {
			t.Fatalf("%+v: %s", d.Rollout, d.Why)
		}
		w.now = w.now.Add(time.Minute)
	}
	w.now = w.now.Add(time.Minute)
	if d := w.decide(); d.Revert != 1 {
		t.Errorf("nothing came of it, and yet %+v", d.Rollout)
	}
}

func TestALastShardThatMovesKeepsItsDefinitionThroughABadRollout(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 1; u.MaxParallel = 2 }
	w := up(t, 2, canary)
	w.release(version(2, rolled("bad", 2, canary)))
	w.pass(time.Minute, time.Second)
	if got := w.commands(); got != "- v1" {
		t.Fatalf("the canary is bad: %s", got)
	}
	w.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {0}, "b": {1}}
	d := w.pass(time.Minute, time.Second)
	if in := w.instance("b", "p", 1); in == nil || in.Phase != spec.PhaseRunning {
		t.Errorf("it was given the bad definition when it moved: %+v: %s", in, w.commands())
	}
	for _, p := range d.Assignments["a"].Processes {
		if len(p.Shards) == 0 {
			t.Errorf("what nobody needs any more is kept: %+v", p)
		}
	}
}

func TestHaltedShardsKeepTheirDefinitionThroughAPause(t *testing.T) {
	on := spec.DefaultDependency("db")
	on.Condition, on.OnFailure = spec.ConditionStarted, spec.OnFailureStop
	app := func(command string) spec.Process {
		p := rolled(command, 2, nil)
		p.DependsOn = []spec.Dependency{on}
		return p
	}
	w := newWorld()
	w.now = dawn
	w.release(version(1, process("db"), app("v1")))
	w.settle(t, nil, func() {})
	w.pass(time.Minute, time.Second)
	second := version(2, process("db"), app("v2"))
	second.Orders = map[string]spec.Order{"p": {Paused: true}}
	w.release(second)
	w.pass(time.Minute, time.Second)
	w.instance("a", "db", 0).Phase = spec.PhaseFailed
	for range 6 {
		w.decide()
		w.act(nil)
		for i := range w.Observed["a"].Instances {
			if in := &w.Observed["a"].Instances[i]; in.ID.Process == "db" {
				in.Phase = spec.PhaseFailed
			}
		}
	}
	if w.instance("a", "p", 0) != nil {
		t.Fatalf("it is not stopped: %+v", w.Observed["a"])
	}
	w.instance("a", "db", 0).Phase = spec.PhaseRunning
	w.pass(time.Minute, time.Second)
	for shard := range 2 {
		if in := w.instance("a", "p", shard); in == nil || in.Version != 1 {
			t.Errorf("the rollout is paused, and yet shard %d is %+v", shard, in)
		}
	}
}

func TestANodeWhoseClockIsBehindGetsItsWholeDeadline(t *testing.T) {
	w := up(t, 3, func(u *spec.Update) { u.AutoRevert = true })
	w.release(version(2, rolled("slow", 3, func(u *spec.Update) { u.AutoRevert = true })))
	w.pass(0, time.Second)
	for _, behind := range []time.Duration{4 * time.Minute, 7 * time.Minute} {
		w.instance("a", "p", 0).Since = w.now.Add(-behind)
		if d := Rollout(w.Snapshot, w.now.Add(4*time.Minute)); d.Revert != 0 || d.Rollout.State != spec.RolloutRunning {
			t.Errorf("%s behind: %+v: %s", behind, d.Rollout, d.Why)
		}
	}
}

func TestToStopABadVersionDoesNotMakeItGood(t *testing.T) {
	w := up(t, 2, nil)
	w.release(version(2, rolled("bad", 2, nil)))
	if d := w.pass(time.Minute, time.Second); d.Rollout.State != spec.RolloutFailed {
		t.Fatalf("it is bad: %+v", d.Rollout)
	}
	stopped := *w.Job
	stopped.Version, stopped.Orders = 3, map[string]spec.Order{"p": {Stopped: true}}
	w.release(&stopped)
	if d := w.pass(time.Hour, time.Minute); d.Rollout.Good != 1 || d.Revert != 0 {
		t.Errorf("it is remembered as %+v", d.Rollout)
	}
}

func TestWhyAGenerationEndsIsNothingThatAWatchdogRefuses(t *testing.T) {
	w := up(t, 1, nil)
	w.instance("a", "p", 0).RestartCause = "it said:\nno\x00" + strings.Repeat("é", 1000)
	d := w.decide()
	why := d.Assignments["a"].Processes[0].Expire[0].Why
	if !strings.HasPrefix(why, "it said: no?é") || len(why) > 1<<10 || strings.ContainsAny(why, "\n\x00") || !utf8.ValidString(why) {
		t.Errorf("it says %d bytes: %q", len(why), why)
	}
}

func TestAnEditTakesNoShardDownBesideOneThatHasNoPlace(t *testing.T) {
	w := up(t, 3, nil)
	lack := func() {
		w.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {0, 1}}
		w.Placement.Unplaced = []spec.Unplaced{{Process: "p", Shard: 2, Reason: "all nodes are full"}}
	}
	lack()
	w.pass(time.Minute, time.Second)
	w.release(version(2, rolled("v2", 3, nil)))
	lack()
	d := w.pass(5*time.Minute, time.Minute)
	if got := w.commands(); got != "v1 v1" {
		t.Fatalf("shard 2 is down already, and yet %s", got)
	}
	want := "restart with another definition is pending: shard 2 is not placed: all nodes are full"
	if why := d.Reasons[spec.InstanceID{Job: "j", Process: "p", Shard: 0}]; why != want || d.Progress[0].Waits != "shard 2 is not placed: all nodes are full" {
		t.Errorf("it says %q, and %+v", why, d.Progress)
	}
	w.instance("a", "p", 0).RestartCause = "memory is over 1 GiB"
	before := *w.instance("a", "p", 0)
	w.pass(time.Minute, time.Second)
	if in := w.instance("a", "p", 0); in.Generation == before.Generation || in.Version != 1 {
		t.Errorf("a guard asks for a restart, and it is %+v", in)
	}
	w.Placement.Processes["p"] = map[string]spec.ShardSet{"b": {0, 1}} // a is drained
	w.pass(time.Minute, time.Second)
	if left := w.Current["a"].Processes; len(left) > 0 {
		t.Errorf("node a still has %+v", left)
	}
	w.release(version(3, rolled("v2", 3, func(u *spec.Update) { u.MaxParallel = 2 })))
	lack()
	w.pass(time.Minute, time.Second)
	if got := w.commands(); got != "v2 v2" {
		t.Errorf("two may be down, one is, and yet %s", got)
	}
}

func TestWhatIsOverOrRunsAtTimesDoesNotKeepAVersionFromBeingGood(t *testing.T) {
	batch, nightly := process("batch"), process("nightly")
	batch.Restart.Policy = spec.RestartNever
	nightly.Restart.Policy = spec.RestartNever
	nightly.Schedule = &spec.Schedule{Cron: "0 3 * * *", TimeZone: "UTC"}
	for _, phase := range []spec.Phase{spec.PhaseCompleted, spec.PhaseFailed, spec.PhaseRunning} {
		w := newWorld()
		w.now = dawn
		batch.Command[0] = spec.Template(phase)
		w.bad = map[spec.Template]spec.Phase{spec.Template(phase): phase}
		w.release(version(1, rolled("v1", 2, nil), batch, nightly))
		if d := w.pass(time.Minute, time.Second); d.Rollout.State != spec.RolloutDone || d.Rollout.Good != 1 {
			t.Errorf("%s: it is %+v: %+v", phase, d.Rollout, d.Progress)
		}
	}
	helper := process("helper")
	helper.Command[0] = "down"
	w := newWorld()
	w.now = dawn
	w.bad = map[spec.Template]spec.Phase{"down": spec.PhaseBackoff}
	w.release(version(1, rolled("v1", 2, nil), helper))
	if d := w.pass(time.Minute, time.Second); d.Rollout.State == spec.RolloutDone || d.Rollout.Good == 1 {
		t.Errorf("a service that is down is part of the version, and yet %+v", d.Rollout)
	}
}
