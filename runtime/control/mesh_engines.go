package control

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// ownerTimeout bounds how long the owner of an engine may take.
const ownerTimeout = 5 * time.Second

// RegisterEngine passes an engine on to the owner of its control shard.
func (m *Mesh) RegisterEngine(ctx context.Context, engine spec.Engine) (api.EngineStatus, error) {
	return m.ofOwner(ctx, engine.Name, func(ctx context.Context, b api.Backend) (api.EngineStatus, error) {
		return b.RegisterEngine(ctx, engine)
	})
}

// Engine asks the owner of an engine's control shard; if that does not answer,
// the record alone is told.
func (m *Mesh) Engine(ctx context.Context, name string) (api.EngineStatus, error) {
	status, err := m.ofOwner(ctx, name, func(ctx context.Context, b api.Backend) (api.EngineStatus, error) {
		return b.Engine(ctx, name)
	})
	if err == nil || errors.Is(err, api.ErrNotFound) || isLocal(ctx) {
		return status, err
	}
	return m.Backend.Engine(passOn(ctx), name)
}

// ofOwner has the owner of an engine's control shard do something. If that
// one says that it is not the owner, the store is asked who is.
func (m *Mesh) ofOwner(ctx context.Context, name string, do func(context.Context, api.Backend) (api.EngineStatus, error)) (api.EngineStatus, error) {
	if isLocal(ctx) {
		return do(ctx, m.Backend)
	}
	var status api.EngineStatus
	var err error
	for _, fresh := range []bool{false, true} {
		if status, err = m.askOwner(ctx, name, fresh, do); !errors.Is(err, api.ErrUnavailable) {
			return status, err
		}
	}
	return status, err
}

func (m *Mesh) askOwner(ctx context.Context, name string, fresh bool, do func(context.Context, api.Backend) (api.EngineStatus, error)) (api.EngineStatus, error) {
	ctx, cancel := context.WithTimeout(passOn(ctx), ownerTimeout)
	defer cancel()
	owner, err := m.engines.owner(ctx, name, fresh)
	switch {
	case err != nil:
		return api.EngineStatus{}, err
	case owner == m.node:
		return do(ctx, m.Backend)
	case owner == "":
		return api.EngineStatus{}, api.Errorf(api.ErrUnavailable, "no node owns the control shard of engine %s now: try again in some seconds", name)
	}
	p, err := m.named(ctx, owner)
	if err != nil {
		return api.EngineStatus{}, api.Errorf(api.ErrUnavailable, "node %s, which owns engine %s, cannot be asked: %v", owner, name, err)
	}
	return do(ctx, p)
}

// Engines returns the registered engines with what their owners know. Of those
// whose owner does not answer the record alone is told.
func (m *Mesh) Engines(ctx context.Context) ([]api.EngineStatus, error) {
	all, err := m.Backend.Engines(ctx)
	if err != nil || isLocal(ctx) {
		return all, err
	}
	owners := map[string]bool{}
	for i := range all {
		if all[i].Node == "" {
			if all[i].Node, err = m.engines.owner(ctx, all[i].Name, false); err != nil {
				return nil, err
			}
			owners[all[i].Node] = all[i].Node != "" && all[i].Node != m.node
		}
	}
	var mu sync.Mutex // guards told
	told := map[string]api.EngineStatus{}
	var asking sync.WaitGroup
	for owner, other := range owners {
		if !other {
			continue
		}
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(passOn(ctx), ownerTimeout)
			defer cancel()
			p, err := m.named(ctx, owner)
			if err != nil {
				return
			}
			theirs, err := p.Engines(ctx)
			if err != nil {
				m.logger.Debug("ask for engines", "node", owner, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range theirs {
				told[e.Name] = e
			}
		})
	}
	asking.Wait()
	for i := range all {
		if e, ok := told[all[i].Name]; ok {
			all[i] = e
		}
	}
	return all, nil
}
