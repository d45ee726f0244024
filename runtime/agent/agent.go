// Package agent wires the packages of runtime into a node: the store, the
// scheduler, the orchestrator, the engine and the API in one process, under a
// watchdog that is another. It is the only package that imports all others.
//
// The agent may die at any time: what it must not forget is in the store or in
// the watchdog's journal, and nothing that runs depends on it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/control"
	"github.com/synergymesh/meshrun/runtime/engine"
	"github.com/synergymesh/meshrun/runtime/membership"
	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/catalog"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/schema"
	"github.com/synergymesh/meshrun/spec"
)

// Config is what a node is told by its command line.
type Config struct {
	// DataDir is an absolute path; it is made if it is missing.
	DataDir string
	// Node is the node's name; empty means the host's.
	Node   string
	Labels map[string]string
	// Weight is the node's share of the shards relative to the others'; 0 means 1.
	Weight float64
	// Capacity is the most instances that the node is given, CPU and Memory the
	// most that their resources may come to; 0 means no bound.
	Capacity int
	CPU      float64
	Memory   spec.Size
	// Cluster says how Consul is reached; nil for one machine, with the
	// embedded store.
	Cluster *Cluster
	// Jobs are files and directories to apply and to watch.
	Jobs    []string
	Version string
	// Args is the command line, without the program, with which the watchdog
	// starts this agent again. It means the same in every directory.
	Args []string
	// Logger is required.
	Logger hclog.Logger
}

// syncTimeout is how long the API waits for what the watchdog sees.
const syncTimeout = 3 * time.Second

// stopTimeout bounds the agent's own end; the instances have ended by then or
// go on without it.
const stopTimeout = 10 * time.Second

// Run is a node's agent. Called without a watchdog above it, it becomes one
// that runs this same command line (and does not return); under a watchdog, it
// works until the context ends, SIGTERM comes or somebody asks it to end.
//
// It returns ErrInUse if another agent has the data directory, and
// watchdog.ErrNewerLayout if that belongs to a newer version.
func Run(ctx context.Context, cfg Config) error {
	if err := watchdog.CloseInherited(); err != nil {
		cfg.Logger.Warn("a descriptor of the program that started this one stays open", "error", err)
	}
	if cfg.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find node name: %w (name it with -node)", err)
		}
		cfg.Node = nodeName(host)
	}
	if !isNodeName(cfg.Node) {
		return fmt.Errorf("start node %q: that is not a name for a node: it consists of at most 63 letters, digits, \".\", \"-\" and \"_\", and begins with a letter or digit: choose one with -node", cfg.Node)
	}
	if err := watchdog.PrepareDataDir(cfg.DataDir); err != nil {
		return err
	}
	if !underWatchdog(cfg.DataDir) {
		return becomeWatchdog(cfg.DataDir, cfg.Args)
	}
	restBetweenBursts()
	a := &agent{cfg: cfg, logger: cfg.Logger.Named("agent"), events: make(chan spec.Event, 64),
		failed: make(chan error, 1), ends: make(chan ending, 1)}
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := a.open(ctx); err != nil {
		return errors.Join(err, a.life.stop(stopTimeout))
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-a.failed:
	case a.ending = <-a.ends:
	}
	_ = supervisor().Send("STOPPING=1")
	if a.leaving = a.leaves(); a.leaving {
		// The loops go on until nothing runs here any more, so that a primary does
		// its work until the others can take over.
		failure = errors.Join(failure, a.stopInstances())
	}
	return errors.Join(failure, a.life.stop(stopTimeout), a.halt())
}

// maxNodeName bounds a node's name.
const maxNodeName = 63

// nodePattern is what a node's name is like, as a part of keys and of commands.
// It doesn't say how long, which would make it a hundred times as large.
var nodePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func isNodeName(name string) bool { return len(name) <= maxNodeName && nodePattern.MatchString(name) }

// nodeName makes a host's name usable as a part of keys.
func nodeName(host string) string {
	name, _, _ := strings.Cut(strings.ToLower(host), ".")
	if name == "" {
		return "localhost"
	}
	return strings.ReplaceAll(name, "/", "-")
}

// agent is a node while it runs.
type agent struct {
	cfg     Config
	logger  hclog.Logger
	life    lifecycle
	store   *janitor
	member  *membership.Member
	client  *watchdog.Client
	backend *control.Node
	server  *api.Server
	parts
	link
	events  chan spec.Event // to be recorded; bounded
	failed  chan error      // the first part that ended by itself
	ends    chan ending     // the first ask to end
	ending  ending          // what was asked; set before anything is stopped
	leaving bool            // the node leaves its cluster; set at the same time
}

// parts are the agent's layers, each with a loop of its own.
type parts struct {
	engine       *engine.Engine
	scheduler    *scheduler.Loop
	orchestrator *orchestrator.Loop
	registry     *control.Registry
}

// link is what joins the agent to a cluster; empty on one machine.
type link struct {
	consul      *consul.Store
	listed      *catalog.Keeper                   // in Consul's catalog
	scoped      func(context.Context) state.Store // with the rights of who asks
	credentials api.Credentials                   // for other agents
	enforcer    *membership.Enforcer              // of the leases
	joined      atomic.Pointer[membership.Member] // once all that it refreshes is there
}

// open brings everything up, the lowest layer first.
func (a *agent) open(ctx context.Context) error {
	lock, err := lockDataDir(a.cfg.DataDir)
	if err != nil {
		return err
	}
	a.life.onStop("data directory", func(context.Context) error { return lock.Close() })
	a.client = watchdog.NewClient(a.cfg.DataDir)
	repaired, repairedAt, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	a.engine = engine.New(engine.Config{
		Store: a.store, Watchdog: engineWatchdog{a.client, a.cfg.DataDir}, Agent: engineAgent{a},
		Host:      engine.Host{Node: a.cfg.Node, Labels: a.cfg.Labels, Expand: schema.Expand},
		LockDelay: a.lockDelay(), Repaired: repairedAt, Logger: a.logger,
	})
	a.orchestrator = orchestrator.New(a.store, a.cfg.Node, a.sessionNow, a.logger)
	a.registry = control.NewRegistry(a.cfg.Node, a.store, a.orchestrator, a.logger)
	a.backend, err = control.Open(control.Config{
		Node: a.cfg.Node, Version: a.cfg.Version, DataDir: a.cfg.DataDir, Store: a.store, Scoped: a.scoped, Grace: a.grace(),
		Unbroken: func() time.Duration { return a.member.Unbroken() },
		Watchdog: a.client, Engine: a.engine, Engines: a.registry, Logger: a.logger,
		Shutdown: func(stop bool) { a.end(ending{shutdown: true, stopInstances: stop}) },
		Restart:  func() { a.end(ending{}) },
	})
	if err != nil {
		return err
	}
	a.backend.Problem("state", repaired)
	a.server = api.NewServer(api.Config{Backend: a.answers(), Logger: a.logger, SocketPath: filepath.Join(a.cfg.DataDir, "agent.sock")})
	a.life.onStop("API server", func(context.Context) error { return a.server.Close() })
	address := ""
	if a.cfg.Cluster != nil {
		address = a.meet(ctx)
	}
	a.enforcer = membership.NewEnforcer(membership.EnforcerConfig{
		Renew: a.client.Renew, Instances: a.engine.Instances, Clock: boottime, Emit: a.emit, Logger: a.logger.Named("fence"),
		Kill: func(in *spec.Instance) (bool, error) { return watchdog.KillOutlived(a.cfg.DataDir, in) },
	})
	a.member = membership.New(a.memberConfig(address))
	a.life.onStop("membership", a.depart)
	a.scheduler = scheduler.New(a.store, a.cfg.Node, a.member.Session, a.logger)
	a.joined.Store(a.member)
	// On one machine the session is there at once; a cluster may be away, and
	// what runs here goes on without it.
	if err := a.member.Renew(ctx); err != nil && a.cfg.Cluster == nil {
		return err
	}
	a.startLoops()
	// Who asks at once shall see what runs; but a watchdog that is away must
	// not keep the agent from answering.
	synced, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if err := a.engine.WaitSynced(synced); err != nil {
		a.logger.Warn("the watchdog does not tell what runs yet", "error", err)
	}
	if err := a.serve(); err != nil {
		return err
	}
	if err := supervisor().Send("READY=1\nSTATUS=node " + a.cfg.Node); err != nil {
		a.logger.Warn("tell the watchdog", "error", err)
	}
	a.logger.Info("ready", "node", a.cfg.Node, "data_dir", a.cfg.DataDir, "version", a.cfg.Version)
	return nil
}

// startLoops starts the layers' loops: each watches, decides and acts by itself.
func (a *agent) startLoops() {
	ctx := context.Background() // ended by the lifecycle, in order
	a.startCatalog()
	a.life.start(ctx, "guard", (&guard{
		dataDir: a.cfg.DataDir, args: a.cfg.Args, client: a.client, logger: a.logger.Named("guard"), leave: underSystemd(), emit: a.emit, mute: firstAnswer,
	}).run, a.failed)
	a.life.start(ctx, "fence", a.enforcer.Run, a.failed)
	a.life.start(ctx, "membership", a.member.Run, a.failed)
	a.life.start(ctx, "scheduler", a.scheduler.Run, a.failed)
	a.life.start(ctx, "orchestrator", a.orchestrator.Run, a.failed)
	a.life.start(ctx, "engine", a.engine.Run, a.failed)
	a.life.start(ctx, "registry", a.registry.Run, a.failed)
	a.life.start(ctx, "recorder", a.recorder, a.failed)
	a.life.start(ctx, "janitor", a.store.run, a.failed)
	a.life.start(ctx, "keep-alive", func(ctx context.Context) error {
		return keepAlive(ctx, a.logger, a.healthy)
	}, a.failed)
	if len(a.cfg.Jobs) > 0 {
		a.life.start(ctx, "job files", (&jobFiles{backend: a.backend, paths: a.cfg.Jobs, record: a.record, logger: a.logger.Named("jobs")}).run, a.failed)
	}
}

// answers is who answers what people ask: this node alone, or for all.
func (a *agent) answers() api.Backend {
	if a.cfg.Cluster == nil {
		return a.backend
	}
	if a.identify(); a.credentials == nil {
		return a.backend
	}
	return a.joinMesh()
}

// sessionNow returns the node's session; "" while it is no member.
func (a *agent) sessionNow() string { return a.member.Session() }

func (a *agent) serve() error {
	if err := a.server.Open(); err != nil {
		return err
	}
	a.life.start(context.Background(), "API", func(context.Context) error { return a.server.Serve() }, a.failed)
	a.life.onStop("API requests", func(context.Context) error { return a.server.Close() })
	return nil
}

// healthy reports whether the agent can do its work: its store answers. That
// a cluster is away is no fault of the agent, but that it doesn't look after its
// session is.
func (a *agent) healthy(ctx context.Context) error {
	if a.cfg.Cluster != nil {
		return a.member.Healthy()
	}
	_, err := a.store.Get(ctx, state.NodeKey(a.cfg.Node))
	return err
}

// emit hands an event to the recorder without waiting for it.
func (a *agent) emit(ev spec.Event) {
	select {
	case a.events <- ev:
	default:
		a.logger.Warn("too many events at once: one is only logged", "type", ev.Type, "message", ev.Message)
	}
}

// recorder writes what emit was given.
func (a *agent) recorder(ctx context.Context) error {
	for {
		select {
		case ev := <-a.events:
			a.record(ctx, ev)
		case <-ctx.Done():
			return nil
		}
	}
}

// record writes an event that goes with no other change.
func (a *agent) record(ctx context.Context, ev spec.Event) {
	ev.Time, ev.Node = time.Now().UTC(), a.cfg.Node
	op, err := state.EventOp(ev)
	if err == nil {
		_, err = a.store.Txn(ctx, op)
	}
	if err != nil {
		a.logger.Error("record event", "type", ev.Type, "message", ev.Message, "error", err)
	}
}
