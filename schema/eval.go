package schema

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The names that references begin with.
const (
	rootVar   = "var"
	rootLocal = "local"
	rootShard = "shard"
	rootNode  = "node"
	rootPort  = "port"
)

// rootNames are all of them, for suggestions.
var rootNames = []string{rootVar, rootLocal, rootShard, rootNode, rootPort}

// sensitiveMark marks values that come from sensitive variables.
type sensitiveMark struct{}

// scope is what the expressions in the files of one directory can refer to.
type scope struct {
	// dir is the absolute path of the directory that the files are in.
	dir       string
	variables map[string]*variable
	locals    map[string]*local
	// ctx holds var, local, the functions, and what only the node knows as
	// unknown values.
	ctx *hcl.EvalContext
	// note is told what file() finds.
	note func(path string, content []byte, err error)
}

// same reports whether two scopes give every name the same meaning.
func (s *scope) same(other *scope) bool {
	if len(s.variables) != len(other.variables) || len(s.locals) != len(other.locals) {
		return false
	}
	for name, v := range s.variables {
		if o := other.variables[name]; o == nil || o.failed != v.failed {
			return false
		}
	}
	for name, l := range s.locals {
		if o := other.locals[name]; o == nil || o.failed != l.failed {
			return false
		}
	}
	return s.ctx.Variables[rootVar].RawEquals(other.ctx.Variables[rootVar]) &&
		s.ctx.Variables[rootLocal].RawEquals(other.ctx.Variables[rootLocal])
}

// runtimeValues are what only the node knows: unknown, but of known types.
func runtimeValues(ports []string) map[string]cty.Value {
	port := map[string]cty.Value{}
	for _, p := range ports {
		port[p] = cty.UnknownVal(cty.Number).RefineNotNull()
	}
	return map[string]cty.Value{
		rootShard: cty.ObjectVal(map[string]cty.Value{
			"index": cty.UnknownVal(cty.Number).RefineNotNull(),
			"count": cty.UnknownVal(cty.Number).RefineNotNull(),
		}),
		rootNode: cty.ObjectVal(map[string]cty.Value{
			"name":   cty.UnknownVal(cty.String).RefineNotNull(),
			"labels": cty.UnknownVal(cty.Map(cty.String)).RefineNotNull(),
		}),
		rootPort: cty.ObjectVal(port),
	}
}

// checker checks the references of expressions before they are evaluated, so
// that a wrong name gets one error that says what the names are.
type checker struct {
	scope *scope
	// base is the context of the whole block: what is defined below it comes
	// from dynamic blocks.
	base *hcl.EvalContext
	// ports are the process's; nil outside of one.
	ports []string
	// runtime is set where references to what only the node knows are allowed.
	runtime bool
	// whole is set if the file was parsed without errors.
	whole bool
	// what names the place in messages: `shards`.
	what string
}

// iterator reports whether a name is one that a dynamic block defines.
func (c *checker) iterator(name string, ctx *hcl.EvalContext) bool {
	for ; ctx != nil && ctx != c.base; ctx = ctx.Parent() {
		if _, ok := ctx.Variables[name]; ok {
			return true
		}
	}
	return false
}

// check returns what is wrong with an expression's references. Ok is false
// also if one of them has failed already and was reported there.
func (c *checker) check(expr hclsyntax.Expression, ctx *hcl.EvalContext) (diags hcl.Diagnostics, ok bool) {
	ok = true
	for _, t := range expr.Variables() {
		if c.iterator(t.RootName(), ctx) {
			continue
		}
		d, good := c.checkOne(t)
		if d != nil {
			d.Subject = t.SourceRange().Ptr()
			diags = append(diags, d)
		}
		ok = ok && good && d == nil
	}
	return diags, ok
}

func (c *checker) checkOne(t hcl.Traversal) (d *hcl.Diagnostic, ok bool) {
	switch root := t.RootName(); root {
	case rootVar:
		return c.checkNamed(t, "variable", sortedKeys(c.scope.variables), func(name string) bool { return c.scope.variables[name].failed })
	case rootLocal:
		return c.checkNamed(t, "local", sortedKeys(c.scope.locals), func(name string) bool { return c.scope.locals[name].failed })
	case rootShard, rootNode, rootPort:
		if !c.runtime {
			return refError("Not known yet", fmt.Sprintf(
				"%s is known only on the node, when an instance starts; %s must be known before. Such references work in command, env, dir and other texts that the instance is started with.",
				traversalText(t), c.what)), false
		}
		return c.checkRuntime(t), true
	default:
		hint := didYouMean(root, rootNames)
		if hint == "" {
			hint = fmt.Sprintf(" References begin with var, local, shard, node or port; a text needs quotes: %q.", root)
		}
		return refError("Unknown reference", fmt.Sprintf("There is nothing named %q here.%s", root, hint)), false
	}
}

func refError(summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail}
}

// stepName returns the name that follows the root of a reference.
func stepName(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// checkNamed checks a reference to a variable or a local.
func (c *checker) checkNamed(t hcl.Traversal, noun string, known []string, failed func(string) bool) (*hcl.Diagnostic, bool) {
	name, ok := stepName(t)
	if !ok {
		return refError("Incomplete reference", fmt.Sprintf("Write %s.<name>, with the name of a %s.", t.RootName(), noun)), false
	}
	for _, k := range known {
		if k == name {
			return nil, !failed(name)
		}
	}
	hint := didYouMean(name, known)
	if hint == "" && noun == "variable" {
		hint = fmt.Sprintf(" Declare it: variable %q { }.", name)
	} else if hint == "" {
		hint = fmt.Sprintf(" Define it: locals { %s = … }.", name)
	}
	return refError("Unknown "+noun, fmt.Sprintf("No %s is named %q in the files of this directory.%s", noun, name, hint)), false
}

// checkRuntime checks a reference to what only the node knows.
func (c *checker) checkRuntime(t hcl.Traversal) *hcl.Diagnostic {
	root := t.RootName()
	var known []string
	switch root {
	case rootShard:
		known = []string{"index", "count"}
	case rootNode:
		known = []string{"name", "labels"}
	case rootPort:
		known = c.ports
	}
	name, ok := stepName(t)
	if !ok {
		return refError("Incomplete reference", fmt.Sprintf("Write %s.<name>; the names are %s.", root, list(known, "and")))
	}
	for _, k := range known {
		if k == name {
			return nil
		}
	}
	if root == rootPort {
		hint := didYouMean(name, known)
		if hint == "" {
			hint = fmt.Sprintf(" Declare it: port %q {}.", name)
		}
		return refError("Unknown port", fmt.Sprintf("This process has no port named %q.%s", name, hint))
	}
	return refError("Unknown reference", fmt.Sprintf("There is no %s.%s; the names are %s.%s", root, name, list(known, "and"), didYouMean(name, known)))
}

// evaluate evaluates an expression. Messages of functions and conversions can
// hold the values that they were given, so where a sensitive value is
// involved, only the kind of the fault is kept.
func evaluate(expr hcl.Expression, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := expr.Value(ctx)
	if len(diags) == 0 {
		return v, diags
	}
	if mentionsSensitive(expr, ctx) {
		return v, withhold(diags)
	}
	out := make(hcl.Diagnostics, len(diags))
	for i, d := range diags {
		explained := *d
		if explained.Expression == nil {
			explained.Expression, explained.EvalContext = expr, ctx
		}
		out[i] = &explained
	}
	return v, out
}

// withhold removes from diagnostics what could show a sensitive value.
func withhold(diags hcl.Diagnostics) hcl.Diagnostics {
	out := make(hcl.Diagnostics, len(diags))
	for i, d := range diags {
		bare := *d
		bare.Detail = "The details are withheld, since a sensitive value is involved."
		bare.Expression, bare.EvalContext = nil, nil
		out[i] = &bare
	}
	return out
}

// mentionsSensitive reports whether an expression refers to a sensitive value.
func mentionsSensitive(expr hcl.Expression, ctx *hcl.EvalContext) bool {
	for _, t := range expr.Variables() {
		if v, _ := longest(t, ctx); v.ContainsMarked() {
			return true
		}
	}
	return false
}

// longest follows a reference as far as it leads somewhere, and returns what
// is there and the part that was followed.
func longest(t hcl.Traversal, ctx *hcl.EvalContext) (cty.Value, hcl.Traversal) {
	for n := len(t); n > 0; n-- {
		if v, diags := t[:n].TraverseAbs(ctx); !diags.HasErrors() {
			return v, t[:n]
		}
	}
	return cty.DynamicVal, nil
}

// tracedBody notes in which context its expressions are evaluated. Dynamic
// blocks define names that are in no context that is seen from outside.
type tracedBody struct{ hcl.Body }

func (b tracedBody) Content(s *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	c, diags := b.Body.Content(s)
	traceContent(c)
	return c, diags
}

func (b tracedBody) PartialContent(s *hcl.BodySchema) (*hcl.BodyContent, hcl.Body, hcl.Diagnostics) {
	c, remain, diags := b.Body.PartialContent(s)
	traceContent(c)
	return c, tracedBody{remain}, diags
}

func traceContent(c *hcl.BodyContent) {
	for name, a := range c.Attributes {
		traced := *a
		traced.Expr = &tracedExpr{Expression: a.Expr}
		c.Attributes[name] = &traced
	}
	for _, b := range c.Blocks {
		b.Body = tracedBody{b.Body}
	}
}

// tracedExpr remembers the context of its last evaluation.
type tracedExpr struct {
	hcl.Expression
	ctx *hcl.EvalContext
}

func (e *tracedExpr) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	e.ctx = ctx
	return e.Expression.Value(ctx)
}

func (e *tracedExpr) UnwrapExpression() hcl.Expression { return e.Expression }

// unwrap returns the syntax of an attribute's expression and the context that
// it is evaluated in. It is nil for an expression that was not parsed.
func unwrap(expr hcl.Expression, ctx *hcl.EvalContext) (hclsyntax.Expression, *hcl.EvalContext) {
	traced, ok := hcl.UnwrapExpressionUntil(expr, func(e hcl.Expression) bool {
		_, ok := e.(*tracedExpr)
		return ok
	}).(*tracedExpr)
	if ok {
		traced.ctx = nil
		expr.Value(ctx) // for the context only: what it gives is evaluated again
		if traced.ctx != nil {
			ctx = traced.ctx
		}
		expr = traced.Expression
	}
	syntax, _ := expr.(hclsyntax.Expression)
	return syntax, ctx
}
