package main

import (
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// bigPlan has one of everything.
func bigPlan() *spec.Plan {
	field := func(process, path, old, new string, effect spec.Effect) spec.Change {
		return spec.Change{Process: process, Path: path, Old: old, New: new, OldSet: old != "", NewSet: new != "", Effect: effect}
	}
	p := &spec.Plan{Format: spec.PlanFormat, Index: 9, Warnings: []string{"the port 80 needs root"}}
	update := spec.JobPlan{
		Job: "web", Action: spec.JobUpdate, From: 3, To: 4,
		Wanted: &spec.JobVersion{Source: "/etc/meshrun/jobs/web.hcl"},
		Changes: []spec.Change{
			field("", "labels.team", `"web"`, `"platform"`, spec.EffectLive),
			field("api", "env.PORT", `"8080"`, `"9090"`, spec.EffectReplace),
			field("api", "env.TOKEN", "(sensitive)", "(sensitive)", spec.EffectReplace),
			field("api", "restart.delay", `"1s"`, "", spec.EffectLive),
			field("cron", "command", "", `["./cron", "--daily", "`+strings.Repeat("x", 100)+`"]`, spec.EffectNone),
			field("old", "command", `["./old"]`, "", spec.EffectNone),
			field("work", "command", `["./work", "--mode", "`+strings.Repeat("a", 40)+`"]`, `["./work", "--mode", "`+strings.Repeat("b", 40)+`"]`, spec.EffectReplace),
			field("work", "shards", "3", "5", spec.EffectLive),
		},
	}
	add := func(process string, from, to int, action spec.InstanceAction, reason string) {
		for n := from; n <= to; n++ {
			update.Instances = append(update.Instances, spec.InstancePlan{ID: id(process, n), Action: action, Reason: reason})
		}
	}
	add("api", 0, 3, spec.ActionRestart, "env.PORT changed")
	add("cron", 0, 0, spec.ActionWait, "waits for api")
	update.Instances = append(update.Instances, spec.InstancePlan{ID: id("cron", 1), Node: "a", Action: spec.ActionWait, Reason: "waits for api; goes on as it is until then"})
	add("old", 0, 7, spec.ActionStop, "removed")
	add("work", 0, 1, spec.ActionRestart, "command changed")
	add("work", 2, 2, spec.ActionRefuse, "no such user: bob")
	add("work", 3, 4, spec.ActionStart, "new shard")
	add("still", 0, 11, spec.ActionKeep, "")
	p.Jobs = []spec.JobPlan{
		{Job: "gone", Action: spec.JobRemove, From: 2, Changes: []spec.Change{field("x", "command", `["x"]`, "", spec.EffectNone)},
			Instances: []spec.InstancePlan{{ID: spec.InstanceID{Job: "gone", Process: "x"}, Action: spec.ActionStop, Reason: "job removed"}}},
		{Job: "kept", Action: spec.JobKeep, Instances: []spec.InstancePlan{{ID: spec.InstanceID{Job: "kept", Process: "x"}, Action: spec.ActionKeep}}},
		update,
	}
	return p
}

// clusterPlan changes a job on several nodes.
func clusterPlan() *spec.Plan {
	do := func(process string, shard int, action spec.InstanceAction, from, node, reason string) spec.InstancePlan {
		return spec.InstancePlan{ID: id(process, shard), Action: action, From: from, Node: node, Reason: reason}
	}
	return &spec.Plan{
		Format: spec.PlanFormat, Index: 9,
		Warnings: []string{`cannot place web/api/4: no eligible node (3 full)`},
		Jobs: []spec.JobPlan{{
			Job: "web", Action: spec.JobUpdate, From: 3, To: 4,
			Changes: []spec.Change{{Process: "api", Path: "placement.constraint.disk.is", New: `"ssd"`, NewSet: true, Effect: spec.EffectLive}},
			Instances: []spec.InstancePlan{
				do("api", 0, spec.ActionKeep, "", "node-a", ""),
				do("api", 1, spec.ActionMove, "node-b", "node-a", `node-b is without label disk = "ssd"`),
				do("api", 2, spec.ActionMove, "node-b", "node-a", `node-b is without label disk = "ssd"`),
				do("api", 3, spec.ActionMove, "node-c", "node-a", "node-c is draining"),
				do("api", 4, spec.ActionRefuse, "", "", "no eligible node (3 full)"),
				do("api", 5, spec.ActionStart, "", "node-a", "new shard"),
			},
		}},
	}
}

func TestAPlanReadsWell(t *testing.T) {
	golden(t, "plan", renderPlan(bigPlan(), style{}))
	golden(t, "plan-colour", renderPlan(bigPlan(), style{on: true}))
	golden(t, "plan-nodes", renderPlan(clusterPlan(), style{}))
	empty := emptyPlan()
	golden(t, "plan-empty", renderPlan(&empty, style{}))
}

func seen(process string, shard int, phase spec.Phase) spec.Instance {
	i := spec.Instance{ID: id(process, shard), Phase: phase, Version: 4, Generation: 1}
	if phase.Alive() {
		i.PID, i.Started = 4000+shard, testNow().Add(-3*time.Hour-time.Duration(shard)*time.Minute)
	}
	return i
}

// bigStatus has one of everything.
func bigStatus() *statusView {
	failed := seen("api", 1, spec.PhaseFailed)
	failed.Restarts, failed.LastExit, failed.Reason = 3, &spec.Exit{Code: 1, At: testNow()}, "3 restarts within 5m are used up"
	backoff := seen("api", 2, spec.PhaseBackoff)
	backoff.Restarts, backoff.LastExit, backoff.NextStart = 1, &spec.Exit{Signal: "SIGKILL"}, testNow().Add(3500*time.Millisecond)
	back := seen("api", 3, spec.PhaseRunning)
	back.Restarts, back.LastExit = 2, &spec.Exit{Unknown: true, At: testNow().Add(-5 * time.Minute)}
	api0 := seen("api", 0, spec.PhaseRunning)
	api0.Ports, api0.Status = map[string]int{"http": 8080, "admin": 9090}, "serving \x1b[31m12\x1b[0m\nclients"
	done := seen("setup", 0, spec.PhaseCompleted)
	done.LastExit = &spec.Exit{At: testNow().Add(-time.Minute)}
	held := seen("late", 0, spec.PhasePending)
	held.Reason = "waits for api to be started"
	v := &statusView{
		Agent: api.Info{Node: "alpha", Version: "v1.2.3", PID: 100, WatchdogPID: 99, Started: testNow().Add(-50 * time.Hour), Problems: []string{"the job files have errors"}},
		Jobs: []spec.JobVersion{{
			Job: spec.Job{Name: "web", Processes: []spec.Process{
				{Name: "api", Shards: 4}, {Name: "down", Shards: 3}, {Name: "late", Shards: 1}, {Name: "setup", Shards: 1}, {Name: "work", Shards: 102},
			}},
			Version: 4, Who: "alice", When: testNow().Add(-5 * time.Minute), Why: "apply",
			Orders: map[string]spec.Order{"down": {Stopped: true}},
		}},
		Instances: []spec.Instance{api0, failed, backoff, back, done, held},
	}
	for n := range 100 {
		v.Instances = append(v.Instances, seen("work", n, spec.PhaseRunning))
	}
	v.Instances[len(v.Instances)-60].DroppedBytes = 123456
	v.Instances = append(v.Instances, spec.Instance{ID: spec.InstanceID{Job: "old", Process: "x"}, Phase: spec.PhaseStopping, PID: 5, Started: testNow()})
	return v
}

func TestAStatusReadsWell(t *testing.T) {
	golden(t, "status", renderStatus(bigStatus(), statusOptions{now: testNow()}))
	golden(t, "status-colour", renderStatus(bigStatus(), statusOptions{now: testNow(), style: style{on: true}}))
	all := renderStatus(bigStatus(), statusOptions{now: testNow(), all: true})
	if n := strings.Count(all, "work/"); n != 101 {
		t.Errorf("-all shows %d rows of work, want 100 and one for what is not started", n)
	}
	golden(t, "status-none", renderStatus(&statusView{Agent: api.Info{Node: "alpha", Version: "v1"}}, statusOptions{now: testNow()}))
}

func TestAStatusNamesTheNodesIfThereAreSeveral(t *testing.T) {
	v := bigStatus()
	for n := range v.Instances {
		v.Instances[n].Node = []string{"alpha", "beta"}[n%2]
	}
	lost := seen("down", 0, spec.PhasePending)
	lost.Node, lost.Reason = "gamma", "gamma is gone since 11:58:00Z; it was running there"
	v.Instances = append(v.Instances, lost)
	golden(t, "status-nodes", renderStatus(v, statusOptions{now: testNow()}))
}

func TestAStatusOfAJobShowsItsServices(t *testing.T) {
	v := bigStatus()
	v.Instances = v.Instances[:4] // of api
	for n := range v.Instances {
		i := &v.Instances[n]
		i.Services = i.Endpoints([]spec.Service{{Name: "admin"}, {Name: "shop", Port: "http", Tags: []string{"v2"}}})
	}
	golden(t, "status-services", renderStatus(v, statusOptions{now: testNow(), targets: targets{{Job: "web", Process: "api", Shard: -1}}}))
}

func TestAStatusShowsHealth(t *testing.T) {
	v := bigStatus()
	at := func(d time.Duration) time.Time { return testNow().Add(-d) }
	checks := func(states ...spec.HealthState) (out []spec.CheckResult) {
		for n, s := range states {
			out = append(out, spec.CheckResult{Name: []string{"page", "queue"}[n], State: s, Since: at(time.Minute), Output: "HTTP 200\nok"})
		}
		return out
	}
	sick, fresh := &v.Instances[3], &v.Instances[0]
	sick.Health, sick.Checks, sick.RestartCause = spec.HealthFailing, checks(spec.HealthPassing, spec.HealthFailing), `its check "queue" fails`
	sick.Checks[1].Output = "exit status 1\nthe queue holds " + strings.Repeat("very ", 20) + "much"
	fresh.Health, fresh.Checks = spec.HealthUnknown, []spec.CheckResult{{Name: "page", State: spec.HealthUnknown}}
	golden(t, "status-health", renderStatus(v, statusOptions{now: testNow()}))
	v.Instances = v.Instances[:4] // of api
	golden(t, "status-checks", renderStatus(v, statusOptions{now: testNow(), targets: targets{{Job: "web", Process: "api", Shard: -1}}}))
}

func TestAStatusOfAJobShowsItsLimits(t *testing.T) {
	v := bigStatus()
	processes := v.Jobs[0].Job.Processes
	processes[0].Resources = &spec.Resources{CPU: 0.5, Memory: 256 << 20, PIDs: 100}
	processes[4].Resources = &spec.Resources{Memory: 1 << 30}
	v.Instances[1].LastExit = &spec.Exit{Signal: "SIGKILL", OOM: true, At: testNow()}
	golden(t, "status-limits", renderStatus(v, statusOptions{now: testNow(), targets: targets{{Job: "web", Shard: -1}}}))
}

// bigCluster has one of everything.
func bigCluster() api.Cluster {
	c := api.Cluster{
		Nodes: []api.NodeStatus{
			{Node: spec.Node{Name: "alpha", Address: "10.0.0.1:7450", Version: "v1.2.3", Labels: map[string]string{"zone": "a", "disk": "ssd"}, Since: testNow().Add(-50 * time.Hour)},
				State: api.NodeReady, Instances: 12, Primary: true, ControlShards: []int{0, 1, 2, 4, 8}, Exclusive: []string{"web/app/0", "web/app/1"}},
			{Node: spec.Node{Name: "beta", Address: "10.0.0.2:7450", Version: "v1.2.3", Draining: true}, State: api.NodeDraining, Instances: 1, ControlShards: []int{3}},
			{Node: spec.Node{Name: "gamma"}, State: api.NodeGone, Instances: 3},
		},
		Primary: "alpha", ControlShards: make([]string, 16),
	}
	for _, n := range c.Nodes {
		for _, k := range n.ControlShards {
			c.ControlShards[k] = n.Name
		}
	}
	return c
}

func TestTheClusterReadsWell(t *testing.T) {
	c := bigCluster()
	golden(t, "nodes", renderNodes(c.Nodes, style{}, testNow()))
	one := []api.NodeStatus{{Node: spec.Node{Name: "alpha"}, State: api.NodeReady}}
	c.Nodes[0].Reserved, c.Nodes[1].Reserved = spec.Resources{CPU: 1.1 + 2.2, Memory: 3 << 30}, spec.Resources{Memory: 256 << 20}
	c.Nodes[0].Memory, c.Nodes[0].CPU, c.Nodes[1].Memory = 8<<30, 4, 1<<30
	golden(t, "nodes-bounded", renderNodes(c.Nodes, style{}, testNow()))
	golden(t, "nodes-one", renderNodes(one, style{}, testNow()))
	golden(t, "leader", renderLeader(leaderView{c.Primary, c.ControlShards}, style{}))
	golden(t, "engines", renderEngines([]api.EngineStatus{
		{Engine: spec.Engine{Name: "render-1", Kind: "renderer", Address: "10.0.0.9:80", TTL: spec.DefaultEngineTTL, Capabilities: []string{"png", "svg"}},
			Node: "alpha", Beat: testNow().Add(-4 * time.Second), Expires: testNow().Add(26 * time.Second)},
		{Engine: spec.Engine{Name: "render-2", Kind: "renderer"}, Node: "gamma"},
	}, style{}, testNow()))
}

func TestForeignTextCannotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":               "plain\ttext",
		"\x1b[31mred\x1b[0m":        "\x1b[31mred\x1b[0m\x1b[0m",
		"\x1b[2Jclear":              "[2Jclear",
		"bell\a\rover":              "bellover",
		"\x1b]0;title\a":            "]0;title",
		"ünïcode ✔":                 "ünïcode ✔",
		"\u009b2J":                  "2J",
		"\x1b[38;5;200mpink\x1b[2K": "\x1b[38;5;200mpink[2K\x1b[0m",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestClippingCountsWhatIsSeen(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"hello", 0, "hello"}, {"hello", 5, "hello"}, {"hello", 3, "hel\x1b[0m"},
		{"\x1b[31mhello\x1b[0m", 5, "\x1b[31mhello\x1b[0m"}, {"\x1b[31mhello\x1b[0m", 2, "\x1b[31mhe\x1b[0m"}, {"äöü", 2, "äö\x1b[0m"},
	} {
		if got := clip(c.in, c.width); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.in, c.width, got, c.want)
		}
	}
}

func TestTimesAreReadAsPeopleWriteThem(t *testing.T) {
	now := testNow()
	for text, want := range map[string]time.Time{
		"":                     {},
		"5m":                   now.Add(-5 * time.Minute),
		"2d":                   now.AddDate(0, 0, -2),
		"09:30":                time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"2026-11-01 10:00":     time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
		"2026-11-01T10:00:00Z": time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 200 * time.Second: "3m20s", time.Hour: "1h", 50 * time.Hour: "2d2h",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestHistoryTellsWhatEachVersionChanged(t *testing.T) {
	job := func(shards int, env string) spec.Job {
		p := spec.DefaultProcess("app")
		p.Command, p.Shards = []spec.Template{"sleep"}, shards
		p.Env = map[string]spec.Template{"V": spec.Template(env)}
		return spec.Job{Name: "web", Processes: []spec.Process{p}}
	}
	more := job(2, "b")
	extra := spec.DefaultProcess("extra")
	extra.Command = []spec.Template{"true"}
	more.Processes = append(more.Processes, extra)
	versions := []spec.JobVersion{
		{Job: job(1, "a"), Version: 1, Who: "root", When: testNow().Add(-48 * time.Hour), Why: "apply"},
		{Job: job(2, "a"), Version: 2, Who: "alice", When: testNow().Add(-time.Hour), Why: "scale"},
		{Job: more, Version: 3, Who: "root", When: testNow(), Why: "apply"},
	}
	golden(t, "history", renderHistory(versions, style{}, testNow()))
}
