package orchestrator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// record takes over what is recorded of runs.
func (w *world) record(changes []RunChange) {
	for _, c := range changes {
		w.Runs = slices.DeleteFunc(w.Runs, func(r spec.Run) bool { return r.Process == c.Run.Process && r.ID == c.Run.ID })
		if !c.Forget {
			w.Runs = append(w.Runs, c.Run)
		}
	}
	slices.SortFunc(w.Runs, compareRuns)
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// scheduled returns a process that runs every ten minutes.
func scheduled(name string, change ...func(*spec.Process)) spec.Process {
	p := process(name)
	p.Restart.Policy = spec.RestartNever
	s := spec.DefaultSchedule()
	s.Cron = "*/10 * * * *"
	p.Schedule = &s
	for _, c := range change {
		c(&p)
	}
	return p
}

func overlapping(p *spec.Process)  { p.Schedule.Overlap = true }
func catchingUp(p *spec.Process)   { p.Schedule.CatchUp = spec.CatchUpOne }
func threeShards(p *spec.Process)  { p.Shards = 3 }
func everyMinute(p *spec.Process)  { p.Schedule.Cron = "* * * * *" }
func anotherTime(p *spec.Process)  { p.Schedule.Cron = "7 * * * *" }
func anotherThing(p *spec.Process) { p.Command = []spec.Template{"other"} }

// applied returns a version that was made at noon.
func applied(n uint64, processes ...spec.Process) *spec.JobVersion {
	v := version(n, processes...)
	v.When = noon
	return v
}

// clock is a world at a time.
type clock struct {
	*world
	t *testing.T
}

// at puts a version in place at noon.
func at(t *testing.T, v *spec.JobVersion) *clock {
	c := &clock{world: newWorld(), t: t}
	c.now = noon
	c.want(v)
	c.rest()
	return c
}

func (c *clock) rest() { c.settle(c.t, nil, func() {}) }

// to goes to a time of that day, minute by minute, as the loop wakes.
func (c *clock) to(text string) {
	c.t.Helper()
	d, err := time.Parse("15:04", text)
	if err != nil {
		c.t.Fatal(err)
	}
	end := noon.Truncate(24 * time.Hour).Add(time.Duration(d.Hour())*time.Hour + time.Duration(d.Minute())*time.Minute)
	for c.now.Before(end) {
		c.now = c.now.Add(time.Minute)
		c.rest()
	}
}

// jump goes to a time at which nobody looked in between.
func (c *clock) jump(d time.Duration) {
	c.now = c.now.Add(d)
	c.rest()
}

// ends lets what runs of a process end with a code.
func (c *clock) ends(process string, code int) {
	for node := range c.Observed {
		for i := range c.Observed[node].Instances {
			in := &c.Observed[node].Instances[i]
			if in.ID.Process == process && in.Phase == spec.PhaseRunning {
				in.Phase, in.LastExit = spec.PhaseCompleted, &spec.Exit{Code: code, At: c.now}
				if code != 0 {
					in.Phase = spec.PhaseFailed
				}
			}
		}
	}
	c.rest()
}

// expect compares the runs, one "tick state" a line, and how many shards run.
func (c *clock) expect(running int, runs ...string) {
	c.t.Helper()
	var got []string
	for _, r := range c.Runs {
		id := r.ID
		if manualNumber(&r) == 0 {
			id = r.Tick.Format("15:04")
		}
		text := fmt.Sprintf("%s %s", id, r.State)
		if why := r.Why(); why != "" {
			text += ": " + why
		}
		got = append(got, text)
	}
	if strings.Join(got, "\n") != strings.Join(runs, "\n") {
		c.t.Errorf("at %s the runs are\n%s\nnot\n%s", c.now.Format("15:04"), strings.Join(got, "\n"), strings.Join(runs, "\n"))
	}
	if n := len(c.running()); n != running {
		c.t.Errorf("at %s %d shards run, not %d: %v", c.now.Format("15:04"), n, running, c.running())
	}
}

func (c *clock) held(process string) string {
	for _, a := range c.Current {
		for _, p := range a.Processes {
			if p.Process.Name == process {
				return p.Held[0]
			}
		}
	}
	return "not assigned"
}

func TestAProcessRunsAtItsTimesAndIsDownBetween(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.expect(0)
	if got := c.held("p"); got != "next run at 2026-11-24 12:10 UTC" {
		t.Errorf("held: %s", got)
	}
	c.to("12:10")
	c.expect(1, "12:10 active")
	c.ends("p", 0)
	c.expect(0, "12:10 succeeded")
	if got := c.held("p"); got != "next run at 2026-11-24 12:20 UTC" {
		t.Errorf("held: %s", got)
	}
	c.to("12:20")
	c.expect(1, "12:10 succeeded", "12:20 active")
	c.ends("p", 3)
	c.expect(0, "12:10 succeeded", "12:20 failed: exit 3")
}

func TestATickThatIsDueWhileTheLastRunGoesOnIsSkipped(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:45")
	c.expect(1, "12:10 active", "12:40 skipped: run 20261124T121000Z is still under way (3 times in a row)")
	c.ends("p", 0)
	c.to("12:50")
	c.expect(1, "12:10 succeeded", "12:40 skipped: run 20261124T121000Z is still under way (3 times in a row)", "12:50 active")
}

func TestRunsMayOverlapInEightShards(t *testing.T) {
	c := at(t, applied(1, scheduled("p", overlapping, everyMinute)))
	c.to("12:10")
	var runs []string
	for n := range 8 {
		runs = append(runs, fmt.Sprintf("12:0%d active", n+1))
	}
	c.expect(8, append(runs, "12:10 skipped: 8 runs are active, the maximum (2 times in a row)")...)
	in := c.instance("a", "p", 4)
	in.Phase, in.LastExit = spec.PhaseCompleted, &spec.Exit{}
	c.to("12:11")
	if last := c.Runs[len(c.Runs)-1]; last.State != spec.RunActive || last.Shard != 4 {
		t.Errorf("the next run is %+v", last)
	}
}

func TestAllShardsRunAndTheRunEndsWithTheLast(t *testing.T) {
	c := at(t, applied(1, scheduled("p", threeShards)))
	c.to("12:10")
	c.expect(3, "12:10 active")
	in := c.instance("a", "p", 1)
	in.Phase, in.LastExit = spec.PhaseFailed, &spec.Exit{Code: 2}
	c.rest()
	c.expect(2, "12:10 active")
	c.ends("p", 0)
	c.expect(0, "12:10 failed: exit 2")
}

func TestMissedTicks(t *testing.T) {
	for _, r := range []struct {
		name string
		p    spec.Process
		away time.Duration
		want []string
	}{
		{"within a minute it is on time", scheduled("p"), 10*time.Minute + 59*time.Second, []string{"12:10 active"}},
		{"later it is skipped", scheduled("p"), 12 * time.Minute, []string{"12:10 skipped: missed: no orchestrator was running"}},
		{"many are one record", scheduled("p"), 2*time.Hour + 5*time.Minute, []string{"14:00 skipped: missed: no orchestrator was running (12 times in a row)"}},
		{"the one that is on time is run", scheduled("p"), 30 * time.Minute, []string{"12:20 skipped: missed: no orchestrator was running (2 times in a row)", "12:30 active"}},
		{"the last is caught up", scheduled("p", catchingUp), 35 * time.Minute, []string{"12:20 skipped: missed: no orchestrator was running (2 times in a row)", "12:30 active"}},
		{"only one is late", scheduled("p", catchingUp), 12 * time.Minute, []string{"12:10 active"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			c := at(t, applied(1, r.p))
			c.jump(r.away)
			running := 0
			if strings.HasSuffix(r.want[len(r.want)-1], "active") {
				running = 1
			}
			c.expect(running, r.want...)
		})
	}
}

func TestANewScheduleBeginsWithItsFirstTickAfterItsVersion(t *testing.T) {
	c := at(t, applied(1, scheduled("p", catchingUp)))
	c.jump(5 * time.Minute)
	v := applied(2, scheduled("p", catchingUp, anotherTime))
	v.When = c.now
	c.want(v)
	c.rest()
	c.expect(0)
	c.to("12:07")
	c.expect(1, "12:07 active")
}

func TestAnEditOfSomethingElseLosesNoTick(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	v := applied(2, scheduled("p"), process("q"))
	v.When = noon.Add(10*time.Minute + time.Second)
	c.now = v.When
	c.want(v)
	c.rest()
	c.expect(2, "12:10 active")
}

func TestAScheduleGoesOnAfterAClockThatWasAhead(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:10")
	c.ends("p", 0)
	was := c.now
	c.jump(30*24*time.Hour + 10*time.Second) // for one look
	c.ends("p", 0)
	c.now = was
	c.to("12:20")
	c.expect(1, "12:10 succeeded", "12:20 active", "12:00 skipped: missed: no orchestrator was running (1000 times in a row)", "12:10 succeeded")
}

func TestAVersionOfAClockThatWasAheadIsScheduled(t *testing.T) {
	v := applied(1, scheduled("p"))
	v.When = noon.Add(30 * 24 * time.Hour)
	c := at(t, v)
	c.expect(0)
	c.to("12:10")
	c.expect(1, "12:10 active")
}

func TestHistoryKeepsTheLastTickBesideThoseOfAClockThatWasAhead(t *testing.T) {
	c := at(t, applied(1, scheduled("p", everyMinute)))
	c.jump(24 * time.Hour)
	for range RunsKept + 5 {
		c.jump(time.Minute)
		c.ends("p", 0)
	}
	c.now = noon
	c.jump(time.Minute)
	c.jump(time.Minute) // is skipped
	c.ends("p", 0)
	c.jump(time.Second)
	if n := len(c.running()); n != 0 {
		t.Errorf("the tick that was skipped is run after all: %v", c.running())
	}
}

func TestARunIsFinishedAsItBegan(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:10")
	before := *c.instance("a", "p", 0)
	c.want(applied(2, scheduled("p", anotherTime, anotherThing)))
	c.rest()
	if after := c.instance("a", "p", 0); after.Version != before.Version || after.Hash != before.Hash || after.Epoch != before.Epoch {
		t.Errorf("the run was %+v and is %+v", before, *after)
	}
	c.ends("p", 0)
	c.to("13:07")
	if in := c.instance("a", "p", 0); in.Version != 2 || in.Phase != spec.PhaseRunning {
		t.Errorf("the next run is %+v", *in)
	}
}

func TestStoppedAndPausedProcessesHaveNoRuns(t *testing.T) {
	v := applied(1, scheduled("p"))
	v.Orders = map[string]spec.Order{"p": {Stopped: true, Runs: 1}}
	c := at(t, v)
	c.to("12:30")
	c.expect(0)
	started := applied(2, scheduled("p", catchingUp))
	started.When = c.now
	c.want(started)
	c.rest()
	c.expect(0) // ticks before it was started don't count

	paused := applied(3, scheduled("p"))
	paused.Orders = map[string]spec.Order{"p": {Paused: true}}
	c.want(paused)
	c.to("12:55")
	c.expect(0)
	if got := c.held("p"); got != "its schedule is paused, until: meshrun resume j/p" {
		t.Errorf("held: %s", got)
	}
}

func TestStoppingEndsTheRun(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:10")
	v := applied(2, scheduled("p"))
	v.Orders = map[string]spec.Order{"p": {Stopped: true}}
	c.want(v)
	c.rest()
	c.expect(0, "12:10 failed: stopped by an operator")
}

func TestRunsByHand(t *testing.T) {
	v := applied(1, scheduled("p"))
	c := at(t, v)
	ordered := applied(2, scheduled("p"))
	ordered.Orders = map[string]spec.Order{"p": {Runs: 2}}
	c.want(ordered)
	c.rest()
	c.expect(1, "manual-1 active", "manual-2 skipped: run manual-1 is still under way")
	c.ends("p", 0)
	c.rest()
	c.expect(0, "manual-1 succeeded", "manual-2 skipped: run manual-1 is still under way")
	c.to("12:10")
	c.expect(1, "manual-1 succeeded", "manual-2 skipped: run manual-1 is still under way", "12:10 active")
}

func TestARunWhoseNodeIsLostHasFailedAndStartsNowhereElse(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:10")
	delete(c.Live, "a")
	c.rest()
	c.expect(1, "12:10 active") // there is no other place yet
	c.Placement = onNode(c.Job, "b")
	c.rest()
	delete(c.Observed, "a")
	c.expect(0, "12:10 failed: its node a was lost")
	c.to("12:20")
	if in := c.instance("b", "p", 0); in == nil || in.Phase != spec.PhaseRunning {
		t.Errorf("the next run is not on b: %v", c.running())
	}
}

func TestALostShardOfARunStartsNowhereElseWhileOthersGoOn(t *testing.T) {
	c := at(t, applied(1, scheduled("p", threeShards)))
	c.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {0}, "b": {1, 2}}
	c.to("12:10")
	delete(c.Live, "a")
	c.Placement.Processes["p"] = map[string]spec.ShardSet{"b": {0, 1, 2}}
	c.rest()
	delete(c.Observed, "a")
	c.to("12:12")
	c.expect(2, "12:10 active: its node a was lost")
	c.ends("p", 0)
	c.expect(0, "12:10 failed: its node a was lost")
}

func TestARunThatBeganStaysWhereItIs(t *testing.T) {
	c := at(t, applied(1, scheduled("p")))
	c.to("12:10")
	c.Placement = onNode(c.Job, "b") // a is draining
	c.rest()
	if in := c.instance("a", "p", 0); in == nil || in.Phase != spec.PhaseRunning {
		t.Fatalf("it left its node: %v", c.running())
	}
	c.ends("p", 0)
	c.to("12:20")
	if c.instance("a", "p", 0) != nil || c.instance("b", "p", 0) == nil {
		t.Errorf("the next run is not on b: %v", c.running())
	}
}

func TestAServiceThatBecomesScheduledEnds(t *testing.T) {
	c := at(t, applied(1, process("p")))
	c.expect(1)
	c.want(applied(2, scheduled("p")))
	c.rest()
	c.expect(0)
	c.to("12:10")
	c.expect(1, "12:10 active")
	c.want(applied(3, process("p")))
	c.rest()
	c.expect(1)
}

func TestHistoryIsBounded(t *testing.T) {
	v := applied(1, scheduled("p", everyMinute))
	v.Orders = map[string]spec.Order{"p": {Runs: 1}}
	c := at(t, v)
	c.ends("p", 0)
	for range 2 * RunsKept {
		c.now = c.now.Add(time.Minute)
		c.rest()
		c.ends("p", 0)
	}
	if n := len(c.Runs); n != RunsKept+1 || c.Runs[0].ID != "manual-1" {
		t.Errorf("%d runs are kept, the first is %+v", n, c.Runs[0])
	}
	c.want(nil)
	c.rest()
	if len(c.Runs) > 0 {
		t.Errorf("the job is gone, and %d of its runs are left", len(c.Runs))
	}
}

func TestADependentWaitsForARunThatSucceeds(t *testing.T) {
	q := process("q")
	q.DependsOn = []spec.Dependency{{Process: "p", Condition: spec.ConditionCompleted}}
	c := at(t, applied(1, scheduled("p"), q))
	c.to("12:10")
	c.expect(1, "12:10 active")
	c.ends("p", 1)
	c.expect(0, "12:10 failed: exit 1")
	c.to("12:20")
	c.ends("p", 0)
	c.expect(1, "12:10 failed: exit 1", "12:20 succeeded")
}

// However time passes, or is set, and whatever becomes of nodes and runs, each tick has at
// most one record, no instance runs for two runs, and an epoch never comes twice.
func TestATickIsRunAtMostOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := scheduled("p", everyMinute)
		p.Schedule.Overlap = rapid.Bool().Draw(t, "overlap")
		if !p.Schedule.Overlap {
			p.Shards = rapid.IntRange(1, 3).Draw(t, "shards")
		}
		p.Schedule.CatchUp = rapid.SampledFrom([]spec.CatchUp{spec.CatchUpNone, spec.CatchUpOne}).Draw(t, "catch up")
		w := newWorld()
		w.now = noon
		w.want(applied(1, p))
		began := map[string]bool{}     // runs
		started := map[string]string{} // shard and epoch → node
		epochs := map[uint64]string{}
		for range 30 {
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 7: // the clock is set
				w.now = w.now.Add(time.Duration(rapid.IntRange(-3600, 3600).Draw(t, "seconds set")) * time.Second)
			case 0:
				w.Placement = onNode(w.Job, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node"))
			case 1:
				node := rapid.SampledFrom([]string{"b", "c"}).Draw(t, "node")
				if w.Live[node] {
					delete(w.Live, node)
				} else {
					w.Live[node] = true
				}
			case 2, 3:
				for _, o := range w.Observed {
					for i := range o.Instances {
						if in := &o.Instances[i]; in.Phase == spec.PhaseRunning && rapid.Bool().Draw(t, "ends") {
							in.Phase, in.LastExit = spec.PhaseCompleted, &spec.Exit{At: w.now}
						}
					}
				}
			default:
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			}
			for range rapid.IntRange(1, 4).Draw(t, "steps") {
				w.decide()
				w.act(nil)
			}
			for _, r := range w.Runs {
				if r.State == spec.RunActive && !began[r.ID] {
					began[r.ID] = true
					if other := epochs[r.Epoch]; other != "" {
						t.Fatalf("runs %s and %s have the same epoch", other, r.ID)
					}
					epochs[r.Epoch] = r.ID
				}
			}
			for node, o := range w.Observed {
				for _, in := range o.Instances {
					key := fmt.Sprintf("%d of %d", in.ID.Shard, in.Epoch)
					if other := started[key]; in.Epoch > 0 && other != "" && other != node {
						t.Fatalf("shard %s started on %s and on %s", key, other, node)
					}
					started[key] = node
					if _, ours := epochs[in.Epoch]; !ours {
						t.Fatalf("an instance runs for no run: %+v", in)
					}
				}
			}
		}
	})
}
