package schema

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/synergymesh/meshrun/spec"
)

// template reads a text that may refer to what only the node knows.
func (r *reader) template(name string, dst *spec.Template) {
	if g := r.get(name); g != nil {
		*dst, _ = r.asTemplate(g)
	}
}

// asTemplate makes the template of a value: the value itself if it is known,
// else what is left of its expression.
func (r *reader) asTemplate(g *given) (spec.Template, bool) {
	r.note(g.path, g.sensitive)
	if g.value.IsKnown() {
		s, err := asString(g.value)
		if err != nil {
			r.failValue(g, "Wrong type", fmt.Sprintf("%s must be a text: %v.", g.path, err))
			return "", false
		}
		return spec.Literal(s), r.sound(g, s)
	}
	if ty := g.value.Type(); !ty.IsPrimitiveType() && ty != cty.DynamicPseudoType {
		r.failValue(g, "Wrong type", fmt.Sprintf("%s must be a text, and this is %s.", g.path, ty.FriendlyName()))
		return "", false
	}
	p := residual{ctx: g.ctx, runtime: func(root string) bool { return r.runtimeRoot(root, g.ctx) }}
	text := p.template(g.expr)
	*r.diags = append(*r.diags, p.diags...)
	return spec.Template(text), !p.diags.HasErrors()
}

// runtimeRoot reports whether a name stands for what only the node knows.
func (r *reader) runtimeRoot(root string, ctx *hcl.EvalContext) bool {
	switch root {
	case rootShard, rootNode, rootPort:
		return !r.check.iterator(root, ctx)
	}
	return false
}

// templates reads a list of texts.
func (r *reader) templates(name string, dst *[]spec.Template) {
	if tuple, ok := r.syntax(name).(*hclsyntax.TupleConsExpr); ok {
		*dst = r.elements(r.written(name), tuple, nil)
		return
	}
	g := r.get(name)
	switch {
	case g == nil:
	case g.value.IsWhollyKnown():
		*dst = r.knownList(g, nil)
	default:
		*dst, _ = r.spreadList(g, nil)
	}
}

// knownList appends the templates of a list whose value is known.
func (r *reader) knownList(g *given, out []spec.Template) []spec.Template {
	ty := g.value.Type()
	if g.value.IsNull() || !ty.IsTupleType() && !ty.IsListType() && !ty.IsSetType() {
		r.failValue(g, "Wrong type", fmt.Sprintf("%s must be a list of texts, not %s.%s", g.path, article(ty.FriendlyName()), example(g.attr)))
		return out
	}
	for it := g.value.ElementIterator(); it.Next(); {
		_, v := it.Element()
		elem := *g
		elem.value, elem.path = v, g.path+"["+strconv.Itoa(len(out))+"]"
		t, _ := r.asTemplate(&elem)
		out = append(out, t)
	}
	return out
}

// elements appends the templates of a list that is written out.
func (r *reader) elements(list *given, tuple *hclsyntax.TupleConsExpr, out []spec.Template) []spec.Template {
	for _, expr := range tuple.Exprs {
		path := list.path + "[" + strconv.Itoa(len(out)) + "]"
		r.rec.where[path] = expr.Range()
		if g := r.eval(list.attr, path, expr, list.ctx); g != nil {
			t, _ := r.asTemplate(g)
			out = append(out, t)
		}
	}
	return out
}

// written is an attribute whose elements are written out: they are looked at
// one by one, and it has no value as a whole.
func (r *reader) written(name string) *given {
	expr, ctx := unwrap(r.attrs[name].Expr, r.ctx)
	return &given{attr: r.def.Attr(name), path: r.path + name, expr: expr, ctx: ctx}
}

// syntax returns the expression of an attribute without the parentheses around
// it; nil if the attribute is absent.
func (r *reader) syntax(name string) hclsyntax.Expression {
	a := r.attrs[name]
	if a == nil {
		return nil
	}
	expr, _ := unwrap(a.Expr, r.ctx)
	return bare(expr)
}

// bare returns an expression without the parentheses around it.
func bare(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		p, ok := e.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return e
		}
		e = p.Expression
	}
}

// templateMap reads names with texts.
func (r *reader) templateMap(name string, dst *map[string]spec.Template) {
	out := map[string]spec.Template{}
	if object, ok := r.syntax(name).(*hclsyntax.ObjectConsExpr); ok {
		r.items(r.written(name), object, out)
	} else if g := r.get(name); g == nil {
		return
	} else if g.value.IsWhollyKnown() {
		r.knownMap(g, out)
	} else {
		r.spreadMap(g, out)
	}
	if len(out) > 0 {
		*dst = out
	}
}

// knownMap makes the templates of a map whose value is known. An element that
// is null takes the name out.
func (r *reader) knownMap(g *given, out map[string]spec.Template) {
	ty := g.value.Type()
	if g.value.IsNull() || !ty.IsObjectType() && !ty.IsMapType() {
		r.failValue(g, "Wrong type", fmt.Sprintf("%s must be a map of texts, not %s.%s", g.path, article(ty.FriendlyName()), example(g.attr)))
		return
	}
	values := g.value.AsValueMap()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		elem := *g
		elem.value, elem.path = values[key], g.path+"."+key
		if elem.value.IsNull() {
			delete(out, key)
		} else if t, ok := r.asTemplate(&elem); ok {
			out[key] = t
		}
	}
}

// items makes the templates of a map that is written out. An element that is
// null takes the name out.
func (r *reader) items(m *given, object *hclsyntax.ObjectConsExpr, out map[string]spec.Template) {
	seen := map[string]hcl.Range{}
	for _, item := range object.Items {
		key, ok := r.key(m, item.KeyExpr)
		if !ok {
			continue
		}
		path := m.path + "." + key
		if first, ok := seen[key]; ok {
			r.fail(item.KeyExpr.Range(), "Duplicate name", fmt.Sprintf("%s has %q already, at line %d. Remove one of the two.", m.attr.Name, key, first.Start.Line))
			continue
		}
		seen[key] = item.KeyExpr.Range()
		r.rec.where[path] = item.ValueExpr.Range()
		g := r.eval(m.attr, path, item.ValueExpr, m.ctx)
		if g == nil {
			continue
		}
		if g.value.IsKnown() && g.value.IsNull() {
			delete(out, key)
		} else if t, ok := r.asTemplate(g); ok {
			out[key] = t
		}
	}
}

// key evaluates the name of one element of a map; it must be known here.
func (r *reader) key(m *given, expr hclsyntax.Expression) (string, bool) {
	check := *r.check
	check.runtime, check.what = true, "a name in "+m.attr.Name
	diags, ok := check.check(expr, m.ctx)
	*r.diags = append(*r.diags, diags...)
	if !ok {
		return "", false
	}
	v, diags := evaluate(expr, m.ctx)
	*r.diags = append(*r.diags, diags...)
	if diags.HasErrors() {
		return "", false
	}
	if v.IsMarked() {
		r.fail(expr.Range(), "Sensitive name", fmt.Sprintf("The names in %s are shown in plans, and must not come from sensitive variables.", m.attr.Name))
		return "", false
	}
	if !v.IsKnown() {
		r.fail(expr.Range(), "Not known yet", fmt.Sprintf("The names in %s must be known when the files are read; only their values may refer to what the node knows.", m.attr.Name))
		return "", false
	}
	s, err := asString(v)
	if err != nil {
		r.fail(expr.Range(), "Wrong type", fmt.Sprintf("A name in %s must be a text: %v.", m.attr.Name, err))
		return "", false
	}
	return s, true
}

// stringList reads a list of plain strings.
func (r *reader) stringList(name string, dst *[]string) {
	var list []spec.Template
	r.templates(name, &list)
	for _, t := range list {
		*dst = append(*dst, t.Text())
	}
}

// stringMap reads names with plain strings.
func (r *reader) stringMap(name string, dst *map[string]string) {
	var m map[string]spec.Template
	r.templateMap(name, &m)
	for k, t := range m {
		if *dst == nil {
			*dst = map[string]string{}
		}
		(*dst)[k] = t.Text()
	}
}
