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
	if b.ClusterFunc == nil {
		return api.Cluster{}, errUnexpected
	}
	return b.ClusterFunc(ctx)
}

// Drain calls DrainFunc.
func (b *ClusterFuncs) Drain(ctx context.Context, order api.Drain) (api.Drained, error) {
	if b.DrainFunc == nil {
		return api.Drained{}, errUnexpected
	}
	return b.DrainFunc(ctx, order)
}

// EndSession calls EndSessionFunc.
func (b *ClusterFuncs) EndSession(ctx context.Context, end api.SessionEnd) error {
	if b.EndSessionFunc == nil {
		return errUnexpected
	}
	return b.EndSessionFunc(ctx, end)
}

// SaveSnapshot calls SaveSnapshotFunc.
func (b *ClusterFuncs) SaveSnapshot(ctx context.Context, w io.Writer) (int, error) {
	if b.SaveSnapshotFunc == nil {
		return 0, errUnexpected
	}
	return b.SaveSnapshotFunc(ctx, w)
}

// RestoreSnapshot calls RestoreSnapshotFunc.
func (b *ClusterFuncs) RestoreSnapshot(ctx context.Context, r io.Reader) (int, error) {
	if b.RestoreSnapshotFunc == nil {
		return 0, errUnexpected
	}
	return b.RestoreSnapshotFunc(ctx, r)
}

// RegisterEngine calls RegisterEngineFunc.
func (b *ClusterFuncs) RegisterEngine(ctx context.Context, engine spec.Engine) (api.EngineStatus, error) {
	if b.RegisterEngineFunc == nil {
		return api.EngineStatus{}, errUnexpected
	}
	return b.RegisterEngineFunc(ctx, engine)
}

// Engines calls EnginesFunc.
func (b *ClusterFuncs) Engines(ctx context.Context) ([]api.EngineStatus, error) {
	if b.EnginesFunc == nil {
		return nil, errUnexpected
	}
	return b.EnginesFunc(ctx)
}

// Engine calls EngineFunc.
func (b *ClusterFuncs) Engine(ctx context.Context, name string) (api.EngineStatus, error) {
	if b.EngineFunc == nil {
		return api.EngineStatus{}, errUnexpected
	}
	return b.EngineFunc(ctx, name)
}
