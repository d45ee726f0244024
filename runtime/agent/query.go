package agent

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

// backend answers what people ask through the API.
type backend struct {
	node    string
	version string
	dataDir string
	started time.Time
	store   state.Store
	// grace is how long an exclusive shard has to end by itself when its node
	// loses the cluster; 0 where there is none to lose.
	grace time.Duration
	// unbroken returns for how long this node has been a member without a break.
	unbroken func() time.Duration
	// scoped returns the store with the rights of who asks (api.CallOf); nil
	// where there are no rights to tell apart. See storeFor.
	scoped   func(context.Context) state.Store
	watchdog *watchdog.Client
	engine   *engine.Engine
	// seen returns instances as the engine's WaitInstances does: those of all
	// nodes where this agent knows them.
	seen    func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error)
	engines *registry
	cipher  *planCipher
	logger  hclog.Logger
	// shutdown ends agent and watchdog; restart ends the agent, which the
	// watchdog then starts again. Both only begin it.
	shutdown func(stopInstances bool)
	restart  func()

	mu       sync.Mutex // guards problems
	problems map[string]string
}

// storeFor returns the store as the one may use it for whom the context's
// request is made: what people ask for is done with their rights, and what the
// agent does by itself, which is no request, with its own.
func (b *backend) storeFor(ctx context.Context) state.Store {
	if b.scoped == nil {
		return b.store
	}
	return b.scoped(ctx)
}

// problem notes something that is wrong with the node under a name, or that
// it is mended, with an empty text.
func (b *backend) problem(name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if text == "" {
		delete(b.problems, name)
		return
	}
	b.problems[name] = text
}

// Info says who the agent is and what is wrong with it.
func (b *backend) Info(ctx context.Context) (api.Info, error) {
	info := api.Info{
		Node: b.node, Version: b.version, PID: os.Getpid(), DataDir: b.dataDir, Started: b.started,
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if table, err := b.watchdog.Table(ctx); err == nil {
		info.WatchdogPID = table.PID
		if table.Unlimited != "" {
			info.Problems = append(info.Problems, "processes run without their limits: "+table.Unlimited)
		}
	} else {
		info.Problems = append(info.Problems, b.watchdogProblem())
	}
	info.Problems = append(info.Problems, b.problemsBut()...)
	return info, nil
}

// problemsBut returns what is wrong with the node, but for what is noted under
// some names.
func (b *backend) problemsBut(names ...string) []string {
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
func (b *backend) watchdogProblem() string {
	owner, err := watchdog.OpenOwner(b.dataDir)
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
func (b *backend) Jobs(ctx context.Context) ([]spec.JobVersion, error) {
	return b.versions(ctx, state.JobsPrefix)
}

// Job returns what is wanted of one job.
func (b *backend) Job(ctx context.Context, name string) (spec.JobVersion, error) {
	entry, err := b.storeFor(ctx).Get(ctx, state.JobKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return spec.JobVersion{}, api.Errorf(api.ErrNotFound, "there is no job %q: `meshrun status` shows what there is", name)
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
func (b *backend) History(ctx context.Context, name string) ([]spec.JobVersion, error) {
	versions, err := b.versions(ctx, state.HistoryPrefix+name+"/")
	if err == nil && len(versions) == 0 {
		return nil, api.Errorf(api.ErrNotFound, "there never was a job %q", name)
	}
	return versions, err
}

func (b *backend) versions(ctx context.Context, prefix string) ([]spec.JobVersion, error) {
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
func (b *backend) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	return b.engine.WaitInstances(ctx, after)
}

// Logs calls each with the lines that the query selects.
func (b *backend) Logs(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
	root := filepath.Join(b.dataDir, "logs")
	sources, err := output.Select(root, q)
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	if len(sources) == 0 && !q.Follow && !b.known(ctx, q) {
		return api.Errorf(api.ErrNotFound, "nothing of the name %q ever ran here: `meshrun status` shows what there is", name(q))
	}
	return output.Stream(ctx, root, q, func(line spec.LogLine) error {
		line.Node = b.node
		return each(line)
	})
}

// known reports whether the query names an instance that there is, though it
// may have been silent.
func (b *backend) known(ctx context.Context, q spec.LogQuery) bool {
	target := api.Target{Job: q.Job, Process: q.Process, Shard: q.Shard}
	instances, _, err := b.engine.WaitInstances(ctx, 0)
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
