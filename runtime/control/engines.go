package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// RegisterEngine makes an engine known, as the owner of its control shard.
func (b *Node) RegisterEngine(ctx context.Context, engine spec.Engine) (api.EngineStatus, error) {
	return b.cfg.Engines.register(ctx, b.storeFor(ctx), engine, time.Now())
}

// Engines returns the registered engines.
func (b *Node) Engines(ctx context.Context) ([]api.EngineStatus, error) {
	if isLocal(ctx) {
		own := slices.Collect(maps.Values(b.cfg.Engines.own()))
		slices.SortFunc(own, func(a, b api.EngineStatus) int { return strings.Compare(a.Name, b.Name) })
		return own, nil
	}
	return b.cfg.Engines.all(ctx, b.storeFor(ctx))
}

// Engine returns one engine.
func (b *Node) Engine(ctx context.Context, name string) (api.EngineStatus, error) {
	if status, mine := b.cfg.Engines.own()[name]; mine {
		return status, nil
	}
	engine, _, err := state.GetAs[spec.Engine](ctx, b.storeFor(ctx), state.EngineKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return api.EngineStatus{}, api.Errorf(api.ErrNotFound, "no engine named %q: `meshrun engines` lists the engines", name)
	}
	if err != nil {
		return api.EngineStatus{}, fmt.Errorf("read engine %s: %w", name, err)
	}
	return api.EngineStatus{Engine: engine}, nil
}
