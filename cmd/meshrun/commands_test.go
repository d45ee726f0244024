package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/agent"
	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestPlanTellsByItsExitCode(t *testing.T) {
	file := jobFile(t, webJob)
	for want, plan := range map[int]spec.Plan{0: emptyPlan(), 2: changingPlan()} {
		var asked api.PlanRequest
		b := &apitest.Backend{PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return plan, nil }}
		stdout, stderr, code := meshrun(t, b, "plan", file)
		if code != want || !strings.Contains(stdout, "stay") && !strings.Contains(stdout, "No changes") {
			t.Errorf("exit %d, want %d: %s%s", code, want, stdout, stderr)
		}
		if !reflect.DeepEqual(asked.Paths, []string{file}) || len(asked.Jobs) != 1 || asked.Jobs[0].Source != file || asked.Jobs[0].Job.Name != "web" {
			t.Errorf("asked %+v", asked)
		}
	}
	broken := jobFile(t, "job \"x\" {\n  process \"p\" { comand = 1 }\n}\n")
	_, stderr, code := meshrun(t, &apitest.Backend{}, "plan", broken)
	if code != 1 || !strings.Contains(stderr, "comand") || !strings.Contains(stderr, "line 2") {
		t.Errorf("a broken file: exit %d, %s", code, stderr)
	}
	_, stderr, code = meshrun(t, nil, "plan", file)
	if code != 1 || !strings.Contains(stderr, "meshrun agent") {
		t.Errorf("no agent: exit %d, %s", code, stderr)
	}
}

func TestASavedPlanIsAppliedAsItIs(t *testing.T) {
	saved := filepath.Join(t.TempDir(), "saved.plan")
	plan := changingPlan()
	plan.Jobs[0].Sealed = []byte("sealed")
	var applied spec.Plan
	b := &apitest.Backend{
		PlanFunc: func(context.Context, api.PlanRequest) (spec.Plan, error) { return plan, nil },
		ApplyFunc: func(_ context.Context, p spec.Plan) (api.ApplyResult, error) {
			applied = p
			return api.ApplyResult{Index: 8, Applied: []string{"web"}}, nil
		},
	}
	stdout, stderr, code := meshrun(t, b, "plan", "-json", "-out", saved, jobFile(t, webJob))
	var printed spec.Plan
	if err := json.Unmarshal([]byte(stdout), &printed); err != nil || code != 2 || !reflect.DeepEqual(printed, plan) {
		t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the saved plan: %v, %v", info.Mode(), err)
	}
	_, stderr, code = meshrun(t, b, "apply", "-yes", saved)
	acted := changingPlan() // without what is only shown
	acted.Jobs[0].Sealed, acted.Jobs[0].Wanted, acted.Jobs[0].Changes = []byte("sealed"), nil, nil
	if code != 0 || !reflect.DeepEqual(applied, acted) {
		t.Errorf("exit %d: %s; applied %+v", code, stderr, applied)
	}
	b.ApplyFunc = func(context.Context, spec.Plan) (api.ApplyResult, error) { return api.ApplyResult{}, api.ErrStale }
	if _, stderr, code := meshrun(t, b, "apply", "-yes", saved); code != 1 || !strings.Contains(stderr, "plan again") {
		t.Errorf("a stale plan: exit %d, %s", code, stderr)
	}
	if err := os.WriteFile(saved, []byte(`{"format": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := meshrun(t, b, "apply", "-yes", saved); code != 1 || !strings.Contains(stderr, "format 99") {
		t.Errorf("a plan of another version: exit %d, %s", code, stderr)
	}
}

func TestWhoAgreesUnseenIsShownWhatWasDone(t *testing.T) {
	calls := 0
	b := &apitest.Backend{DoneFunc: func(context.Context, api.PlanRequest) (api.Done, error) {
		calls++
		return api.Done{Plan: changingPlan(), Result: api.ApplyResult{Index: 8, Applied: []string{"web"}}}, nil
	}}
	stdout, stderr, code := meshrun(t, b, "apply", "-yes", jobFile(t, webJob))
	if code != 0 || calls != 1 || !strings.Contains(stdout, "web/app/1") || !strings.Contains(stderr, "Applied:") {
		t.Errorf("exit %d after %d calls: %s%s", code, calls, stdout, stderr)
	}
	stdout, _, code = meshrun(t, b, "apply", "-yes", "-json", jobFile(t, webJob))
	var result api.ApplyResult
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 || result.Index != 8 {
		t.Errorf("as JSON: exit %d, %v: %s", code, err, stdout)
	}
	b.DoneFunc = func(context.Context, api.PlanRequest) (api.Done, error) { return api.Done{}, api.ErrStale }
	if _, stderr, code := meshrun(t, b, "apply", "-yes", jobFile(t, webJob)); code != 1 || !strings.Contains(stderr, "plan again") {
		t.Errorf("a state that moved: exit %d, %s", code, stderr)
	}
}

func TestApplyAsksOnlyATerminal(t *testing.T) {
	applies := 0
	b := &apitest.Backend{
		PlanFunc:  func(context.Context, api.PlanRequest) (spec.Plan, error) { return changingPlan(), nil },
		ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) { applies++; return api.ApplyResult{}, nil },
	}
	file := jobFile(t, webJob)
	if _, stderr, code := meshrun(t, b, "apply", file); code != 1 || !strings.Contains(stderr, "-yes") || applies != 0 {
		t.Errorf("without a terminal: exit %d, %d applies, %s", code, applies, stderr)
	}
	for answer, want := range map[string]int{"yes\n": 1, "no\n": 0, "": 0, "maybe\n": 0} {
		applies = 0
		term, out, _ := testTerm(map[string]string{"MESHRUN_DATA_DIR": apitest.Serve(t, b)})
		term.interactive, term.in = true, strings.NewReader(answer)
		code := run(t.Context(), []string{"apply", file}, term)
		if applies != want || code != 1-want {
			t.Errorf("answer %q: exit %d, %d applies", answer, code, applies)
		}
		if !strings.Contains(out.String(), "web/app/1") {
			t.Errorf("the plan was not shown: %s", out)
		}
	}
}

func TestOrdersAreDoneAtOnce(t *testing.T) {
	for line, want := range map[string]api.PlanRequest{
		"restart web/app/1 db": {Orders: []api.Order{{Op: spec.OpRestart, Target: "web/app/1"}, {Op: spec.OpRestart, Target: "db"}}},
		"stop web/app":         {Orders: []api.Order{{Op: spec.OpStop, Target: "web/app"}}},
		"stop -yes web/app":    {Orders: []api.Order{{Op: spec.OpStop, Target: "web/app"}}},
		"stop -purge web":      {Remove: []string{"web"}},
		"scale web/app 5":      {Orders: []api.Order{{Op: spec.OpScale, Target: "web/app", Count: 5}}},
		"rollback -yes web":    {Rollbacks: []api.Rollback{{Job: "web"}}},
		"rollback -yes web 2":  {Rollbacks: []api.Rollback{{Job: "web", Version: 2}}},
	} {
		var asked api.PlanRequest
		tries := 0
		b := &apitest.Backend{
			PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return changingPlan(), nil },
			ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) {
				if tries++; tries == 1 && !strings.HasPrefix(line, "rollback") {
					return api.ApplyResult{}, api.ErrStale // an order means the same on a newer state
				}
				return api.ApplyResult{Applied: []string{"web"}}, nil
			},
		}
		stdout, stderr, code := meshrun(t, b, strings.Fields(line)...)
		asked.Who = ""
		if code != 0 || !reflect.DeepEqual(asked, want) {
			t.Errorf("%s: exit %d, asked %+v: %s", line, code, asked, stderr)
		}
		if !strings.Contains(stdout, "web/app/1") {
			t.Errorf("%s does not tell what it does: %s", line, stdout)
		}
	}
	b := &apitest.Backend{PlanFunc: func(context.Context, api.PlanRequest) (spec.Plan, error) { return emptyPlan(), nil }}
	if stdout, _, code := meshrun(t, b, "stop", "web"); code != 0 || !strings.Contains(stdout, "Nothing to do") {
		t.Errorf("nothing to do: exit %d, %s", code, stdout)
	}
}

func TestSignalIsReadInEveryForm(t *testing.T) {
	for _, name := range []string{"HUP", "sighup", "SIGHUP"} {
		var got spec.Signal
		b := &apitest.Backend{SignalFunc: func(_ context.Context, target string, s spec.Signal) (int, error) { got = s; return 2, nil }}
		stdout, stderr, code := meshrun(t, b, "signal", name, "web/app", "db")
		if code != 0 || got != "SIGHUP" || !strings.Contains(stdout, "4 instances") {
			t.Errorf("%s: exit %d, %q, %s%s", name, code, got, stdout, stderr)
		}
	}
}

// node is a backend with what bigStatus shows.
func node() *apitest.Backend {
	v := bigStatus()
	return &apitest.Backend{
		InfoFunc: func(context.Context) (api.Info, error) { return v.Agent, nil },
		JobsFunc: func(context.Context) ([]spec.JobVersion, error) { return v.Jobs, nil },
		InstancesFunc: func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
			if after > 0 {
				<-ctx.Done()
				return nil, 0, ctx.Err()
			}
			return v.Instances, 5, nil
		},
	}
}

func TestStatusShowsWhatIsAskedFor(t *testing.T) {
	stdout, stderr, code := meshrun(t, node(), "status", "-json")
	var view statusView
	if err := json.Unmarshal([]byte(stdout), &view); err != nil || code != 0 || len(view.Instances) != 107 || view.Agent.WatchdogPID != 99 {
		t.Fatalf("exit %d, %v, %d instances: %s", code, err, len(view.Instances), stderr)
	}
	stdout, _, _ = meshrun(t, node(), "status", "-json", "web/api")
	if err := json.Unmarshal([]byte(stdout), &view); err != nil || len(view.Instances) != 4 || len(view.Jobs) != 1 {
		t.Errorf("web/api: %d instances of %d jobs, %v", len(view.Instances), len(view.Jobs), err)
	}
	stdout, _, code = meshrun(t, node(), "status", "web/api/1")
	if code != 0 || !strings.Contains(stdout, "api/1") || strings.Contains(stdout, "api/2") || strings.Contains(stdout, "down") {
		t.Errorf("web/api/1: exit %d\n%s", code, stdout)
	}
	if stdout, _, code = meshrun(t, node(), "status", "web/down"); code != 0 || !strings.Contains(stdout, "stopped") {
		t.Errorf("web/down: exit %d\n%s", code, stdout)
	}
	stdout, _, code = meshrun(t, node(), "status", "web/api/1", "web/down")
	if code != 0 || !strings.Contains(stdout, "api/1") || strings.Contains(stdout, "api/2") || !strings.Contains(stdout, "stopped") {
		t.Errorf("web/api/1 and web/down: exit %d\n%s", code, stdout)
	}
	if _, stderr, code := meshrun(t, node(), "status", "web", "nope"); code != 1 || !strings.Contains(stderr, "there is no nope") {
		t.Errorf("one of two is not there: exit %d, %s", code, stderr)
	}
	for _, none := range []string{"nope", "web/nope", "web/down/3"} {
		if _, stderr, code := meshrun(t, node(), "status", none); code != 1 || !strings.Contains(stderr, "there is no "+none) {
			t.Errorf("%s: exit %d, %s", none, code, stderr)
		}
	}
}

func TestStatusWaitsForAnAgentThatIsBeingStartedAgain(t *testing.T) {
	b, asked := node(), 0
	info := b.InfoFunc
	b.InfoFunc = func(ctx context.Context) (api.Info, error) {
		if asked++; asked < 3 {
			return api.Info{}, fmt.Errorf("it is ending: %w", api.ErrUnavailable)
		}
		return info(ctx)
	}
	usual := mostRestart
	t.Cleanup(func() { mostRestart = usual })
	mostRestart = time.Minute
	if stdout, stderr, code := meshrun(t, b, "status", "web"); code != 0 || !strings.Contains(stdout, "node ") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	mostRestart = time.Millisecond
	if _, stderr, code := meshrun(t, nil, "status"); code != 1 || !strings.Contains(stderr, "start one with `meshrun agent`") {
		t.Errorf("with no agent: exit %d\n%s", code, stderr)
	}
}

func TestWatchingShowsEveryChangeAndEndsQuietly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := node()
	b.InstancesFunc = func(_ context.Context, after uint64) ([]spec.Instance, uint64, error) {
		if after == 3 {
			cancel()
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}
		i := seen("api", 0, spec.PhaseRunning)
		i.Restarts = int(after)
		return []spec.Instance{i}, after + 1, nil
	}
	term, out, errOut := testTerm(map[string]string{"MESHRUN_DATA_DIR": apitest.Serve(t, b)})
	if code := run(ctx, []string{"status", "-watch", "-json", "web"}, term); code != 0 {
		t.Errorf("exit %d: %s", code, errOut)
	}
	dec := json.NewDecoder(strings.NewReader(out.String()))
	pictures := 0
	for dec.More() {
		var v statusView
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if v.Instances[0].Restarts != pictures {
			t.Errorf("picture %d shows %d restarts", pictures, v.Instances[0].Restarts)
		}
		pictures++
	}
	if pictures < 2 {
		t.Errorf("%d pictures of three changes", pictures)
	}
}

func TestLogsNameTheirInstances(t *testing.T) {
	at := testNow().Add(-time.Minute)
	var asked spec.LogQuery
	b := &apitest.Backend{LogsFunc: func(_ context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		asked = q
		for _, line := range []spec.LogLine{
			{ID: id("app", 0), Time: at, Stream: "stdout", Text: "one\x1b[2J"},
			{ID: id("long-process", 12), Time: at, Stream: "stderr", Text: "two"},
			{ID: id("app", 0), Time: at, Stream: "stdout", Text: "three"},
		} {
			if err := each(line); err != nil {
				return err
			}
		}
		return nil
	}}
	stdout, stderr, code := meshrun(t, b, "logs", "-n", "3", "-since", "5m", "-grep", "o|e", "web/app/0")
	want := "app/0    | one\x1b[2J\nlong-process/12 | two\napp/0           | three\n"
	if code != 0 || stdout != want {
		t.Errorf("exit %d %s:\n%s", code, stderr, stdout)
	}
	query := spec.LogQuery{Job: "web", Process: "app", Last: 3, Since: testNow().Add(-5 * time.Minute), Grep: "o|e"}
	if !reflect.DeepEqual(asked, query) {
		t.Errorf("asked %+v", asked)
	}
	stdout, _, _ = meshrun(t, b, "logs", "-json", "web")
	if strings.Count(stdout, "\n") != 3 || !strings.Contains(stdout, `"id":"web/long-process/12"`) {
		t.Errorf("-json:\n%s", stdout)
	}
}

func TestFollowingLogsGoesOnWithTheNextAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	line := func(second int, text string) spec.LogLine {
		return spec.LogLine{ID: id("app", 0), Time: testNow().Add(time.Duration(second) * time.Second), Stream: "stdout", Text: text}
	}
	serve := func(lines ...spec.LogLine) *api.Server {
		return apitest.ServeAt(t, path, &apitest.Backend{LogsFunc: func(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
			for _, l := range lines {
				if l.Time.Before(q.Since) {
					continue
				}
				if err := each(l); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}})
	}
	first := serve(line(1, "a"), line(2, "b"), line(2, "b"))
	client := api.NewClient(path)
	defer client.Close()
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- followLogs(ctx, client, spec.LogQuery{Job: "web", Shard: -1, Follow: true}, func(l spec.LogLine) error {
			got <- l.Text
			return nil
		})
	}()
	want := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			select {
			case g := <-got:
				if g != text {
					t.Fatalf("got %q, want %q", g, text)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%q did not come", text)
			}
		}
	}
	want("a", "b", "b")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	serve(line(1, "a"), line(2, "b"), line(2, "b"), line(2, "c"), line(3, "d"))
	want("c", "d")
	cancel()
	<-ended
}

func TestFilesAreCheckedAndFormattedWithoutAnAgent(t *testing.T) {
	ugly := jobFile(t, "job \"web\" {\nprocess \"app\" {\ncommand = [\"sleep\",\"1\"]\n}\n}\n")
	if _, stderr, code := meshrun(t, nil, "validate", ugly); code != 0 || !strings.Contains(stderr, "1 file, 1 job, 1 process") {
		t.Errorf("validate: exit %d, %s", code, stderr)
	}
	if stdout, _, code := meshrun(t, nil, "validate", "-json", jobFile(t, "job {")); code != 1 || !strings.Contains(stdout, `"severity": "error"`) {
		t.Errorf("validate -json: exit %d, %s", code, stdout)
	}
	if stdout, _, code := meshrun(t, nil, "fmt", "-check", "-diff", ugly); code != 1 || !strings.Contains(stdout, "+  process") {
		t.Errorf("fmt -check -diff: exit %d\n%s", code, stdout)
	}
	if err := os.Chmod(ugly, 0o640); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := meshrun(t, nil, "fmt", filepath.Dir(ugly)); code != 0 || stdout != ugly+"\n" {
		t.Errorf("fmt: exit %d, %s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(ugly); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("fmt changed the mode: %v %v", info.Mode(), err)
	}
	if stdout, _, code := meshrun(t, nil, "fmt", "-check", ugly); code != 0 || stdout != "" {
		t.Errorf("fmt again: exit %d, %s", code, stdout)
	}
	if _, stderr, code := meshrun(t, nil, "fmt", jobFile(t, "job {{{")); code != 1 || !strings.Contains(stderr, "Error") {
		t.Errorf("fmt of a broken file: exit %d, %s", code, stderr)
	}
	if stdout, _, code := meshrun(t, nil, "schema"); code != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("schema: exit %d", code)
	}
	if stdout, _, code := meshrun(t, nil, "version", "-json"); code != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("version: exit %d", code)
	}
}

func TestTheDataDirectoryIsFoundInOrder(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, map[string]string{"HOME": "/root"}, "/var/lib/meshrun"},
		{1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "/s"}, "/s/meshrun"},
		{1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/meshrun"},
		{1000, nil, ""},
	} {
		if got := usualDataDir(c.uid, env(c.env)); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	term, _, _ := testTerm(map[string]string{"MESHRUN_DATA_DIR": "/d", "MESHRUN_ADDR": "/other/agent.sock"})
	for dir, want := range map[string]string{"": "/other/agent.sock", "/mine": "/mine/agent.sock"} {
		client, err := (&place{term: term, dir: dir}).client()
		if err != nil || client.Address() != want {
			t.Errorf("-data-dir %q: %s, %v", dir, client.Address(), err)
		}
	}
}

func TestCompletionKnowsTheNames(t *testing.T) {
	for line, want := range map[string]string{
		"logs ":             "old web",
		"logs w":            "web",
		"logs web/":         "web/api web/down web/late web/setup web/work",
		"restart web/api/":  "web/api/0 web/api/1 web/api/2 web/api/3",
		"history web/":      "",
		"promote x web/w":   "web/work",
		"pause web/work/":   "",
		"signal SIGUSR":     "SIGUSR1 SIGUSR2",
		"signal HUP web/la": "web/late",
	} {
		b := node()
		jobs, _ := b.JobsFunc(t.Context())
		b.JobsFunc = func(context.Context) ([]spec.JobVersion, error) {
			return append([]spec.JobVersion{{Job: spec.Job{Name: "old"}}}, jobs...), nil
		}
		words := strings.Split(line, " ")
		stdout, _, _ := meshrun(t, b, append([]string{"__completeNoDesc"}, words...)...)
		got := strings.Fields(strings.Split(stdout, ":")[0])
		if strings.Join(got, " ") != want && !strings.HasPrefix(line, "signal S") {
			t.Errorf("%q: %v, want %s", line, got, want)
		}
	}
	if stdout, _, code := meshrun(t, nil, "completion", "bash"); code != 0 || !strings.Contains(stdout, "__complete") {
		t.Errorf("completion bash: exit %d", code)
	}
}

func TestTheAgentMeansTheSameFromEverywhere(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "agent.hcl")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("node = \"alpha\"\ndata_dir = \"data\"\njobs = [\"jobs\", \"/abs\"]\nlog_level = \"warn\"\nlabels = { disk = \"ssd\" }\n")
	term, _, _ := testTerm(nil)
	c := &runAgent{term: term, place: place{term: term}, config: config}
	cfg, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Node != "alpha" || cfg.DataDir != filepath.Join(dir, "data") || cfg.Labels["disk"] != "ssd" ||
		!reflect.DeepEqual(cfg.Jobs, []string{filepath.Join(dir, "jobs"), "/abs"}) {
		t.Errorf("%+v", cfg)
	}
	want := []string{"agent", "-data-dir", filepath.Join(dir, "data"), "-config", config, "-log-level", "warn"}
	if got := c.commandLine(&cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("command line %q", got)
	}
	c = &runAgent{term: term, place: place{term: term, dir: "/d"}, config: config, node: "beta", jobs: []string{"/j"}, fromUp: true}
	if cfg, err = c.resolve(); err != nil || cfg.Node != "beta" || cfg.DataDir != "/d" || !reflect.DeepEqual(cfg.Jobs, []string{"/j"}) {
		t.Errorf("options go before the file: %+v, %v", cfg, err)
	}
	if got := fmt.Sprint(c.commandLine(&cfg)); got != fmt.Sprintf("[agent -data-dir /d -config %s -node beta -jobs /j -log-level warn -from-up]", config) {
		t.Errorf("command line %s", got)
	}
	write("nodes = \"alpha\"\n")
	if _, err := (&runAgent{term: term, place: place{term: term, dir: "/d"}, config: config}).resolve(); err == nil || !strings.Contains(err.Error(), "nodes") || !strings.Contains(err.Error(), config+":1") {
		t.Errorf("a misspelt name: %v", err)
	}
}

func TestAnAgentJoinsAClusterOnlyIfItIsTold(t *testing.T) {
	term, _, _ := testTerm(nil)
	config := filepath.Join(t.TempDir(), "agent.hcl")
	resolve := func(text, flag string) (*agent.Cluster, []string, error) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &runAgent{term: term, place: place{term: term, dir: "/d"}, config: config, consul: flag}
		cfg, err := c.resolve()
		return cfg.Cluster, c.commandLine(&cfg), err
	}
	if cluster, _, err := resolve("", ""); err != nil || cluster != nil {
		t.Errorf("alone: %+v, %v", cluster, err)
	}
	cluster, _, err := resolve("consul {\n  address = \"10.0.0.1:8500\"\n  token = \"t\"\n  ca_file = \"ca.pem\"\n  prefix = \"teams/a\"\n  fence = \"8s\"\n}\n", "")
	want := agent.Cluster{Address: "10.0.0.1:8500", Token: "t", CAFile: filepath.Join(filepath.Dir(config), "ca.pem"), Prefix: "teams/a", Fence: 8 * time.Second}
	if err != nil || cluster == nil || *cluster != want {
		t.Errorf("%+v, %v", cluster, err)
	}
	cluster, line, err := resolve("consul {}\n", "127.0.0.1:8501")
	if err != nil || cluster == nil || cluster.Address != "127.0.0.1:8501" || !slices.Contains(line, "127.0.0.1:8501") {
		t.Errorf("the option goes before the file: %+v, %q, %v", cluster, line, err)
	}
	for text, want := range map[string]string{
		"consul { fence = \"1s\" }\n":   "5s",
		"consul { fence = \"soon\" }\n": "duration",
		"consul { adress = \"x\" }\n":   "adress",
		"weight = -1\n":                 "negative",
	} {
		if _, _, err := resolve(text, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestTheWatchdogIsToldItsAgent(t *testing.T) {
	term, _, _ := testTerm(nil)
	var got agent.WatchdogConfig
	c := &runWatchdog{term: term, place: place{term: term, dir: "/d"}, agent: strings.Fields("/bin/meshrun agent -log-level error"),
		run: func(_ context.Context, cfg agent.WatchdogConfig) error { got = cfg; return nil }}
	if err := c.Run(t.Context()); err != nil || got.DataDir != "/d" || len(got.Agent) != 4 || got.Logger.GetLevel().String() != "error" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestStatusShowsWhatRunsWhileTheStoreIsAway(t *testing.T) {
	b := &apitest.Backend{
		InstancesFunc: func(context.Context, uint64) ([]spec.Instance, uint64, error) {
			return []spec.Instance{{ID: spec.InstanceID{Job: "web", Process: "app"}, Phase: spec.PhaseRunning, PID: 4242}}, 1, nil
		},
		JobsFunc: func(context.Context) ([]spec.JobVersion, error) {
			return nil, fmt.Errorf("read jobs: %w: connection refused", api.ErrUnavailable)
		},
		InfoFunc: func(context.Context) (api.Info, error) { return api.Info{Node: "a"}, nil },
	}
	stdout, stderr, code := meshrun(t, b, "status")
	if code != 0 || !strings.Contains(stdout, "4242") || !strings.Contains(stdout, "connection refused") || strings.Contains(stdout, "removed") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}
