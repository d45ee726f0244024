package main

import (
	"strings"
	"unicode/utf8"

	"github.com/synergymesh/meshrun/spec"
)

// style paints text, or leaves it as it is where there are no colours. Only
// the sixteen colours are used that every theme makes readable.
type style struct{ on bool }

func (s style) paint(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string   { return s.paint("1", text) }
func (s style) dim(text string) string    { return s.paint("2", text) }
func (s style) red(text string) string    { return s.paint("31", text) }
func (s style) green(text string) string  { return s.paint("32", text) }
func (s style) yellow(text string) string { return s.paint("33", text) }

// phase paints a phase in the colour of its meaning: green is well, yellow
// moves, red needs somebody.
func (s style) phase(p spec.Phase, text string) string {
	switch p {
	case spec.PhaseRunning:
		return s.green(text)
	case spec.PhaseCompleted:
		return s.dim(text)
	case spec.PhaseFailed:
		return s.red(text)
	case spec.PhasePending, spec.PhaseStarting, spec.PhaseStopping, spec.PhaseBackoff:
		return s.yellow(text)
	default:
		return text
	}
}

// health paints a state of health.
func (s style) health(h spec.HealthState, text string) string {
	switch h {
	case spec.HealthPassing:
		return s.green(text)
	case spec.HealthFailing:
		return s.red(text)
	default:
		return s.yellow(text)
	}
}

// instanceColors tell instances apart; red is left out, for it means trouble.
func instanceColors() []string {
	return []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}
}

// instance paints the n-th instance's name.
func (s style) instance(n int, text string) string {
	colors := instanceColors()
	return s.paint(colors[n%len(colors)], text)
}

// plain makes foreign text safe for a terminal: what could move the cursor or
// ring the bell is dropped; colours stay.
func plain(text string) string {
	if strings.IndexFunc(text, isControl) < 0 {
		return text
	}
	var b strings.Builder
	colored := false
	for i := 0; i < len(text); {
		if n := colorSequence(text[i:]); n > 0 {
			b.WriteString(text[i : i+n])
			colored = true
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if !isControl(r) {
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	if colored {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

func isControl(r rune) bool {
	return (r < 0x20 && r != '\t') || r == 0x7f || (r >= 0x80 && r < 0xa0)
}

// colorSequence returns the length of the colour sequence that text begins
// with, or 0.
func colorSequence(text string) int {
	if !strings.HasPrefix(text, "\x1b[") {
		return 0
	}
	for i := 2; i < len(text); i++ {
		switch c := text[i]; {
		case c == 'm':
			return i + 1
		case (c < '0' || c > '9') && c != ';' && c != ':':
			return 0
		}
	}
	return 0
}
