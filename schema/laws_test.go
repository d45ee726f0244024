package schema

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"
)

// textExpr draws the source of an expression that gives a text, with names
// known now, names known on the node, and names that for expressions define,
// which can shadow all others.
func textExpr(t *rapid.T, depth int, bound []string) string {
	leaves := []string{`"lit"`, `"$${a}"`, `"cost $"`, `local.name`, `local.list[1]`, `node.name`, `"${shard.index}"`, `"${port.http}"`, `node.labels["zone"]`, `tostring(shard.count + 1)`}
	for _, b := range bound {
		leaves = append(leaves, `"${`+b+`}"`)
	}
	if depth == 0 {
		return rapid.SampledFrom(leaves).Draw(t, "leaf")
	}
	sub := func() string { return textExpr(t, depth-1, bound) }
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return fmt.Sprintf(`"a${%s}$%%${%s}b"`, sub(), sub())
	case 1:
		return fmt.Sprintf(`upper(%s)`, sub())
	case 2:
		return fmt.Sprintf(`(shard.index > %d ? %s : %s)`, rapid.IntRange(0, 5).Draw(t, "n"), sub(), sub())
	case 3:
		name := rapid.SampledFrom([]string{"x", "shard", "node", "local", "port"}).Draw(t, "name")
		inner := textExpr(t, 0, []string{name})
		if strings.Contains(inner, name+".") { // shadowed: the attribute does not exist
			inner = `"${` + name + `}"`
		}
		return fmt.Sprintf(`join("-", [for %s in [%s, %s] : %s if %s != "lit"])`, name, sub(), sub(), inner, name)
	case 4:
		return fmt.Sprintf(`[%s, %s][%d]`, sub(), sub(), rapid.IntRange(0, 1).Draw(t, "i"))
	case 5:
		return fmt.Sprintf(`{ a = %s, (local.name) = %s }.a`, sub(), sub())
	case 6:
		return fmt.Sprintf(`"%%{ if %s == "lit" }yes%%{ else }${%s}%%{ endif }"`, sub(), sub())
	case 7:
		return fmt.Sprintf(`jsonencode([{ v = %s }, { v = %s }][*].v)`, sub(), sub())
	case 8:
		return fmt.Sprintf(`"%%{ for e in [%s, %s] }<${e}>%%{ endfor }"`, sub(), sub())
	default:
		return sub()
	}
}

// TestExpandedResidualIsTheWholeExpression is the law of templates: what was
// put in when the files were read, and then on the node, gives what the
// expression gives where everything is known at once.
func TestExpandedResidualIsTheWholeExpression(t *testing.T) {
	locals := map[string]cty.Value{
		"name": cty.StringVal("synergy${x}"),
		"list": cty.TupleVal([]cty.Value{cty.StringVal("$"), cty.StringVal("100%")}),
	}
	whole := expandContext(onNode)
	whole.Variables[rootLocal] = cty.ObjectVal(locals)
	reading := &hcl.EvalContext{Variables: runtimeValues([]string{"http"}), Functions: pureFunctions}
	reading.Variables[rootLocal] = cty.ObjectVal(locals)
	rapid.Check(t, func(t *rapid.T) {
		src := textExpr(t, rapid.IntRange(0, 3).Draw(t, "depth"), nil)
		expr, diags := hclsyntax.ParseExpression([]byte(src), "e.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", src, diags)
		}
		v, diags := expr.Value(whole)
		if diags.HasErrors() {
			t.Skip(src)
		}
		want, err := asString(v)
		if err != nil {
			t.Skip(src)
		}
		var fails hcl.Diagnostics
		r := &reader{check: &checker{base: reading, ports: []string{"http"}, runtime: true, whole: true, scope: &scope{locals: map[string]*local{"name": {}, "list": {}}}}, ctx: reading, rec: newRecord(), diags: &fails}
		g := r.eval(processBlock.Attr("dir"), "dir", expr, reading)
		if g == nil {
			t.Fatalf("%s: %v", src, fails)
		}
		tmpl, ok := r.asTemplate(g)
		if !ok {
			t.Fatalf("%s: %v", src, fails)
		}
		got, err := Expand(tmpl, onNode)
		if err != nil || got != want {
			t.Fatalf("%s\nbecame %s\nwhich gives %q, %v\nwant %q", src, tmpl, got, err, want)
		}
	})
}

// TestLoaderAgreesWithLoad edits files at random: what a loader that remembers
// gives is what one gives that reads everything anew.
func TestLoaderAgreesWithLoad(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		dir := outer.TempDir()
		put := func(name, src string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		edits := map[string][]string{
			"locals.hcl":   {"locals { a = 1 }\n", "locals { a = 2 }\n", "locals { b = 1 }\n", "locals {\n"},
			"vars.hcl":     {"variable \"v\" { default = \"x\" }\n", "variable \"v\" {\n  default = \"x\"\n  sensitive = true\n}\n", "variable \"v\" { default = 5 }\n"},
			"one.hcl":      {process("one", `"${local.a}"`), process("one", `var.v`), process("two", `"x"`), "job {"},
			"two.hcl":      {process("two", `file("text")`), process("two", `"${local.a}-${shard.index}"`), ""},
			"text":         {"t1", "t2", "t3"},
			"ignored.text": {"1", "2"},
		}
		names := sortedKeys(edits)
		loader := NewLoader(sealed)
		for range rapid.IntRange(1, 12).Draw(t, "edits") {
			name := rapid.SampledFrom(names).Draw(t, "file")
			put(name, rapid.SampledFrom(edits[name]).Draw(t, "text"))
			got, gotDiags := loader.Load([]string{dir})
			want, wantDiags := Load([]string{dir}, sealed)
			if a, b := text(gotDiags), text(wantDiags); a != b {
				t.Fatalf("diagnostics differ:\n%s", Diff("loader", "load", []byte(a), []byte(b)))
			}
			if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
				t.Fatalf("configurations differ:\n%s\n%s", a, b)
			}
		}
	})
}

func process(job, element string) string {
	return fmt.Sprintf("job %q {\n  process \"p\" {\n    command = [\"x\", %s]\n  }\n}\n", job, element)
}
