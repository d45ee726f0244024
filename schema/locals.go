package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// local is a name in a locals block.
type local struct {
	name string
	expr hclsyntax.Expression
	at   hcl.Range
	// needs are the other locals that it refers to, in order.
	needs []string
	// failed is set if it has no value; that was reported.
	failed bool
}

// declareLocals reads a locals block.
func declareLocals(b *hcl.Block, all map[string]*local) hcl.Diagnostics {
	attrs, diags := b.Body.JustAttributes()
	names := sortedKeys(attrs)
	slices.SortFunc(names, func(a, b string) int { return attrs[a].NameRange.Start.Byte - attrs[b].NameRange.Start.Byte })
	for _, name := range names {
		a := attrs[name]
		if first, ok := all[name]; ok {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Duplicate local", Subject: a.NameRange.Ptr(),
				Detail: fmt.Sprintf("The local %q is defined at %s:%d already. Rename or remove one of the two.", name, first.at.Filename, first.at.Start.Line),
			})
			continue
		}
		expr, _ := unwrap(a.Expr, nil)
		if expr == nil {
			continue
		}
		l := &local{name: name, expr: expr, at: a.NameRange}
		for _, t := range expr.Variables() {
			if n, ok := stepName(t); ok && t.RootName() == rootLocal {
				l.needs = append(l.needs, n)
			}
		}
		all[name] = l
	}
	return diags
}

// evaluateLocals gives all locals their values, each after those that it
// refers to.
func evaluateLocals(sc *scope) (diags hcl.Diagnostics) {
	values := map[string]cty.Value{}
	order, diags := orderLocals(sc.locals)
	check := &checker{scope: sc, base: sc.ctx, what: "a local"}
	for _, l := range order {
		if l.failed {
			continue
		}
		d, ok := check.check(l.expr, sc.ctx)
		diags = append(diags, d...)
		if ok {
			v, d := evaluate(l.expr, l.context(sc, values))
			diags = append(diags, d...)
			values[l.name] = v
			ok = !d.HasErrors()
		}
		if l.failed = !ok; l.failed {
			delete(values, l.name)
		}
	}
	sc.ctx.Variables[rootLocal] = cty.ObjectVal(values)
	return diags
}

// context returns a context with those locals only that this one needs: it
// would take long to make one of all locals for each of them.
func (l *local) context(sc *scope, values map[string]cty.Value) *hcl.EvalContext {
	if len(l.needs) == 0 {
		return sc.ctx
	}
	needed := map[string]cty.Value{}
	for _, n := range l.needs {
		needed[n] = values[n]
	}
	ctx := sc.ctx.NewChild()
	ctx.Variables = map[string]cty.Value{rootLocal: cty.ObjectVal(needed)}
	return ctx
}

// orderLocals sorts locals so that each comes after those that it needs.
// Locals that need themselves are marked as failed, and the circle is shown.
func orderLocals(all map[string]*local) (order []*local, diags hcl.Diagnostics) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		l := all[name]
		switch {
		case l == nil || state[name] == done:
			return
		case state[name] == visiting:
			circle := append(slices.Clone(path[slices.Index(path, name):]), name)
			diags = append(diags, circular(all, circle))
			return
		}
		state[name] = visiting
		path = append(path, name)
		for _, n := range l.needs {
			visit(n)
		}
		path = path[:len(path)-1]
		state[name] = done
		order = append(order, l)
	}
	for _, name := range sortedKeys(all) {
		visit(name)
	}
	return order, diags
}

// circular marks the locals of a circle as failed and describes it.
func circular(all map[string]*local, circle []string) *hcl.Diagnostic {
	steps := make([]string, len(circle))
	for i, name := range circle {
		all[name].failed = true
		steps[i] = "local." + name
	}
	at := all[circle[0]].at
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Circular locals", Subject: &at,
		Detail: fmt.Sprintf("These locals need one another: %s. Break the circle by writing one of them out.", strings.Join(steps, " → ")),
	}
}
