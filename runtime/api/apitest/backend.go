// Package apitest helps to test what speaks to an agent: a Backend made of
// functions, and a server for it on a real socket.
package apitest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// Backend is an api.Backend whose methods are fields. One that is nil returns
// an error that says so.
type Backend struct {
	PlanFunc       func(context.Context, api.PlanRequest) (spec.Plan, error)
	ApplyFunc      func(context.Context, spec.Plan) (api.ApplyResult, error)
	DoneFunc       func(context.Context, api.PlanRequest) (api.Done, error)
	JobsFunc       func(context.Context) ([]spec.JobVersion, error)
	JobFunc        func(context.Context, string) (spec.JobVersion, error)
	HistoryFunc    func(context.Context, string) ([]spec.JobVersion, error)
	RunsFunc       func(context.Context, string) ([]spec.Run, error)
	RolloutFunc    func(context.Context, string, string) (api.RolloutStatus, error)
	RolloutsFunc   func(context.Context) ([]spec.Rollout, error)
	PlacementsFunc func(context.Context) ([]spec.Placement, error)
	InstancesFunc  func(context.Context, uint64) ([]spec.Instance, uint64, error)
	LogsFunc       func(context.Context, spec.LogQuery, func(spec.LogLine) error) error
	EventsFunc     func(context.Context, api.EventQuery, func(spec.Event) error) error
	SignalFunc     func(context.Context, string, spec.Signal) (int, error)
	InfoFunc       func(context.Context) (api.Info, error)
	ShutdownFunc   func(context.Context, bool) error
	UpgradeFunc    func(context.Context) error

	ClusterFuncs
}

var _ api.Backend = (*Backend)(nil)

var errUnexpected = errors.New("the test expects no such call")

// expected returns the function, or for a nil one a function that returns
// errUnexpected as its last result.
func expected[F any](f F) F {
	v := reflect.ValueOf(f)
	if !v.IsNil() {
		return f
	}
	return reflect.MakeFunc(v.Type(), func([]reflect.Value) []reflect.Value {
		out := make([]reflect.Value, v.Type().NumOut())
		for i := range out {
			out[i] = reflect.Zero(v.Type().Out(i))
		}
		last := reflect.New(v.Type().Out(len(out) - 1)).Elem()
		last.Set(reflect.ValueOf(errUnexpected))
		out[len(out)-1] = last
		return out
	}).Interface().(F)
}

// Plan calls PlanFunc.
func (b *Backend) Plan(ctx context.Context, req api.PlanRequest) (spec.Plan, error) {
	return expected(b.PlanFunc)(ctx, req)
}

// Apply calls ApplyFunc.
func (b *Backend) Apply(ctx context.Context, plan spec.Plan) (api.ApplyResult, error) {
	return expected(b.ApplyFunc)(ctx, plan)
}

// PlanAndApply calls DoneFunc. If that is nil, it calls PlanFunc and ApplyFunc,
// as an agent does.
func (b *Backend) PlanAndApply(ctx context.Context, req api.PlanRequest) (api.Done, error) {
	if b.DoneFunc != nil {
		return b.DoneFunc(ctx, req)
	}
	plan, err := b.Plan(ctx, req)
	if err != nil || plan.Empty() {
		return api.Done{Plan: plan, Result: api.ApplyResult{Index: plan.Index, Applied: []string{}}}, err
	}
	result, err := b.Apply(ctx, plan)
	return api.Done{Plan: plan, Result: result}, err
}

// Jobs calls JobsFunc.
func (b *Backend) Jobs(ctx context.Context) ([]spec.JobVersion, error) {
	return expected(b.JobsFunc)(ctx)
}

// Job calls JobFunc.
func (b *Backend) Job(ctx context.Context, name string) (spec.JobVersion, error) {
	return expected(b.JobFunc)(ctx, name)
}

// History calls HistoryFunc.
func (b *Backend) History(ctx context.Context, name string) ([]spec.JobVersion, error) {
	return expected(b.HistoryFunc)(ctx, name)
}

// Runs calls RunsFunc.
func (b *Backend) Runs(ctx context.Context, name string) ([]spec.Run, error) {
	return expected(b.RunsFunc)(ctx, name)
}

// Rollout calls RolloutFunc.
func (b *Backend) Rollout(ctx context.Context, name, after string) (api.RolloutStatus, error) {
	return expected(b.RolloutFunc)(ctx, name, after)
}

// Rollouts calls RolloutsFunc.
func (b *Backend) Rollouts(ctx context.Context) ([]spec.Rollout, error) {
	return expected(b.RolloutsFunc)(ctx)
}

// Placements calls PlacementsFunc.
func (b *Backend) Placements(ctx context.Context) ([]spec.Placement, error) {
	return expected(b.PlacementsFunc)(ctx)
}

// Instances calls InstancesFunc.
func (b *Backend) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	return expected(b.InstancesFunc)(ctx, after)
}

// Logs calls LogsFunc.
func (b *Backend) Logs(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
	return expected(b.LogsFunc)(ctx, q, each)
}

// Events calls EventsFunc.
func (b *Backend) Events(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
	return expected(b.EventsFunc)(ctx, q, each)
}

// Signal calls SignalFunc.
func (b *Backend) Signal(ctx context.Context, target string, signal spec.Signal) (int, error) {
	return expected(b.SignalFunc)(ctx, target, signal)
}

// Info calls InfoFunc.
func (b *Backend) Info(ctx context.Context) (api.Info, error) {
	return expected(b.InfoFunc)(ctx)
}

// Shutdown calls ShutdownFunc.
func (b *Backend) Shutdown(ctx context.Context, stopInstances bool) error {
	return expected(b.ShutdownFunc)(ctx, stopInstances)
}

// Upgrade calls UpgradeFunc.
func (b *Backend) Upgrade(ctx context.Context) error {
	return expected(b.UpgradeFunc)(ctx)
}

// Serve serves the backend on agent.sock in a directory of its own until the
// test ends, and returns the directory.
func Serve(t testing.TB, backend api.Backend) string {
	t.Helper()
	// t.TempDir's paths grow with the test's name, and a socket's are bounded.
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ServeAt(t, filepath.Join(dir, "agent.sock"), backend)
	return dir
}

// ServeAt serves the backend on a socket until the test ends, or until the
// server is closed.
func ServeAt(t testing.TB, path string, backend api.Backend) *api.Server {
	t.Helper()
	return serve(t, path, backend, nil)
}

// ServeTLS serves the backend to other agents, on a port of loopback, until
// the test ends or the server is closed. Server.Address tells the port.
func ServeTLS(t testing.TB, backend api.Backend, cred api.Credentials) *api.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return serve(t, filepath.Join(dir, "s"), backend, cred)
}

func serve(t testing.TB, path string, backend api.Backend, cred api.Credentials) *api.Server {
	t.Helper()
	server := api.NewServer(api.Config{Backend: backend, Logger: hclog.NewNullLogger(), SocketPath: path})
	err := server.Open()
	if err == nil && cred != nil {
		err = server.Listen(t.Context(), "127.0.0.1:0", cred)
	}
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return server
}
