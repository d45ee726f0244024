package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/synergymesh/meshrun/spec"
)

// residual writes what is left of an expression once all that is known has
// been put in: source whose only references are to what the node knows. It
// writes from the syntax tree instead of editing the text, so that names that
// a for expression defines can never be confused with others.
type residual struct {
	ctx *hcl.EvalContext
	// runtime reports whether a name is one that only the node knows.
	runtime func(root string) bool
	// bound are the names that surrounding for expressions define.
	bound []string
	diags hcl.Diagnostics
}

// template writes an expression as a template.
func (p *residual) template(e hclsyntax.Expression) string {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return p.template(e.Expression)
	case *hclsyntax.TemplateExpr:
		var b strings.Builder
		p.parts(&b, e.Parts, func(s string) string { return string(spec.Literal(s)) })
		return b.String()
	default:
		return "${" + p.expr(e) + "}"
	}
}

// parts writes the parts of a template, its literal ones through escape.
func (p *residual) parts(b *strings.Builder, parts []hclsyntax.Expression, escape func(string) string) {
	text := ""
	for _, part := range parts {
		if s, ok := p.knownText(part); ok {
			text += s
			continue
		}
		// A dollar right before "${" would escape it, so it goes in quotes.
		plain := strings.TrimRight(text, "$%")
		b.WriteString(escape(plain))
		if signs := text[len(plain):]; signs != "" {
			b.WriteString(`${"` + signs + `"}`)
		}
		text = ""
		b.WriteString("${" + p.expr(part) + "}")
	}
	b.WriteString(escape(text))
}

// knownText returns what a part of a template stands for, if that is known.
func (p *residual) knownText(e hclsyntax.Expression) (string, bool) {
	if !p.known(e) {
		return "", false
	}
	v, diags := evaluate(e, p.ctx)
	if diags.HasErrors() {
		return "", false
	}
	v, _ = v.UnmarkDeep()
	s, err := asString(v)
	return s, err == nil
}

// known reports whether an expression depends on nothing that only the node
// knows, and on no name that surrounds it.
func (p *residual) known(e hclsyntax.Expression) bool {
	for _, t := range e.Variables() {
		root := t.RootName()
		if slices.Contains(p.bound, root) || p.runtime(root) {
			return false
		}
	}
	return !hasAnonymous(e)
}

// hasAnonymous reports whether an expression is, or is in, the right-hand side
// of a splat, and so stands for each of the splat's elements.
func hasAnonymous(e hclsyntax.Expression) bool {
	inner := 0
	found := false
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n.(type) {
		case *hclsyntax.SplatExpr:
			inner++
		case *hclsyntax.AnonSymbolExpr:
			found = true
		}
		return nil
	})
	return found && inner == 0
}

// literal writes a known expression as its value.
func (p *residual) literal(e hclsyntax.Expression) string {
	v, diags := evaluate(e, p.ctx)
	if diags.HasErrors() {
		p.diags = append(p.diags, diags...)
		return "null"
	}
	v, _ = v.UnmarkDeep()
	text := string(hclwrite.TokensForValue(v).Bytes())
	if v.Type().IsSetType() {
		return "toset(" + text + ")"
	}
	return text
}

// quoted writes a template as a quoted string.
func (p *residual) quoted(parts []hclsyntax.Expression) string {
	var b strings.Builder
	b.WriteByte('"')
	p.parts(&b, parts, func(s string) string {
		text := string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
		return strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`)
	})
	b.WriteByte('"')
	return b.String()
}

// expr writes an expression. Whatever is made of several parts gets
// parentheses, so that no order of operators need be known.
func (p *residual) expr(e hclsyntax.Expression) string {
	if p.known(e) {
		return p.literal(e)
	}
	switch e := e.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		return traversalText(e.Traversal)
	case *hclsyntax.RelativeTraversalExpr:
		return p.operand(e.Source) + traversalText(e.Traversal)
	case *hclsyntax.AnonSymbolExpr:
		return ""
	case *hclsyntax.ParenthesesExpr:
		return p.expr(e.Expression)
	case *hclsyntax.FunctionCallExpr:
		return p.call(e)
	case *hclsyntax.ConditionalExpr:
		return "(" + p.expr(e.Condition) + " ? " + p.expr(e.TrueResult) + " : " + p.expr(e.FalseResult) + ")"
	case *hclsyntax.BinaryOpExpr:
		return "(" + p.expr(e.LHS) + " " + binaryOperators[e.Op] + " " + p.expr(e.RHS) + ")"
	case *hclsyntax.UnaryOpExpr:
		if e.Op == hclsyntax.OpLogicalNot {
			return "(!" + p.expr(e.Val) + ")"
		}
		return "(-" + p.expr(e.Val) + ")"
	case *hclsyntax.TemplateExpr:
		return p.quoted(e.Parts)
	case *hclsyntax.TemplateWrapExpr:
		return p.expr(e.Wrapped)
	case *hclsyntax.TemplateJoinExpr:
		return `join("", ` + p.expr(e.Tuple) + ")"
	case *hclsyntax.IndexExpr:
		return p.operand(e.Collection) + "[" + p.expr(e.Key) + "]"
	case *hclsyntax.SplatExpr:
		return "(" + p.operand(e.Source) + "[*]" + p.expr(e.Each) + ")"
	default:
		return p.constructor(e)
	}
}

// operand writes what an index or attribute is taken of.
func (p *residual) operand(e hclsyntax.Expression) string {
	text := p.expr(e)
	if text == "" { // the anonymous element of a splat
		return ""
	}
	return "(" + text + ")"
}

// constructor writes the expressions that make lists and objects.
func (p *residual) constructor(e hclsyntax.Expression) string {
	switch e := e.(type) {
	case *hclsyntax.TupleConsExpr:
		elems := make([]string, len(e.Exprs))
		for i, x := range e.Exprs {
			elems[i] = p.expr(x)
		}
		return "[" + strings.Join(elems, ", ") + "]"
	case *hclsyntax.ObjectConsExpr:
		items := make([]string, len(e.Items))
		for i, item := range e.Items {
			items[i] = "(" + p.expr(item.KeyExpr) + ") = " + p.expr(item.ValueExpr)
		}
		return "{" + strings.Join(items, ", ") + "}"
	case *hclsyntax.ObjectConsKeyExpr:
		return p.expr(e.Wrapped)
	case *hclsyntax.ForExpr:
		return p.forExpr(e)
	}
	r := e.Range()
	p.diags = append(p.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Unsupported expression",
		Detail:   "This kind of expression cannot be left to the node. Compute its known parts in a locals block.",
		Subject:  &r,
	})
	return "null"
}

func (p *residual) forExpr(e *hclsyntax.ForExpr) string {
	var b strings.Builder
	names := e.ValVar
	if e.KeyVar != "" {
		names = e.KeyVar + ", " + e.ValVar
	}
	collection := p.expr(e.CollExpr)
	outer := len(p.bound)
	p.bound = append(p.bound, e.ValVar)
	if e.KeyVar != "" {
		p.bound = append(p.bound, e.KeyVar)
	}
	fmt.Fprintf(&b, "for %s in %s : ", names, collection)
	if e.KeyExpr != nil {
		b.WriteString(p.expr(e.KeyExpr) + " => ")
	}
	b.WriteString(p.expr(e.ValExpr))
	if e.Group {
		b.WriteString("...")
	}
	if e.CondExpr != nil {
		b.WriteString(" if " + p.expr(e.CondExpr))
	}
	p.bound = p.bound[:outer]
	if e.KeyExpr != nil {
		return "{" + b.String() + "}"
	}
	return "[" + b.String() + "]"
}

func (p *residual) call(e *hclsyntax.FunctionCallExpr) string {
	if loadOnly[e.Name] {
		r := e.Range()
		p.diags = append(p.diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Not known yet",
			Detail:   fmt.Sprintf("%s() is called when the files are read, and cannot depend on what only the node knows.", e.Name),
			Subject:  &r,
		})
		return "null"
	}
	args := make([]string, len(e.Args))
	for i, a := range e.Args {
		args[i] = p.expr(a)
	}
	text := strings.Join(args, ", ")
	if e.ExpandFinal {
		text += "..."
	}
	return e.Name + "(" + text + ")"
}

// binaryOperators maps hcl's operators to their text.
var binaryOperators = map[*hclsyntax.Operation]string{
	hclsyntax.OpLogicalOr:          "||",
	hclsyntax.OpLogicalAnd:         "&&",
	hclsyntax.OpEqual:              "==",
	hclsyntax.OpNotEqual:           "!=",
	hclsyntax.OpGreaterThan:        ">",
	hclsyntax.OpGreaterThanOrEqual: ">=",
	hclsyntax.OpLessThan:           "<",
	hclsyntax.OpLessThanOrEqual:    "<=",
	hclsyntax.OpAdd:                "+",
	hclsyntax.OpSubtract:           "-",
	hclsyntax.OpMultiply:           "*",
	hclsyntax.OpDivide:             "/",
	hclsyntax.OpModulo:             "%",
}
