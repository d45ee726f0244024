package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/synergymesh/meshrun/spec"
)

// Widths beyond which values are cut or written below each other.
const (
	maxValue = 96
	maxPair  = 72
)

// renderPlan returns a plan as people read it.
func renderPlan(p *spec.Plan, s style) string {
	var b strings.Builder
	for i := range p.Jobs {
		if p.Jobs[i].Action != spec.JobKeep {
			renderJob(&b, &p.Jobs[i], s, nodesOf(p) > 1)
			b.WriteByte('\n')
		}
	}
	for _, w := range p.Warnings {
		b.WriteString(s.yellow("Warning: ") + oneLine(w) + "\n")
	}
	b.WriteString(planSum(p, s) + "\n")
	return b.String()
}

func nodesOf(p *spec.Plan) int {
	nodes := map[string]bool{}
	for _, j := range p.Jobs {
		for _, i := range j.Instances {
			for _, node := range []string{i.Node, i.From} {
				if node != "" {
					nodes[node] = true
				}
			}
		}
	}
	return len(nodes)
}

func renderJob(b *strings.Builder, j *spec.JobPlan, s style, nodes bool) {
	mark, paint := jobMark(j.Action, s)
	head := fmt.Sprintf("%s job %q", mark, j.Job)
	versions := ""
	switch {
	case j.Action == spec.JobUpdate && j.From > 0:
		versions = fmt.Sprintf("   version %d → %d", j.From, j.To)
	case j.Action == spec.JobRemove && j.From > 0:
		versions = fmt.Sprintf("   version %d", j.From)
	}
	source := ""
	if j.Wanted != nil && j.Wanted.Source != "" {
		source = "   " + j.Wanted.Source
	}
	b.WriteString(paint(s.bold(head)) + s.dim(versions+source) + "\n")
	if j.Action != spec.JobRemove {
		renderChanges(b, j.Changes, s)
	}
	renderInstances(b, j.Instances, s, nodes)
}

func jobMark(a spec.JobAction, s style) (string, func(string) string) {
	switch a {
	case spec.JobCreate:
		return "+", s.green
	case spec.JobRemove:
		return "-", s.red
	default:
		return "~", s.yellow
	}
}

// renderChanges writes the changed fields, by process.
func renderChanges(b *strings.Builder, changes []spec.Change, s style) {
	for from := 0; from < len(changes); {
		to := from
		for to < len(changes) && changes[to].Process == changes[from].Process {
			to++
		}
		renderProcess(b, changes[from:to], s)
		from = to
	}
}

func renderProcess(b *strings.Builder, changes []spec.Change, s style) {
	indent := "    "
	created, removed := wholly(changes)
	if name := changes[0].Process; name != "" {
		indent = "      "
		head := fmt.Sprintf("process %q", name)
		switch {
		case created:
			b.WriteString("  " + s.green("+ "+head) + "\n")
		case removed:
			b.WriteString("  " + s.red("- "+head) + "\n")
			return // what goes as a whole needs no list of its fields
		default:
			b.WriteString("  " + s.yellow("~ "+head) + "\n")
		}
	}
	width := 0
	for _, c := range changes {
		width = max(width, utf8.RuneCountInString(c.Path))
	}
	for i := range changes {
		renderChange(b, &changes[i], s, indent, width)
	}
}

// wholly reports whether the changes tell of a process that comes or goes as a
// whole: those have no effect on a running instance of itself.
func wholly(changes []spec.Change) (created, removed bool) {
	created, removed = true, true
	for _, c := range changes {
		created = created && c.Effect == spec.EffectNone && !c.OldSet
		removed = removed && c.Effect == spec.EffectNone && !c.NewSet
	}
	return created, removed && !created
}

func renderChange(b *strings.Builder, c *spec.Change, s style, indent string, width int) {
	path := c.Path + strings.Repeat(" ", width-utf8.RuneCountInString(c.Path))
	old, new := oneLine(c.Old), oneLine(c.New)
	effect := ""
	if note := effectNote(c.Effect); note != "" {
		effect = "   " + s.dim(note)
	}
	below := "\n" + indent + "  " + strings.Repeat(" ", width)
	switch {
	case !c.OldSet:
		fmt.Fprintf(b, "%s%s %s  %s%s\n", indent, s.green("+"), path, cut(new), effect)
	case !c.NewSet:
		fmt.Fprintf(b, "%s%s %s  %s%s\n", indent, s.red("-"), path, s.dim(cut(old)), effect)
	case utf8.RuneCountInString(old)+utf8.RuneCountInString(new) > maxPair:
		fmt.Fprintf(b, "%s%s %s  %s%s%s%s%s\n", indent, s.yellow("~"), path, s.dim(old), below, s.yellow("→ "), new, effect)
	default:
		fmt.Fprintf(b, "%s%s %s  %s %s %s%s\n", indent, s.yellow("~"), path, s.dim(old), s.yellow("→"), new, effect)
	}
}

func effectNote(e spec.Effect) string {
	switch e {
	case spec.EffectReplace:
		return "(restart)"
	case spec.EffectReload:
		return "(reload)"
	default:
		return ""
	}
}

func cut(text string) string {
	if utf8.RuneCountInString(text) <= maxValue {
		return text
	}
	return string([]rune(text)[:maxValue-1]) + "…"
}

// instanceGroup is the shards of a process to which the same happens for the
// same reason.
type instanceGroup struct {
	job, process, node, reason string
	action                     spec.InstanceAction
	runs                       bool // one that waits goes on as it is until then
	shards                     []int
}

// groupInstances groups all instances but those that stay as they are.
func groupInstances(plans []spec.InstancePlan, nodes bool) []instanceGroup {
	var groups []instanceGroup
	for _, p := range plans {
		if p.Action == spec.ActionKeep {
			continue
		}
		g := instanceGroup{job: p.ID.Job, process: p.ID.Process, reason: oneLine(p.Reason), action: p.Action}
		g.runs = p.Action == spec.ActionWait && p.Node != ""
		if nodes {
			g.node = p.Node
		}
		if p.From != "" {
			g.node = p.From + " → " + p.Node
		}
		at := slices.IndexFunc(groups, func(o instanceGroup) bool {
			return o.process == g.process && o.job == g.job && o.node == g.node && o.reason == g.reason && o.action == g.action && o.runs == g.runs
		})
		if at < 0 {
			at = len(groups)
			groups = append(groups, g)
		}
		groups[at].shards = append(groups[at].shards, p.ID.Shard)
	}
	slices.SortStableFunc(groups, func(a, b instanceGroup) int {
		return cmp.Or(cmp.Compare(a.process, b.process), cmp.Compare(actionRank(a.action), actionRank(b.action)))
	})
	return groups
}

func actionRank(a spec.InstanceAction) int {
	return slices.Index([]spec.InstanceAction{
		spec.ActionStop, spec.ActionRestart, spec.ActionMove, spec.ActionReload, spec.ActionUpdate,
		spec.ActionStart, spec.ActionWait, spec.ActionSchedule, spec.ActionRefuse,
	}, a)
}

func actionMark(a spec.InstanceAction, s style) (string, func(string) string) {
	switch a {
	case spec.ActionSchedule:
		return "@", s.dim
	case spec.ActionStart, spec.ActionWait:
		return "+", s.green
	case spec.ActionStop:
		return "-", s.red
	case spec.ActionRestart:
		return "-/+", s.yellow
	case spec.ActionRefuse:
		return "!", s.red
	case spec.ActionMove:
		return "→", s.yellow
	default:
		return "~", s.yellow
	}
}

// actionVerb tells an action as it is told beside the instances.
func actionVerb(a spec.InstanceAction) string {
	if a == spec.ActionUpdate {
		return "in place"
	}
	return string(a)
}

func renderInstances(b *strings.Builder, plans []spec.InstancePlan, s style, nodes bool) {
	t := table{indent: "  "}
	for _, g := range groupInstances(plans, nodes) {
		mark, paint := actionMark(g.action, s)
		if g.runs {
			mark, paint = "·", s.dim // nothing is added
		}
		row := []cell{
			{text: mark, paint: paint, right: true},
			{text: actionVerb(g.action), paint: paint},
			{text: shardRange(g.job, g.process, g.shards)},
		}
		if nodes {
			row = append(row, cell{text: g.node, paint: s.dim})
		}
		t.add(append(row, cell{text: g.reason, paint: s.dim})...)
	}
	if len(t.rows) > 0 {
		b.WriteString("\n" + t.String())
	}
}

// planSum returns the plan in one line.
func planSum(p *spec.Plan, s style) string {
	n := p.Counts()
	steps := slices.ContainsFunc(p.Jobs, func(j spec.JobPlan) bool { return j.Steps })
	if p.Empty() && steps { // which may still be under way
		return s.bold("No changes.") + fmt.Sprintf(" %s already applied; `meshrun status` shows the progress.", are(n[spec.ActionKeep], "instance"))
	}
	if p.Empty() {
		return s.bold("No changes.") + " " + matches(n[spec.ActionKeep])
	}
	part := func(a spec.InstanceAction, words string, paint func(string) string) string {
		text := fmt.Sprintf("%d %s", n[a], words)
		if n[a] == 0 {
			return text
		}
		return paint(text)
	}
	parts := []string{
		part(spec.ActionStart, "to start", s.green), part(spec.ActionStop, "to stop", s.red),
		part(spec.ActionRestart, "to restart", s.yellow), part(spec.ActionMove, "to move", s.yellow),
	}
	for _, more := range []struct {
		action spec.InstanceAction
		words  string
		paint  func(string) string
	}{
		{spec.ActionWait, "to follow later", s.green}, {spec.ActionSchedule, "to run at times", s.dim}, {spec.ActionReload, "to reload", s.yellow},
		{spec.ActionUpdate, "to change in place", s.yellow}, {spec.ActionRefuse, "refused", s.red},
	} {
		if n[more.action] > 0 {
			parts = append(parts, part(more.action, more.words, more.paint))
		}
	}
	return s.bold("Plan: ") + strings.Join(parts, ", ") + fmt.Sprintf(", %d stay.", n[spec.ActionKeep])
}

// matches says that all instances are as the files say.
func matches(n int) string {
	switch n {
	case 0:
		return "Nothing is defined and nothing runs."
	case 1:
		return "The instance matches."
	}
	return fmt.Sprintf("All %d instances match.", n)
}

// are is "1 instance is" or "9 instances are".
func are(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", n, noun)
}
