package orchestrator

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// after makes a process depend on another one.
func after(p spec.Process, on string, c spec.Condition, f spec.OnFailure) spec.Process {
	p.DependsOn = append(p.DependsOn, spec.Dependency{Process: on, Condition: c, OnFailure: f})
	return p
}

// fall lets a shard on node a go down, and rise lets it be up again, started anew.
func (w *world) fall(process string, shard int) {
	w.instance("a", process, shard).Phase = spec.PhaseFailed
}

func (w *world) rise(process string, shard int) {
	in := w.instance("a", process, shard)
	w.gen++
	in.Phase, in.Generation = spec.PhaseRunning, w.gen
}

// shown says of each shard on node a which generation of how many has run, such
// as "web:2", or why there is none: "web: waits for db to be started".
func (w *world) shown() []string {
	var out []string
	for _, p := range w.Current["a"].Processes {
		for _, shard := range p.Shards {
			if in := w.instance("a", p.Process.Name, shard); in != nil {
				out = append(out, fmt.Sprintf("%s/%d %s", p.Process.Name, shard, in.Phase))
			} else {
				out = append(out, fmt.Sprintf("%s/%d %s", p.Process.Name, shard, p.Held[shard]))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (w *world) generation(process string, shard int) uint64 {
	return w.instance("a", process, shard).Generation
}

func TestAFailureStopsWhoSaysSoAndNobodyElse(t *testing.T) {
	w := newWorld()
	w.want(version(1,
		process("db"),
		after(process("api"), "db", spec.ConditionStarted, spec.OnFailureStop),
		after(process("web"), "api", spec.ConditionStarted, spec.OnFailureStop),
		after(process("cron"), "api", spec.ConditionStarted, ""),
	))
	w.settle(t, nil, func() {})
	cron := w.generation("cron", 0)
	w.fall("db", 0)
	d := w.decide()
	want := map[spec.InstanceID]string{
		{Job: "j", Process: "api"}: "is stopped once web is gone",
		{Job: "j", Process: "web"}: "stopped: waits for api to be started again",
	}
	if !reflect.DeepEqual(d.Reasons, want) {
		t.Errorf("reasons are %v", d.Reasons)
	}
	w.act(nil)
	if w.instance("a", "web", 0) != nil || w.instance("a", "api", 0) == nil {
		t.Error("web is to end before api")
	}
	w.settle(t, nil, func() {})
	if got := w.shown(); !slices.Equal(got, []string{
		"api/0 waits for db to be started", "cron/0 running", "db/0 failed", "web/0 waits for api to be started",
	}) {
		t.Errorf("while db is down: %q", got)
	}
	w.rise("db", 0)
	w.settle(t, nil, func() {})
	if got := w.shown(); !slices.Equal(got, []string{"api/0 running", "cron/0 running", "db/0 running", "web/0 running"}) {
		t.Errorf("once it is back: %q", got)
	}
	if w.generation("cron", 0) != cron {
		t.Error("cron was to be left alone")
	}
}

func TestADependencyHasFailedOnlyWhenNoShardIsSoFar(t *testing.T) {
	db := process("db")
	db.Shards = 2
	w := newWorld()
	w.want(version(1, db, after(process("web"), "db", spec.ConditionHealthy, spec.OnFailureStop)))
	w.settle(t, nil, func() {})
	w.fall("db", 0)
	w.settle(t, nil, func() {})
	if got := w.shown(); got[2] != "web/0 running" {
		t.Errorf("with one of two shards left: %q", got)
	}
	w.instance("a", "db", 1).Health = spec.HealthFailing
	w.settle(t, nil, func() {})
	if got := w.shown(); got[2] != "web/0 waits for db to be healthy" {
		t.Errorf("with none healthy: %q", got)
	}
	w.instance("a", "db", 1).Health = spec.HealthPassing
	w.settle(t, nil, func() {})
	if got := w.shown(); got[2] != "web/0 waits for db to be healthy" {
		t.Errorf("a start waits for all of them: %q", got)
	}
	w.rise("db", 0)
	w.settle(t, nil, func() {})
	if got := w.shown(); got[2] != "web/0 running" {
		t.Errorf("with all back: %q", got)
	}
}

func TestWhoFailedForWantOfADependencyIsStartedAfresh(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("db"), after(process("web"), "db", spec.ConditionStarted, spec.OnFailureStop)))
	w.settle(t, nil, func() {})
	w.fall("db", 0)
	w.fall("web", 0) // its attempts are used up
	w.settle(t, nil, func() {})
	w.rise("db", 0)
	w.settle(t, nil, func() {})
	if got := w.shown(); !slices.Equal(got, []string{"db/0 running", "web/0 running"}) {
		t.Errorf("in the end: %q", got)
	}
}

func TestARestartFollowsThatOfTheDependencyOnce(t *testing.T) {
	db := process("db")
	db.Shards = 2
	w := newWorld()
	wanted := func(n uint64, shards int) {
		db.Shards = shards
		w.want(version(n, db, after(process("web"), "db", spec.ConditionStarted, spec.OnFailureRestart)))
	}
	wanted(1, 2)
	w.settle(t, nil, func() {})
	web := w.generation("web", 0)
	restarts := func(n uint64, when string) {
		t.Helper()
		w.settle(t, nil, func() {})
		before := w.Current
		for range 5 { // whoever decides next, it comes to the same
			if w.decide(); !reflect.DeepEqual(w.Current, before) {
				t.Fatalf("%s: at rest, and yet %+v", when, w.Current)
			}
			w.act(nil)
		}
		now := w.generation("web", 0)
		if (now != web) != (n == 1) {
			t.Errorf("%s: generation %d became %d", when, web, now)
		}
		web = now
	}
	restarts(0, "at rest")
	w.fall("db", 0)
	restarts(0, "while db is down")
	w.rise("db", 0)
	restarts(1, "once it is back")
	w.fall("db", 0)
	w.fall("db", 1)
	w.rise("db", 0)
	restarts(0, "while one of two is down")
	w.rise("db", 1)
	restarts(1, "once both are back")
	wanted(2, 4)
	restarts(0, "more shards")
	wanted(3, 1)
	restarts(0, "fewer shards")
	w.instance("a", "db", 0).Started = time.Unix(1, 0)
	restarts(1, "declared anew, it counts from one again")
	w.fall("web", 0)
	w.fall("db", 0)
	w.rise("db", 0)
	restarts(0, "what does not run is not restarted")
}

// web depends on db and on api, which depends on db: it follows with one
// restart, after api's.
func TestADiamondIsRestartedInOrderAndOnce(t *testing.T) {
	w := newWorld()
	web := after(process("web"), "api", spec.ConditionStarted, spec.OnFailureRestart)
	w.want(version(1,
		process("db"),
		after(process("api"), "db", spec.ConditionStarted, spec.OnFailureRestart),
		after(web, "db", spec.ConditionStarted, spec.OnFailureRestart),
	))
	w.settle(t, nil, func() {})
	w.fall("db", 0)
	w.settle(t, nil, func() {})
	w.rise("db", 0)
	var starts []string
	last := w.generations()
	note := func() {
		now := w.generations()
		for _, id := range slices.SortedFunc(maps.Keys(now), spec.InstanceID.Compare) {
			if now[id] != last[id] {
				starts = append(starts, id.Process)
			}
		}
		last = now
	}
	w.settle(t, nil, note)
	note()
	if !slices.Equal(starts, []string{"api", "web"}) {
		t.Errorf("what was started is %q", starts)
	}
}

func TestARestartThatFollowsPassesTheGate(t *testing.T) {
	w := newWorld()
	w.now = dawn
	follower := rolled("v1", 3, nil) // one at a time, healthy for 10s
	follower.DependsOn = []spec.Dependency{{Process: "db", Condition: spec.ConditionStarted, OnFailure: spec.OnFailureRestart}}
	w.want(version(1, process("db"), follower))
	w.settle(t, nil, func() {})
	w.now = w.now.Add(time.Hour)
	w.decide()
	before := w.generations()
	restarted := func() (n int) {
		for id, g := range w.generations() {
			if id.Process == "p" && g != before[id] {
				n++
			}
		}
		return n
	}
	w.fall("db", 0)
	w.decide()
	w.rise("db", 0)
	for n, wait := range []time.Duration{0, 10 * time.Second, 10 * time.Second} {
		w.now = w.now.Add(wait)
		d := w.pass(0, time.Second)
		if got := restarted(); got != n+1 {
			t.Fatalf("turn %d: %d were restarted", n, got)
		}
		if why := d.Reasons[spec.InstanceID{Job: "j", Process: "p", Shard: 2}]; n < 2 && !strings.HasPrefix(why, "restart, as db has restarted is pending: shard ") {
			t.Errorf("turn %d: shard 2 %q", n, why)
		}
	}
	after := w.generations()
	w.pass(time.Hour, time.Minute)
	if now := w.generations(); !maps.Equal(now, after) {
		t.Errorf("later, %v became %v", after, now)
	}
	for _, p := range w.Current["a"].Processes {
		if len(p.Due) > 0 {
			t.Errorf("still due: %v", p.Due)
		}
	}
}

// far is what is known of job store, with one process redis on node b.
func far(shards int, instances ...spec.Instance) Other {
	redis := process("redis")
	redis.Shards = shards
	v := version(1, redis)
	v.Job.Name = "store"
	p := onNode(v, "b")
	for i := range instances {
		instances[i].ID.Job, instances[i].ID.Process, instances[i].Version = "store", "redis", 1
	}
	return Other{Job: v, Placement: p, Observed: map[string]spec.Observed{"b": {Job: "store", Node: "b", Instances: instances}}}
}

func TestAnotherJobIsWaitedFor(t *testing.T) {
	up := spec.Instance{Phase: spec.PhaseRunning, Generation: 3}
	stopped := far(1)
	stopped.Job.Orders = map[string]spec.Order{"redis": {Stopped: true}}
	other := far(1, up)
	other.Job.Job.Processes[0].Name = "valkey"
	changed := far(1, up)
	changed.Job.Version, changed.Job.Job.Processes[0].Command = 2, []spec.Template{"other"}
	unplaced := far(1, up)
	unplaced.Placement = nil
	unreadable := far(1, up)
	unreadable.Unreadable = true
	for name, test := range map[string]struct {
		others map[string]Other
		held   string
	}{
		"up":            {map[string]Other{"store": far(1, up)}, ""},
		"no job":        {nil, `waits for store/redis: no job named "store"`},
		"no process":    {map[string]Other{"store": other}, "waits for store/redis, which job store does not have"},
		"no shards":     {map[string]Other{"store": far(0)}, "waits for store/redis to be started, which has no shards"},
		"one of two":    {map[string]Other{"store": far(2, up)}, "waits for store/redis to be started"},
		"starting":      {map[string]Other{"store": far(1, spec.Instance{Phase: spec.PhaseStarting})}, "waits for store/redis to be started"},
		"stopped":       {map[string]Other{"store": stopped}, "waits for store/redis to be started, which an operator has stopped"},
		"to change":     {map[string]Other{"store": changed}, "waits for store/redis to be started"},
		"not placed":    {map[string]Other{"store": unplaced}, "waits for store/redis to be started"},
		"can't be read": {map[string]Other{"store": unreadable}, "waits for store/redis: the state of job store cannot be read"},
	} {
		w := newWorld()
		w.want(version(1, after(process("web"), "store/redis", spec.ConditionStarted, "")))
		w.Others = test.others
		w.decide()
		if held := w.Current["a"].Processes[0].Held[0]; held != test.held {
			t.Errorf("%s: held is %q, want %q", name, held, test.held)
		}
	}
}

func TestAnotherJobsFailureIsActedOn(t *testing.T) {
	up := far(1, spec.Instance{Phase: spec.PhaseRunning, Generation: 3})
	down := far(1, spec.Instance{Phase: spec.PhaseBackoff, Generation: 3})
	again := far(1, spec.Instance{Phase: spec.PhaseRunning, Generation: 4})
	unreadable := far(1)
	unreadable.Unreadable = true
	for name, test := range map[string]struct {
		what  spec.OnFailure
		then  []Other
		stops bool
		anew  bool
	}{
		"wait":                      {"", []Other{down, again}, false, false},
		"stop while it is down":     {spec.OnFailureStop, []Other{down}, true, false},
		"stop until it is back":     {spec.OnFailureStop, []Other{down, again}, false, true},
		"stop when it is removed":   {spec.OnFailureStop, []Other{{}}, true, false},
		"stop not for want of news": {spec.OnFailureStop, []Other{unreadable}, false, false},
		"restart once it is back":   {spec.OnFailureRestart, []Other{down, again}, false, true},
		"restart not before":        {spec.OnFailureRestart, []Other{down}, false, false},
		"restart not for nothing":   {spec.OnFailureRestart, []Other{down, up}, false, false},
	} {
		w := newWorld()
		w.want(version(1, after(process("web"), "store/redis", spec.ConditionStarted, test.what)))
		w.Others = map[string]Other{"store": up}
		w.settle(t, nil, func() {})
		first := w.generation("web", 0)
		for _, o := range test.then {
			w.Others = map[string]Other{"store": o}
			w.settle(t, nil, func() {})
		}
		in := w.instance("a", "web", 0)
		if (in == nil) != test.stops || in != nil && (in.Generation != first) != test.anew {
			t.Errorf("%s: %+v", name, in)
		}
	}
}
