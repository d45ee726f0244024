package engine

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Watchdog is what the engine needs of the watchdog.
type Watchdog interface {
	// Table returns what the watchdog keeps.
	Table(ctx context.Context) (spec.Table, error)
	// Declare sets and removes instances; when it returns nil, the watchdog
	// will see to it, whatever dies. Declaring the same twice changes nothing.
	Declare(ctx context.Context, set []spec.Launch, remove []spec.InstanceID) error
	// Refused reports whether an error of Declare means that the watchdog will
	// never accept the batch as it is, rather than that it is away. The engine
	// then finds the launch at fault and leaves it out.
	Refused(err error) bool
	// Events calls fn with every event after the given number, in order, and
	// goes on until ctx is done, the watchdog is gone, or fn returns an error.
	Events(ctx context.Context, after uint64, fn func(spec.Event) error) error
	// HoldOutput opens an instance's pipes, so that what is in them survives the
	// watchdog. The engine closes them when the instance is gone. It must not block.
	HoldOutput(id spec.InstanceID) (io.Closer, error)
	// Checks of kind log search the output, those of kind command are prepared
	// like the commands of instances.
	health.Host
}

// Agent is what the engine needs of the agent that it is a part of. None of the
// methods may block.
type Agent interface {
	// Session returns the agent's session, which holds the locks of exclusive
	// shards; "" while there is none. Refresh tells the engine of another one.
	Session() string
	// Emit receives the events of launches that cannot be made, of checks and of
	// guards.
	Emit(ev spec.Event)
	// Problem receives what is wrong with the node, and "" when that is over.
	Problem(text string)
}

const (
	// firstRetry doubles up to lastRetry while the store or the watchdog is away.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
	// faultRetry is how soon a launch that could not be made is tried again:
	// nothing tells when a user is created or a port is freed.
	faultRetry = 10 * time.Second
)

// Config is what an engine is made of.
type Config struct {
	Store    state.Store
	Watchdog Watchdog
	Agent    Agent
	Host     Host
	// LockDelay is how long nobody gets the locks of a session that has ended; 0
	// where no session can be lost. Where one can, an agent without a session may
	// have lost its shards to others: it goes on with what it was last assigned,
	// and reports nothing. Exclusive shards live under the lease of the session
	// that holds their lock. Without that session nothing starts them until their
	// lock is taken again, and the watchdog's fence ends what runs.
	LockDelay time.Duration
	// Repaired is the store's index when it was repaired before the agent started;
	// 0 if it wasn't. What runs and is not assigned, because the assignment may
	// be lost, is left running until its job is assigned anew.
	Repaired uint64
	Logger   hclog.Logger
}

// Engine converges one node. Make it with New; Run does the work.
type Engine struct {
	cfg         Config
	logger      hclog.Logger
	assignments *assignments
	view        *view
	locks       *locks
	files       *files
	joined      loop.Signal // the session may be another one; for watchAssignments
	report      *reporter
	outputs     *outputs
	checks      *checks
	kick        loop.Signal // something that step looks at has changed
	reread      loop.Signal // the watchdog's table must be read again
	build       builder     // owned by the loop of Run
	doubtful    bool        // a declaration may have arrived or not; the loop's
	// talk is held by a declaration on its way and by a reading of the table: a
	// table from before a declaration must not replace what is known after it.
	talk chan struct{}

	mu       sync.Mutex // guards declared
	declared map[spec.InstanceID]Declared
}

// fenced reports whether the session can be lost.
func (c *Config) fenced() bool { return c.LockDelay > 0 }

// New returns an engine. It does no I/O.
func New(cfg Config) *Engine {
	cfg.Host.setDefaults()
	cfg.Logger = cfg.Logger.Named("engine")
	e := &Engine{
		cfg: cfg, logger: cfg.Logger,
		kick: loop.NewSignal(), joined: loop.NewSignal(), reread: loop.NewSignal(), talk: make(chan struct{}, 1),
		declared: map[spec.InstanceID]Declared{},
	}
	e.assignments = newAssignments(cfg.Host.Node, cfg.Repaired, cfg.Logger)
	e.locks = newLocks(&e.cfg, e.kick.Set, e.freed)
	e.view = newView(cfg.Host.Node, e.locks)
	e.files = newFiles(cfg.Logger, e.kick.Set)
	e.report = newReporter(&e.cfg, e.view)
	e.checks = newChecks(e)
	e.outputs = newOutputs(cfg.Watchdog, cfg.Logger)
	e.build = builder{host: &e.cfg.Host, ports: newPortBook(cfg.Host.PortFree), locks: e.locks, files: e.files, fenced: cfg.fenced(), made: map[spec.InstanceID]*made{}}
	return e
}

// Retry makes the engine try the locks again that others hold: call it in the
// moment in which a node has come or gone, since the lock delay of one that is
// lost runs from then on. It costs what the locks cost that this node holds or
// waits for, which is nothing where there are none.
func (e *Engine) Retry() { e.locks.retry(time.Now()) }

// Refresh makes the engine look again at what it cannot watch: call it when
// Session's answer has changed. It costs one read of all shard locks.
func (e *Engine) Refresh() {
	e.kick.Set()
	e.joined.Set()
	e.locks.refresh()
	e.report.wakeUp()
}

// freed tells that locks are no longer held: only now is what they were held
// for reported gone, so that its next node finds it free.
func (e *Engine) freed(ids []spec.InstanceID) {
	if e.view.unlocked(ids) {
		e.report.wakeUp()
	}
}

// HoldsLock reports whether this node holds the lock of an exclusive shard.
func (e *Engine) HoldsLock(id spec.InstanceID) bool { return e.locks.holds(id) }

// Instances returns all that runs or is assigned on the node, sorted by ID.
func (e *Engine) Instances() []spec.Instance {
	instances, _, _ := e.view.wait(context.Background(), 0)
	return instances
}

// WaitInstances blocks until something has changed after the given version,
// and returns what Instances does with the new version. After 0 it returns at
// once; ctx's error if ctx is done first.
func (e *Engine) WaitInstances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	return e.view.wait(ctx, after)
}

// WaitSynced blocks until what Instances returns was read from a watchdog, or
// returns ctx's error.
func (e *Engine) WaitSynced(ctx context.Context) error {
	return e.view.waitFor(ctx, func() bool { return e.view.mirror.synced })
}

// WaitSettled blocks until what Instances returns has been compared with what
// is assigned, so that its services are known, or returns ctx's error.
func (e *Engine) WaitSettled(ctx context.Context) error {
	return e.view.waitFor(ctx, func() bool { return e.view.settled })
}

// Run converges the node until ctx is done, and returns nil then. It stops
// nothing that runs. While the store or the watchdog is away, it goes on with
// what it knows and tries again.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){
		e.watchAssignments, e.followTable, e.locks.run, e.files.run, e.report.run, e.checks.run,
	} {
		wg.Go(func() { loop(ctx) })
	}
	defer e.outputs.close()
	defer wg.Wait()
	defer cancel()

	retry := loop.Backoff{Min: firstRetry, Max: lastRetry}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.kick:
		case <-timer.C:
			e.build.pardon()
			if e.doubtful {
				e.reread.Set()
			}
		}
		if err := e.step(ctx); err != nil && ctx.Err() == nil {
			timer.Reset(retry.Failed(e.logger, "the watchdog did not take a declaration", err))
			continue
		}
		if e.doubtful {
			continue // until the table has been read
		}
		retry.Recovered(e.logger, "the watchdog takes declarations again")
		timer.Stop()
		if e.build.faults > 0 {
			timer.Reset(faultRetry)
		}
	}
}

// step compares what is assigned with what runs and declares the difference.
func (e *Engine) step(ctx context.Context) error {
	jobs, read := e.assignments.current()
	// Before the mirror: an event that comes in between takes an instance out of
	// the mirror first, so that what has gone is not removed once more, which no
	// event would ever answer.
	e.mu.Lock()
	declared := maps.Clone(e.declared)
	e.mu.Unlock()
	running, synced := e.view.running()
	if !read || !synced {
		return nil
	}
	e.doubtful = false
	reported := e.assignments.takeReported()
	e.build.ports.adopt(running)
	e.build.ports.adopt(reported)
	processes := processesOf(jobs)
	e.view.restore(reported, processes)
	wanted := append(e.build.wanted(jobs, running), e.assignments.lost(jobs, running)...)
	e.view.setProcesses(processes)
	e.checks.wakeUp()
	e.tellFaults(wanted)

	actions := Converge(wanted, running, declared)
	e.view.setPending(actions.Pending, actions.Declare)
	e.report.wakeUp()
	take := map[spec.InstanceID]bool{}
	for _, id := range e.build.exclusive {
		take[id] = true
	}
	defer func() {
		if !e.doubtful { // else what is not known may run all the same
			e.locks.want(take, e.knows)
		}
	}()
	if actions.Empty() {
		return nil
	}
	e.logger.Debug("converging", "declare", len(actions.Declare), "urgent", actions.Urgent, "remove", len(actions.Remove))
	if err := e.declare(ctx, actions.Declare[:actions.Urgent], actions.Remove); err != nil {
		return err
	}
	return e.declare(ctx, actions.Declare[actions.Urgent:], nil)
}

// tellFaults emits an event for every launch that newly cannot be made.
func (e *Engine) tellFaults(wanted []Wanted) {
	for _, w := range wanted {
		if !e.build.isNewFault(&w) {
			continue
		}
		e.logger.Error("an instance cannot be launched", "instance", w.ID.String(), "reason", w.Why)
		e.cfg.Agent.Emit(spec.Event{
			Time: time.Now(), Type: spec.EventStartFailed, Severity: spec.Critical, Node: e.cfg.Host.Node,
			Job: w.ID.Job, Who: "engine", Message: fmt.Sprintf("%s cannot be launched: %s", w.ID, w.Why),
			Instance: &spec.Instance{ID: w.ID, Node: e.cfg.Host.Node, Phase: spec.PhaseFailed, Reason: w.Why},
		})
	}
}
