package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/spec"
)

// instances tells what happens to each instance of a job when its next version
// takes the place of the current one.
func instances(s *Snapshot, j *part) []spec.InstancePlan {
	if j.model == nil || j.next != nil && j.placement == nil {
		return kept(s, j.wanted.Job)
	}
	return tell(j)
}

// tell says what became of each instance of a job.
func tell(j *part) []spec.InstancePlan {
	m := j.model
	t := &teller{model: m, current: j.current}
	byID := map[spec.InstanceID][]spot{}
	for where := range m.deeds {
		byID[where.id] = append(byID[where.id], where)
	}
	for where := range m.units {
		if m.deeds[where] == nil {
			byID[where.id] = append(byID[where.id], where)
		}
	}
	for id := range m.reasons {
		if _, known := byID[id]; !known {
			byID[id] = nil
		}
	}
	var out []spec.InstancePlan
	for id, spots := range byID {
		out = append(out, t.tell(id, spots))
	}
	slices.SortFunc(out, func(a, b spec.InstancePlan) int { return a.ID.Compare(b.ID) })
	return out
}

// kept lists the instances of a job that nothing is done to.
func kept(s *Snapshot, job string) []spec.InstancePlan {
	var out []spec.InstancePlan
	live := s.live()
	for node, a := range s.Assignments[job] {
		if !live[node] {
			continue // told as wherever it is placed next
		}
		for _, p := range a.Processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: job, Process: p.Process.Name, Shard: shard}
				action := spec.ActionKeep
				if p.Process.Schedule != nil && p.Held[shard] != "" {
					action = spec.ActionSchedule
				}
				out = append(out, spec.InstancePlan{ID: id, Node: node, Action: action, Reason: p.Held[shard]})
			}
		}
	}
	slices.SortFunc(out, func(a, b spec.InstancePlan) int { return a.ID.Compare(b.ID) })
	return out
}

// teller puts into words what a model did.
type teller struct {
	*model
	current *spec.JobVersion
}

// tell says what happens to an instance, which was or will be at the spots.
func (t *teller) tell(id spec.InstanceID, spots []spot) spec.InstancePlan {
	out := spec.InstancePlan{ID: id}
	var stop, other *spot
	for i := range spots {
		if d := t.deeds[spots[i]]; d != nil && d.action == spec.ActionStop {
			stop = &spots[i]
		} else {
			other = &spots[i]
		}
	}
	switch {
	case stop != nil && other != nil:
		out.Node, out.From, out.Action = other.node, stop.node, spec.ActionMove
		out.Reason = t.whyNot(id, stop.node)
	case stop != nil:
		out.Node, out.Action, out.Reason = stop.node, spec.ActionStop, t.whyStop(id)
	case other == nil:
		out.Action, out.Reason = t.absent(id), t.reasons[id]
	case t.deeds[*other] == nil:
		out.Node, out.Action = other.node, spec.ActionKeep
		if why := t.reasons[id]; why != "" && t.scheduled(id) {
			out.Action, out.Reason = spec.ActionSchedule, why
		} else if why != "" {
			out.Action, out.Reason = spec.ActionWait, why+"; goes on as it is until then"
		}
	default:
		d := t.deeds[*other]
		out.Node, out.Action, out.Reason = other.node, d.action, t.why(id, d)
	}
	return out
}

// absent returns what is done about an instance that isn't there in the end.
func (t *teller) absent(id spec.InstanceID) spec.InstanceAction {
	if t.next == nil {
		return spec.ActionStop
	}
	for _, u := range t.placement.Unplaced {
		if u.Process == id.Process && u.Shard == id.Shard {
			return spec.ActionRefuse
		}
	}
	if t.next.Order(id.Process, id.Shard).Stopped {
		return spec.ActionKeep
	}
	if t.scheduled(id) {
		return spec.ActionSchedule
	}
	return spec.ActionWait
}

// scheduled reports whether an instance runs at times.
func (t *teller) scheduled(id spec.InstanceID) bool {
	p := process(t.next, id.Process)
	return p != nil && p.Schedule != nil
}

// whyNot says why a shard can't stay on a node that is there.
func (t *teller) whyNot(id spec.InstanceID, node string) string {
	for _, n := range t.nodes {
		if p := process(t.next, id.Process); n.Name == node && p != nil {
			if why := scheduler.Refusal(p, n); why != "" {
				return node + " is " + why
			}
		}
	}
	if slices.Contains(t.placement.SpentOn(id.Process, id.Shard), node) {
		return "its restarts are used up on " + node
	}
	return "the shards are distributed anew"
}

func (t *teller) whyStop(id spec.InstanceID) string {
	if t.next == nil {
		return "job removed"
	}
	p := process(t.next, id.Process)
	switch {
	case p == nil:
		return "process removed"
	case id.Shard >= p.Instances():
		if was := process(t.current, id.Process); was != nil {
			return fmt.Sprintf("shards %d → %d", was.Shards, p.Shards)
		}
		return fmt.Sprintf("shards is %d", p.Shards)
	case t.next.Order(id.Process, id.Shard).Stopped:
		return by("stopped", t.next.Who)
	default:
		return t.reasons[id] // no node can take it
	}
}

// why puts a deed that isn't a stop into words.
func (t *teller) why(id spec.InstanceID, d *deed) string {
	var text string
	switch d.action {
	case spec.ActionStart:
		text = t.whyStart(id, d)
	case spec.ActionRestart:
		text = t.whyRestart(d)
		if p := process(t.next, id.Process); p != nil && p.Update != nil && p.Shards > p.Update.MaxParallel {
			text += fmt.Sprintf(", %d at a time", p.Update.MaxParallel)
		}
	case spec.ActionReload:
		text = changesText(d.changes, spec.EffectReload)
	case spec.ActionUpdate:
		if text = changesText(d.changes, spec.EffectLive); text != "" {
			text += " (live)"
		}
	}
	if after, ok := strings.CutPrefix(d.waited, "waits for "); ok {
		text += ", after " + strings.Replace(after, " to be ", " is ", 1)
	}
	return text
}

func (t *teller) whyStart(id spec.InstanceID, d *deed) string {
	was := process(t.current, id.Process)
	switch {
	case d.failed != "" && t.runOf(id) != "":
		return "run " + t.runOf(id)
	case d.failed != "" && d.ordered:
		return d.failed + "; " + by("started again", t.next.Who)
	case d.failed != "":
		return d.failed + "; the new version starts it again"
	case t.lost[id] != "":
		return t.lost[id] + " is gone"
	case t.runOf(id) != "":
		return "run " + t.runOf(id)
	case t.current == nil:
		return "new job"
	case was == nil:
		return "new process"
	case id.Shard >= was.Instances():
		return "new shard"
	case t.current.Order(id.Process, id.Shard).Stopped:
		return by("started again", t.next.Who)
	default:
		return "does not run yet"
	}
}

// runOf returns the run that is under way in a shard, "" if none is.
func (t *teller) runOf(id spec.InstanceID) string {
	for _, run := range t.runs {
		if run.Process == id.Process && run.State == spec.RunActive && (run.Shard == id.Shard || run.Shard < 0) && t.scheduled(id) {
			return run.ID
		}
	}
	return ""
}

func (t *teller) whyRestart(d *deed) string {
	var parts []string
	if text := changesText(d.changes, spec.EffectReplace); text != "" {
		parts = append(parts, text)
	}
	if d.ordered {
		parts = append(parts, by("ordered", t.next.Who))
	}
	if until, ok := strings.CutPrefix(d.stopped, "stopped: waits for "); ok {
		parts = append(parts, "stops until "+strings.Replace(until, " to be ", " is ", 1))
	}
	if d.follows != "" {
		parts = append(parts, d.follows)
	}
	if len(parts) == 0 {
		return "runs an earlier version"
	}
	return strings.Join(parts, "; ")
}

func by(what, who string) string {
	if who == "" {
		return what
	}
	return what + " by " + who
}

// process returns a process of a version, nil if there is none.
func process(v *spec.JobVersion, name string) *spec.Process {
	if v == nil {
		return nil
	}
	for i := range v.Job.Processes {
		if v.Job.Processes[i].Name == name {
			return &v.Job.Processes[i]
		}
	}
	return nil
}

// Bounds of a reason: it is read in a table.
const (
	maxReasons   = 3
	maxValueText = 24
)

// changesText names the changes that have the effect.
func changesText(changes []spec.Change, effect spec.Effect) string {
	var parts []string
	more := 0
	for _, c := range changes {
		switch {
		case c.Effect != effect:
		case len(parts) == maxReasons:
			more++
		default:
			parts = append(parts, changeText(c))
		}
	}
	text := strings.Join(parts, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func changeText(c spec.Change) string {
	switch {
	case !c.OldSet:
		return c.Path + " added"
	case !c.NewSet:
		return c.Path + " removed"
	case c.Old == c.New || strings.HasPrefix(c.New, "[") || len(c.Old)+len(c.New) > 2*maxValueText:
		return c.Path + " changed"
	default:
		return fmt.Sprintf("%s %s → %s", c.Path, c.Old, c.New)
	}
}
