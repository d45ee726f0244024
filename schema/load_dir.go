package schema

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// parsedFile is a file with what parsing it gave.
type parsedFile struct {
	name  string
	sum   digest
	file  *hcl.File
	diags hcl.Diagnostics
	// dynamic is set if it has dynamic blocks.
	dynamic bool
}

// parseAll reads and parses files, or takes them from the last time if they
// have not changed. Those that can't be read are reported and left out.
func (l *loading) parseAll(sources []source) []*parsedFile {
	var files []*parsedFile
	var work parallel
	for _, s := range sources {
		src, err := readBounded(s.path, MaxFile)
		l.note(s.path, src, err)
		if err != nil {
			l.fail("Cannot read", fmt.Sprintf("%s cannot be read: %v.", s.name, err))
			continue
		}
		if len(bytes.TrimSpace(src)) == 0 {
			// Who saves in place empties the file first, and a crash or a full
			// disk can leave it so.
			l.fail("Empty file", fmt.Sprintf("%s is empty, as a file is that was not written to its end. Write its jobs; to remove them, delete the file. A comment makes it a file that holds no jobs on purpose.", s.name))
			continue
		}
		p := &parsedFile{name: s.name, sum: digest(sha256.Sum256(src))}
		files = append(files, p)
		if last, ok := l.loader.parsed[s.name]; ok && last.sum == p.sum {
			*p = last
			continue
		}
		work.do(func() {
			p.file, p.diags = parseFile(src, s.name)
			p.dynamic = hasDynamic(p.file.Body.(*hclsyntax.Body))
		})
	}
	work.wait()
	for _, p := range files {
		l.parsed[p.name] = *p
		l.files[p.name] = p.file
		l.diags = append(l.diags, p.diags...)
	}
	return files
}

// parallel runs functions on as many goroutines as there are processors.
type parallel struct {
	wg    sync.WaitGroup
	slots chan struct{}
	panic atomic.Pointer[panicked]
}

// panicked is a panic on its way from one goroutine to another.
type panicked struct{ place string }

func (p *parallel) do(f func()) {
	if p.slots == nil {
		p.slots = make(chan struct{}, runtime.GOMAXPROCS(0))
	}
	p.slots <- struct{}{}
	p.wg.Go(func() {
		defer func() {
			if recover() != nil {
				p.panic.Store(&panicked{panicPlace()})
			}
			<-p.slots
		}()
		f()
	})
}

// wait returns when all functions have; it panics if one of them did.
func (p *parallel) wait() {
	p.wg.Wait()
	if what := p.panic.Load(); what != nil {
		panic(what)
	}
}

func hasDynamic(b *hclsyntax.Body) bool {
	for _, n := range b.Blocks {
		if n.Type == "dynamic" || n.Body != nil && hasDynamic(n.Body) {
			return true
		}
	}
	return false
}

// directory reads the files of one directory. hcl and cty panic on what they
// hold impossible; a file must not be able to stop the agent, so that becomes
// an error like any other.
func (l *loading) directory(d *directory) {
	defer func() {
		what := recover()
		if what == nil {
			return
		}
		place := panicPlace()
		if elsewhere, ok := what.(*panicked); ok {
			place = elsewhere.place
		}
		l.fail("Cannot evaluate", fmt.Sprintf("The files in %s made meshrun's reader fail, at %s. Please report this with the files; meanwhile, change what was edited last.", d.path, place))
	}()
	d.scope = &scope{variables: map[string]*variable{}, locals: map[string]*local{}, note: l.included}
	files := l.parseAll(d.files)
	for _, p := range files {
		l.declare(d.scope, p)
	}
	l.evaluate(d)
	d.scope = l.loader.reuse(d)
	d.scope.note = l.included
	for _, p := range files {
		l.jobsOf(d.scope, p)
	}
}

// panicPlace names the function that panicked. What it panicked with is not
// shown, since it can hold a secret.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	panicking := false
	for {
		f, more := frames.Next()
		inRuntime := strings.HasPrefix(f.Function, "runtime.")
		if panicking && !inRuntime {
			return fmt.Sprintf("%s, line %d", f.Function, f.Line)
		}
		panicking = panicking || inRuntime
		if !more {
			return "an unknown place"
		}
	}
}

// decodedFile is what decoding a file gave.
type decodedFile struct {
	sum   digest
	scope *scope
	jobs  []*decodedJob
	diags hcl.Diagnostics
}

// reuse returns the scope that the directory had the last time, if it holds
// the same, and else the new one. What was decoded in it is still right then.
func (l *Loader) reuse(d *directory) *scope {
	last := l.scopes[d.path]
	if last == nil || !last.same(d.scope) {
		l.scopes[d.path] = d.scope
		return d.scope
	}
	return last
}

// jobsOf takes the jobs of a file from the last time, if nothing that they
// depend on has changed, and else decodes them.
func (l *loading) jobsOf(sc *scope, p *parsedFile) {
	last, ok := l.loader.decoded[p.name]
	if !ok || last.sum != p.sum || last.scope != sc {
		reads := l.reads
		last = l.decode(sc, p)
		if l.reads != reads {
			last.scope = nil // what file() gives can change: decode it each time
		}
	}
	l.decoded[p.name] = last
	l.jobs = append(l.jobs, last.jobs...)
	l.diags = append(l.diags, last.diags...)
}

// declare reads the variables and locals of a file.
func (l *loading) declare(sc *scope, p *parsedFile) {
	content, _, _ := p.file.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: variableBlock.Name, LabelNames: []string{variableBlock.Label}}, {Type: localsBlock.Name},
	}})
	for _, b := range content.Blocks {
		if b.Type == localsBlock.Name {
			l.diags = append(l.diags, declareLocals(b, sc.locals)...)
			continue
		}
		v, diags := declareVariable(b)
		l.diags = append(l.diags, diags...)
		if first, ok := sc.variables[v.name]; ok {
			l.diags = append(l.diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Duplicate variable", Subject: &v.header,
				Detail: fmt.Sprintf("The variable %q is declared at %s:%d already. Rename or remove one of the two.", v.name, first.header.Filename, first.header.Start.Line),
			})
			continue
		}
		sc.variables[v.name] = v
	}
}

// evaluate gives the variables and locals of a directory their values.
func (l *loading) evaluate(d *directory) {
	sc := d.scope
	values := map[string]cty.Value{}
	for _, name := range sortedKeys(sc.variables) {
		v := sc.variables[name]
		if given := l.given[name]; given != nil || !v.failed {
			l.diags = append(l.diags, v.assign(given)...)
		}
		if values[name] = v.value; v.value == cty.NilVal {
			values[name] = cty.DynamicVal
			v.failed = true
		}
		if given := l.given[name]; given != nil && v.sensitive {
			delete(l.files, given.at.Filename)
		}
	}
	sc.dir = d.path
	sc.ctx = &hcl.EvalContext{
		Variables: runtimeValues(nil),
		Functions: functions(d.path, l.lookup, func(path string, content []byte, err error) { sc.note(path, content, err) }),
	}
	sc.ctx.Variables[rootVar] = cty.ObjectVal(values)
	sc.ctx.Variables[rootLocal] = cty.EmptyObjectVal
	for _, name := range sortedKeys(sc.variables) {
		if v := sc.variables[name]; !v.failed {
			l.diags = append(l.diags, v.validate(sc)...)
		}
	}
	l.diags = append(l.diags, evaluateLocals(sc)...)
}

func (l *loading) lookup(name string) (string, bool) {
	v, ok := l.environ[name]
	return v, ok
}

// decode reads the jobs of a file.
func (l *loading) decode(sc *scope, p *parsedFile) decodedFile {
	body := p.file.Body
	if p.dynamic {
		body = dynblock.Expand(tracedBody{body}, sc.ctx, dynblock.OptCheckForEach(checkForEach))
	}
	content, diags := body.Content(Root.schema)
	out := decodedFile{sum: p.sum, scope: sc, diags: append(mendUnknown(Root, diags), dynamicNames(p)...)}
	for _, b := range content.Blocks {
		if b.Type == jobBlock.Name {
			out.jobs = append(out.jobs, decodeJob(b, sc, len(p.diags) == 0))
		}
	}
	return out
}

// dynamicNames refuses to make variables and locals dynamically: what names
// there are must be plain before anything is evaluated.
func dynamicNames(p *parsedFile) (diags hcl.Diagnostics) {
	for _, b := range p.file.Body.(*hclsyntax.Body).Blocks {
		if b.Type != "dynamic" || len(b.Labels) == 0 || b.Labels[0] != variableBlock.Name && b.Labels[0] != localsBlock.Name {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Unsupported dynamic block", Subject: b.LabelRanges[0].Ptr(),
			Detail: fmt.Sprintf("A %s block cannot be dynamic. Write it out; a single one can hold a list or a map.", b.Labels[0]),
		})
	}
	return diags
}

// checkForEach refuses dynamic blocks over what is not known yet, or must not
// be shown: which blocks there are is visible in every plan.
func checkForEach(v cty.Value, expr hcl.Expression, _ *hcl.EvalContext) hcl.Diagnostics {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Subject: expr.Range().Ptr()}
	switch {
	case v.ContainsMarked():
		d.Summary = "Sensitive for_each"
		d.Detail = "Which blocks there are is shown in plans, and must not come from sensitive variables. Build the blocks from plain values, and refer to the sensitive variable inside of them."
	case !v.IsKnown():
		d.Summary = "Not known yet"
		d.Detail = "for_each must be known when the files are read; it cannot depend on what only the node knows."
	default:
		return nil
	}
	return hcl.Diagnostics{d}
}

// assignments reads the values of variables from all sources, the weakest first.
func (l *loading) assignments() {
	l.given = map[string]*assignment{}
	for _, key := range sortedKeys(l.environ) {
		if name, ok := strings.CutPrefix(key, EnvPrefix); ok && name != "" {
			l.assignText(name, l.environ[key], "the environment variable "+key)
		}
	}
	for _, path := range l.loader.opts.VarFiles {
		l.varFile(path)
	}
	for _, kv := range l.loader.opts.Vars {
		name, text, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			l.fail("Invalid -var", fmt.Sprintf("-var needs name=value, and was given %q.", name))
			continue
		}
		l.assignText(name, text, "-var")
	}
}

func (l *loading) assignText(name, text, source string) {
	file := fmt.Sprintf("<value for var.%s>", name)
	end := hcl.Pos{Line: 1, Column: len([]rune(text)) + 1, Byte: len(text)}
	l.given[name] = &assignment{source: source, text: text, at: hcl.Range{Filename: file, Start: hcl.InitialPos, End: end}}
	l.files[file] = emptyFile([]byte(text), file)
}

// varFile reads a file of values. Its source is never shown, since it can
// hold secrets.
func (l *loading) varFile(path string) {
	src, err := readBounded(path, MaxFile)
	l.note(path, src, err)
	if err != nil {
		l.fail("Cannot read", fmt.Sprintf("The file of variables %s cannot be read: %v.", path, err))
		return
	}
	f, diags := parseFile(src, path)
	attrs, d := f.Body.JustAttributes()
	l.diags = append(l.diags, append(diags, d...)...)
	for _, name := range sortedKeys(attrs) {
		a := attrs[name]
		l.given[name] = &assignment{source: fmt.Sprintf("%s:%d", path, a.NameRange.Start.Line), expr: a.Expr, at: a.Expr.Range()}
	}
}

// unusedVars reports values for variables that no file declares. The
// environment may hold some for other files.
func (l *loading) unusedVars() {
	known := map[string]bool{}
	for _, d := range l.dirs {
		for name := range d.scope.variables {
			known[name] = true
		}
	}
	for _, name := range sortedKeys(l.given) {
		a := l.given[name]
		if known[name] || strings.HasPrefix(a.source, "the environment") {
			continue
		}
		l.fail("Unknown variable", fmt.Sprintf("There is a value for the variable %q from %s, but no file declares it.%s", name, a.source, didYouMean(name, sortedKeys(known))))
	}
}
