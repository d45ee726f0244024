package schema

import (
	"github.com/aymanbagabas/go-udiff"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns a file in the canonical layout. Only blanks change: doing it
// twice changes nothing more, and the meaning stays. A file that cannot be
// parsed is refused, and the source returned is nil then.
func Format(src []byte, filename string) ([]byte, Diagnostics) {
	f, diags := parseFile(src, filename)
	if diags.HasErrors() {
		return nil, describe(diags, map[string]*hcl.File{filename: f})
	}
	return formatStable(src), nil
}

// maxFormatRounds bounds formatStable: hcl's formatter needs two rounds at
// times, as aligning comments can move what is aligned with them.
const maxFormatRounds = 8

// formatStable formats until nothing changes any more.
func formatStable(src []byte) []byte {
	for range maxFormatRounds {
		out := hclwrite.Format(src)
		if string(out) == string(src) {
			break
		}
		src = out
	}
	return src
}

// Diff returns the unified difference of two texts with the given names, or "" if they are equal.
func Diff(oldName, newName string, before, after []byte) string {
	return udiff.Unified(oldName, newName, string(before), string(after))
}
