package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// statusOptions say how a status is rendered.
type statusOptions struct {
	style style
	now   time.Time
	// all shows every shard of processes with many.
	all bool
	// targets are what is shown.
	targets targets
	// nodes shows which node each instance is on; renderStatus sets it.
	nodes bool
}

// manyShards is from how many shards on those of a process that are alike
// share a row.
const manyShards = 9

// renderStatus returns the status as people read it.
func renderStatus(v *statusView, o statusOptions) string {
	var b strings.Builder
	b.WriteString(statusHead(&v.Agent, o))
	for _, p := range v.Agent.Problems {
		b.WriteString(o.style.red("! ") + oneLine(p) + "\n")
	}
	o.nodes = slices.ContainsFunc(v.Instances, func(i spec.Instance) bool { return i.Node != "" && i.Node != v.Agent.Node })
	jobs := statusJobs(v)
	if len(jobs) == 0 {
		b.WriteString("\nNothing is applied yet. Begin with: meshrun apply PATH\n")
		return b.String()
	}
	for _, name := range jobs {
		b.WriteByte('\n')
		renderJobStatus(&b, v, name, o)
	}
	return b.String()
}

// statusHead says in one line who answers.
func statusHead(i *api.Info, o statusOptions) string {
	watchdog := fmt.Sprintf("watchdog pid %d", i.WatchdogPID)
	if i.WatchdogPID == 0 {
		watchdog = "the watchdog does not answer"
	}
	facts := []string{"meshrun " + i.Version, fmt.Sprintf("agent pid %d, up %s", i.PID, ago(o.now.Sub(i.Started))), watchdog}
	return o.style.bold("node "+i.Node) + o.style.dim(" · "+strings.Join(facts, " · ")) + "\n"
}

// statusJobs returns the names of the jobs that are wanted or still seen.
func statusJobs(v *statusView) []string {
	var names []string
	for _, j := range v.Jobs {
		names = append(names, j.Job.Name)
	}
	for _, i := range v.Instances {
		names = append(names, i.ID.Job)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func renderJobStatus(b *strings.Builder, v *statusView, name string, o statusOptions) {
	s := o.style
	var job *spec.JobVersion
	for i := range v.Jobs {
		if v.Jobs[i].Job.Name == name {
			job = &v.Jobs[i]
		}
	}
	var instances []spec.Instance
	for _, i := range v.Instances {
		if i.ID.Job == name {
			instances = append(instances, i)
		}
	}
	note := "removed; what is left is ending"
	switch {
	case v.JobsUnknown:
		note = "what is wanted of it is not known now"
	case len(v.Jobs) == 0 && slices.ContainsFunc(instances, func(i spec.Instance) bool { return i.Phase == spec.PhaseRunning }):
		// A cluster's store that never had a job ends nothing.
		note = "the store has no jobs; what runs is left as it is until it has"
	case job != nil:
		note = fmt.Sprintf("version %d, %s %s ago by %s", job.Version, whyText(job.Why), ago(o.now.Sub(job.When)), job.Who)
	}
	b.WriteString(s.bold(name) + s.dim("  "+note) + "  " + healthText(instances, s) + "\n")
	for i := range v.Rollouts {
		if v.Rollouts[i].Job == name {
			b.WriteString(renderRollout(&v.Rollouts[i], s, o.now))
		}
	}
	if job != nil {
		renderPauses(b, v, job, o)
		renderSchedules(b, job, v.Runs[name], o)
	}
	placement := v.placement(name)
	b.WriteString(renderSpent(placement, o))
	t := table{indent: "  "}
	rows := statusRows(instances, o)
	if job != nil {
		rows = append(rows, absentRows(job, instances, placement.Unplaced, o)...)
		limitRows(rows, &job.Job)
	}
	slices.SortStableFunc(rows, func(a, b statusRow) int {
		return cmp.Or(strings.Compare(a.process, b.process), cmp.Compare(a.first, b.first))
	})
	named := len(o.targets) > 0
	columns := statusColumns{
		ports:    slices.ContainsFunc(rows, func(r statusRow) bool { return r.ports != "" }),
		services: named && slices.ContainsFunc(rows, func(r statusRow) bool { return r.services != "" }),
		health:   slices.ContainsFunc(rows, func(r statusRow) bool { return r.health != "" }),
		limits:   named && slices.ContainsFunc(rows, func(r statusRow) bool { return r.limits != "" }),
		nodes:    o.nodes,
	}
	titles := statusRow{name: "INSTANCE", node: "NODE", shown: "PHASE", pid: "PID", up: "UP", health: "HEALTH", restart: "RESTARTS", ports: "PORTS", services: "SERVICES", limits: "LIMITS"}.cells(style{}, columns)
	for i := range titles {
		titles[i].paint = s.dim
	}
	t.add(titles...)
	for _, r := range rows {
		t.add(r.cells(s, columns)...)
	}
	if len(rows) > 0 {
		b.WriteString(t.String())
	}
	instances = slices.DeleteFunc(instances, func(i spec.Instance) bool { return !o.targets.part(i.ID) })
	b.WriteString(checksText(instances, o))
}

// renderPauses says which processes are paused though nothing of them is being
// rolled out: that of others tells it with its rollout.
func renderPauses(b *strings.Builder, v *statusView, job *spec.JobVersion, o statusOptions) {
	for i := range job.Job.Processes {
		p := &job.Job.Processes[i]
		order := job.Orders[p.Name]
		told := slices.ContainsFunc(v.Rollouts, func(r api.RolloutStatus) bool {
			return r.Job == job.Job.Name && slices.ContainsFunc(r.Progress, func(q spec.Progress) bool {
				return q.Process == p.Name && q.State == spec.RolloutPaused
			})
		})
		if !order.Paused || p.Schedule != nil || told || !o.targets.process(job.Job.Name, p.Name) {
			continue
		}
		text := fmt.Sprintf("%s  %s; what is applied waits for `meshrun resume %s/%s`", p.Name, order.PausedText(), job.Job.Name, p.Name)
		b.WriteString("  " + o.style.yellow(oneLine(text)) + "\n")
	}
}

// renderSchedules says of each process that runs at times when it does next, and
// how its last run ended.
func renderSchedules(b *strings.Builder, job *spec.JobVersion, runs []spec.Run, o statusOptions) {
	for i := range job.Job.Processes {
		p := &job.Job.Processes[i]
		if p.Schedule == nil || !o.targets.process(job.Job.Name, p.Name) {
			continue
		}
		text := scheduleText(p, runs, o.now)
		switch order := job.Orders[p.Name]; {
		case order.Stopped:
			text = "stopped; no run is due"
		case order.Paused:
			text = order.PausedText() + "; go on with `meshrun resume " + job.Job.Name + "/" + p.Name + "`"
		}
		b.WriteString("  " + o.style.dim("@ "+p.Name+"  "+text) + "\n")
	}
}

func whyText(why string) string {
	switch why {
	case "apply", "":
		return "applied"
	case "scale", "pause", "resume", "promote":
		return why + "d"
	case "stop":
		return "stopped"
	case "restart", "start", "revert":
		return why + "ed"
	default:
		return why
	}
}

// healthText counts the phases: "3 running, 1 failed".
func healthText(instances []spec.Instance, s style) string {
	n := map[spec.Phase]int{}
	for _, i := range instances {
		n[i.Phase]++
	}
	var parts []string
	for _, p := range []spec.Phase{
		spec.PhaseFailed, spec.PhaseBackoff, spec.PhasePending, spec.PhaseStarting, spec.PhaseStopping, spec.PhaseRunning, spec.PhaseCompleted,
	} {
		if n[p] > 0 {
			parts = append(parts, s.phase(p, fmt.Sprintf("%d %s", n[p], p)))
		}
	}
	return strings.Join(parts, ", ")
}

// statusRow is a line of the table: an instance, or several that are alike.
type statusRow struct {
	process  string
	first    int // shard
	name     string
	node     string
	phase    spec.Phase
	shown    string // of the phase, if it isn't its name
	pid      string
	up       string
	health   spec.HealthState
	restart  string
	ports    string
	services string
	limits   string
	what     string
}

// statusColumns says which columns there are that not every table has.
type statusColumns struct{ health, ports, services, limits, nodes bool }

// cells returns the row's cells.
func (r statusRow) cells(s style, columns statusColumns) []cell {
	shown := r.shown
	if shown == "" {
		shown = string(r.phase)
	}
	text := r.what
	paint := s.dim
	if r.phase == spec.PhaseFailed {
		paint = s.red
	}
	restarts := cell{text: r.restart, right: true}
	if r.restart != "0" && r.restart != "" {
		restarts.paint = s.yellow
	}
	out := []cell{{text: r.name}}
	if columns.nodes {
		out = append(out, cell{text: r.node})
	}
	out = append(out, cell{text: shown, paint: func(t string) string { return s.phase(r.phase, t) }})
	if columns.health {
		out = append(out, cell{text: string(r.health), paint: func(t string) string { return s.health(r.health, t) }})
	}
	out = append(out, []cell{
		{text: r.pid, right: true}, {text: r.up, right: true}, restarts,
	}...)
	if columns.ports {
		out = append(out, cell{text: r.ports})
	}
	if columns.services {
		out = append(out, cell{text: r.services})
	}
	if columns.limits {
		out = append(out, cell{text: r.limits})
	}
	return append(out, cell{text: text, paint: paint})
}

// statusRows makes the rows of instances that are seen.
func statusRows(instances []spec.Instance, o statusOptions) []statusRow {
	byProcess := map[string][]spec.Instance{}
	for _, i := range instances {
		byProcess[i.ID.Process] = append(byProcess[i.ID.Process], i)
	}
	var rows []statusRow
	for _, list := range byProcess {
		slices.SortFunc(list, func(a, b spec.Instance) int { return a.ID.Shard - b.ID.Shard })
		if o.all || len(list) < manyShards || o.targets.shard(list[0].ID) {
			for i := range list {
				rows = append(rows, instanceRow(&list[i], o.now))
			}
			continue
		}
		rows = append(rows, alikeRows(list, o.now)...)
	}
	return rows
}

func instanceRow(i *spec.Instance, now time.Time) statusRow {
	r := statusRow{
		process: i.ID.Process, first: i.ID.Shard, name: i.ID.Process + "/" + strconv.Itoa(i.ID.Shard), node: i.Node,
		phase: i.Phase, health: i.Health, restart: strconv.Itoa(i.Restarts), ports: portsText(i.Ports),
		services: servicesText(i.Services), what: whatWithAlerts(i, now),
	}
	if i.Phase.Alive() && i.PID > 0 {
		r.pid, r.up = strconv.Itoa(i.PID), ago(now.Sub(i.Started))
	}
	return r
}

// whatWithAlerts tells what there is to know about an instance beside its phase,
// what its guards alert of first.
func whatWithAlerts(i *spec.Instance, now time.Time) string {
	parts := make([]string, 0, len(i.Alerts)+1)
	for _, alert := range i.Alerts {
		parts = append(parts, oneLine(alert))
	}
	if text := what(i, now); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// alikeRows makes one row of all shards that are alike and have nothing to
// tell, and a row each of the others.
func alikeRows(list []spec.Instance, now time.Time) []statusRow {
	type kind struct {
		phase  spec.Phase
		health spec.HealthState
		node   string
	}
	alike := map[kind][]*spec.Instance{}
	var rows []statusRow
	for i := range list {
		if whatWithAlerts(&list[i], now) == "" && list[i].Restarts == 0 {
			of := kind{list[i].Phase, list[i].Health, list[i].Node}
			alike[of] = append(alike[of], &list[i])
		} else {
			rows = append(rows, instanceRow(&list[i], now))
		}
	}
	for of, group := range alike {
		if len(group) == 1 {
			rows = append(rows, instanceRow(group[0], now))
			continue
		}
		shards := make([]int, len(group))
		youngest, oldest := group[0].Started, group[0].Started
		for n, i := range group {
			shards[n] = i.ID.Shard
			if i.Started.Before(oldest) {
				oldest = i.Started
			}
			if i.Started.After(youngest) {
				youngest = i.Started
			}
		}
		r := statusRow{
			process: group[0].ID.Process, first: shards[0], node: of.node, phase: of.phase, health: of.health, restart: "0",
			name: group[0].ID.Process + "/" + shortSet(shards), what: fmt.Sprintf("%d shards", len(group)),
		}
		if of.phase.Alive() {
			r.up = ago(now.Sub(oldest))
			if least := ago(now.Sub(youngest)); least != r.up {
				r.up = least + "–" + r.up
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// maxSet is how many letters of a row's shard numbers are shown: those of a
// node among several are scattered.
const maxSet = 24

// shortSet returns the numbers as ranges, or the first of them.
func shortSet(shards []int) string {
	text := spec.NewShardSet(shards...).String()
	if len(text) <= maxSet {
		return text
	}
	return text[:strings.LastIndexByte(text[:maxSet], ',')+1] + "…"
}
