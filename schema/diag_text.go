package schema

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The colours of rendered diagnostics.
const (
	colorReset  = "\x1b[0m"
	colorBold   = "\x1b[1m"
	colorRed    = "\x1b[1;31m"
	colorYellow = "\x1b[1;33m"
	colorDim    = "\x1b[2m"
)

// minWidth is the narrowest text that details are wrapped to.
const minWidth = 40

// WriteText renders diagnostics for people: the place, the source with the
// fault marked, what is wrong and how to mend it. Width is the terminal's;
// 0 does not wrap.
func WriteText(w io.Writer, ds Diagnostics, width int, color bool) error {
	var b strings.Builder
	for i, d := range ds {
		if i > 0 {
			b.WriteByte('\n')
		}
		p := painter{b: &b, color: color}
		p.diagnostic(d, width)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write diagnostics: %w", err)
	}
	return nil
}

// painter writes text with or without colours.
type painter struct {
	b     *strings.Builder
	color bool
}

func (p painter) paint(color, text string) {
	if !p.color || text == "" {
		p.b.WriteString(text)
		return
	}
	p.b.WriteString(color + text + colorReset)
}

func (p painter) diagnostic(d Diagnostic, width int) {
	label, color := "Error: ", colorRed
	if d.Severity == SeverityWarning {
		label, color = "Warning: ", colorYellow
	}
	p.paint(color, label)
	p.paint(colorBold, printable(d.Summary))
	p.b.WriteByte('\n')
	if d.Range != nil {
		fmt.Fprintf(p.b, "\n  on %s line %d", printable(d.Range.File), d.Range.Start.Line)
		if d.Within != "" {
			p.b.WriteString(", in " + printable(d.Within))
		}
		p.b.WriteString(":\n")
	}
	if d.Snippet != nil {
		p.snippet(d.Snippet, color)
	}
	for _, v := range d.Values {
		p.paint(colorDim, "  where "+printable(v))
		p.b.WriteByte('\n')
	}
	if d.Detail != "" {
		p.b.WriteByte('\n')
		for line := range strings.SplitSeq(d.Detail, "\n") {
			for _, l := range wrap(printable(line), width-2) {
				p.b.WriteString(strings.TrimRight("  "+l, " ") + "\n")
			}
		}
	}
}

// snippet writes the lines of source with the fault underlined.
func (p painter) snippet(s *Snippet, color string) {
	lines := strings.Split(s.Code, "\n")
	gutter := len(fmt.Sprint(s.Line + len(lines) - 1))
	at := 0
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		from, to := clamp(s.Start-at, len(line)), clamp(s.End-at, len(line))
		p.paint(colorDim, fmt.Sprintf("  %*d: ", gutter, s.Line+i))
		p.b.WriteString(printable(line[:from]))
		p.paint(color, printable(line[from:to]))
		p.b.WriteString(printable(line[to:]) + "\n")
		if mark := underline(line, from, to); mark != "" && (to > from || len(lines) == 1) {
			p.b.WriteString(strings.Repeat(" ", gutter+4))
			p.paint(color, mark)
			p.b.WriteByte('\n')
		}
		at += len(lines[i]) + 1
	}
}

// clamp bounds an offset to a line and returns it.
func clamp(n, length int) int { return max(0, min(n, length)) }

// underline returns the blanks and carets that mark line[from:to].
func underline(line string, from, to int) string {
	if lead := len(line) - len(strings.TrimLeft(line, " \t")); from < lead && to > lead {
		from = lead
	}
	blank := strings.Repeat(" ", textWidth(line[:from]))
	return blank + strings.Repeat("^", max(1, textWidth(line[from:to])))
}

// tabWidth is how wide a tab is rendered.
const tabWidth = 4

func textWidth(s string) int {
	return utf8.RuneCountInString(printable(s))
}

// printable makes text safe for a terminal: tabs become blanks, and what
// could steer the terminal is shown by its code.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteString(strings.Repeat(" ", tabWidth))
		case r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError:
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// wrap breaks a line at blanks to the width; indented lines are left as they
// are, since they are code.
func wrap(line string, width int) []string {
	if width < minWidth || strings.HasPrefix(line, " ") {
		return []string{line}
	}
	var out []string
	current := ""
	for word := range strings.FieldsSeq(line) {
		if current != "" && utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > width {
			out = append(out, current)
			current = ""
		}
		if current != "" {
			current += " "
		}
		current += word
	}
	return append(out, current)
}
