package engine

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// reportEvery is how often a job that moves is written. Where writing is
	// costly, it is rarer, so that it takes a tenth of the time at most.
	reportEvery   = 100 * time.Millisecond
	reportSlowest = time.Second
	reportShare   = 10
	// statusEvery is how often a job is written of which nothing has changed but
	// what its processes say of themselves, and how much of their output is lost:
	// each write is one of the cluster, and wakes every node.
	statusEvery = time.Minute
)

// reporter writes what is seen to the store, a job at a time: at once when it
// begins to move, then every reportEvery, and only what differs.
type reporter struct {
	store  state.Store
	node   string
	agent  Agent
	fenced bool
	view   *view
	logger hclog.Logger
	wake   loop.Signal
	seed   maphash.Seed

	// What follows belongs to run's goroutine.
	listed  bool               // the store's values are known
	under   string             // the session at that time
	written map[string]digests // by job: what is in the store
	last    map[string]time.Time
	dirty   map[string]bool
	pause   time.Duration // between two writes of a job
	// unreported are the jobs that are too large to be reported.
	unreported map[string]bool
}

// digests stand for a report.
type digests struct {
	all  uint64
	firm uint64 // without what changes often; 0 if it isn't known
}

func newReporter(cfg *Config, v *view) *reporter {
	return &reporter{
		store: cfg.Store, agent: cfg.Agent, node: cfg.Host.Node, fenced: cfg.fenced(), view: v, logger: cfg.Logger.Named("report"),
		wake: loop.NewSignal(), seed: maphash.MakeSeed(),
		unreported: map[string]bool{},
		written:    map[string]digests{}, last: map[string]time.Time{}, dirty: map[string]bool{}, pause: reportEvery,
	}
}

func (r *reporter) wakeUp() { r.wake.Set() }

// run reports until ctx is done.
func (r *reporter) run(ctx context.Context) {
	retry := loop.Backoff{Min: firstRetry, Max: lastRetry}
	loop.Run(ctx, r.wake, func(now time.Time) time.Duration {
		next, err := r.step(ctx, now)
		if err == nil {
			retry.Recovered(r.logger, "what is seen can be reported again")
		} else if ctx.Err() == nil {
			next = retry.Failed(r.logger, "what is seen cannot be reported", err)
		}
		return next
	})
}

// step writes the jobs that are due and returns when the next one is; 0 if
// none waits.
func (r *reporter) step(ctx context.Context, now time.Time) (next time.Duration, err error) {
	session := r.agent.Session()
	if r.fenced && session == "" {
		return 0, nil // told once the node is a member again
	}
	if r.under != session {
		// While the node was away, others may have removed what it had reported.
		r.under, r.listed = session, false
		r.view.markAll()
	}
	// The others' turn must not wait for a report: it comes at once.
	if !r.view.takeDirty(r.dirty, func(job string) { delete(r.last, job) }) {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := r.list(ctx); err != nil {
		return 0, err
	}
	var due []string
	for job := range r.dirty {
		if wait := r.last[job].Add(r.pause).Sub(now); wait > 0 {
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		due = append(due, job)
	}
	slices.Sort(due)
	later, err := r.write(ctx, now, due)
	if later > 0 && (next == 0 || later < next) {
		next = later
	}
	if len(due) > 0 {
		r.pause = min(max(reportEvery, reportShare*time.Since(now)), reportSlowest)
	}
	return next, err
}

// list learns what was reported before this agent started.
func (r *reporter) list(ctx context.Context) error {
	if r.listed {
		return nil
	}
	prefix := state.ObservedPrefix + r.node + "/"
	entries, _, err := r.store.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("list reports: %w", err)
	}
	clear(r.written)
	for _, e := range entries {
		job := strings.TrimPrefix(e.Key, prefix)
		r.written[job] = digests{all: maphash.Bytes(r.seed, e.Value)}
		r.dirty[job] = true
	}
	r.listed = true
	return nil
}

// write writes jobs in as few transactions as they fit in, and returns when to
// write those that wait for more; 0 if there are none.
func (r *reporter) write(ctx context.Context, now time.Time, jobs []string) (later time.Duration, err error) {
	var ops []state.Op
	var of []string
	made := map[string]digests{}
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		if _, err := r.store.Txn(ctx, ops...); err != nil {
			return fmt.Errorf("report %d jobs: %w", len(ops), err)
		}
		for i, job := range of {
			r.wrote(job, now, made[job], ops[i].Kind == state.OpDelete)
		}
		ops, of, size = nil, nil, 0
		return nil
	}
	for _, job := range jobs {
		op, d, err := r.op(job)
		if err != nil {
			r.logger.Error("a job has too many instances on this node to be reported; split it into several jobs", "job", job, "error", err)
			r.tell(job, true)
			delete(r.dirty, job)
			continue
		}
		r.tell(job, false)
		old, known := r.written[job]
		if known == (op.Kind == state.OpSet) && (!known || old.all == d.all) {
			delete(r.dirty, job)
			continue
		}
		if wait := r.last[job].Add(statusEvery).Sub(now); known && old.firm == d.firm && op.Kind == state.OpSet && wait > 0 {
			if later == 0 || wait < later {
				later = wait
			}
			continue
		}
		if len(ops) == state.MaxTxnOps || size+op.Size() > state.MaxTxnBytes {
			if err := flush(); err != nil {
				return 0, err
			}
		}
		ops, of, size = append(ops, op), append(of, job), size+op.Size()
		made[job] = d
	}
	return later, flush()
}

// tell notes whether a job is too large to be reported, and lets people know.
func (r *reporter) tell(job string, tooLarge bool) {
	if r.unreported[job] == tooLarge {
		return
	}
	if r.unreported[job] = true; !tooLarge {
		delete(r.unreported, job)
	}
	text := ""
	if len(r.unreported) > 0 {
		text = fmt.Sprintf("too much runs on this node of %s to be reported, so that others see it as it was, and what waits for it goes on waiting; split it into several jobs",
			strings.Join(slices.Sorted(maps.Keys(r.unreported)), ", "))
	}
	r.agent.Problem(text)
}

// wrote notes what the store holds now.
func (r *reporter) wrote(job string, now time.Time, d digests, deleted bool) {
	delete(r.dirty, job)
	r.last[job] = now
	r.written[job] = d
	if deleted {
		delete(r.written, job)
		delete(r.last, job)
	}
}

// op returns the write of a job: its removal once nothing is seen of it.
func (r *reporter) op(job string) (state.Op, digests, error) {
	seen := r.view.observed(job)
	key := state.ObservedKey(r.node, job)
	if len(seen.Instances) == 0 {
		return state.Op{Kind: state.OpDelete, Key: key}, digests{}, nil
	}
	value, err := encode(&seen)
	if err != nil {
		return state.Op{}, digests{}, err
	}
	d := digests{all: maphash.Bytes(r.seed, value)}
	if d.firm = d.all; calm(&seen) {
		value, err := encode(&seen)
		if err != nil {
			return state.Op{}, digests{}, err
		}
		d.firm = maphash.Bytes(r.seed, value)
	}
	return state.Op{Kind: state.OpSet, Key: key, Value: value}, d, nil
}

// calm takes what changes often out of a report, and tells whether there was any.
func calm(seen *spec.Observed) (moves bool) {
	for i := range seen.Instances {
		in := &seen.Instances[i]
		moves = moves || in.Status != "" || in.DroppedBytes != 0
		in.Status, in.DroppedBytes = "", 0
	}
	return moves
}
