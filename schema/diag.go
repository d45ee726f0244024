package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Pos is a place in a file; lines and columns count from 1, bytes from 0.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// Range is a piece of a file, its end excluded.
type Range struct {
	File  string `json:"file"`
	Start Pos    `json:"start"`
	End   Pos    `json:"end"`
}

// String returns "file:line,column".
func (r Range) String() string {
	return fmt.Sprintf("%s:%d,%d", r.File, r.Start.Line, r.Start.Column)
}

// The severities of diagnostics.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Diagnostic is one thing that is wrong with, or to know about, a file. Its
// JSON is what `-json` prints; WriteText renders the same data for people. It
// holds no value of a sensitive variable.
type Diagnostic struct {
	Severity string `json:"severity"`
	// Summary names the kind of fault in a few words.
	Summary string `json:"summary"`
	// Detail says what is wrong and how to mend it.
	Detail string `json:"detail,omitempty"`
	// Range is where; nil if the fault is in no place of a file.
	Range *Range `json:"range,omitempty"`
	// Within names the blocks around it: `job "web", process "server"`.
	Within  string   `json:"within,omitempty"`
	Snippet *Snippet `json:"snippet,omitempty"`
	// Values tell what the names in the faulty expression stand for.
	Values []string `json:"values,omitempty"`
}

// Snippet is the source of a fault.
type Snippet struct {
	// Code is the whole lines that the fault is in, without the last newline.
	Code string `json:"code"`
	// Line is the number of the first of them.
	Line int `json:"line"`
	// Start and End are the fault's place in Code, in bytes.
	Start int `json:"start"`
	End   int `json:"end"`
}

// Diagnostics are sorted by file and place; those without a place come first.
type Diagnostics []Diagnostic

// HasErrors reports whether there is an error among them.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == SeverityError })
}

// Error returns the first error in one line, and how many more there are.
func (ds Diagnostics) Error() string {
	n, first := 0, ""
	for _, d := range ds {
		if d.Severity != SeverityError {
			continue
		}
		if n++; n > 1 {
			continue
		}
		first = d.Summary
		if d.Detail != "" {
			first += ": " + d.Detail
		}
		if d.Range != nil {
			first = d.Range.String() + ": " + first
		}
	}
	switch n {
	case 0:
		return "no errors"
	case 1:
		return first
	case 2:
		return first + " (and 1 more error)"
	default:
		return fmt.Sprintf("%s (and %d more errors)", first, n-1)
	}
}

// maxSnippetLines bounds how many lines of a fault are shown.
const maxSnippetLines = 4

// maxSnippetSide bounds how many bytes of a line are shown on each side of a
// fault, for lines that no person wrote.
const maxSnippetSide = 300

// describe makes the final diagnostics from hcl's: sorted, each one once, and
// with the source that they are about.
func describe(diags hcl.Diagnostics, files map[string]*hcl.File) Diagnostics {
	out := make(Diagnostics, 0, len(diags))
	for _, d := range diags {
		out = append(out, describeOne(d, files))
	}
	slices.SortStableFunc(out, compareDiagnostics)
	return slices.CompactFunc(out, func(a, b Diagnostic) bool {
		return compareDiagnostics(a, b) == 0 && a.Summary == b.Summary && a.Detail == b.Detail
	})
}

func compareDiagnostics(a, b Diagnostic) int {
	switch {
	case a.Range == nil && b.Range == nil:
		return 0
	case a.Range == nil:
		return -1
	case b.Range == nil:
		return 1
	}
	if c := strings.Compare(a.Range.File, b.Range.File); c != 0 {
		return c
	}
	if c := a.Range.Start.Byte - b.Range.Start.Byte; c != 0 {
		return c
	}
	return strings.Compare(a.Summary+a.Detail, b.Summary+b.Detail)
}

func describeOne(d *hcl.Diagnostic, files map[string]*hcl.File) Diagnostic {
	out := Diagnostic{Severity: SeverityError, Summary: d.Summary, Detail: mendDetail(d)}
	if d.Severity == hcl.DiagWarning {
		out.Severity = SeverityWarning
	}
	if d.Subject == nil {
		return out
	}
	r := rangeOf(*d.Subject)
	out.Range = &r
	f := files[d.Subject.Filename]
	if _, secret := d.Extra.(noSource); secret || f == nil || len(f.Bytes) == 0 {
		return out
	}
	out.Snippet = snippet(f.Bytes, *d.Subject)
	if body, ok := f.Body.(*hclsyntax.Body); ok {
		out.Within = enclosing(body, d.Subject.Start)
	}
	if d.Expression != nil && d.EvalContext != nil {
		out.Values = knownValues(d.Expression, d.EvalContext)
	}
	return out
}

// oneLineBlock is the help for hcl's rule that a block on one line has one
// attribute at most.
const oneLineBlock = `A block on one line can hold only one attribute; write each attribute on its own line:` +
	"\n\n    stop {\n      signal  = \"SIGTERM\"\n      timeout = \"10s\"\n    }"

// mendDetail replaces those of hcl's details that do not say how to mend.
func mendDetail(d *hcl.Diagnostic) string {
	if d.Summary == "Invalid single-argument block definition" {
		return oneLineBlock
	}
	return d.Detail
}

func rangeOf(r hcl.Range) Range {
	return Range{
		File:  r.Filename,
		Start: Pos{Line: r.Start.Line, Column: r.Start.Column, Byte: r.Start.Byte},
		End:   Pos{Line: r.End.Line, Column: r.End.Column, Byte: r.End.Byte},
	}
}

// snippet cuts the lines of a range out of a source; nil if the range is not
// within it.
func snippet(src []byte, r hcl.Range) *Snippet {
	start, end := r.Start.Byte, r.End.Byte
	if start < 0 || start > len(src) || end < start {
		return nil
	}
	end = min(end, len(src))
	from := start
	for from > 0 && src[from-1] != '\n' && start-from < maxSnippetSide {
		from--
	}
	end = min(end, start+maxSnippetLines*maxSnippetSide)
	to := end
	for to < len(src) && src[to] != '\n' && to-end < maxSnippetSide {
		to++
	}
	code := string(src[from:to])
	lines := strings.SplitAfter(code, "\n")
	if len(lines) > maxSnippetLines {
		code = strings.Join(lines[:maxSnippetLines], "")
	}
	code = strings.TrimRight(code, "\r\n")
	code = strings.ToValidUTF8(code, "?")
	return &Snippet{
		Code: code, Line: r.Start.Line,
		Start: min(start-from, len(code)), End: min(end-from, len(code)),
	}
}

// enclosing names the blocks around a place, the outermost first.
func enclosing(body *hclsyntax.Body, pos hcl.Pos) string {
	var names []string
	for body != nil {
		var inner *hclsyntax.Body
		for _, b := range body.Blocks {
			if r := b.Range(); pos.Byte < r.Start.Byte || pos.Byte >= r.End.Byte {
				continue
			}
			name := b.Type
			for _, l := range b.Labels {
				name += fmt.Sprintf(" %q", l)
			}
			names = append(names, name)
			inner = b.Body
			break
		}
		body = inner
	}
	return strings.Join(names, ", ")
}

// maxShownValue bounds the text of a value in a diagnostic.
const maxShownValue = 60

// maxShownValues bounds how many values a diagnostic shows.
const maxShownValues = 5

// knownValues tells what the references in an expression stand for, those that
// are known and not sensitive.
func knownValues(expr hcl.Expression, ctx *hcl.EvalContext) []string {
	var out []string
	for _, t := range expr.Variables() {
		v, t := longest(t, ctx)
		if len(t) < 2 || v.ContainsMarked() || !v.IsKnown() {
			continue
		}
		text := shortText(v)
		if ty := v.Type(); !v.IsNull() && !ty.IsPrimitiveType() && v.CanIterateElements() {
			noun := "list"
			if ty.IsMapType() || ty.IsObjectType() {
				noun = "map"
			}
			text = fmt.Sprintf("a %s of %d", noun, v.LengthInt())
		}
		out = append(out, traversalText(t)+" is "+text)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxShownValues)]
}
