package orchestrator

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

var dawn = time.Date(2030, 1, 1, 6, 0, 0, 0, time.UTC)

// rolled returns a process of some shards whose rollouts are bounded.
func rolled(command string, shards int, set func(*spec.Update)) spec.Process {
	p := process("p")
	p.Command[0], p.Shards = spec.Template(command), shards
	u := spec.DefaultUpdate()
	u.MinHealthy = spec.Duration(10 * time.Second)
	if set != nil {
		set(&u)
	}
	p.Update = &u
	return p
}

// release makes a version the wanted one, now.
func (w *world) release(v *spec.JobVersion) {
	v.When = w.now
	w.want(v)
}

// up brings a world to rest at version 1 of good shards, healthy for an hour.
func up(t interface{ Fatalf(string, ...any) }, shards int, set func(*spec.Update)) *world {
	w := newWorld()
	w.now = dawn
	w.bad = map[spec.Template]spec.Phase{"bad": spec.PhaseFailed, "slow": spec.PhaseStarting}
	w.release(version(1, rolled("v1", shards, set)))
	w.settle(t, nil, func() {})
	w.now = w.now.Add(time.Hour)
	if d := w.decide(); d.Rollout == nil || d.Rollout.State != spec.RolloutDone || d.Rollout.Good != 1 {
		t.Fatalf("at rest, and yet %+v", d.Rollout)
	}
	return w
}

// commands returns what the shards of p run, in order, "-" for one that is down.
func (w *world) commands() string {
	var out []string
	byVersion := map[string]string{}
	for _, a := range w.Current {
		for _, p := range a.Processes {
			byVersion[spec.ReplaceHash(&p.Process)] = string(p.Process.Command[0])
		}
	}
	seen := map[int]string{}
	for _, o := range w.Observed {
		for _, in := range o.Instances {
			if seen[in.ID.Shard] = "-"; in.Phase == spec.PhaseRunning {
				seen[in.ID.Shard] = byVersion[in.Hash]
			}
		}
	}
	for shard := range len(seen) {
		out = append(out, seen[shard])
	}
	return strings.Join(out, " ")
}

// pass lets time go by in steps, with the nodes acting at once.
func (w *world) pass(d, step time.Duration) (last Decision) {
	for end := w.now.Add(d); ; w.now = w.now.Add(step) {
		for range 4 {
			last = w.decide()
			w.act(nil)
		}
		if !w.now.Before(end) {
			return last
		}
	}
}

func TestShardsAreChangedInTurnsOnceTheOthersAreHealthyForLongEnough(t *testing.T) {
	w := up(t, 3, nil)
	w.release(version(2, rolled("v2", 3, nil)))
	for _, step := range []struct {
		wait time.Duration
		want string
	}{
		{0, "v2 v1 v1"}, {9 * time.Second, "v2 v1 v1"}, {time.Second, "v2 v2 v1"}, {10 * time.Second, "v2 v2 v2"},
	} {
		w.now = w.now.Add(step.wait)
		w.pass(0, time.Second)
		if got := w.commands(); got != step.want {
			t.Fatalf("%s after the start: %s, want %s", w.now.Sub(w.Job.When), got, step.want)
		}
	}
	d := w.pass(10*time.Second, time.Second)
	if d.Rollout.State != spec.RolloutDone || d.Rollout.Good != 2 {
		t.Fatalf("it is done, and yet %+v", d.Rollout)
	}
}

func TestYoungShardsAreChangedInTurnsToo(t *testing.T) {
	w := newWorld()
	w.now = dawn
	w.release(version(1, rolled("v1", 3, nil)))
	w.settle(t, nil, func() {})
	w.now = w.now.Add(time.Second) // healthy, and not for long
	long := func(u *spec.Update) { u.MinHealthy = spec.Duration(time.Minute) }
	w.release(version(2, rolled("v2", 3, long)))
	for _, want := range []string{"v2 v1 v1", "v2 v2 v1", "v2 v2 v2"} {
		w.pass(0, time.Second)
		if got := w.commands(); got != want {
			t.Fatalf("%s after the release: %s, want %s", w.now.Sub(w.Job.When), got, want)
		}
		w.now = w.now.Add(time.Minute)
	}
}

func TestWhoWaitsForItsTurnSaysWhy(t *testing.T) {
	w := up(t, 2, nil)
	w.release(version(2, rolled("v2", 2, nil)))
	d := w.pass(0, time.Second)
	want := "restart with another definition is pending: shard 0 has to be healthy for 10s"
	if got := d.Reasons[spec.InstanceID{Job: "j", Process: "p", Shard: 1}]; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	if want := w.now.Add(10 * time.Second); !d.NextWake.Equal(want) {
		t.Errorf("it wakes at %s, want %s", d.NextWake, want)
	}
	if p := d.Progress[0]; p.Wanted != 2 || p.Updated != 1 || p.Healthy != 0 || p.State != spec.RolloutRunning {
		t.Errorf("progress is %+v", p)
	}
}

func TestCanariesWaitToBePromoted(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 2; u.MaxParallel = 2 }
	w := up(t, 4, canary)
	w.release(version(2, rolled("v2", 4, canary)))
	d := w.pass(time.Hour, time.Minute)
	if got := w.commands(); got != "v2 v2 v1 v1" {
		t.Fatalf("before the promotion: %s", got)
	}
	if d.Rollout.State != spec.RolloutWaiting || !strings.Contains(d.Rollout.Reason, "meshrun promote j/p") {
		t.Fatalf("the rollout is %+v", d.Rollout)
	}
	promoted := *w.Job
	promoted.Version, promoted.Orders = 3, map[string]spec.Order{"p": {Promoted: true}}
	w.release(&promoted)
	w.pass(time.Hour, time.Minute)
	if got := w.commands(); got != "v2 v2 v2 v2" {
		t.Fatalf("after the promotion: %s", got)
	}
}

func TestAHealthyCanaryThatBreaksLaterHasItsWholeDeadlineAgain(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 1 }
	w := up(t, 3, canary)
	w.release(version(2, rolled("v2", 3, canary)))
	w.pass(time.Hour, time.Minute)
	in := w.instance("a", "p", 0)
	in.LastExit = &spec.Exit{Code: 1, At: w.now}
	in.Phase, w.bad["v2"] = spec.PhaseBackoff, spec.PhaseBackoff
	if d := w.pass(4*time.Minute, time.Minute); d.Rollout.State == spec.RolloutFailed {
		t.Fatalf("it broke 4 minutes ago, and the rollout has failed: %s", d.Rollout.Reason)
	}
	if d := w.pass(2*time.Minute, time.Minute); d.Rollout.State != spec.RolloutFailed {
		t.Fatalf("it broke 6 minutes ago, and the rollout is %s", d.Rollout.State)
	}
}

func TestHealthyCanariesPromoteThemselvesIfTheyMay(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary, u.AutoPromote = 1, true }
	w := up(t, 3, canary)
	w.release(version(2, rolled("v2", 3, canary)))
	w.pass(9*time.Second, time.Second)
	if got := w.commands(); got != "v2 v1 v1" {
		t.Fatalf("while the canary is young: %s", got)
	}
	w.pass(time.Hour, time.Minute)
	if got := w.commands(); got != "v2 v2 v2" {
		t.Fatalf("in the end: %s", got)
	}
}

func TestAFailedRolloutStopsAndAGoodVersionMendsIt(t *testing.T) {
	for _, command := range []string{"bad", "slow"} {
		w := up(t, 4, nil)
		w.release(version(2, rolled(command, 4, nil)))
		d := w.pass(time.Hour, time.Minute)
		if got := w.commands(); got != "- v1 v1 v1" || d.Rollout.State != spec.RolloutFailed || d.Revert != 0 {
			t.Fatalf("%s: %s, %+v", command, got, d.Rollout)
		}
		w.release(version(3, rolled("v3", 4, nil)))
		d = w.pass(time.Hour, time.Minute)
		if got := w.commands(); got != "v3 v3 v3 v3" || d.Rollout.State != spec.RolloutDone || d.Rollout.Good != 3 {
			t.Fatalf("mended: %s, %+v", got, d.Rollout)
		}
	}
}

func TestAVersionThatANodeCannotLaunchFailsTheRollout(t *testing.T) {
	w := up(t, 3, nil)
	w.release(version(2, rolled("v2", 3, nil)))
	w.decide()
	in := w.instance("a", "p", 0) // goes on as version 1
	in.Refused, in.Reason = 2, `kept as it is: user "nosuch" does not exist`
	if d := w.decide(); d.Rollout.State != spec.RolloutRunning || d.NextWake.IsZero() {
		t.Fatalf("it may come to be possible yet, and the rollout is %+v", d.Rollout)
	}
	w.now = w.now.Add(time.Minute)
	d := w.decide()
	if d.Rollout.State != spec.RolloutFailed || !strings.Contains(d.Rollout.Reason, "nosuch") {
		t.Fatalf("the rollout is %+v", d.Rollout)
	}
	w.release(version(3, rolled("v3", 3, nil)))
	if d := w.decide(); d.Rollout.State != spec.RolloutRunning {
		t.Fatalf("what is said of version 2 fails version 3: %+v", d.Rollout)
	}
}

func TestAFailedRolloutGoesBackIfItMay(t *testing.T) {
	revert := func(u *spec.Update) { u.AutoRevert = true }
	w := up(t, 3, revert)
	good := *w.Job
	w.release(version(2, rolled("bad", 3, revert)))
	d := w.pass(time.Minute, time.Second)
	if d.Revert != 1 || !strings.Contains(d.Why, "shard 0 has failed") {
		t.Fatalf("it shall go back to %d: %q", d.Revert, d.Why)
	}
	w.release(Reverted(w.Job, &good, w.now))
	d = w.pass(time.Minute, time.Second)
	if got := w.commands(); got != "v1 v1 v1" || d.Revert != 0 || d.Rollout.State != spec.RolloutDone || d.Rollout.Good != 3 {
		t.Fatalf("gone back: %s, %+v", got, d.Rollout)
	}
}

func TestAVersionThatWasMadeToGoBackIsNotTakenBack(t *testing.T) {
	revert := func(u *spec.Update) { u.AutoRevert = true }
	w := up(t, 2, revert)
	v := version(2, rolled("bad", 2, revert))
	v.Reverts = v.Version - 1
	w.release(v)
	if d := w.pass(time.Hour, time.Minute); d.Revert != 0 || d.Rollout.State != spec.RolloutFailed {
		t.Fatalf("it shall go back to %d, and is %+v", d.Revert, d.Rollout)
	}
}

func TestAPausedRolloutKeepsEveryDefinition(t *testing.T) {
	w := up(t, 3, nil)
	w.release(version(2, rolled("v2", 3, nil)))
	w.pass(0, time.Second)
	paused := *w.Job
	paused.Version, paused.Orders = 3, map[string]spec.Order{"p": {Paused: true}}
	w.release(&paused)
	d := w.pass(time.Hour, time.Minute)
	if got := w.commands(); got != "v2 v1 v1" || d.Rollout.State != spec.RolloutPaused {
		t.Fatalf("paused: %s, %+v", got, d.Rollout)
	}
	resumed := *w.Job
	resumed.Version, resumed.Orders = 4, nil
	w.release(&resumed)
	w.pass(time.Hour, time.Minute)
	if got := w.commands(); got != "v2 v2 v2" {
		t.Fatalf("resumed: %s", got)
	}
}

func TestALostShardComesBackWithTheOldDefinitionWhileTheNewOneIsOnTrial(t *testing.T) {
	canary := func(u *spec.Update) { u.Canary = 1 }
	w := up(t, 3, canary)
	w.release(version(2, rolled("v2", 3, canary)))
	w.pass(time.Minute, time.Second)
	w.Observed["a"] = spec.Observed{Job: "j", Node: "a"}
	delete(w.Live, "a")
	w.Placement = onNode(w.Job, "b")
	w.pass(time.Minute, time.Second)
	if got := w.commands(); strings.Count(got, "v1") != 2 || strings.Count(got, "v2") != 1 {
		t.Fatalf("on another node: %s", got)
	}
}

func TestEveryCauseOfARestartPassesTheSameGate(t *testing.T) {
	id := spec.InstanceID{Job: "j", Process: "p", Shard: 1}
	causes := map[string]func(w *world){
		"order": func(w *world) {
			v := *w.Job
			v.Version, v.Orders = 2, map[string]spec.Order{"p/1": {Epoch: 1}}
			w.release(&v)
		},
		"check": func(w *world) { w.instance("a", "p", 1).RestartCause = "check web fails" },
		"move": func(w *world) {
			w.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {0, 2}, "b": {1}}
		},
	}
	for name, cause := range causes {
		w := up(t, 3, nil)
		w.instance("a", "p", 0).Phase = spec.PhaseBackoff // not by meshrun's doing
		w.bad["v1"] = spec.PhaseBackoff
		before := *w.instance("a", "p", 1)
		cause(w)
		before.RestartCause = w.instance("a", "p", 1).RestartCause
		d := w.pass(time.Minute, time.Second)
		if after := w.instance("a", "p", 1); after == nil || after.Generation != before.Generation {
			t.Errorf("%s: shard 1 was disturbed while shard 0 was down", name)
		}
		if why := d.Reasons[id]; !strings.HasSuffix(why, "is pending: shard 0 waits for its next start") {
			t.Errorf("%s: the reason is %q", name, why)
		}
		delete(w.bad, "v1")
		w.pass(time.Minute, time.Second)
		if after := w.instance("a", "p", 1); after != nil && after.Generation == before.Generation {
			t.Errorf("%s: shard 1 never had its turn: %v", name, w.decide().Reasons)
		}
	}
}

func TestAGenerationWithARestartCauseIsEndedOnce(t *testing.T) {
	p := process("p") // nothing bounds it
	w := newWorld()
	w.want(version(1, p))
	w.settle(t, nil, func() {})
	in := w.instance("a", "p", 0)
	in.RestartCause = "check web fails"
	first := in.Generation
	w.decide()
	if e := w.Current["a"].Processes[0].Expire[0]; e.Generation != first || e.Why != "check web fails" {
		t.Fatalf("told to end: %+v", e)
	}
	w.act(nil)
	if now := w.instance("a", "p", 0); now.Generation == first {
		t.Fatal("it was not restarted")
	}
	if w.decide(); w.Current["a"].Processes[0].Expire != nil {
		t.Fatalf("still told: %+v", w.Current["a"].Processes[0].Expire)
	}
}

// Whatever is released, ordered and found, in whatever state: no more shards are
// disturbed than may be, given those that are down already; the new definition
// only spreads; each shard is assigned once; and a good version, promoted, is
// what all run in the end.
func TestRolloutKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.now = dawn
		w.bad = map[spec.Template]spec.Phase{"bad": spec.PhaseFailed, "slow": spec.PhaseStarting}
		slow := func() bool { return rapid.IntRange(0, 3).Draw(t, "slow") == 0 }
		for n := range uint64(rapid.IntRange(1, 4).Draw(t, "versions")) {
			w.release(drawRelease(t, n+1))
			for range rapid.IntRange(0, 25).Draw(t, "turns") {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "seconds")) * time.Second)
				w.boundedDecision(t)
				once(t, w)
				w.act(slow)
			}
		}
		last := *w.Job
		last.Version++
		last.Job = last.Job.Clone()
		last.Job.Processes[0].Command = []spec.Template{"good"}
		last.Orders = map[string]spec.Order{"p": {Promoted: true}}
		w.release(&last)
		for range 40 * last.Job.Processes[0].Shards {
			w.now = w.now.Add(5 * time.Second)
			w.boundedDecision(t)
			once(t, w)
			w.act(nil)
		}
		want := strings.TrimSpace(strings.Repeat("good ", last.Job.Processes[0].Shards))
		d := w.decide()
		if got := w.commands(); got != want || d.Rollout.State != spec.RolloutDone || len(d.Reasons) > 0 {
			t.Fatalf("in the end %q, want %q; %+v %v", got, want, d.Rollout, d.Reasons)
		}
		if again := Rollout(w.Snapshot, w.now); !reflect.DeepEqual(again.Assignments, w.Current) || !sameRecord(again.Rollout, w.Rollout) {
			t.Fatalf("at rest, and yet %+v", again)
		}
	})
}

func drawRelease(t *rapid.T, n uint64) *spec.JobVersion {
	shards := rapid.IntRange(1, 5).Draw(t, "shards")
	p := rolled(rapid.SampledFrom([]string{"v1", "v2", "bad", "slow"}).Draw(t, "command"), shards, func(u *spec.Update) {
		u.MaxParallel = rapid.IntRange(1, 3).Draw(t, "parallel")
		u.Canary = rapid.IntRange(0, shards-1).Draw(t, "canary")
		u.AutoPromote = rapid.Bool().Draw(t, "promotes itself")
		u.HealthyDeadline = spec.Duration(time.Minute)
		u.Stagger = spec.Duration(rapid.IntRange(0, 1).Draw(t, "stagger")) * spec.Duration(5*time.Second)
	})
	v := version(n, p)
	if rapid.Bool().Draw(t, "ordered") {
		v.Orders = map[string]spec.Order{"p": {Epoch: uint64(rapid.IntRange(0, 2).Draw(t, "epoch")), Paused: rapid.Bool().Draw(t, "paused")}}
	}
	return v
}

// boundedDecision decides, and demands that no more is disturbed than may be.
func (w *world) boundedDecision(t *rapid.T) {
	p := w.Job.Job.Processes[0]
	available := func() map[int]bool {
		out := map[int]bool{}
		for _, o := range w.Observed {
			for _, in := range o.Instances {
				at, healthy := in.HealthyAt()
				// What is to be changed yet is up as soon as it is healthy.
				wanted := in.Hash == spec.ReplaceHash(&p) && in.Epoch == w.Job.Order("p", in.ID.Shard).Epoch
				steady := !wanted || w.now.Sub(at) >= p.Update.MinHealthy.Std()
				out[in.ID.Shard] = out[in.ID.Shard] || (healthy && in.ID.Shard < p.Shards && steady && w.told(&in))
			}
		}
		return out
	}
	before, was := available(), w.versions()
	w.decide()
	after := available()
	down, disturbed := 0, 0
	for shard := range p.Shards {
		if !before[shard] {
			down++
		} else if !after[shard] {
			disturbed++
		}
	}
	if disturbed > 0 && down+disturbed > p.Update.MaxParallel {
		t.Fatalf("%d shards were down, and %d more are disturbed; %d may be", down, disturbed, p.Update.MaxParallel)
	}
	for shard, version := range w.versions() {
		if was[shard] == w.Job.Version && version != was[shard] {
			t.Fatalf("shard %d had version %d, and is given %d again", shard, was[shard], version)
		}
	}
}

// told reports whether an instance is what it is told to be.
func (w *world) told(in *spec.Instance) bool {
	for _, p := range w.Current[in.Node].Processes {
		if p.Shards.Contains(in.ID.Shard) {
			return in.Epoch == p.Epochs[in.ID.Shard] && in.Hash == spec.ReplaceHash(&p.Process) && p.Expire[in.ID.Shard].Generation != in.Generation
		}
	}
	return false
}

func (w *world) versions() map[int]uint64 {
	out := map[int]uint64{}
	for _, a := range w.Current {
		for _, p := range a.Processes {
			for _, shard := range p.Shards {
				out[shard] = p.Version
			}
		}
	}
	return out
}

// A bad version of a service of twenty shards never takes more than one of them
// down, and is taken back.
func TestABadVersionNeverTakesMoreThanOneShardDown(t *testing.T) {
	careful := func(u *spec.Update) { u.Canary, u.AutoRevert = 1, true }
	for _, command := range []string{"bad", "slow"} {
		w := up(t, 20, careful)
		good := *w.Job
		w.release(version(2, rolled(command, 20, careful)))
		reverted := false
		for range 1000 {
			w.now = w.now.Add(time.Second)
			d := w.decide()
			w.act(nil)
			if down := strings.Count(w.commands(), "-"); down > 1 {
				t.Fatalf("%s: %d shards are down", command, down)
			}
			if d.Revert != 0 && !reverted {
				reverted = true
				w.release(Reverted(w.Job, &good, w.now))
			}
		}
		if got := w.commands(); !reverted || strings.Count(got, "v1") != 20 {
			t.Fatalf("%s: reverted is %v, and in the end %s runs", command, reverted, got)
		}
	}
}

func BenchmarkRolloutOfAThousandShardsInTurns(b *testing.B) {
	w := up(b, 1000, func(u *spec.Update) { u.MaxParallel = 10 })
	w.release(version(2, rolled("v2", 1000, func(u *spec.Update) { u.MaxParallel = 10 })))
	w.decide()
	if n := slices.Index([]int{990}, len(w.Current["a"].Processes[0].Shards)); n != 0 {
		b.Fatal(fmt.Sprint("changed at once: ", w.Current["a"].Processes[0].Shards))
	}
	for b.Loop() {
		Rollout(w.Snapshot, w.now)
	}
}
