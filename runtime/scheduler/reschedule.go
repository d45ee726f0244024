package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// maxSpentTold is how many shards are named that have used up their restarts.
const maxSpentTold = 5

// instances returns what asks for the instances of a job that a node observes.
func (d *reconciler) instances(job string) func(node string) []spec.Instance {
	return func(node string) []spec.Instance {
		seen, _, err := d.observed.Get(node + "/" + job)
		if err != nil || seen == nil {
			return nil // the node will report it anew
		}
		return seen.Instances
	}
}

// noteMoving notes whether anything of a job, nil for one that is gone, is to be
// rescheduled: what others report says nothing to the scheduler, and of those
// neither job nor placement has to be decoded for it.
func (d *reconciler) noteMoving(name string, job *spec.JobVersion) {
	delete(d.moving, name)
	if job != nil && slices.ContainsFunc(job.Job.Processes, func(p spec.Process) bool { return p.Restart.Reschedules() }) {
		d.moving[name] = true
	}
}

// markSpent marks the jobs of which shards have used up their restarts since it
// was last looked.
func (d *reconciler) markSpent() {
	for name := range d.reported {
		if !d.moving[name] || d.dirty[name] { // what is dirty is looked at anyway
			continue
		}
		job, _, err := d.jobs.Get(name)
		if err != nil || job == nil {
			continue
		}
		if placed, _, err := d.placements.Get(name); err == nil && Note(job, placed, d.instances(name)) != placed {
			d.dirty[name] = true
		}
	}
	clear(d.reported)
}

// spot is a shard of a process on a node where it is spent.
type spot struct {
	spent
	shard int
	node  string
}

// tellSpent adds the events of what a placement says to be spent, and the one
// before it did not: a warning for what moves, and a critical one for what stays
// down, which no other node takes.
func tellSpent(ops []state.Op, before, after *spec.Placement, seen func(node string) []spec.Instance, now time.Time) ([]state.Op, error) {
	known := map[spot]bool{}
	for _, where := range spots(before) {
		known[where] = true
	}
	told := map[spec.Severity][]string{}
	for _, where := range spots(after) {
		if known[where] {
			continue
		}
		severity, text := fate(after, where)
		told[severity] = append(told[severity], text+why(seen(where.node), where))
	}
	for _, severity := range []spec.Severity{spec.Warning, spec.Critical} {
		texts := told[severity]
		if len(texts) == 0 {
			continue
		}
		message := strings.Join(texts[:min(len(texts), maxSpentTold)], "; ")
		if more := len(texts) - maxSpentTold; more > 0 {
			message += fmt.Sprintf("; and %d more", more)
		}
		op, err := state.EventOp(spec.Event{
			Time: now, Type: spec.EventRescheduled, Severity: severity, Job: after.Job, Version: after.Version, Who: who, Message: message,
		})
		if err != nil {
			return nil, fmt.Errorf("write event: %w", err)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// fate says what becomes of a shard that has used up its restarts on a node.
func fate(p *spec.Placement, where spot) (spec.Severity, string) {
	name := fmt.Sprintf("%s/%d", where.process, where.shard)
	switch to := p.Place(where.process, where.shard); to {
	case where.node:
		return spec.Critical, fmt.Sprintf("%s stays down on %s: its restarts are used up on %s, and no other node can take it",
			name, to, strings.Join(p.SpentOn(where.process, where.shard), ", "))
	case "":
		return spec.Critical, fmt.Sprintf("%s is down: its restarts are used up on %s, and no other node can take it",
			name, strings.Join(p.SpentOn(where.process, where.shard), ", "))
	default:
		return spec.Warning, fmt.Sprintf("%s moves to %s: its restarts are used up on %s", name, to, where.node)
	}
}

// why tells how a shard last ended on a node, if that is seen.
func why(seen []spec.Instance, where spot) string {
	for i := range seen {
		if in := &seen[i]; in.ID.Process == where.process && in.ID.Shard == where.shard && in.LastExit != nil {
			return fmt.Sprintf(" (%s)", in.LastExit)
		}
	}
	return ""
}

// spots lists what a placement says to be spent, in order.
func spots(p *spec.Placement) []spot {
	if p == nil {
		return nil
	}
	var out []spot
	for _, s := range p.Spent {
		for _, node := range slices.Sorted(maps.Keys(s.Nodes)) {
			for _, shard := range s.Nodes[node] {
				out = append(out, spot{spent{s.Process, s.Hash, s.Epoch}, shard, node})
			}
		}
	}
	return out
}
