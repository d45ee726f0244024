package schema

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// record is what decoding one process (or one job) leaves beside its values.
type record struct {
	// where maps paths as the user writes them ("restart.delay") to places.
	where map[string]hcl.Range
	// sensitive lists the paths whose values came from sensitive variables.
	sensitive []string
}

// reader reads the attributes of one block against the table. Its methods
// report what is wrong and otherwise store the value, or the table's default.
type reader struct {
	def   *Block
	check *checker
	ctx   *hcl.EvalContext
	attrs hcl.Attributes
	// blocks are the nested blocks, dynamic ones expanded.
	blocks hcl.Blocks
	// header is the place of the block itself.
	header hcl.Range
	// path is the block's own path with a trailing dot; empty for a process.
	path string
	rec  *record
	// diags collects for the whole job.
	diags *hcl.Diagnostics
}

// open reads a block's content by the table's schema.
func open(def *Block, body hcl.Body, header hcl.Range, path string, check *checker, rec *record, diags *hcl.Diagnostics) *reader {
	content, d := body.Content(def.schema)
	*diags = append(*diags, mendUnknown(def, d)...)
	r := &reader{
		def: def, check: check, ctx: check.base, attrs: content.Attributes, blocks: content.Blocks,
		header: header, path: path, rec: rec, diags: diags,
	}
	if path != "" {
		rec.where[path[:len(path)-1]] = header
	}
	for _, a := range def.Attrs {
		if attr := content.Attributes[a.Name]; attr != nil {
			rec.where[path+a.Name] = attr.Expr.Range()
		} else if a.Required {
			r.fail(header, "Missing attribute", fmt.Sprintf("The %s block needs `%s`: %s", def.Name, a.Name, lowerFirst(a.Doc)))
		}
	}
	return r
}

// nested opens a block within this one.
func (r *reader) nested(b *hcl.Block) *reader {
	path := r.path + b.Type
	if len(b.Labels) > 0 {
		path += "." + b.Labels[0]
	}
	return open(r.def.Block(b.Type), b.Body, b.DefRange, path+".", r.check, r.rec, r.diags)
}

// name makes the block's name a part of its path, as a label would be.
func (r *reader) name(name string) {
	was := r.path
	r.path += name + "."
	r.rec.where[was+name] = r.header
	for _, a := range r.def.Attrs {
		if at, ok := r.rec.where[was+a.Name]; ok {
			r.rec.where[r.path+a.Name] = at
		}
	}
}

// fail reports an error at a place.
func (r *reader) fail(at hcl.Range, summary, detail string) {
	*r.diags = append(*r.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at})
}

// failValue reports an error at an attribute's value, with what its names
// stand for.
func (r *reader) failValue(a *given, summary, detail string) {
	at := a.expr.Range()
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at}
	if !a.sensitive {
		d.Expression, d.EvalContext = a.expr, a.ctx
	}
	*r.diags = append(*r.diags, d)
}

// given is the value that a user gave to an attribute, or to one element of it.
type given struct {
	attr *Attr
	path string
	expr hclsyntax.Expression
	ctx  *hcl.EvalContext
	// value has no marks.
	value     cty.Value
	sensitive bool
}

// text returns the value for a message: never that of a sensitive variable.
func (g *given) text() string {
	if g.sensitive {
		return "the (sensitive) value"
	}
	return shortText(g.value)
}

// shortText returns a value of a simple type as the user would write it.
func shortText(v cty.Value) string {
	switch {
	case !v.IsKnown():
		return "a value not known yet"
	case v.IsNull():
		return "null"
	case v.Type() == cty.String:
		s := v.AsString()
		if len(s) > maxShownValue {
			s = strings.ToValidUTF8(s[:maxShownValue], "") + "…"
		}
		return fmt.Sprintf("%q", s)
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case v.Type() == cty.Bool:
		return fmt.Sprint(v.True())
	default:
		return v.Type().FriendlyName()
	}
}

// get evaluates an attribute. It returns nil if the attribute is absent, null,
// or wrong, which was reported then.
func (r *reader) get(name string) *given {
	a := r.attrs[name]
	if a == nil {
		return nil
	}
	def := r.def.Attr(name)
	expr, ctx := unwrap(a.Expr, r.ctx)
	if expr == nil {
		return nil
	}
	g := r.eval(def, r.path+name, expr, ctx)
	if g != nil && g.value.IsNull() {
		if def.Required {
			r.failValue(g, "Missing attribute", fmt.Sprintf("`%s` is null, but the %s block needs it: %s", name, r.def.Name, lowerFirst(def.Doc)))
		}
		return nil
	}
	return g
}

// eval evaluates an expression that belongs to an attribute.
func (r *reader) eval(def *Attr, path string, expr hclsyntax.Expression, ctx *hcl.EvalContext) *given {
	check := *r.check
	check.runtime = def.Runtime()
	check.what = def.Name
	diags, ok := check.check(expr, ctx)
	*r.diags = append(*r.diags, diags...)
	if !ok {
		return nil
	}
	v, diags := evaluate(expr, ctx)
	*r.diags = append(*r.diags, diags...)
	if diags.HasErrors() {
		return nil
	}
	if !r.check.whole && !v.IsWhollyKnown() && broken(expr) {
		return nil
	}
	g := &given{attr: def, path: path, expr: expr, ctx: ctx, sensitive: v.ContainsMarked()}
	g.value, _ = v.UnmarkDeep()
	return g
}

// broken reports whether a part of an expression could not be parsed, which
// was reported then.
func broken(expr hclsyntax.Expression) bool {
	found := false
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.ExprSyntaxError:
			found = true
		case *hclsyntax.LiteralValueExpr:
			found = found || !n.Val.IsKnown()
		}
		return nil
	})
	return found
}

// note records that a value came from a sensitive variable.
func (r *reader) note(path string, sensitive bool) {
	if sensitive {
		r.rec.sensitive = append(r.rec.sensitive, path)
	}
}

// scalar evaluates an attribute whose value must be known and of a type, or
// convert to it. Absent is set if the attribute's default applies.
func (r *reader) scalar(name string, ty cty.Type) (g *given, absent bool) {
	if r.attrs[name] == nil {
		return nil, true
	}
	before := len(*r.diags)
	if g = r.get(name); g == nil {
		return nil, len(*r.diags) == before
	}
	if !g.value.IsWhollyKnown() {
		r.failValue(g, "Not known yet", fmt.Sprintf("%s must be known when the files are read.", name))
		return nil, false
	}
	r.note(g.path, g.sensitive)
	v, err := convert.Convert(g.value, ty)
	if err != nil {
		r.failValue(g, "Wrong type", fmt.Sprintf("%s must be %s, not %s.%s", name, article(g.attr.Kind.noun()), article(g.value.Type().FriendlyName()), example(g.attr)))
		return nil, false
	}
	g.value = v
	return g, false
}

// article puts "a" or "an" before a noun.
func article(noun string) string {
	if noun == "" {
		return noun
	}
	switch noun[0] {
	case 'a', 'e', 'i', 'o':
		return "an " + noun
	}
	return "a " + noun
}

// example shows how a value of the attribute is written.
func example(a *Attr) string {
	text := ""
	switch a.Kind {
	case KindTemplateList:
		text = `["./server", "--port", port.http]`
	case KindStringList:
		text = `["a", "b"]`
	case KindTemplateMap:
		text = `{ LOG_LEVEL = "info" }`
	case KindStringMap:
		text = `{ team = "platform" }`
	case KindBool:
		text = "true"
	case KindDuration:
		text = `"10s"`
	case KindSize:
		text = `"256MiB"`
	case KindSignal:
		text = `"SIGTERM"`
	case KindInt:
		text = "3"
	case KindFloat:
		text = "0.5"
	default:
		return ""
	}
	return fmt.Sprintf(" Write for example %s = %s.", a.Name, text)
}
