package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// rollOut writes the assignments of a job that differ from what Rollout decides,
// and reports whether there were any.
func (d *reconciler) rollOut(ctx context.Context, term *follow.Term, name string, now time.Time) (bool, error) {
	job, jobIndex, err := d.jobs.Get(name)
	if err != nil {
		// An unreadable job is not a removed job.
		d.logger.Error("cannot read job, its instances stay as they are; apply it again", "job", name, "error", err)
		return false, nil
	}
	placement, placementIndex, err := d.placements.Read(name)
	if err != nil {
		return false, nil // the scheduler is about to replace it
	}
	current, err := d.assignments.of(name)
	if err != nil {
		d.logger.Warn("cannot read an assignment, writing it anew", "job", name, "error", err)
	}
	observed, err := d.observed.of(name)
	if err != nil {
		d.logger.Warn("cannot read a node's observations, ignoring them", "job", name, "error", err)
	}
	snapshot := Snapshot{
		Job: job, Placement: placement, Live: d.live(), Current: current, Observed: observed, Others: d.others(name, job, current),
		Rollout: d.rollouts[name].value, Runs: d.runs.of(name),
	}
	decision := Rollout(snapshot, now)
	delete(d.ending.awaiting, name)
	if decision.Unassigns {
		if snapshot.Dependents = d.endingDependents(name); len(snapshot.Dependents) > 0 {
			d.ending.awaiting[name] = snapshot.Dependents
			decision = Rollout(snapshot, now)
		}
	}
	if job == nil {
		delete(d.settled, name)
	} else {
		d.settled[name] = decision.Settled
	}
	if !decision.NextWake.IsZero() {
		d.wakes[name] = decision.NextWake
	}
	checks := []state.Op{
		term.Check(state.OrchestratorLock(ControlShard(name))),
		check(state.JobKey(name), jobIndex),
		check(state.PlacementKey(name), placementIndex),
	}
	changes := d.recordRuns(job, decision.Runs)
	changes = append(changes, d.changes(name, job, current, decision)...)
	changes = append(changes, d.recordRollout(name, decision.Rollout)...)
	err = d.write(ctx, checks, changes)
	if errors.Is(err, state.ErrTooLarge) {
		if failed := d.tooLarge(name, decision.Rollout, now); len(failed) > 0 {
			d.logger.Error("a rollout has failed: its assignments are too large to be written", "job", name, "error", err)
			return true, d.write(ctx, checks, failed)
		}
	}
	if err != nil || decision.Revert == 0 {
		return len(changes) > 0, err
	}
	return len(changes) > 0, d.revert(ctx, checks, job, jobIndex, decision)
}

// live returns the nodes that are members of the mesh.
func (d *reconciler) live() map[string]bool {
	live := map[string]bool{}
	for _, node := range d.nodes.Names() {
		live[node] = true
	}
	return live
}

// check returns an operation that requires a key to be unchanged since it was
// read.
func check(key string, index uint64) state.Op {
	if index == 0 {
		return state.Op{Kind: state.OpCheckMissing, Key: key}
	}
	return state.Op{Kind: state.OpCheckIndex, Key: key, Index: index}
}

// change is a value to be written, with its event.
type change struct {
	ops []state.Op
	// wrote is called with the index of the transaction.
	wrote func(at uint64)
}

// changes compares the assignments with the decision.
func (d *reconciler) changes(name string, job *spec.JobVersion, current map[string]spec.Assignment, decision Decision) []change {
	var version uint64
	if job != nil {
		version = job.Version
	}
	var out []change
	for _, node := range sortedKeys(decision.Assignments) {
		wanted := decision.Assignments[node]
		if was, ok := current[node]; !ok || !reflect.DeepEqual(was, wanted) {
			out = append(out, d.change(name, node, version, &wanted))
		}
	}
	for _, node := range sortedKeys(d.assignments.nodes[name]) {
		if _, wanted := decision.Assignments[node]; !wanted {
			out = append(out, d.change(name, node, version, nil))
		}
	}
	return out
}

func (d *reconciler) change(job, node string, version uint64, value *spec.Assignment) change {
	_, index, _ := d.assignments.view.Get(node + "/" + job)
	key := state.AssignmentKey(node, job)
	event := spec.Event{
		Time: time.Now(), Type: spec.EventAssigned, Severity: spec.Info, Node: node, Job: job, Version: version, Who: who,
	}
	op := state.Op{Kind: state.OpDeleteCAS, Key: key, Index: index}
	if value == nil {
		event.Message = node + " runs no shards of this job any more"
	} else {
		op = state.Op{Kind: state.OpCAS, Key: key, Index: index, Value: state.Encode(value)}
		event.Assigned = value.Assigned()
		event.Message = describe(value)
	}
	return change{ops: withEvent(op, event), wrote: func(at uint64) { d.assignments.put(node, job, value, at) }}
}

// withEvent returns an operation together with one that records its event.
func withEvent(op state.Op, event spec.Event) []state.Op {
	told, err := state.EventOp(event)
	if err != nil { // it has a type and a time
		return []state.Op{op}
	}
	return []state.Op{op, told}
}

// describe summarizes an assignment in one line.
func describe(a *spec.Assignment) string {
	shards, held, why := 0, 0, ""
	for _, p := range a.Processes {
		shards += len(p.Shards)
		held += len(p.Held)
		for _, reason := range p.Held {
			why = max(why, reason)
		}
	}
	text := fmt.Sprintf("%s runs %s of %s", a.Node, count(shards, "shard", "shards"), count(len(a.Processes), "process", "processes"))
	if held > 0 {
		text += fmt.Sprintf(", %d held: %s", held, why)
	}
	return text
}

// count returns a number with its noun.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// write writes the changes in as few transactions as the limits allow, each with
// all checks.
func (d *reconciler) write(ctx context.Context, checks []state.Op, changes []change) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for len(changes) > 0 {
		ops, n := checks, 0
		for n < len(changes) {
			more := append(slices.Clip(ops), changes[n].ops...)
			if n > 0 && (len(more) > state.MaxTxnOps || state.TxnSize(more) > state.MaxTxnBytes) {
				break
			}
			ops, n = more, n+1
		}
		at, err := d.store.Txn(ctx, ops...)
		if err != nil {
			return fmt.Errorf("write assignments: %w", err)
		}
		for _, c := range changes[:n] {
			c.wrote(at)
		}
		changes = changes[n:]
	}
	return nil
}
