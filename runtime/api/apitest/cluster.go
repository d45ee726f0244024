package apitest

import (
	"context"
	"io"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// ClusterFuncs is an api.ClusterBackend whose methods are fields. One that is
// nil returns an error that says so.
type ClusterFuncs struct {
	ClusterFunc         func(context.Context) (api.Cluster, error)
	DrainFunc           func(context.Context, api.Drain) (api.Drained, error)
	EndSessionFunc      func(context.Context, api.SessionEnd) error
	SaveSnapshotFunc    func(context.Context, io.Writer) (int, error)
	RestoreSnapshotFunc func(context.Context, io.Reader) (int, error)
	RegisterEngineFunc  func(context.Context, spec.Engine) (api.EngineStatus, error)
	EnginesFunc         func(context.Context) ([]api.EngineStatus, error)
	EngineFunc          func(context.Context, string) (api.EngineStatus, error)
}

// Cluster calls ClusterFunc.
func (b *ClusterFuncs) Cluster(ctx context.Context) (api.Cluster, error) {
	return expected(b.ClusterFunc)(ctx)
}

// Drain calls DrainFunc.
func (b *ClusterFuncs) Drain(ctx context.Context, order api.Drain) (api.Drained, error) {
	return expected(b.DrainFunc)(ctx, order)
}

// EndSession calls EndSessionFunc.
func (b *ClusterFuncs) EndSession(ctx context.Context, end api.SessionEnd) error {
	return expected(b.EndSessionFunc)(ctx, end)
}

// SaveSnapshot calls SaveSnapshotFunc.
func (b *ClusterFuncs) SaveSnapshot(ctx context.Context, w io.Writer) (int, error) {
	return expected(b.SaveSnapshotFunc)(ctx, w)
}

// RestoreSnapshot calls RestoreSnapshotFunc.
func (b *ClusterFuncs) RestoreSnapshot(ctx context.Context, r io.Reader) (int, error) {
	return expected(b.RestoreSnapshotFunc)(ctx, r)
}

// RegisterEngine calls RegisterEngineFunc.
func (b *ClusterFuncs) RegisterEngine(ctx context.Context, engine spec.Engine) (api.EngineStatus, error) {
	return expected(b.RegisterEngineFunc)(ctx, engine)
}

// Engines calls EnginesFunc.
func (b *ClusterFuncs) Engines(ctx context.Context) ([]api.EngineStatus, error) {
	return expected(b.EnginesFunc)(ctx)
}

// Engine calls EngineFunc.
func (b *ClusterFuncs) Engine(ctx context.Context, name string) (api.EngineStatus, error) {
	return expected(b.EngineFunc)(ctx, name)
}
