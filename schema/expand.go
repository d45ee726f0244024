package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/synergymesh/meshrun/spec"
)

// ErrExpand is wrapped by all errors of Expand.
var ErrExpand = errors.New("expand template")

// Expand returns the text of a template on a node, with what the node knows
// put in. Errors name the references of the template but never its text,
// which can hold secrets. Anybody may call it at any time.
func Expand(t spec.Template, rt spec.Runtime) (string, error) {
	if t.IsLiteral() {
		return t.Text(), nil
	}
	if d := checkTemplate(t); d != nil {
		return "", fmt.Errorf("%w: %s", ErrExpand, d.Summary)
	}
	expr, diags := hclsyntax.ParseTemplate([]byte(t), "<template>", hcl.InitialPos)
	if diags.HasErrors() {
		return "", fmt.Errorf("%w: %s", ErrExpand, diags[0].Summary)
	}
	v, diags := expr.Value(expandContext(rt))
	if diags.HasErrors() {
		return "", fmt.Errorf("%w: %s (it refers to %s)", ErrExpand, diags[0].Summary, references(expr))
	}
	s, err := asString(v)
	if err != nil {
		return "", fmt.Errorf("%w: %w (it refers to %s)", ErrExpand, err, references(expr))
	}
	return s, nil
}

// checkTemplate bounds a template as files are bounded.
func checkTemplate(t spec.Template) *hcl.Diagnostic {
	if len(t) > MaxFile {
		return &hcl.Diagnostic{Summary: "template too large"}
	}
	tokens, _ := hclsyntax.LexTemplate([]byte(t), "<template>", hcl.InitialPos)
	return checkDepth(tokens)
}

// expandContext holds what a node knows about one instance.
func expandContext(rt spec.Runtime) *hcl.EvalContext {
	ports := map[string]cty.Value{}
	for name, n := range rt.Ports {
		ports[name] = cty.NumberIntVal(int64(n))
	}
	labels := cty.MapValEmpty(cty.String)
	if len(rt.NodeLabels) > 0 {
		m := map[string]cty.Value{}
		for k, v := range rt.NodeLabels {
			m[k] = cty.StringVal(v)
		}
		labels = cty.MapVal(m)
	}
	return &hcl.EvalContext{
		Variables: map[string]cty.Value{
			rootShard: cty.ObjectVal(map[string]cty.Value{
				"index": cty.NumberIntVal(int64(rt.ShardIndex)),
				"count": cty.NumberIntVal(int64(rt.ShardCount)),
			}),
			rootNode: cty.ObjectVal(map[string]cty.Value{
				"name":   cty.StringVal(rt.NodeName),
				"labels": labels,
			}),
			rootPort: cty.ObjectVal(ports),
		},
		Functions: pureFunctions,
	}
}

// references names what an expression refers to.
func references(expr hcl.Expression) string {
	var names []string
	for _, t := range expr.Variables() {
		names = append(names, traversalText(t))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// asString converts a known value to the string that a template makes of it.
// Its errors never hold the value.
func asString(v cty.Value) (string, error) {
	switch {
	case !v.IsKnown():
		return "", errors.New("the value is not known")
	case v.IsNull():
		return "", errors.New("the value is null")
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", fmt.Errorf("a text is needed, and this is %s", v.Type().FriendlyName())
	}
	return s.AsString(), nil
}
