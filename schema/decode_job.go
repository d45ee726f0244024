package schema

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/synergymesh/meshrun/spec"
)

// notAvailable is the summary of all refusals of what is right but cannot be
// acted on yet.
const notAvailable = "Not available yet"

// decodedProcess is a process with what decoding left beside it.
type decodedProcess struct {
	process spec.Process
	rec     *record
	// header is the place of the process itself.
	header hcl.Range
	failed bool
}

// decodedJob is a job as it was read from one file.
type decodedJob struct {
	name      string
	labels    map[string]string
	processes []decodedProcess
	rec       *record
	header    hcl.Range
	failed    bool
	diags     hcl.Diagnostics
	// job is the normalized job, and meaning what spec finds wrong with it.
	job     spec.Job
	meaning hcl.Diagnostics
}

// decodeJob reads a job block. Whole is set if its file was parsed without
// errors.
func decodeJob(b *hcl.Block, sc *scope, whole bool) *decodedJob {
	j := &decodedJob{name: b.Labels[0], header: b.DefRange, rec: newRecord()}
	check := &checker{scope: sc, base: sc.ctx, whole: whole}
	r := open(jobBlock, b.Body, b.DefRange, "", check, j.rec, &j.diags)
	r.stringMap("labels", &j.labels)
	for _, path := range j.rec.sensitive {
		r.fail(j.rec.at(path, b.DefRange), "Sensitive label", "Labels are shown everywhere, and must not come from sensitive variables.")
	}
	seen := map[string]hcl.Range{}
	for _, pb := range r.blocks {
		if r.duplicate(pb, seen) {
			continue
		}
		before := len(j.diags)
		p := decodeProcess(pb, sc, whole, &j.diags)
		p.failed = misunderstood(j.diags[before:])
		j.processes = append(j.processes, p)
	}
	j.failed = misunderstood(j.diags)
	j.finish()
	return j
}

// finish makes the job and lets spec check what it means, as far as it was
// understood.
func (j *decodedJob) finish() {
	j.job = spec.Job{Name: j.name, Labels: j.labels}
	for _, p := range j.processes {
		j.job.Processes = append(j.job.Processes, p.process)
	}
	j.job.Normalize()
	for _, problem := range spec.Validate(&j.job) {
		if d := j.diagnostic(problem); d != nil {
			j.meaning = append(j.meaning, d)
		}
	}
}

// diagnostic puts a problem in its place; nil if what it is about was not
// understood.
func (j *decodedJob) diagnostic(problem spec.Problem) *hcl.Diagnostic {
	rec, at, failed := j.rec, j.header, j.failed
	i := slices.IndexFunc(j.processes, func(p decodedProcess) bool { return p.process.Name == problem.Process })
	if problem.Process != "" && i >= 0 {
		p := &j.processes[i]
		rec, at, failed = p.rec, p.header, p.failed
	}
	if failed {
		return nil
	}
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: problem.Summary, Detail: problem.Detail}
	if rec.secret(problem.Path) {
		d.Summary = "Invalid value"
		d.Detail = fmt.Sprintf("%s cannot be what it is. The details are withheld, since a sensitive value is involved.", problem.Path)
	}
	d.Subject = rec.at(problem.Path, at).Ptr()
	return d
}

// misunderstood reports whether there are errors that leave open what was
// meant.
func misunderstood(diags hcl.Diagnostics) bool {
	return slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
		return d.Severity == hcl.DiagError && d.Summary != notAvailable
	})
}

func newRecord() *record { return &record{where: map[string]hcl.Range{}} }

// at returns the place of a path, or of the nearest part of it that has one.
func (rec *record) at(path string, otherwise hcl.Range) hcl.Range {
	for p := path; p != ""; p = parent(p) {
		if r, ok := rec.where[p]; ok {
			return r
		}
	}
	return otherwise
}

// secret reports whether what is said about a path could show a sensitive
// value: one of the same attribute or block.
func (rec *record) secret(path string) bool {
	top := func(p string) string {
		if i := strings.IndexAny(p, ".["); i > 0 {
			return p[:i]
		}
		return p
	}
	return slices.ContainsFunc(rec.sensitive, func(s string) bool { return top(s) == top(path) })
}

// parent cuts the last step off a path: "env.A" → "env", "command[2]" →
// "command".
func parent(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}

// duplicate reports a second block of a name, or of a type that can be there
// only once.
func (r *reader) duplicate(b *hcl.Block, seen map[string]hcl.Range) bool {
	def := r.def.Block(b.Type)
	if def.Repeat && def.Label == "" {
		return false
	}
	name := b.Type
	if len(b.Labels) > 0 {
		name = fmt.Sprintf("%s %q", b.Type, b.Labels[0])
	}
	first, ok := seen[name]
	if !ok {
		seen[name] = b.DefRange
		return false
	}
	r.fail(b.DefRange, "Duplicate block", fmt.Sprintf("There is a %s here already, at %s:%d. Rename or remove one of the two.", name, first.Filename, first.Start.Line))
	return true
}

// decodeProcess reads a process block.
func decodeProcess(b *hcl.Block, sc *scope, whole bool, diags *hcl.Diagnostics) decodedProcess {
	rec := newRecord()
	p := decodedProcess{process: spec.DefaultProcess(b.Labels[0]), rec: rec, header: b.DefRange}
	check := &checker{scope: sc, base: sc.ctx, whole: whole, ports: []string{}}
	r := open(processBlock, b.Body, b.DefRange, "", check, rec, diags)
	for _, n := range r.blocks {
		if n.Type == "port" && !slices.Contains(check.ports, n.Labels[0]) {
			check.ports = append(check.ports, n.Labels[0])
		}
	}
	if len(check.ports) > 0 {
		ctx := sc.ctx.NewChild()
		ctx.Variables = runtimeValues(check.ports)
		check.base, r.ctx = ctx, ctx
	}
	out := &p.process
	r.templates("command", &out.Command)
	r.template("dir", &out.Dir)
	out.Dir = absoluteDir(sc.dir, out.Dir)
	r.str("user", &out.User)
	r.templateMap("env", &out.Env)
	r.boolean("critical", &out.Critical)
	r.integer("shards", &out.Shards)
	r.boolean("exclusive", &out.Exclusive)
	seen := map[string]hcl.Range{}
	for _, n := range r.blocks {
		if r.duplicate(n, seen) || !r.rightLabel(n) {
			continue
		}
		decodeProcessBlock(r.nested(n), n, out)
		if needs := processBlock.Block(n.Type).Needs; needs != "" {
			r.fail(n.DefRange, notAvailable, fmt.Sprintf("The block %q %s.", n.Type, needs))
		}
	}
	if _, said := seen["restart"]; out.Schedule != nil && !said {
		out.Restart.Policy = spec.RestartNever
	}
	out.Sensitive = rec.sensitive
	return p
}

// absoluteDir is the working directory that a file in base means by dir: base
// itself if nothing is said, and below it for a relative path. One that begins
// with a reference is known only on the node and stays.
func absoluteDir(base string, dir spec.Template) spec.Template {
	switch text := string(dir); {
	case strings.HasPrefix(text, "/"):
		return dir
	case dir.IsLiteral():
		return spec.Literal(filepath.Join(base, dir.Text()))
	case strings.HasPrefix(text, "${") || strings.HasPrefix(text, "%{"):
		return dir
	default:
		return spec.Literal(base+"/") + dir
	}
}

// rightLabel checks the label of a block whose labels the table lists.
func (r *reader) rightLabel(b *hcl.Block) bool {
	def := r.def.Block(b.Type)
	if len(def.LabelValues) == 0 || slices.Contains(def.LabelValues, b.Labels[0]) {
		return true
	}
	r.fail(b.LabelRanges[0], "Invalid label", fmt.Sprintf("%s %q is none of %s.%s", b.Type, b.Labels[0], list(def.LabelValues, "or"), didYouMean(b.Labels[0], def.LabelValues)))
	return false
}

// decodeProcessBlock reads one block of a process into its field.
func decodeProcessBlock(r *reader, b *hcl.Block, out *spec.Process) {
	switch b.Type {
	case "restart":
		decodeRestart(r, &out.Restart)
	case "stop":
		r.signal("signal", &out.Stop.Signal)
		r.duration("timeout", &out.Stop.Timeout)
	case "reload":
		v := spec.DefaultReload()
		r.signal("signal", &v.Signal)
		r.templates("files", &v.Files)
		out.Reload = &v
	case "ready":
		v := spec.DefaultReady()
		r.boolean("notify", &v.Notify)
		r.duration("timeout", &v.Timeout)
		out.Ready = &v
	case "watchdog":
		v := spec.Watchdog{}
		r.duration("timeout", &v.Timeout)
		out.Watchdog = &v
	case "logs":
		r.size("max_size", &out.Logs.MaxSize)
		r.integer("keep", &out.Logs.Keep)
	case "port":
		v := spec.Port{Name: b.Labels[0]}
		r.integer("static", &v.Static)
		out.Ports = append(out.Ports, v)
	case "depends_on":
		v := spec.DefaultDependency(b.Labels[0])
		v.Condition = spec.Condition(r.enum("condition"))
		v.OnFailure = spec.OnFailure(r.enum("on_failure"))
		out.DependsOn = append(out.DependsOn, v)
	case "service":
		out.Services = append(out.Services, decodeService(r))
	case "health":
		out.Health = append(out.Health, decodeHealth(r, b.Labels[0]))
	case "guard":
		out.Guards = append(out.Guards, decodeGuard(r, b.Labels[0]))
	case "resources":
		out.Resources = decodeResources(r)
	case "update":
		out.Update = decodeUpdate(r)
	case "placement":
		out.Placing = decodePlacement(r)
	case "schedule":
		out.Schedule = decodeSchedule(r)
	case "hook":
		out.Hooks = append(out.Hooks, decodeHook(r, b.Labels[0]))
	}
}

func decodeRestart(r *reader, out *spec.Restart) {
	out.Policy = spec.RestartPolicy(r.enum("policy"))
	r.duration("delay", &out.Delay)
	r.duration("max_delay", &out.MaxDelay)
	r.integer("attempts", &out.Attempts)
	r.duration("window", &out.Window)
	out.Exhausted = spec.Exhausted(r.enum("exhausted"))
	r.duration("stable", &out.Stable)
}

// decodeService reads a service, which is known by its name though that is no
// label. It is listed for all to see, and nothing secret may be in it.
func decodeService(r *reader) (v spec.Service) {
	before := len(r.rec.sensitive)
	r.str("name", &v.Name)
	r.name(v.Name)
	r.str("port", &v.Port)
	r.stringList("tags", &v.Tags)
	for _, path := range r.rec.sensitive[before:] {
		r.fail(r.rec.at(path, r.header), "Sensitive value", "Services are listed for everybody to see, so what is sensitive can be no part of one.")
	}
	return v
}

func decodePlacement(r *reader) *spec.Placing {
	v := &spec.Placing{}
	for _, b := range r.blocks {
		n := r.nested(b)
		switch b.Type {
		case "constraint":
			c := spec.Constraint{}
			n.str("label", &c.Label)
			n.str("is", &c.Is)
			v.Constraints = append(v.Constraints, c)
		case "spread":
			s := spec.Spread{}
			n.str("label", &s.Label)
			v.Spreads = append(v.Spreads, s)
		}
	}
	return v
}
