package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// rolloutRecord is what is remembered of a job's rollout, and since which index.
type rolloutRecord struct {
	value *spec.Rollout
	index uint64
}

// loadRollouts reads what is remembered of some jobs. Nobody else writes it
// while their control shards are held.
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
			d.logger.Warn("cannot read what is remembered of a rollout, it is written anew", "job", job, "error", err)
		} else {
			r.value = &value
		}
		d.rollouts[job] = r
	}
	return nil
}

// recordRollout returns what is to be written of a job's rollout, if anything.
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

// tooLarge returns what is to be written so that a rollout whose assignments
// cannot be written has failed: nothing if it has already, or is none in steps.
func (d *reconciler) tooLarge(job string, next *spec.Rollout, now time.Time) []change {
	if next == nil {
		return nil
	}
	was := d.rollouts[job].value
	if was != nil && was.Version == next.Version && was.State == spec.RolloutFailed && strings.HasSuffix(was.Reason, whyTooLarge) {
		return nil
	}
	failed := *next
	failed.State, failed.Reason, failed.Since = spec.RolloutFailed, whyTooLarge, now.UTC()
	return d.recordRollout(job, &failed)
}

// rolloutEvent returns the event of a rollout that has come to another state.
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

// revert makes the last good version of a job its next one.
func (d *reconciler) revert(ctx context.Context, checks []state.Op, job *spec.JobVersion, index uint64, decision Decision) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	name := job.Job.Name
	e, err := d.store.Get(ctx, state.HistoryKey(name, decision.Revert))
	if errors.Is(err, state.ErrNotFound) {
		d.logger.Error("cannot revert, as the last good version is no longer kept; apply a good one", "job", name, "version", decision.Revert)
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
		Message: fmt.Sprintf("version %d has failed, and version %d takes its place as version %d: %s", job.Version, good.Version, next.Version, decision.Why),
	}
	ops := append(checks[:1:1], withEvent(state.Op{Kind: state.OpCAS, Key: state.JobKey(name), Index: index, Value: value}, event)...)
	history := state.HistoryOps(name, next.Version, value)
	if together := append(ops, history...); state.TxnSize(together) <= state.MaxTxnBytes {
		ops = together
	} else if _, err := d.store.Txn(ctx, append(checks[:2:2], history...)...); err != nil { // it may be there before the version is
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	if _, err := d.store.Txn(ctx, ops...); err != nil {
		return fmt.Errorf("revert to version %d: %w", decision.Revert, err)
	}
	return nil
}

// Reverted returns the version of a job that takes the place of a failed one and
// is what a good one was. Operators' orders stay, but for a promotion, which was of
// the failed one.
func Reverted(failed, good *spec.JobVersion, now time.Time) *spec.JobVersion {
	next := &spec.JobVersion{
		Job: good.Job, Checksum: good.Checksum, Source: good.Source,
		Version: failed.Version + 1, Who: who, When: now.UTC(), Why: WhyReverted,
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
