package orchestrator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// runBook caches the run records of an orchestrator's jobs. Nobody else writes
// them while this node holds the jobs' control shards.
type runBook struct {
	// jobs maps job → "process/id" → record.
	jobs map[string]map[string]runEntry
}

// runEntry is a run record and its index in the store.
type runEntry struct {
	run   spec.Run
	index uint64
}

func newRunBook() *runBook { return &runBook{jobs: map[string]map[string]runEntry{}} }

// of returns the runs of a job, in no order.
func (b *runBook) of(job string) []spec.Run {
	out := make([]spec.Run, 0, len(b.jobs[job]))
	for _, e := range b.jobs[job] {
		out = append(out, e.run)
	}
	return out
}

// put stores a record in the cache, or deletes it if run is nil.
func (b *runBook) put(job, name string, run *spec.Run, index uint64) {
	if run == nil {
		delete(b.jobs[job], name)
		if len(b.jobs[job]) == 0 {
			delete(b.jobs, job)
		}
		return
	}
	if b.jobs[job] == nil {
		b.jobs[job] = map[string]runEntry{}
	}
	b.jobs[job][name] = runEntry{*run, index}
}

// loadRuns reads the runs of some jobs.
func (d *reconciler) loadRuns(ctx context.Context, of func(job string) bool) error {
	entries, _, err := d.store.List(ctx, state.RunsPrefix)
	if err != nil {
		return fmt.Errorf("load %s: %w", state.RunsPrefix, err)
	}
	for job := range d.runs.jobs {
		if of(job) {
			delete(d.runs.jobs, job)
		}
	}
	for _, e := range entries {
		job, name, _ := strings.Cut(e.Key[len(state.RunsPrefix):], "/")
		if !of(job) {
			continue
		}
		run, err := state.Decode[spec.Run](e)
		if err != nil {
			d.logger.Warn("cannot read a run record, the run counts as failed", "key", e.Key, "error", err)
			run = unreadable(job, name)
		}
		d.runs.put(job, name, &run, e.ModifyIndex)
	}
	return nil
}

// unreadable returns a failed run in place of one whose record cannot be read: it
// had begun.
func unreadable(job, name string) spec.Run {
	run := spec.Run{Job: job, State: spec.RunFailed, Reason: "its record cannot be read"}
	run.Process, run.ID, _ = strings.Cut(name, "/")
	run.Tick, _ = time.Parse(tickID, run.ID)
	return run
}

// recordRuns returns the changes that store run records.
func (d *reconciler) recordRuns(job *spec.JobVersion, changes []RunChange) []change {
	out := make([]change, 0, len(changes))
	for i := range changes {
		c := &changes[i]
		name := c.Run.Process + "/" + c.Run.ID
		// Without an index, the record is only written if there is none.
		op := state.Op{Kind: state.OpCAS, Key: state.RunKey(c.Run.Job, c.Run.Process, c.Run.ID), Index: d.runs.jobs[c.Run.Job][name].index}
		run := &c.Run
		if c.Forget {
			op.Kind, run = state.OpDeleteCAS, nil
		} else {
			op.Value = state.Encode(run)
		}
		ops := []state.Op{op}
		if !c.Quiet && job != nil {
			ops = withEvent(op, runEvent(&c.Run, job.Version))
		}
		out = append(out, change{ops: ops, wrote: func(at uint64) { d.runs.put(c.Run.Job, name, run, at) }})
	}
	return out
}

// runEvent returns the event for a run that has reached another state.
func runEvent(run *spec.Run, version uint64) spec.Event {
	event := spec.Event{
		Time: time.Now(), Severity: spec.Info, Job: run.Job, Version: version, Node: run.Node, Who: who,
		Type: spec.EventRunEnded, Message: fmt.Sprintf("run %s of %s has %s", run.ID, run.Process, run.State),
	}
	switch run.State {
	case spec.RunActive:
		event.Type, event.Message = spec.EventRunStarted, fmt.Sprintf("run %s of %s begins", run.ID, run.Process)
	case spec.RunSkipped:
		event.Type, event.Message = spec.EventRunSkipped, fmt.Sprintf("run %s of %s is skipped", run.ID, run.Process)
	case spec.RunFailed:
		event.Severity = spec.Warning
	}
	if why := run.Why(); why != "" {
		event.Message += ": " + why
	}
	return event
}
