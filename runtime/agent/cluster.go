package agent

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/control"
	"github.com/synergymesh/meshrun/runtime/membership"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/runtime/watchdog"
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
	// Prefix stands before every key, as a path: "teams/payments"; empty for none.
	// Clusters with different ones know nothing of each other's state.
	Prefix string
	// CAFile, CertFile and KeyFile are for TLS.
	CAFile, CertFile, KeyFile string
	// Fence is 0 for DefaultFence.
	Fence time.Duration
	// Listen is the host:port at which other agents are let in; empty for
	// DefaultListen.
	Listen string
	// Certificates are shown to other agents and judge theirs; the zero value
	// takes those of Consul's CA.
	Certificates api.CertificateFiles
}

func (c *Cluster) fence() time.Duration { return cmp.Or(c.Fence, DefaultFence) }

// DefaultListen is where an agent lets other agents in. The address that it
// tells them is that of this machine's Consul agent.
const DefaultListen = ":7450"

// meet lets other agents in, and returns the address for them: "" if that
// can't be, which keeps nothing from running.
func (a *agent) meet(ctx context.Context) string {
	cluster := a.cfg.Cluster
	trouble := func(err error) string {
		a.logger.Warn("other nodes cannot talk to this one", "error", err)
		a.backend.Problem("peers", "other nodes cannot ask this one for output and signals: "+err.Error())
		return ""
	}
	if a.credentials == nil {
		return ""
	}
	if err := a.server.Listen(ctx, cmp.Or(cluster.Listen, DefaultListen), a.credentials); err != nil {
		return trouble(err)
	}
	host, port, err := net.SplitHostPort(a.server.Address())
	if err != nil {
		return trouble(err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = a.consul.Advertised(ctx); err != nil {
			host = a.cfg.Node // while Consul is away; it may well resolve
		}
	}
	return net.JoinHostPort(host, port)
}

// identify finds what this agent shows to others: certificates from files, or
// those of Consul's CA. That there are none keeps nothing from running.
func (a *agent) identify() {
	files := a.cfg.Cluster.Certificates
	if files == (api.CertificateFiles{}) {
		identity := a.consul.Identity(api.AgentService, a.logger, func(text string) { a.backend.Problem("identity", text) })
		a.credentials = identity
		a.life.start(context.Background(), "identity", identity.Run, a.failed)
		return
	}
	cred, err := api.NewFileCredentials(files)
	if err != nil {
		a.logger.Error("other nodes cannot be talked to", "error", err)
		a.backend.Problem("identity", "other nodes cannot be asked for output and signals: "+err.Error())
		return
	}
	a.credentials = cred
}

// joinMesh makes what people ask reach all nodes.
func (a *agent) joinMesh() api.Backend {
	m := control.NewMesh(a.backend, a.store, a.credentials, a.logger)
	a.life.onStop("peers", func(context.Context) error { m.Close(); return nil })
	a.life.start(context.Background(), "instances of all nodes", m.Run, a.failed)
	partition := &membership.Partition{
		Node: a.cfg.Node, Store: a.store, Silent: func() (string, time.Duration) { return a.member.Silent() },
		After: a.cfg.Cluster.fence(), End: m.EndOwnSession, Logger: a.logger.Named("partition"),
	}
	a.life.start(context.Background(), "partition", partition.Run, a.failed)
	return m
}

// openStore opens the store: the embedded one, or the cluster's. If the embedded
// one was repaired, it returns a sentence about that, and the store's index then.
func (a *agent) openStore(ctx context.Context) (repaired string, index uint64, err error) {
	if a.cfg.Cluster != nil {
		return "", 0, a.openCluster(ctx)
	}
	store, err := local.Open(ctx, filepath.Join(a.cfg.DataDir, "state.log"), local.Options{Logger: a.logger})
	if err != nil {
		return "", 0, err
	}
	a.store = newJanitor(store, a.logger)
	a.life.onStop("store", func(context.Context) error { return store.Close() })
	if err := watchdog.MarkDataDir(a.cfg.DataDir); err != nil {
		return "", 0, err
	}
	report := store.Report()
	if report == (local.Report{}) {
		return "", 0, nil
	}
	if _, index, err = store.List(ctx, state.Root); err != nil {
		return "", 0, err
	}
	severity := spec.Warning // what was cut off was acknowledged to nobody
	if report.Damaged() {
		severity = spec.Critical
	}
	a.record(ctx, spec.Event{Type: spec.EventStateRepaired, Severity: severity, Who: "agent", Message: report.String()})
	return report.String(), index, nil
}

// openCluster opens the store on Consul. That Consul is away is no error.
func (a *agent) openCluster(ctx context.Context) error {
	c := a.cfg.Cluster
	prefix := strings.TrimSuffix(c.Prefix, "/")
	if err := state.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("use prefix of consul block: %w: write a path such as \"teams/payments\"", err)
	}
	if prefix != "" {
		prefix += "/"
	}
	store, err := consul.Open(ctx, consul.Options{
		Logger: a.logger, Address: c.Address, Token: c.Token, Datacenter: c.Datacenter,
		Prefix: prefix, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
	})
	if err != nil {
		return err
	}
	a.consul = store
	a.scoped = func(ctx context.Context) state.Store { return store.As(api.CallOf(ctx).Token) }
	a.store = newJanitor(follow.Share(store, a.putBack), a.logger)
	a.life.onStop("store", func(context.Context) error { return a.store.Close() })
	return nil
}

// grace is how long an exclusive shard has to end by itself when this node
// loses the cluster; 0 where there is none to lose.
func (a *agent) grace() time.Duration {
	if a.cfg.Cluster == nil {
		return 0
	}
	return watchdog.StopMargin
}

// lockDelay is how long nobody gets the locks of a node that is lost; 0 where
// there is none to lose.
func (a *agent) lockDelay() time.Duration {
	if a.cfg.Cluster == nil {
		return 0
	}
	return a.cfg.Cluster.fence() + membership.FenceSlack
}

// memberConfig returns what makes this node a member.
func (a *agent) memberConfig(address string) membership.Config {
	boot, err := watchdog.BootID()
	if err != nil {
		a.logger.Warn("after a restart of the agent the node's shards move", "error", err)
	}
	cfg := membership.Config{
		Store: a.store, Dir: a.cfg.DataDir,
		Node: spec.Node{Name: a.cfg.Node, Address: address, Version: a.cfg.Version, Labels: a.cfg.Labels, Weight: a.cfg.Weight,
			Capacity: a.cfg.Capacity, CPU: a.cfg.CPU, Memory: a.cfg.Memory},
		Lease: a.enforcer.Grant, Changed: a.refresh, Moved: a.engine.Retry,
		Problem: func(text string) { a.backend.Problem("membership", text) },
		BootID:  boot, Clock: boottime, Logger: a.logger.Named("membership"),
	}
	if c := a.cfg.Cluster; c != nil {
		cfg.Fence = c.fence()
	}
	return cfg
}

// boottime reads CLOCK_BOOTTIME in nanoseconds.
func boottime() int64 { return int64(watchdog.Boottime()) }

// putBack tells that the store was put back to an earlier state.
func (a *agent) putBack() {
	if m := a.joined.Load(); m != nil { // nothing is held before
		m.StoreRestored()
	}
}

// refresh tells the parts that hold locks that the session is another one.
func (a *agent) refresh() {
	a.engine.Refresh()
	a.scheduler.Refresh()
	a.orchestrator.Refresh()
	if a.listed != nil { // not before it has been started
		a.listed.Wake()
	}
}
