package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Ops returns the transactions, to be done in order, that apply a plan whose
// Wanted are whole (not redacted): for each job that changes, its new version
// on condition that job and placement are as they were when the plan was made,
// the same in history, and the event. Usually it is one transaction. If the
// limits make it several, the first checks for all of them, so that a stale
// plan changes nothing; only who writes between two of them can still make a
// later one conflict.
//
// who is the one who applies. A plan that changes nothing needs no transactions.
func Ops(p spec.Plan, who string, now time.Time) ([][]state.Op, error) {
	if p.Format != spec.PlanFormat {
		return nil, fmt.Errorf("apply plan: it has format %d, this meshrun writes format %d: plan again: %w", p.Format, spec.PlanFormat, ErrInvalid)
	}
	var before, writes [][]state.Op
	for _, j := range p.Jobs {
		if j.Action == spec.JobKeep {
			continue
		}
		history, ops, err := jobOps(j, who, now)
		if err != nil {
			return nil, err
		}
		if together := append(ops, history...); state.TxnSize(together) <= state.MaxTxnBytes {
			writes = append(writes, together)
			continue
		}
		// History may be there before the version is: nobody looks for it yet.
		before = append(before, history)
		writes = append(writes, ops)
	}
	return pack(before, writes), nil
}

// jobOps returns the operations of one job: its history, and all others.
func jobOps(j spec.JobPlan, who string, now time.Time) (history, ops []state.Op, err error) {
	placed := []state.Op{{Kind: state.OpCheckMissing, Key: state.PlacementKey(j.Job)}}
	switch {
	case j.Placed != 0:
		placed = []state.Op{{Kind: state.OpCheckIndex, Key: placed[0].Key, Index: j.Placed}}
	case j.Base == 0:
		// While there is no job, there comes no placement. To check for that would
		// take the right to write one, in Consul.
		placed = nil
	}
	event := spec.Event{Time: now.UTC(), Severity: spec.Info, Job: j.Job, Version: j.To, Who: who}
	key := state.JobKey(j.Job)
	if j.Action == spec.JobRemove {
		event.Type, event.Message = spec.EventJobRemoved, fmt.Sprintf("removed version %d", j.From)
		op, err := state.EventOp(event)
		return nil, append(placed, state.Op{Kind: state.OpDeleteCAS, Key: key, Index: j.Base}, op), err
	}
	if j.Wanted == nil || j.Wanted.Job.Name != j.Job || j.Wanted.Version != j.To {
		return nil, nil, fmt.Errorf("apply plan: it does not hold version %d of job %q: %w", j.To, j.Job, ErrInvalid)
	}
	value := state.Encode(j.Wanted)
	event.Type, event.Message = eventType(j.Wanted.Why), message(j)
	told, err := state.EventOp(event)
	if err != nil {
		return nil, nil, fmt.Errorf("apply plan: %w", err)
	}
	for _, other := range slices.Sorted(maps.Keys(j.Needs)) {
		placed = append(placed, state.Op{Kind: state.OpCheckIndex, Key: state.JobKey(other), Index: j.Needs[other]})
	}
	return state.HistoryOps(j.Job, j.To, value), append(placed, state.Op{Kind: state.OpCAS, Key: key, Index: j.Base, Value: value}, told), nil
}

// eventType returns what a version's Why is told as.
func eventType(why string) spec.EventType {
	first, _, _ := strings.Cut(why, ",")
	switch spec.Op(first) {
	case spec.OpScale:
		return spec.EventJobScaled
	case spec.OpStop:
		return spec.EventJobStopped
	case spec.OpRestart, spec.OpRun:
		return spec.EventJobRestarted
	case spec.OpPause, spec.OpResume, spec.OpPromote:
		return spec.EventRolloutOrdered
	default:
		return spec.EventJobApplied
	}
}

func message(j spec.JobPlan) string {
	counts := (&spec.Plan{Jobs: []spec.JobPlan{j}}).Counts()
	text := fmt.Sprintf("%s: version %d", j.Wanted.Why, j.To)
	if j.Wanted.Source != "" {
		text += " from " + j.Wanted.Source
	}
	for _, a := range []spec.InstanceAction{
		spec.ActionStart, spec.ActionRestart, spec.ActionReload, spec.ActionUpdate, spec.ActionMove,
		spec.ActionStop, spec.ActionWait, spec.ActionSchedule, spec.ActionRefuse, spec.ActionKeep,
	} {
		if counts[a] > 0 {
			text += fmt.Sprintf(", %s %d", a, counts[a])
		}
	}
	return text
}

// pack puts the writes of whole jobs into as few transactions as the limits
// allow. If it takes more than one, the checks of all go ahead of the writes.
func pack(before, writes [][]state.Op) [][]state.Op {
	txns := append([][]state.Op(nil), before...)
	var open []state.Op
	for _, ops := range writes {
		together := append(open[:len(open):len(open)], ops...)
		if len(open) > 0 && (len(together) > state.MaxTxnOps || state.TxnSize(together) > state.MaxTxnBytes) {
			txns = append(txns, open)
			together = ops
		}
		open = together
	}
	if len(open) > 0 {
		txns = append(txns, open)
	}
	if len(txns) < 2 {
		return txns
	}
	var checks []state.Op
	for _, ops := range txns[1:] {
		checks = append(checks, conditions(ops)...)
	}
	// The checks go ahead, in a transaction of their own if they don't fit.
	if first := append(checks, txns[0]...); len(first) <= state.MaxTxnOps && state.TxnSize(first) <= state.MaxTxnBytes {
		txns[0] = first
		return txns
	}
	return append(state.Batches(append(checks, conditions(txns[0])...)), txns...)
}

// conditions returns what the operations demand, without what they do.
func conditions(ops []state.Op) []state.Op {
	var out []state.Op
	for _, op := range ops {
		switch {
		case op.Kind == state.OpCheckIndex || op.Kind == state.OpCheckMissing:
			out = append(out, op)
		case (op.Kind == state.OpCAS || op.Kind == state.OpDeleteCAS) && op.Index == 0:
			out = append(out, state.Op{Kind: state.OpCheckMissing, Key: op.Key})
		case op.Kind == state.OpCAS || op.Kind == state.OpDeleteCAS:
			out = append(out, state.Op{Kind: state.OpCheckIndex, Key: op.Key, Index: op.Index})
		}
	}
	return out
}
