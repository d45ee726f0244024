package schema

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/synergymesh/meshrun/spec"
)

// Lists and maps whose elements only the node can complete are taken apart
// here: a template stands for one text, so there must be one for each element.
// That is possible where the number of elements, or their names, are known.

// spreadList appends the templates of the elements of a computed list.
func (r *reader) spreadList(g *given, out []spec.Template) ([]spec.Template, bool) {
	switch e := bare(g.expr).(type) {
	case *hclsyntax.TupleConsExpr:
		return r.elements(g, e, out), true
	case *hclsyntax.FunctionCallExpr:
		if e.Name != "concat" || e.ExpandFinal {
			break
		}
		for _, arg := range e.Args {
			part := r.part(g, arg, g.ctx)
			if part == nil {
				return out, false
			}
			if part.value.IsWhollyKnown() {
				out = r.knownList(part, out)
				continue
			}
			var ok bool
			if out, ok = r.spreadList(part, out); !ok {
				return out, false
			}
		}
		return out, true
	case *hclsyntax.ConditionalExpr:
		if part := r.branch(g, e); part != nil {
			if part.value.IsWhollyKnown() {
				return r.knownList(part, out), true
			}
			return r.spreadList(part, out)
		}
	case *hclsyntax.ForExpr:
		if e.KeyExpr != nil {
			break
		}
		ok := r.each(g, e, func(ctx *hcl.EvalContext) {
			path := fmt.Sprintf("%s[%d]", g.path, len(out))
			r.rec.where[path] = e.ValExpr.Range()
			if elem := r.eval(g.attr, path, e.ValExpr, ctx); elem != nil {
				t, _ := r.asTemplate(elem)
				out = append(out, t)
			}
		})
		if ok {
			return out, true
		}
	}
	r.notWhole(g, "list", `["a", shard.index]`)
	return out, false
}

// spreadMap adds the templates of the elements of a computed map; later ones
// win, as merge has it.
func (r *reader) spreadMap(g *given, out map[string]spec.Template) bool {
	switch e := bare(g.expr).(type) {
	case *hclsyntax.ObjectConsExpr:
		r.items(g, e, out)
		return true
	case *hclsyntax.FunctionCallExpr:
		if e.Name != "merge" || e.ExpandFinal {
			break
		}
		for _, arg := range e.Args {
			part := r.part(g, arg, g.ctx)
			if part == nil {
				return false
			} else if !part.value.IsWhollyKnown() {
				if !r.spreadMap(part, out) {
					return false
				}
			} else if !part.value.IsNull() {
				r.knownMap(part, out)
			}
		}
		return true
	case *hclsyntax.ConditionalExpr:
		if part := r.branch(g, e); part != nil {
			if part.value.IsWhollyKnown() {
				r.knownMap(part, out)
				return true
			}
			return r.spreadMap(part, out)
		}
	case *hclsyntax.ForExpr:
		if e.KeyExpr == nil || e.Group {
			break
		}
		ok := r.each(g, e, func(ctx *hcl.EvalContext) {
			key, ok := r.key(&given{attr: g.attr, ctx: ctx}, e.KeyExpr)
			if !ok {
				return
			}
			path := g.path + "." + key
			r.rec.where[path] = e.ValExpr.Range()
			if elem := r.eval(g.attr, path, e.ValExpr, ctx); elem != nil && !(elem.value.IsKnown() && elem.value.IsNull()) {
				out[key], _ = r.asTemplate(elem)
			}
		})
		if ok {
			return true
		}
	}
	r.notWhole(g, "map", `{ SHARD = shard.index }`)
	return false
}

// part evaluates a part of an attribute's expression.
func (r *reader) part(g *given, expr hclsyntax.Expression, ctx *hcl.EvalContext) *given {
	return r.eval(g.attr, g.path, expr, ctx)
}

// branch returns the branch of a condition that is known; nil if it is not.
func (r *reader) branch(g *given, e *hclsyntax.ConditionalExpr) *given {
	condition := r.part(g, e.Condition, g.ctx)
	yes, ok := known(condition)
	if !ok {
		return nil
	}
	r.note(g.path, condition.sensitive)
	if yes {
		return r.part(g, e.TrueResult, g.ctx)
	}
	return r.part(g, e.FalseResult, g.ctx)
}

// known returns a condition's value if it is known.
func known(g *given) (value, ok bool) {
	if g == nil || !g.value.IsKnown() || g.value.IsNull() {
		return false, false
	}
	b, err := convert.Convert(g.value, cty.Bool)
	if err != nil {
		return false, false
	}
	return b.True(), true
}

// each calls do for the elements of a for expression whose condition holds,
// with a context that has its names. It returns false if it cannot be known
// here which elements there are.
func (r *reader) each(g *given, e *hclsyntax.ForExpr, do func(*hcl.EvalContext)) bool {
	collection := r.part(g, e.CollExpr, g.ctx)
	if collection == nil || !collection.value.IsWhollyKnown() || collection.value.IsNull() || !collection.value.CanIterateElements() {
		return false
	}
	r.note(g.path, collection.sensitive)
	var contexts []*hcl.EvalContext
	for it := collection.value.ElementIterator(); it.Next(); {
		k, v := it.Element()
		if collection.sensitive {
			k, v = k.Mark(sensitiveMark{}), v.Mark(sensitiveMark{})
		}
		ctx := g.ctx.NewChild()
		ctx.Variables = map[string]cty.Value{e.ValVar: v}
		if e.KeyVar != "" {
			ctx.Variables[e.KeyVar] = k
		}
		if e.CondExpr != nil {
			condition := r.part(g, e.CondExpr, ctx)
			holds, ok := known(condition)
			if !ok {
				return false
			}
			r.note(g.path, condition.sensitive)
			if !holds {
				continue
			}
		}
		contexts = append(contexts, ctx)
	}
	for _, ctx := range contexts {
		do(ctx)
	}
	return true
}

// notWhole refuses a list or map that is computed and has parts which only the
// node knows: its parts cannot be told apart here.
func (r *reader) notWhole(g *given, noun, example string) {
	r.failValue(g, "Not known yet", fmt.Sprintf(
		"This %s is computed from what only the node knows (%s). Its elements must be told apart here, so that each can be completed on the node: write it out, such as %s = %s, or join such parts and known ones with %s; a for expression works over what is known.",
		noun, runtimeReferences(g.expr), g.attr.Name, example, map[string]string{"list": "concat", "map": "merge"}[noun]))
}

// runtimeReferences names those references of an expression that only the node
// can resolve.
func runtimeReferences(expr hclsyntax.Expression) string {
	var names []string
	for _, t := range expr.Variables() {
		switch t.RootName() {
		case rootShard, rootNode, rootPort:
			names = append(names, traversalText(t))
		}
	}
	slices.Sort(names)
	return list(slices.Compact(names), "and")
}
