package schema

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// EnvPrefix begins the names of environment variables that give values to
// variables.
const EnvPrefix = "MESHRUN_VAR_"

// noSource marks diagnostics whose source must not be shown, since it can hold
// a secret.
type noSource struct{}

// variable is a declared variable with its value.
type variable struct {
	name      string
	header    hcl.Range
	ty        cty.Type
	defaults  *typeexpr.Defaults
	sensitive bool
	fallback  *hcl.Attribute
	rules     []rule
	value     cty.Value
	// source says where the value came from.
	source string
	// at is where that is, if it is in a file.
	at hcl.Range
	// failed is set if the variable has no usable value; that was reported.
	failed bool
}

// rule is a validation block.
type rule struct {
	condition, message *hcl.Attribute
	header             hcl.Range
}

// assignment is a value given to a variable from outside.
type assignment struct {
	source string
	// text is given by -var and by the environment, expr by a file.
	text string
	expr hcl.Expression
	at   hcl.Range
}

// declareVariable reads a variable block, all but its value.
func declareVariable(b *hcl.Block) (*variable, hcl.Diagnostics) {
	v := &variable{name: b.Labels[0], header: b.DefRange, ty: cty.DynamicPseudoType}
	content, diags := b.Body.Content(variableBlock.schema)
	if !hclsyntax.ValidIdentifier(v.name) {
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Invalid name", Subject: &b.LabelRanges[0],
			Detail: "The name of a variable is made of letters, digits, _ and -, and begins with a letter.",
		})
	}
	if a := content.Attributes["type"]; a != nil {
		ty, defaults, d := typeexpr.TypeConstraintWithDefaults(a.Expr)
		diags = append(diags, d...)
		if !d.HasErrors() {
			v.ty, v.defaults = ty, defaults
		}
	}
	if a := content.Attributes["sensitive"]; a != nil {
		sensitive, d := constant(a, cty.Bool)
		diags = append(diags, d...)
		v.sensitive = !d.HasErrors() && sensitive.True()
	}
	if a := content.Attributes["description"]; a != nil {
		_, d := constant(a, cty.String)
		diags = append(diags, d...)
	}
	v.fallback = content.Attributes["default"]
	for _, n := range content.Blocks {
		c, d := n.Body.Content(variableBlock.Block("validation").schema)
		diags = append(diags, d...)
		r := rule{condition: c.Attributes["condition"], message: c.Attributes["error_message"], header: n.DefRange}
		if r.condition == nil || r.message == nil {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Missing attribute", Subject: &n.DefRange,
				Detail: "A validation block needs condition and error_message.",
			})
			continue
		}
		v.rules = append(v.rules, r)
	}
	v.failed = diags.HasErrors()
	return v, diags
}

// constant evaluates an attribute that cannot refer to anything.
func constant(a *hcl.Attribute, ty cty.Type) (cty.Value, hcl.Diagnostics) {
	if refs := a.Expr.Variables(); len(refs) > 0 {
		return cty.DynamicVal, hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "References not allowed", Subject: refs[0].SourceRange().Ptr(),
			Detail: fmt.Sprintf("%s must be written out here; it cannot refer to %s.", a.Name, traversalText(refs[0])),
		}}
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	out, err := convert.Convert(v, ty)
	if err != nil || out.IsNull() && ty != cty.DynamicPseudoType {
		return cty.DynamicVal, append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Wrong type", Subject: a.Expr.Range().Ptr(),
			Detail: fmt.Sprintf("%s must be a %s.", a.Name, ty.FriendlyName()),
		})
	}
	return out, diags
}

// assign gives the variable the value that wins, or its default.
func (v *variable) assign(given *assignment) hcl.Diagnostics {
	if given == nil {
		return v.assignDefault()
	}
	v.source, v.at = given.source, given.at
	value, diags := v.read(given)
	if diags.HasErrors() {
		v.failed = true
		return v.guard(diags)
	}
	return v.set(value, diags)
}

func (v *variable) assignDefault() hcl.Diagnostics {
	if v.fallback == nil {
		v.failed = true
		return hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "No value for variable", Subject: &v.header,
			Detail: fmt.Sprintf("The variable %q has no default. Give it a value with -var %s=…, with -var-file, or with the environment variable %s%s.", v.name, v.name, EnvPrefix, v.name),
		}}
	}
	v.source, v.at = "its default", v.fallback.Expr.Range()
	value, diags := constant(v.fallback, cty.DynamicPseudoType)
	if diags.HasErrors() {
		v.failed = true
		return v.guard(diags)
	}
	return v.set(value, diags)
}

// read turns what was given into a value. A text is the value itself for
// strings, and an expression for all other types.
func (v *variable) read(given *assignment) (cty.Value, hcl.Diagnostics) {
	if given.expr != nil {
		return given.expr.Value(nil)
	}
	if v.ty == cty.String || v.ty == cty.DynamicPseudoType {
		return cty.StringVal(given.text), nil
	}
	expr, diags := parseExpression([]byte(given.text), given.at.Filename)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return expr.Value(nil)
}

// set converts a value to the variable's type and keeps it.
func (v *variable) set(value cty.Value, diags hcl.Diagnostics) hcl.Diagnostics {
	if v.defaults != nil && !value.IsNull() {
		value = v.defaults.Apply(value)
	}
	out, err := convert.Convert(value, v.ty)
	if err != nil {
		v.failed = true
		detail := fmt.Sprintf("The variable %q must be %s, and the value from %s is not", v.name, article(typeexpr.TypeString(v.ty)), v.source)
		if !v.sensitive {
			detail += ": " + conversionError(err)
		}
		at := v.at
		return v.guard(append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong value for variable", Detail: detail + ".", Subject: &at}))
	}
	if v.sensitive {
		out = out.Mark(sensitiveMark{})
	}
	v.value = out
	return diags
}

// conversionError says in which part of a value the conversion failed.
func conversionError(err error) string {
	var path cty.PathError
	if errors.As(err, &path) && len(path.Path) > 0 {
		var b strings.Builder
		for _, step := range path.Path {
			switch s := step.(type) {
			case cty.GetAttrStep:
				b.WriteString("." + s.Name)
			case cty.IndexStep:
				b.WriteString("[" + shortText(s.Key) + "]")
			}
		}
		return strings.TrimPrefix(b.String(), ".") + ": " + err.Error()
	}
	return err.Error()
}

// guard keeps the source of a sensitive variable's value out of diagnostics.
func (v *variable) guard(diags hcl.Diagnostics) hcl.Diagnostics {
	if !v.sensitive {
		return diags
	}
	diags = withhold(diags)
	for _, d := range diags {
		d.Extra = noSource{}
		if d.Summary == "Wrong value for variable" {
			d.Detail = fmt.Sprintf("The variable %q must be %s, and the value from %s is not. The value is sensitive and not shown.", v.name, article(typeexpr.TypeString(v.ty)), v.source)
		}
	}
	return diags
}

// validate checks the variable's own rules, once all variables have values.
func (v *variable) validate(sc *scope) (diags hcl.Diagnostics) {
	for _, r := range v.rules {
		ok, d := v.keeps(r, sc)
		diags = append(diags, d...)
		if ok || d.HasErrors() {
			continue
		}
		at := v.header
		if v.source != "" && v.at.Filename != "" && !v.sensitive {
			at = v.at
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Invalid value for variable", Subject: &at,
			Detail: fmt.Sprintf("%s\n\nThis is the rule at %s:%d for the variable %q, whose value comes from %s.", v.message(r, sc), r.header.Filename, r.header.Start.Line, v.name, v.source),
		})
	}
	v.failed = v.failed || diags.HasErrors()
	return diags
}

// keeps reports whether the value keeps a rule.
func (v *variable) keeps(r rule, sc *scope) (bool, hcl.Diagnostics) {
	check := &checker{scope: sc, base: sc.ctx, what: "a validation's condition"}
	expr, ctx := unwrap(r.condition.Expr, sc.ctx)
	diags, ok := check.check(expr, ctx)
	if !ok {
		return true, diags
	}
	got, diags := evaluate(expr, ctx)
	if diags.HasErrors() {
		return false, diags
	}
	got, _ = got.Unmark()
	if b, err := convert.Convert(got, cty.Bool); err == nil && b.IsKnown() && !b.IsNull() {
		return b.True(), nil
	}
	return false, hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: "Wrong type", Subject: expr.Range().Ptr(),
		Detail: "The condition must be true or false.",
	}}
}

// message returns what a rule tells the user.
func (v *variable) message(r rule, sc *scope) string {
	text, diags := evaluate(r.message.Expr, sc.ctx)
	if !diags.HasErrors() && !text.ContainsMarked() {
		if s, err := asString(text); err == nil {
			return s
		}
	}
	return "The value does not keep a rule."
}
