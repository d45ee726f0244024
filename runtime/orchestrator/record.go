package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// rolloutRecord is the stored record of a job's rollout, and its index in the
// store.
type rolloutRecord struct {
	value *spec.Rollout
	index uint64
}

// loadRollouts reads the rollout records of some jobs. Nobody else writes them
// while this node holds the jobs' control shards.
func (d *reconciler) loadRollouts(ctx context.Context, of func(job string) bool) error {
	entries, _, err := d.store.List(ctx, state.RolloutsPrefix)
	if err != nil {
		return fmt.Errorf("load %s: %w", state.RolloutsPrefix, err)
	}
	for job := range d.rollouts {
		if of(job) {
			delete(d.rollouts, job)
		}
	}
	for _, e := range entries {
		job := e.Key[len(state.RolloutsPrefix):]
		if !of(job) {
			continue
		}
		r := rolloutRecord{index: e.ModifyIndex}
		if value, err := state.Decode[spec.Rollout](e); err != nil {
			d.logger.Warn("cannot read a rollout record, writing it anew", "job", job, "error", err)
		} else {
			r.value = &value
		}
		d.rollouts[job] = r
	}
	return nil
}

// recordRollout returns the change that stores a job's rollout record, if it
// differs from the stored one.
func (d *reconciler) recordRollout(job string, next *spec.Rollout) []change {
	was := d.rollouts[job]
	if sameRecord(was.value, next) && (next != nil || was.index == 0) {
		return nil
	}
	op := state.Op{Kind: state.OpDeleteCAS, Key: state.RolloutKey(job), Index: was.index}
	c := change{wrote: func(at uint64) {
		if d.rollouts[job] = (rolloutRecord{next, at}); next == nil {
			delete(d.rollouts, job)
		}
	}}
	if next == nil {
		c.ops = []state.Op{op}
		return []change{c}
	}
	op.Kind, op.Value = state.OpCAS, state.Encode(next)
	c.ops = []state.Op{op}
	if event, told := rolloutEvent(was.value, next); told {
		c.ops = withEvent(op, event)
	}
	return []change{c}
}

// tooLarge returns the change that records a rollout as failed because its
// assignments cannot be written; none if that is recorded already, or the job has
// no rollout record.
func (d *reconciler) tooLarge(job string, next *spec.Rollout, now time.Time) []change {
	if next == nil {
		return nil
	}
	was := d.rollouts[job].value
	if was != nil && was.Version == next.Version && was.State == spec.RolloutFailed && was.TooLarge {
		return nil
	}
	failed := *next
	failed.State, failed.Process, failed.Waits, failed.TooLarge, failed.Since = spec.RolloutFailed, "", "", true, now.UTC()
	failed.SetReason()
	return d.recordRollout(job, &failed)
}

// rolloutEvent returns the event for a rollout that has reached another state.
func rolloutEvent(was, next *spec.Rollout) (spec.Event, bool) {
	event := spec.Event{Time: time.Now(), Severity: spec.Info, Job: next.Job, Version: next.Version, Who: who}
	if was != nil && was.Version == next.Version && was.State == next.State {
		return event, false
	}
	switch next.State {
	case spec.RolloutDone:
		event.Type, event.Message = spec.EventRolloutDone, fmt.Sprintf("version %d is rolled out, and healthy", next.Version)
	case spec.RolloutWaiting:
		event.Type, event.Message = spec.EventRolloutWaiting, next.Reason
	case spec.RolloutFailed:
		event.Type, event.Severity, event.Message = spec.EventRolloutFailed, spec.Critical, next.Reason
	default:
		return event, false
	}
	return event, true
}

// revert writes the last good version of a job as its next version.
func (d *reconciler) revert(ctx context.Context, checks []state.Op, job *spec.JobVersion, index uint64, decision Decision) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	name := job.Job.Name
	e, err := d.store.Get(ctx, state.HistoryKey(name, decision.Revert))
	if errors.Is(err, state.ErrNotFound) {
		d.logger.Error("cannot revert: the last good version is no longer kept; apply a version that works", "job", name, "version", decision.Revert)
		return nil
	}
	if err != nil {
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	good, err := state.Decode[spec.JobVersion](e)
	if err != nil {
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	next := Reverted(job, &good, time.Now())
	value := state.Encode(next)
	event := spec.Event{
		Time: next.When, Type: spec.EventRolloutReverted, Severity: spec.Critical, Job: name, Version: next.Version, Who: who,
		Message: fmt.Sprintf("version %d has failed; it is replaced by version %d, as version %d: %s", job.Version, good.Version, next.Version, decision.Why),
	}
	ops := append(checks[:1:1], withEvent(state.Op{Kind: state.OpCAS, Key: state.JobKey(name), Index: index, Value: value}, event)...)
	history := state.HistoryOps(name, next.Version, value)
	if together := append(ops, history...); state.TxnSize(together) <= state.MaxTxnBytes {
		ops = together
	} else if _, err := d.store.Txn(ctx, append(checks[:2:2], history...)...); err != nil { // the history may precede the version
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	if _, err := d.store.Txn(ctx, ops...); err != nil {
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	return nil
}

// Reverted returns the version that replaces a failed version of a job, with the
// content of a good one. Operators' orders are kept, except a promotion, which
// was for the failed version.
func Reverted(failed, good *spec.JobVersion, now time.Time) *spec.JobVersion {
	next := &spec.JobVersion{
		Job: good.Job, Checksum: good.Checksum, Source: good.Source,
		Version: failed.Version + 1, Who: who, When: now.UTC(), Why: "revert", Reverts: failed.Version,
	}
	for key, o := range failed.Orders {
		if o.Promoted = false; o != (spec.Order{}) {
			if next.Orders == nil {
				next.Orders = map[string]spec.Order{}
			}
			next.Orders[key] = o
		}
	}
	return next
}
