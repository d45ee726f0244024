package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// fakeNode is a backend that does at once what is planned: instances run as
// soon as their job is applied, and are gone when it is removed.
type fakeNode struct {
	apitest.Backend
	mu        sync.Mutex // guards what is below
	changed   chan struct{}
	index     uint64
	jobs      map[string]api.JobSource
	plans     map[uint64]api.PlanRequest
	stubborn  bool // instances end only by SIGKILL
	signals   []spec.Signal
	shutdowns int
}

func newFakeNode() *fakeNode {
	n := &fakeNode{changed: make(chan struct{}), index: 1, jobs: map[string]api.JobSource{}, plans: map[uint64]api.PlanRequest{}}
	n.InfoFunc = func(context.Context) (api.Info, error) {
		return api.Info{Node: "alpha", Version: "v1", PID: 1 << 30, DataDir: "/d"}, nil
	}
	n.PlanFunc, n.ApplyFunc, n.InstancesFunc = n.plan, n.apply, n.instances
	n.JobsFunc = func(context.Context) ([]spec.JobVersion, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		var out []spec.JobVersion
		for _, j := range n.jobs {
			out = append(out, spec.JobVersion{Job: j.Job, Source: j.Source})
		}
		return out, nil
	}
	n.LogsFunc = func(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		if err := each(spec.LogLine{ID: id("app", 0), Time: testNow(), Stream: "stdout", Text: "hello from " + q.Job}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	n.SignalFunc = func(_ context.Context, _ string, s spec.Signal) (int, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.signals = append(n.signals, s)
		n.stubborn = false
		n.wake()
		return 1, nil
	}
	n.EventsFunc = func(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
		for _, job := range []string{"web", "other"} {
			if err := each(spec.Event{ID: job, Type: spec.EventRolloutWaiting, Job: job, Message: "app: wait for: meshrun promote " + job}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	n.ShutdownFunc = func(context.Context, bool) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.shutdowns++
		return nil
	}
	return n
}

// wake tells that something has changed. mu is held.
func (n *fakeNode) wake() {
	n.index++
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNode) plan(_ context.Context, req api.PlanRequest) (spec.Plan, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plans[n.index] = req
	p := spec.Plan{Index: n.index}
	for _, j := range req.Jobs {
		action := spec.JobCreate
		if old, there := n.jobs[j.Job.Name]; there {
			if action = spec.JobKeep; len(spec.Diff(&old.Job, &j.Job)) > 0 {
				action = spec.JobUpdate
			}
		}
		p.Jobs = append(p.Jobs, spec.JobPlan{Job: j.Job.Name, Action: action, Instances: []spec.InstancePlan{
			{ID: id("app", 0), Action: spec.ActionStart, Reason: "new job"},
		}})
	}
	for _, name := range req.Remove {
		p.Jobs = append(p.Jobs, spec.JobPlan{Job: name, Action: spec.JobRemove})
	}
	return p, nil
}

func (n *fakeNode) apply(_ context.Context, p spec.Plan) (api.ApplyResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, j := range n.plans[p.Index].Jobs {
		n.jobs[j.Job.Name] = j
	}
	for _, name := range n.plans[p.Index].Remove {
		delete(n.jobs, name)
	}
	n.wake()
	return api.ApplyResult{Index: n.index}, nil
}

func (n *fakeNode) instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	for {
		n.mu.Lock()
		changed, index := n.changed, n.index
		var out []spec.Instance
		for _, j := range n.jobs {
			for _, p := range j.Job.Processes {
				for shard := range p.Shards {
					i := seen(p.Name, shard, spec.PhaseRunning)
					i.ID.Job = j.Job.Name
					out = append(out, i)
				}
			}
		}
		if len(out) == 0 && n.stubborn {
			out = append(out, seen("app", 0, spec.PhaseStopping))
		}
		n.mu.Unlock()
		if index != after {
			return out, index, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// upRun is an `up` in the background.
type upRun struct {
	t       *testing.T
	out     *buffer
	signals chan os.Signal
	ended   chan error
}

func startUp(t *testing.T, n *fakeNode, file string, started func()) *upRun {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "agent.sock")
	term, out, _ := testTerm(map[string]string{"MESHRUN_DATA_DIR": dir})
	term.err = out
	c := &up{term: term, place: place{term: term}, sources: sources{term: term}, paths: []string{file},
		start: func(context.Context, string) (*startedAgent, error) {
			started()
			apitest.ServeAt(t, socket, n)
			return &startedAgent{exited: make(chan error)}, nil
		}}
	u := &upRun{t: t, out: out, signals: make(chan os.Signal), ended: make(chan error, 1)}
	go func() { u.ended <- c.run(t.Context(), u.signals) }()
	return u
}

// says waits until up has said something.
func (u *upRun) says(text string) {
	u.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(u.out.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			u.t.Fatalf("up does not say %q:\n%s", text, u.out)
		}
	}
}

func (u *upRun) ends() error {
	u.t.Helper()
	select {
	case err := <-u.ended:
		return err
	case <-time.After(time.Minute):
		u.t.Fatalf("up does not end:\n%s", u.out)
		return nil
	}
}

func TestUpStartsShowsFollowsAndStops(t *testing.T) {
	n := newFakeNode()
	file := jobFile(t, webJob)
	starts := 0
	u := startUp(t, n, file, func() { starts++ })
	u.says("started for you")
	u.says("web/app/0")
	u.says("watching " + file)
	u.says("app/1    | ● running, pid 4001")
	u.says("app/0    | hello from web")
	u.says("○ web: app: wait for: meshrun promote web")

	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+"~", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"~", file); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(webJob, "shards  = 2", "shards  = 3", 1))
	u.says("app/2    | ● running")
	write(strings.Replace(webJob, "shards", "shrads", 1))
	u.says("Nothing was changed")
	u.says(`"shrads"`)

	u.signals <- syscall.SIGINT
	if err := u.ends(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	u.says("app/0    | ■ stopped")
	u.says("all stopped.")
	if strings.Contains(u.out.String(), "promote other") {
		t.Error("up tells of a job that is not its own")
	}
	if starts != 1 || n.shutdowns != 1 || len(n.jobs) != 0 || len(n.signals) != 0 {
		t.Errorf("%d starts, %d shutdowns, jobs %v, signals %v", starts, n.shutdowns, n.jobs, n.signals)
	}
}

// applied makes a job wanted that somebody else applied from another file.
func (n *fakeNode) applied(name, source string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := spec.DefaultProcess("app")
	n.jobs[name] = api.JobSource{Job: spec.Job{Name: name, Processes: []spec.Process{p}}, Source: source}
	n.wake()
}

func TestCtrlCStopsOnlyWhatUpHasApplied(t *testing.T) {
	n := newFakeNode()
	two := webJob + "job \"api\" {\n  process \"app\" { command = [\"sleep\", \"1000\"] }\n}\n"
	u := startUp(t, n, jobFile(t, two), func() {})
	u.says("watching")
	n.applied("db", "/elsewhere/db.hcl")
	n.applied("api", "/elsewhere/api.hcl") // in the place of up's
	u.signals <- syscall.SIGINT
	if err := u.ends(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	u.says("Other jobs run here")
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, web := n.jobs["web"]; web || len(n.jobs) != 2 || n.shutdowns != 0 {
		t.Errorf("left are %v, %d shutdowns", n.jobs, n.shutdowns)
	}
}

func TestUpStopsNothingWhenItsLastFileIsRemoved(t *testing.T) {
	n := newFakeNode()
	dir := filepath.Dir(jobFile(t, webJob))
	u := startUp(t, n, dir, func() {})
	u.says("watching")
	if err := os.Remove(filepath.Join(dir, "job.hcl")); err != nil {
		t.Fatal(err)
	}
	u.says("No job file is left, so nothing was changed")
	n.mu.Lock()
	left := len(n.jobs)
	n.mu.Unlock()
	if left != 1 {
		t.Errorf("%d jobs are left", left)
	}
	u.signals <- syscall.SIGINT
	if err := u.ends(); err != nil || len(n.jobs) != 0 {
		t.Errorf("up ended with %v, and jobs %v", err, n.jobs)
	}
}

func TestTheSecondSignalKills(t *testing.T) {
	n := newFakeNode()
	n.stubborn = true
	u := startUp(t, n, jobFile(t, webJob), func() {})
	u.says("watching")
	u.signals <- syscall.SIGTERM
	u.says("stopping")
	u.signals <- syscall.SIGTERM
	if err := u.ends(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	if len(n.signals) != 1 || n.signals[0] != "SIGKILL" {
		t.Errorf("signals %v", n.signals)
	}
}

func TestUpStartsNothingForABrokenFile(t *testing.T) {
	for _, text := range []string{"job {", "", "variable \"x\" {\n  default = 1\n}\n"} {
		u := startUp(t, newFakeNode(), jobFile(t, text), func() { t.Error("an agent was started") })
		if err := u.ends(); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestAnAgentThatWasThereStays(t *testing.T) {
	n := newFakeNode()
	dir := apitest.Serve(t, n)
	term, out, errOut := testTerm(map[string]string{"MESHRUN_DATA_DIR": dir})
	c := &up{term: term, place: place{term: term}, sources: sources{term: term}, paths: []string{jobFile(t, webJob)}}
	u := &upRun{t: t, out: errOut, signals: make(chan os.Signal), ended: make(chan error, 1)}
	go func() { u.ended <- c.run(t.Context(), u.signals) }()
	u.says("was there already")
	u.says("watching")
	u.signals <- syscall.SIGHUP
	if err := u.ends(); err != nil || n.shutdowns != 0 {
		t.Errorf("ended with %v, %d shutdowns\n%s", err, n.shutdowns, out)
	}
	u.says("and stays")
}

func TestUpStopsFirstTheJobsOnWhichNoOtherDepends(t *testing.T) {
	on := func(name string, others ...string) spec.JobVersion {
		p := spec.DefaultProcess("p")
		for _, other := range others {
			p.DependsOn = append(p.DependsOn, spec.DefaultDependency(other))
		}
		return spec.JobVersion{Job: spec.Job{Name: name, Processes: []spec.Process{p}}}
	}
	jobs := []spec.JobVersion{on("shop", "cache/p", "store/p"), on("cache", "store/p"), on("store"), on("other", "store/p")}
	for _, test := range []struct{ left, want []string }{
		{[]string{"cache", "shop", "store"}, []string{"shop"}},
		{[]string{"cache", "store"}, []string{"cache"}},
		{[]string{"store"}, []string{"store"}}, // another one's dependents don't hold it
		{nil, nil},
	} {
		if got := undepended(jobs, test.left); !slices.Equal(got, test.want) {
			t.Errorf("of %q, %q end first", test.left, got)
		}
	}
}
