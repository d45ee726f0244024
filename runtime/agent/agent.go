// Package agent wires the rooms of runtime into a node: the store, the
// scheduler, the orchestrator, the engine and the API in one process, under a
// watchdog that is another. It is the only room that sees all rooms.
//
// The agent may die at any time: what it must not forget is in the store or in
// the watchdog's journal, and nothing that runs depends on it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/engine"
	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/schema"
	"github.com/synergymesh/meshrun/spec"
)

// Config is what a node is told by its command line.
type Config struct {
	// DataDir is an absolute path; it is made if it is missing.
	DataDir string
	// Node is the node's name; empty means the host's.
	Node    string
	Labels  map[string]string
	Network Network
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
// ErrNewerLayout if that belongs to a newer version.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find node name: %w (name it with -node)", err)
		}
		cfg.Node = nodeName(host)
	}
	if err := prepareDataDir(cfg.DataDir); err != nil {
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
	_ = notify("STOPPING=1")
	return errors.Join(failure, a.life.stop(stopTimeout), a.halt())
}

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
	cfg      Config
	logger   hclog.Logger
	life     lifecycle
	store    state.Store
	session  string
	client   *watchdog.Client
	engine   *engine.Engine
	backend  *backend
	registry *registry
	events   chan spec.Event // to be recorded; bounded
	failed   chan error      // the first part that ended by itself
	ends     chan ending     // the first ask to end
	ending   ending          // what was asked; set before anything is stopped
}

// open brings everything up, the lowest layer first.
func (a *agent) open(ctx context.Context) error {
	lock, err := lockDataDir(a.cfg.DataDir)
	if err != nil {
		return err
	}
	a.life.onStop("data directory", func(context.Context) error { return lock.Close() })
	a.client = watchdog.NewClient(a.cfg.DataDir)
	repaired, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	seal, err := openSealer(a.cfg.DataDir)
	if err != nil {
		return err
	}
	a.engine = engine.New(engine.Config{
		Store: a.store, Supervisor: a.client, Node: a.cfg.Node, Labels: a.cfg.Labels,
		Session: func() string { return a.session }, Expand: schema.Expand, Logger: a.logger,
		HoldOutput: func(id spec.InstanceID) (io.Closer, error) { return watchdog.HoldOutput(a.cfg.DataDir, id) },
		Refused:    func(err error) bool { return errors.Is(err, watchdog.ErrRefused) },
		Emit:       a.emit,
	})
	a.registry = newRegistry(a.cfg.Node, a.store, func() string { return a.session }, a.logger)
	a.backend = &backend{
		node: a.cfg.Node, version: a.cfg.Version, dataDir: a.cfg.DataDir, started: time.Now(),
		store: a.store, watchdog: a.client, engine: a.engine, engines: a.registry, sealer: seal, logger: a.logger,
		shutdown: func(stop bool) { a.end(ending{shutdown: true, stopInstances: stop}) },
		restart:  func() { a.end(ending{}) },
		problems: map[string]string{},
	}
	a.backend.problem("state", repaired)
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
	if err := notify("READY=1\nSTATUS=node " + a.cfg.Node); err != nil {
		a.logger.Warn("tell the watchdog", "error", err)
	}
	a.logger.Info("ready", "node", a.cfg.Node, "data_dir", a.cfg.DataDir, "version", a.cfg.Version)
	return nil
}

// openStore opens the embedded store and this node's session in it. It returns
// a sentence about what was repaired, if anything was.
func (a *agent) openStore(ctx context.Context) (repaired string, err error) {
	store, err := local.Open(ctx, filepath.Join(a.cfg.DataDir, "state.db"), local.Options{Logger: a.logger})
	if err != nil {
		return "", err
	}
	a.store = store
	a.life.onStop("store", func(context.Context) error { return store.Close() })
	if report := store.Report(); report.Damaged() {
		repaired = report.String()
		a.logger.Error("state was damaged", "report", repaired)
		a.record(ctx, spec.Event{Type: spec.EventStateRepaired, Severity: spec.Critical, Who: "agent", Message: repaired})
	}
	a.session, err = openSession(ctx, store, spec.Node{Name: a.cfg.Node, Labels: a.cfg.Labels, Version: a.cfg.Version})
	return repaired, err
}

// startLoops starts the layers' loops: each watches, decides and acts by itself.
func (a *agent) startLoops() {
	ctx := context.Background() // ended by the lifecycle, in order
	session := func() string { return a.session }
	a.life.start(ctx, "guard", (&guard{
		dataDir: a.cfg.DataDir, args: a.cfg.Args, client: a.client, logger: a.logger.Named("guard"), leave: underSystemd(),
	}).run, a.failed)
	a.life.start(ctx, "scheduler", scheduler.New(a.store, session, a.logger).Run, a.failed)
	a.life.start(ctx, "orchestrator", orchestrator.New(a.store, session, a.logger).Run, a.failed)
	a.life.start(ctx, "engine", a.engine.Run, a.failed)
	a.life.start(ctx, "registry", a.registry.run, a.failed)
	a.life.start(ctx, "recorder", a.recorder, a.failed)
	a.life.start(ctx, "janitor", func(ctx context.Context) error { return janitor(ctx, a.store, a.logger) }, a.failed)
	a.life.start(ctx, "keep-alive", func(ctx context.Context) error {
		return keepAlive(ctx, a.logger, a.healthy)
	}, a.failed)
	if len(a.cfg.Jobs) > 0 {
		a.life.start(ctx, "job files", (&jobFiles{backend: a.backend, paths: a.cfg.Jobs, record: a.record, logger: a.logger.Named("jobs")}).run, a.failed)
	}
}

func (a *agent) serve() error {
	cred, err := a.credentials()
	if err != nil {
		return err
	}
	server := api.NewServer(api.Config{Backend: a.front(cred), Logger: a.logger, SocketPath: filepath.Join(a.cfg.DataDir, "agent.sock")})
	if err := server.Open(); err != nil {
		return err
	}
	a.admit(context.Background(), server, cred)
	a.life.start(context.Background(), "API", func(context.Context) error { return server.Serve() }, a.failed)
	a.life.onStop("API server", func(context.Context) error { return server.Close() })
	return nil
}

// healthy reports whether the agent can do its work: its store answers.
func (a *agent) healthy(ctx context.Context) error {
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
