package schema

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/synergymesh/meshrun/spec"
)

// str reads a plain string.
func (r *reader) str(name string, dst *string) {
	g, absent := r.scalar(name, cty.String)
	switch {
	case absent:
		*dst = r.def.Attr(name).Default
	case g != nil && r.sound(g, g.value.AsString()):
		*dst = g.value.AsString()
	}
}

// sound refuses texts that no program can be given.
func (r *reader) sound(g *given, s string) bool {
	if strings.ContainsRune(s, 0) {
		r.failValue(g, "Invalid text", "The text holds a NUL character, which neither a program's arguments nor its environment can hold.")
		return false
	}
	return true
}

// boolean reads true or false.
func (r *reader) boolean(name string, dst *bool) {
	g, absent := r.scalar(name, cty.Bool)
	switch {
	case absent:
		*dst = r.def.Attr(name).Default == "true"
	case g != nil:
		*dst = g.value.True()
	}
}

// integer reads a whole number within the table's bounds.
func (r *reader) integer(name string, dst *int) {
	g, absent := r.scalar(name, cty.Number)
	if absent {
		*dst, _ = strconv.Atoi(r.def.Attr(name).Default)
		return
	}
	if g == nil {
		return
	}
	f := g.value.AsBigFloat()
	if !f.IsInt() {
		r.failValue(g, "Not a whole number", fmt.Sprintf("%s must be a whole number, not %s.", name, g.text()))
		return
	}
	if !r.bounded(g, f) {
		return
	}
	n, _ := f.Int64()
	*dst = int(n)
}

// float reads a number within the table's bounds.
func (r *reader) float(name string, dst *float64) {
	g, absent := r.scalar(name, cty.Number)
	if absent || g == nil || !r.bounded(g, g.value.AsBigFloat()) {
		return
	}
	*dst, _ = g.value.AsBigFloat().Float64()
}

// bounded reports whether a number is within the table's bounds.
func (r *reader) bounded(g *given, f *big.Float) bool {
	upper := g.attr.Max
	if upper == 0 {
		upper = math.MaxInt32
	}
	if f.Cmp(big.NewFloat(g.attr.Min)) >= 0 && f.Cmp(big.NewFloat(upper)) <= 0 {
		return true
	}
	r.failValue(g, "Out of range", fmt.Sprintf("%s must be from %s to %s, and this is %s.", g.attr.Name,
		strconv.FormatFloat(g.attr.Min, 'f', -1, 64), strconv.FormatFloat(upper, 'f', -1, 64), g.text()))
	return false
}

// unitText reads the text of a value that has a unit. A bare number gets an
// error that shows the likely fixes.
func (r *reader) unitText(name string, units [2]string, noun string) (g *given, text string, ok bool) {
	g, absent := r.scalar(name, cty.DynamicPseudoType)
	if absent {
		text = r.def.Attr(name).Default
		return nil, text, text != ""
	}
	if g == nil {
		return nil, "", false
	}
	number := ""
	switch g.value.Type() {
	case cty.String:
		text = strings.TrimSpace(g.value.AsString())
		if _, err := strconv.ParseFloat(text, 64); err != nil || strings.ContainsAny(text, "nN") { // inf, nan
			return g, text, true
		}
		number = text
	case cty.Number:
		number = g.value.AsBigFloat().Text('f', -1)
	default:
		r.failValue(g, "Wrong type", fmt.Sprintf("%s must be %s, not %s.%s", name, article(noun), article(g.value.Type().FriendlyName()), example(g.attr)))
		return nil, "", false
	}
	if g.sensitive {
		number = "10"
	}
	r.failValue(g, "Missing unit", fmt.Sprintf("%s is %s and needs its unit. Write %s = %q or %s = %q.", name, article(noun), name, number+units[0], name, number+units[1]))
	return nil, "", false
}

// maxDuration bounds durations: longer ones are mistakes.
const maxDuration = spec.Duration(10 * 365 * 24 * 3600 * 1e9)

// duration reads a time with its unit.
func (r *reader) duration(name string, dst *spec.Duration) {
	g, text, ok := r.unitText(name, [2]string{"s", "ms"}, "duration")
	if !ok {
		return
	}
	d, err := spec.ParseDuration(text)
	switch {
	case err == nil && d <= maxDuration:
		*dst = d
	case g == nil:
	case err == nil:
		r.failValue(g, "Out of range", fmt.Sprintf("%s must be at most 10 years.", name))
	case strings.HasPrefix(text, "-"):
		r.failValue(g, "Out of range", fmt.Sprintf("%s must not be negative, and this is %s.", name, g.text()))
	default:
		r.failValue(g, "Invalid duration", fmt.Sprintf("%s is not a duration. Write a number with its unit (ms, s, m or h), such as \"500ms\", \"10s\" or \"1h30m\".", g.text()))
	}
}

// size reads a number of bytes with its unit.
func (r *reader) size(name string, dst *spec.Size) {
	g, text, ok := r.unitText(name, [2]string{"MiB", "MB"}, "size")
	if !ok {
		return
	}
	n, err := spec.ParseSize(text)
	switch {
	case err == nil && (g == nil || float64(n) >= g.attr.Min):
		*dst = n
	case g == nil:
	case err == nil:
		r.failValue(g, "Out of range", fmt.Sprintf("%s must be at least %s, and this is %s.", name, spec.Size(g.attr.Min), g.text()))
	default:
		r.failValue(g, "Invalid size", fmt.Sprintf("%s is not a size. Write a number with its unit (B, KiB, MiB, GiB, KB, MB or GB), such as \"512MiB\" or \"10MB\".", g.text()))
	}
}

// signal reads the name of a signal (signal(7)), with or without its prefix.
func (r *reader) signal(name string, dst *spec.Signal) {
	g, absent := r.scalar(name, cty.String)
	if absent {
		*dst = spec.Signal(r.def.Attr(name).Default)
		return
	}
	if g == nil {
		return
	}
	s := g.value.AsString()
	if sig, ok := spec.ParseSignal(s); ok {
		*dst = sig
		return
	}
	var hint string
	var names []string
	for _, n := range spec.SignalNames() {
		names = append(names, strings.TrimPrefix(n, "SIG"))
	}
	if near := spec.Nearest(strings.TrimPrefix(strings.ToUpper(s), "SIG"), names); near != "" && !g.sensitive {
		hint = fmt.Sprintf(" Did you mean %q?", "SIG"+near)
	} else {
		hint = ` Signals are written as in signal(7): "SIGTERM", "SIGHUP", "SIGUSR1".`
	}
	r.failValue(g, "Unknown signal", fmt.Sprintf("%s is not the name of a signal.%s", g.text(), hint))
}

// enum reads one of the words that the table allows, and refuses those that
// this version cannot act on.
func (r *reader) enum(name string) string {
	def := r.def.Attr(name)
	g, absent := r.scalar(name, cty.String)
	if absent {
		return def.Default
	}
	if g == nil {
		return ""
	}
	s := g.value.AsString()
	if !slices.Contains(def.Values, s) {
		var hint string
		if !g.sensitive {
			hint = didYouMean(s, def.Values)
		}
		r.failValue(g, "Invalid value", fmt.Sprintf("%s cannot be %s; it is one of %s.%s", name, g.text(), list(def.Values, "or"), hint))
		return ""
	}
	return s
}

// amount reads a percentage or a size.
func (r *reader) amount(name string, dst *string) {
	g, text, ok := r.unitText(name, [2]string{"%", "MiB"}, "percentage or size")
	if !ok || g == nil {
		return
	}
	if number, isPercent := strings.CutSuffix(text, "%"); isPercent {
		if p, err := strconv.ParseFloat(number, 64); err == nil && p > 0 && p <= 1e6 {
			*dst = text
			return
		}
	} else if n, err := spec.ParseSize(text); err == nil && n > 0 {
		*dst = text
		return
	}
	r.failValue(g, "Invalid amount", fmt.Sprintf("%s is neither a percentage of one core, such as \"95%%\", nor a size, such as \"512MiB\".", g.text()))
}
