package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// serve serves the backend and returns a client of it, and the socket's path.
func serve(t *testing.T, b *apitest.Backend) (*api.Client, string) {
	t.Helper()
	path := filepath.Join(apitest.Serve(t, b), "agent.sock")
	client := api.NewClient("unix://" + path)
	t.Cleanup(client.Close)
	return client, path
}

func TestPlanAndApplyCrossTheSocketUnchanged(t *testing.T) {
	process := spec.DefaultProcess("app")
	process.Command = []spec.Template{"sleep", "${shard.index}"}
	process.Env = map[string]spec.Template{"TOKEN": "hunter2"}
	process.Sensitive = []string{"env.TOKEN"}
	req := api.PlanRequest{
		Jobs:      []api.JobSource{{Job: spec.Job{Name: "web", Processes: []spec.Process{process}}, Source: "/etc/web.hcl"}},
		Paths:     []string{"/etc"},
		Remove:    []string{"old"},
		Orders:    []api.Order{{Op: spec.OpScale, Target: "web/app", Count: 3}},
		Rollbacks: []api.Rollback{{Job: "db", Version: 4}},
	}
	plan := spec.Plan{Format: spec.PlanFormat, Created: time.Unix(1700000000, 0).UTC(), Index: 42, Jobs: []spec.JobPlan{{
		Job: "web", Action: spec.JobCreate, To: 1, Sealed: []byte{1, 2, 3},
		Instances: []spec.InstancePlan{{ID: spec.InstanceID{Job: "web", Process: "app", Shard: 1}, Action: spec.ActionStart, Reason: "new"}},
	}}}
	var asked api.PlanRequest
	var applied spec.Plan
	client, _ := serve(t, &apitest.Backend{
		PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return plan, nil },
		ApplyFunc: func(_ context.Context, p spec.Plan) (api.ApplyResult, error) {
			applied = p
			return api.ApplyResult{Index: 43, Applied: []string{"web"}}, nil
		},
	})
	got, err := client.Plan(t.Context(), req)
	if err != nil || !reflect.DeepEqual(got, plan) {
		t.Fatalf("plan: %+v, %v", got, err)
	}
	if me, _ := user.Current(); asked.Who != me.Username {
		t.Errorf("who is %q, want the peer's name %q", asked.Who, me.Username)
	}
	asked.Who = ""
	if !reflect.DeepEqual(asked, req) {
		t.Errorf("the backend was asked %+v", asked)
	}
	result, err := client.Apply(t.Context(), got)
	if err != nil || result.Index != 43 || !reflect.DeepEqual(applied, plan) {
		t.Errorf("apply: %+v, %v; backend got %+v", result, err, applied)
	}
	done, err := client.PlanAndApply(t.Context(), req)
	if err != nil || done.Result.Index != 43 || !reflect.DeepEqual(done.Plan, plan) || asked.Who == "" {
		t.Errorf("plan and apply: %+v, %v; asked by %q", done, err, asked.Who)
	}
}

func TestErrorsKeepTheirMeaningAndWords(t *testing.T) {
	for _, sentinel := range []error{api.ErrStale, api.ErrNotFound, api.ErrInvalid, api.ErrForbidden, api.ErrUnavailable} {
		client, _ := serve(t, &apitest.Backend{
			JobFunc: func(context.Context, string) (spec.JobVersion, error) {
				return spec.JobVersion{}, fmt.Errorf("read job: %w", sentinel)
			},
			ApplyFunc: func(context.Context, spec.Plan) (api.ApplyResult, error) {
				wrapped := map[error]string{api.ErrStale: "stale"}[sentinel]
				return api.ApplyResult{}, &api.Error{Message: "cannot", Code: wrapped, Hint: "plan again"}
			},
		})
		_, err := client.Job(t.Context(), "x")
		if !errors.Is(err, sentinel) || err.Error() != "read job: "+sentinel.Error() {
			t.Errorf("%v came back as %v", sentinel, err)
		}
		if _, err := client.Apply(t.Context(), spec.Plan{}); err == nil || err.Error() != "cannot: plan again" {
			t.Errorf("an error with a hint came back as %v", err)
		}
	}
	client, _ := serve(t, &apitest.Backend{InfoFunc: func(context.Context) (api.Info, error) { return api.Info{}, errors.New("disk on fire") }})
	_, err := client.Info(t.Context())
	if err == nil || !strings.Contains(err.Error(), "disk on fire") || errors.Is(err, api.ErrUnavailable) {
		t.Errorf("an error of the agent's own came back as %v", err)
	}
	if _, err := client.Ready(t.Context()); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}
	if err := client.Healthy(t.Context()); err != nil {
		t.Errorf("healthz: %v", err)
	}
}

func TestWithoutAnAgentTheErrorSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{filepath.Join(dir, "none.sock"), filepath.Join(dir, "no", "dir", "agent.sock"), stale} {
		_, err := api.NewClient(path).Jobs(t.Context())
		want := "no agent answers on " + path + ": start one with `meshrun agent`, or `meshrun up PATH`"
		if !errors.Is(err, api.ErrNoAgent) || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, addr := range []string{"http://127.0.0.1:80", "/" + strings.Repeat("x", 200)} {
		if _, err := api.NewClient(addr).Info(t.Context()); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestSocketIsPrivateAndReplacedOnlyIfDead(t *testing.T) {
	_, path := serve(t, &apitest.Backend{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v, %v", info.Mode(), err)
	}
	open := func(path string) error {
		s := api.NewServer(api.Config{Backend: &apitest.Backend{}, Logger: hclog.NewNullLogger(), SocketPath: path})
		err := s.Open()
		if closeErr := s.Close(); closeErr != nil {
			t.Errorf("close: %v", closeErr)
		}
		return err
	}
	if err := open(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a live socket was replaced: %v", err)
	}
	if err := api.NewClient(path).Healthy(t.Context()); err != nil {
		t.Errorf("the first agent is disturbed: %v", err)
	}
	dead := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := open(dead); err != nil {
		t.Errorf("a dead socket was not replaced: %v", err)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the closed server left its socket: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(file); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

func TestBlockingQueryReturnsWhenSomethingChanges(t *testing.T) {
	changed := make(chan struct{})
	asked := make(chan uint64, 2)
	client, _ := serve(t, &apitest.Backend{InstancesFunc: func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
		asked <- after
		if after == 7 {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			}
		}
		return []spec.Instance{{ID: spec.InstanceID{Job: "web", Process: "app"}, Phase: spec.PhaseRunning}}, after + 1, nil
	}})
	done := make(chan error, 1)
	go func() {
		list, index, err := client.Instances(t.Context(), 7)
		if err == nil && (index != 8 || len(list) != 1) {
			err = fmt.Errorf("index %d, %v", index, list)
		}
		done <- err
	}()
	if after := <-asked; after != 7 {
		t.Fatalf("asked after %d", after)
	}
	select {
	case err := <-done:
		t.Fatalf("it did not block: %v", err)
	default:
	}
	close(changed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := client.Instances(ctx, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPeersAreNamedAndOthersRefused(t *testing.T) {
	var who string
	_, path := serve(t, &apitest.Backend{UpgradeFunc: func(ctx context.Context) error { who = api.Who(ctx); return nil }})
	if err := api.NewClient(path).Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	if me, _ := user.Current(); who != me.Username {
		t.Errorf("who = %q, want %q", who, me.Username)
	}
	if api.Who(t.Context()) != "" {
		t.Error("outside of a request somebody asks")
	}
}

func TestRequestsThatAreNotUnderstoodAreRefused(t *testing.T) {
	client, path := serve(t, &apitest.Backend{})
	h := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer h.CloseIdleConnections()
	cases := map[string]struct {
		path, body string
		status     int
	}{
		"a field that is not known": {"/v1/plan", `{"jbos": []}`, http.StatusBadRequest},
		"no JSON":                   {"/v1/apply", `plan`, http.StatusBadRequest},
		"two values":                {"/v1/shutdown", `{} {}`, http.StatusBadRequest},
		"another path":              {"/v1/nonsense", `{}`, http.StatusNotFound},
		"a signal that is none":     {"/v1/signal", `{"target":"a","signal":"SIGNONE"}`, http.StatusBadRequest},
	}
	for name, c := range cases {
		res, err := h.Post("http://x"+c.path, "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", name, res.Status, c.status)
		}
	}
	if _, err := client.Signal(t.Context(), "a", "SIGNONE"); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("signal: %v", err)
	}
}

func TestTargetsAreReadStrictly(t *testing.T) {
	for text, want := range map[string]api.Target{
		"web":       {Job: "web", Shard: -1},
		"web/app":   {Job: "web", Process: "app", Shard: -1},
		"web/app/3": {Job: "web", Process: "app", Shard: 3},
	} {
		got, err := api.ParseTarget(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/", "web/", "/app", "web//1", "web/app/x", "web/app/-1", "web/app/70000", "a/b/1/2"} {
		if _, err := api.ParseTarget(text); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%q was read: %v", text, err)
		}
	}
	id := spec.InstanceID{Job: "web", Process: "app", Shard: 3}
	for text, want := range map[string]bool{"web": true, "web/app": true, "web/app/3": true, "web/app/1": false, "web/db": false, "x": false} {
		target, _ := api.ParseTarget(text)
		if target.Matches(id) != want {
			t.Errorf("%s matches %s: %v", text, id, !want)
		}
	}
}

func TestTheStoresFaultsCrossTheSocketByName(t *testing.T) {
	for fault, want := range map[error]error{state.ErrUnavailable: api.ErrUnavailable, state.ErrDenied: api.ErrForbidden} {
		b := &apitest.Backend{JobsFunc: func(context.Context) ([]spec.JobVersion, error) { return nil, fmt.Errorf("read jobs: %w", fault) }}
		client := api.NewClient(filepath.Join(apitest.Serve(t, b), "agent.sock"))
		if _, err := client.Jobs(t.Context()); !errors.Is(err, want) {
			t.Errorf("%v comes as %v, want %v", fault, err, want)
		}
	}
}
