package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

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
		PlacementsFunc: func(context.Context) ([]spec.Placement, error) { return nil, nil },
	}
}

func TestStatusSaysWhyAShardHasNoPlace(t *testing.T) {
	p := spec.DefaultProcess("app")
	p.Shards = 4
	v := spec.JobVersion{Version: 2, When: testNow(), Job: spec.Job{Name: "web", Processes: []spec.Process{p}}}
	b := &apitest.Backend{
		InfoFunc: func(context.Context) (api.Info, error) { return api.Info{Node: "alpha"}, nil },
		JobsFunc: func(context.Context) ([]spec.JobVersion, error) { return []spec.JobVersion{v}, nil },
		InstancesFunc: func(context.Context, uint64) ([]spec.Instance, uint64, error) {
			return []spec.Instance{seen("app", 0, spec.PhaseRunning)}, 1, nil
		},
		PlacementsFunc: func(context.Context) ([]spec.Placement, error) {
			none := spec.Unplaced{Process: "app", Shard: 2, Reason: "no eligible node (2 with too little memory left)"}
			also := none
			also.Shard = 3
			return []spec.Placement{{Job: "other", Unplaced: []spec.Unplaced{none}}, {Job: "web", Unplaced: []spec.Unplaced{none, also}}}, nil
		},
	}
	stdout, stderr, code := meshrun(t, b, "status")
	for _, want := range []string{"app/1     not started yet", "app/2-3   no eligible node (2 with too little memory left)"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit %d, want %q in\n%s%s", code, want, stdout, stderr)
		}
	}
	var view statusView
	if stdout, _, _ = meshrun(t, b, "status", "-json"); json.Unmarshal([]byte(stdout), &view) != nil || len(view.Placements) != 1 || len(view.placement("web").Unplaced) != 2 {
		t.Errorf("as JSON: %s", stdout)
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
	if _, stderr, code := meshrun(t, node(), "status", "web", "nope"); code != 1 || !strings.Contains(stderr, `no job named "nope"`) {
		t.Errorf("one of two is not there: exit %d, %s", code, stderr)
	}
	for none, says := range map[string]string{"nope": `no job named "nope"`, "web/nope": `no process named "web/nope"`, "web/down/3": "no shard web/down/3"} {
		if _, stderr, code := meshrun(t, node(), "status", none); code != 1 || !strings.Contains(stderr, says) {
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
