package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// DefaultFence is how long exclusive shards live after the last renewal of
// their node's session that Consul confirmed, and how long their locks can't be
// taken by others after the session has ended.
const DefaultFence = 5 * time.Second

// Cluster says how the node reaches the Consul that it shares with the others.
// What is empty is read from the environment, as Consul's own tools do
// (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_CACERT …).
type Cluster struct {
	Address    string // host:port, or a URL with http, https or unix
	Token      string
	Datacenter string
	// CAFile, CertFile and KeyFile are for TLS.
	CAFile, CertFile, KeyFile string
	// Fence is 0 for DefaultFence.
	Fence time.Duration
}

// openStore opens the store: the embedded one, or the cluster's. It returns a
// sentence about what was repaired, if anything was.
func (a *agent) openStore(ctx context.Context) (repaired string, err error) {
	if a.cfg.Cluster != nil {
		return "", a.openCluster(ctx)
	}
	store, err := local.Open(ctx, filepath.Join(a.cfg.DataDir, "state.db"), local.Options{Logger: a.logger})
	if err != nil {
		return "", err
	}
	a.store = newJanitor(store, a.logger)
	a.life.onStop("store", func(context.Context) error { return store.Close() })
	if report := store.Report(); report.Damaged() {
		repaired = report.String()
		a.logger.Error("state was damaged", "report", repaired)
		a.record(ctx, spec.Event{Type: spec.EventStateRepaired, Severity: spec.Critical, Who: "agent", Message: repaired})
	}
	return repaired, nil
}

// openCluster opens the store on Consul. That Consul is away is no error.
func (a *agent) openCluster(ctx context.Context) error {
	c := a.cfg.Cluster
	store, err := consul.Open(ctx, consul.Options{
		Logger: a.logger, Address: c.Address, Token: c.Token, Datacenter: c.Datacenter,
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
	})
	if err != nil {
		return err
	}
	a.scoped = func(ctx context.Context) state.Store { return store.As(api.CallOf(ctx).Token) }
	a.store = newJanitor(follow.Share(store), a.logger)
	a.life.onStop("store", func(context.Context) error { return a.store.Close() })
	return nil
}

// memberConfig returns what makes this node a member.
func (a *agent) memberConfig() memberConfig {
	cfg := memberConfig{
		store: a.store, dir: a.cfg.DataDir,
		node:  spec.Node{Name: a.cfg.Node, Labels: a.cfg.Labels, Weight: a.cfg.Weight, Version: a.cfg.Version},
		lease: a.client.Renew, changed: a.refresh,
		problem: func(text string) { a.backend.problem("membership", text) },
		bootID:  bootID(), clock: bootTime, logger: a.logger.Named("membership"),
	}
	if c := a.cfg.Cluster; c != nil {
		if cfg.fence = c.Fence; cfg.fence == 0 {
			cfg.fence = DefaultFence
		}
	}
	return cfg
}

// refresh tells the parts that hold locks that the session is another one.
func (a *agent) refresh() {
	a.engine.Refresh()
	a.scheduler.Refresh()
	a.orchestrator.Refresh()
}
