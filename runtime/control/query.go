package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/engine"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/runtime/watchdog/output"
	"github.com/synergymesh/meshrun/spec"
)

// Config is what a Node is made of.
type Config struct {
	// Node is the node's name.
	Node    string
	Version string
	DataDir string
	Store   state.Store
	// Scoped returns the store with the rights of the caller (api.CallOf); nil
	// where there are no rights to tell apart. See storeFor.
	Scoped func(context.Context) state.Store
	// Grace is how long an exclusive shard has to end by itself when its node
	// loses the cluster; 0 where there is none to lose.
	Grace time.Duration
	// Unbroken returns for how long this node has been a member without a break.
	Unbroken func() time.Duration
	Watchdog *watchdog.Client
	Engine   *engine.Engine
	Engines  *Registry
	Logger   hclog.Logger
	// Shutdown ends agent and watchdog; Restart ends the agent, which the
	// watchdog then starts again. Both only begin it.
	Shutdown func(stopInstances bool)
	Restart  func()
}

// Node is the api.Backend that answers for its node alone, and for what is in
// the store.
type Node struct {
	cfg     Config
	started time.Time
	cipher  *planCipher
	// seen returns instances as the engine's WaitInstances does: those of all
	// nodes where a Mesh knows them.
	seen func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error)

	mu       sync.Mutex // guards problems
	problems map[string]string
}

// Open returns a Node. It reads the key of saved plans in the data directory,
// or makes one.
func Open(cfg Config) (*Node, error) {
	key, err := openPlanCipher(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, started: time.Now(), cipher: key, seen: cfg.Engine.WaitInstances}, nil
}

// storeFor returns the store as the one may use it for whom the context's
// request is made: what people ask for is done with their rights, and what the
// agent does by itself, which is no request, with its own.
func (b *Node) storeFor(ctx context.Context) state.Store {
	if b.cfg.Scoped == nil {
		return b.cfg.Store
	}
	return b.cfg.Scoped(ctx)
}

// Problem records something that is wrong with the node under a name, or that
// it is mended, with an empty text.
func (b *Node) Problem(name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if text == "" {
		delete(b.problems, name)
		return
	}
	if b.problems == nil {
		b.problems = map[string]string{}
	}
	b.problems[name] = text
}

// Info says who the agent is and what is wrong with it.
func (b *Node) Info(ctx context.Context) (api.Info, error) {
	info := api.Info{
		Node: b.cfg.Node, Version: b.cfg.Version, PID: os.Getpid(), DataDir: b.cfg.DataDir, Started: b.started,
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if table, err := b.cfg.Watchdog.Table(ctx); err == nil {
		info.WatchdogPID = table.PID
		if table.Unlimited != "" {
			info.Problems = append(info.Problems, "processes run without their limits: "+table.Unlimited)
		}
	} else {
		info.Problems = append(info.Problems, b.watchdogProblem())
	}
	info.Problems = append(info.Problems, b.ProblemsBut()...)
	return info, nil
}

// ProblemsBut returns what is wrong with the node, but for what is noted under
// some names.
func (b *Node) ProblemsBut(names ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(b.problems)) {
		if !slices.Contains(names, name) {
			out = append(out, b.problems[name])
		}
	}
	return out
}

// watchdogProblem says why the watchdog may not have answered, and what comes
// of it.
func (b *Node) watchdogProblem() string {
	owner, err := watchdog.OpenOwner(b.cfg.DataDir)
	if err != nil {
		return "the watchdog is gone; a new one is being started, and takes over what runs"
	}
	defer owner.Close()
	if owner.Stopped() {
		return fmt.Sprintf("the watchdog (pid %d) does not answer: it is stopped; kill -CONT %d lets it go on, else it is killed "+
			"within a minute and a new one takes over what runs", owner.PID, owner.PID)
	}
	return fmt.Sprintf("the watchdog (pid %d) does not answer; if it does not within a minute, it is killed and a new one "+
		"takes over what runs", owner.PID)
}

// Jobs returns what is wanted now.
func (b *Node) Jobs(ctx context.Context) ([]spec.JobVersion, error) {
	return b.versions(ctx, state.JobsPrefix)
}

// Job returns what is wanted of one job.
func (b *Node) Job(ctx context.Context, name string) (spec.JobVersion, error) {
	entry, err := b.storeFor(ctx).Get(ctx, state.JobKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return spec.JobVersion{}, api.Errorf(api.ErrNotFound, "no job named %q: `meshrun status` lists the jobs", name)
	}
	if err != nil {
		return spec.JobVersion{}, fmt.Errorf("read job %s: %w", name, err)
	}
	v, err := state.Decode[spec.JobVersion](entry)
	if err != nil {
		return spec.JobVersion{}, err
	}
	return *v.Redacted(), nil
}

// History returns every kept version of a job.
func (b *Node) History(ctx context.Context, name string) ([]spec.JobVersion, error) {
	versions, err := b.versions(ctx, state.HistoryPrefix+name+"/")
	if err == nil && len(versions) == 0 {
		return nil, api.Errorf(api.ErrNotFound, "no job was ever named %q", name)
	}
	return versions, err
}

func (b *Node) versions(ctx context.Context, prefix string) ([]spec.JobVersion, error) {
	entries, _, err := b.storeFor(ctx).List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	versions := make([]spec.JobVersion, 0, len(entries))
	for _, entry := range entries {
		v, err := state.Decode[spec.JobVersion](entry)
		if err != nil {
			return nil, err
		}
		versions = append(versions, *v.Redacted())
	}
	return versions, nil
}

// Instances returns all instances and their index.
func (b *Node) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	return b.cfg.Engine.WaitInstances(ctx, after)
}

// Logs calls each with the lines that the query selects.
func (b *Node) Logs(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
	root := filepath.Join(b.cfg.DataDir, "logs")
	sources, err := output.Select(root, q)
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	if len(sources) == 0 && !q.Follow && !b.known(ctx, q) {
		return api.Errorf(api.ErrNotFound, "nothing of the name %q ever ran here: `meshrun status` shows what there is", name(q))
	}
	return output.Stream(ctx, root, q, func(line spec.LogLine) error {
		line.Node = b.cfg.Node
		return each(line)
	})
}

// known reports whether the query names an instance that there is, though it
// may have been silent.
func (b *Node) known(ctx context.Context, q spec.LogQuery) bool {
	target := api.Target{Job: q.Job, Process: q.Process, Shard: q.Shard}
	instances, _, err := b.cfg.Engine.WaitInstances(ctx, 0)
	if err != nil {
		return false
	}
	for _, i := range instances {
		if target.Matches(i.ID) {
			return true
		}
	}
	return false
}

func name(q spec.LogQuery) string {
	return api.Target{Job: q.Job, Process: q.Process, Shard: q.Shard}.String()
}
