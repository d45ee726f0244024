package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// watchAssignments follows what is assigned to the node.
func (e *Engine) watchAssignments(ctx context.Context) {
	retry := loop.Backoff{Min: firstRetry, Max: lastRetry}
	var after uint64
	for ctx.Err() == nil {
		if !e.member(ctx) {
			after = 0
			continue
		}
		entries, index, err := e.readAssignments(ctx, after)
		if err == nil && e.cfg.fenced() && e.cfg.Agent.Session() == "" {
			continue // what changes while others count this node as gone is no order
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			_ = loop.Sleep(ctx, retry.Failed(e.logger, "assignments cannot be read; what runs goes on", err))
			continue
		}
		retry.Recovered(e.logger, "assignments can be read again")
		after = index
		if e.cfg.fenced() && len(entries) == 0 && e.assignments.mayRun() {
			blank, err := e.isBlank(ctx)
			if err != nil {
				after = 0
				_ = loop.Sleep(ctx, retry.Failed(e.logger, "it is not known whether there ever were jobs; what runs goes on", err))
				continue
			}
			if blank {
				e.logger.Info("the store has never had a job: what runs here is left as it is until it has")
				continue
			}
		}
		e.assignments.update(entries)
		e.kick.Set()
	}
}

// isBlank reports whether the store never had a job: then it is new, or has
// lost all that it held, and what runs here is to be brought (back) to it rather
// than to be stopped.
func (e *Engine) isBlank(ctx context.Context) (bool, error) {
	for _, prefix := range []string{state.JobsPrefix, state.HistoryPrefix} {
		entries, _, err := e.cfg.Store.List(ctx, prefix)
		if err != nil || len(entries) > 0 {
			return false, err
		}
	}
	return true, nil
}

// member reports whether the node may be given orders: it has a session, or
// needs none. Otherwise it waits until that may have changed.
func (e *Engine) member(ctx context.Context) bool {
	if !e.cfg.fenced() || e.cfg.Agent.Session() != "" {
		return true
	}
	select {
	case <-ctx.Done():
	case <-e.joined:
	}
	return false
}

// readAssignments waits for assignments after the index. The first time it
// also takes over what the node reported earlier.
func (e *Engine) readAssignments(ctx context.Context, after uint64) ([]state.Entry, uint64, error) {
	if after == 0 {
		observed, _, err := e.cfg.Store.List(ctx, state.ObservedPrefix+e.cfg.Host.Node+"/")
		if err != nil {
			return nil, 0, fmt.Errorf("list reports: %w", err)
		}
		e.assignments.setReported(observed)
	}
	entries, index, err := e.cfg.Store.Watch(ctx, e.assignments.prefix, after)
	if err != nil {
		return nil, 0, fmt.Errorf("watch assignments: %w", err)
	}
	return entries, index, nil
}

// errGap: events are missing, the table must be read again.
var errGap = errors.New("events are missing")

// followTable keeps the mirror of the watchdog's table.
func (e *Engine) followTable(ctx context.Context) {
	retry := loop.Backoff{Min: firstRetry, Max: lastRetry}
	for ctx.Err() == nil {
		seq, err := e.readTable(ctx)
		if err == nil {
			retry.Recovered(e.logger, "the watchdog can be reached again")
			err = e.follow(ctx, seq)
			e.view.unsync()
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errGap) {
			continue
		}
		_ = loop.Sleep(ctx, retry.Failed(e.logger, "the watchdog cannot be reached; what runs goes on", err))
	}
}

// follow takes over all events after a number, until they end or the table has
// to be read again.
func (e *Engine) follow(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		select {
		case <-e.reread:
			cancel(errGap)
		case <-ctx.Done():
		}
	})
	err := e.cfg.Watchdog.Events(ctx, seq, func(ev spec.Event) error {
		if ev.Seq > seq+1 || ev.Type == spec.EventJournalGap {
			return errGap
		}
		seq = max(seq, ev.Seq)
		e.see(&ev)
		return nil
	})
	if errors.Is(context.Cause(ctx), errGap) {
		return errGap
	}
	return err
}

// readTable replaces the mirror. All launches are declared again then, which
// changes nothing for those that the watchdog still has.
func (e *Engine) readTable(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, declareTimeout)
	defer cancel()
	if err := e.take(ctx); err != nil {
		return 0, fmt.Errorf("read table: %w", err)
	}
	defer e.leave()
	losses := e.view.syncLosses()
	table, err := e.cfg.Watchdog.Table(ctx)
	if err != nil {
		return 0, fmt.Errorf("read table: %w", err)
	}
	e.mu.Lock()
	clear(e.declared)
	e.mu.Unlock()
	for _, id := range e.view.reset(table.Instances, losses) {
		e.outputs.drop(id)
	}
	for _, inst := range table.Instances {
		e.outputs.hold(inst.ID)
	}
	e.report.wakeUp()
	e.checks.wakeUp()
	e.kick.Set()
	return table.Seq, nil
}

// see takes over one event.
func (e *Engine) see(ev *spec.Event) {
	if ev.Instance == nil {
		return
	}
	id := ev.Instance.ID
	if e.view.apply(ev) {
		e.mu.Lock()
		delete(e.declared, id)
		e.mu.Unlock()
		e.outputs.drop(id)
		e.kick.Set()
	} else {
		e.outputs.hold(id)
	}
	e.checks.wakeUp()
	e.report.wakeUp()
}
