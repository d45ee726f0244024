package schema

import (
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/synergymesh/meshrun/spec"
)

// didYouMean returns ` Did you mean "x"?` for the known name that is nearest to
// the given one, or "" if none is near.
func didYouMean(given string, known []string) string {
	if s := spec.Nearest(given, known); s != "" {
		return fmt.Sprintf(" Did you mean %q?", s)
	}
	return ""
}

// list joins words as a sentence does: `"a", "b" or "c"`.
func list(words []string, conjunction string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	switch len(quoted) {
	case 0:
		return "nothing"
	case 1:
		return quoted[0]
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " " + conjunction + " " + quoted[last]
}

// mendUnknown adds to hcl's errors about unknown names what the table knows:
// the name that was probably meant, or else all that there are.
func mendUnknown(def *Block, diags hcl.Diagnostics) hcl.Diagnostics {
	for i, d := range diags {
		if d.Summary != "Unsupported argument" && d.Summary != "Unsupported block type" || strings.Contains(d.Detail, "Did you mean") {
			continue
		}
		var attrs, blocks []string
		for _, a := range def.Attrs {
			attrs = append(attrs, a.Name)
		}
		for _, b := range def.Blocks {
			blocks = append(blocks, b.Name)
		}
		_, rest, _ := strings.Cut(d.Detail, `"`)
		name, _, _ := strings.Cut(rest, `"`)
		hint := didYouMean(name, append(attrs, blocks...))
		if hint == "" && len(attrs) > 0 {
			hint = " Attributes here: " + strings.Join(attrs, ", ") + "."
		}
		if hint == "" || !strings.HasPrefix(hint, " Did") && len(blocks) > 0 {
			hint += " Blocks here: " + strings.Join(blocks, ", ") + "."
		}
		mended := *d
		mended.Detail += hint
		diags[i] = &mended
	}
	return diags
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// traversalText returns a reference as the user writes it: `port.http`,
// `node.labels["zone"]`.
func traversalText(t hcl.Traversal) string {
	var b strings.Builder
	for _, step := range t {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(step.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + step.Name)
		case hcl.TraverseIndex:
			b.WriteString("[" + string(hclwrite.TokensForValue(step.Key).Bytes()) + "]")
		}
	}
	return b.String()
}

// lowerFirst begins a text with a lower-case letter, to continue a sentence with it.
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
