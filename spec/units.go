package spec

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written "10s" in JSON and in HCL.
type Duration time.Duration

// Std returns the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the shortest common form: "10s", "5m", "1h30m".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// ParseDuration reads a duration with its unit, such as "300ms", "10s" or
// "1h30m", and "0". Negative durations are refused.
func ParseDuration(s string) (Duration, error) {
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("parse duration %q: want a number with a unit, such as \"10s\" or \"5m\"", s)
	}
	if v < 0 {
		return 0, fmt.Errorf("parse duration %q: it is negative", s)
	}
	return Duration(v), nil
}

// Size is a number of bytes that is written "256MiB" in JSON and in HCL.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// String returns the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if strings.HasSuffix(u.name, "iB") && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// ParseSize reads a size with its unit: "256MiB", "1.5GiB", "10KB", "512B".
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || !(v >= 0 && v*float64(u.bytes) <= 1<<62) { // NaN is refused too
			break
		}
		return Size(v * float64(u.bytes)), nil
	}
	return 0, fmt.Errorf("parse size %q: want a number with a unit, such as \"256MiB\" or \"10MB\"", s)
}

// Signal is a signal's name with its prefix: "SIGTERM".
type Signal string

// Template is a string in HCL's template syntax, whose only references are to
// what is known on the node: "--port=${port.http}". A literal "${" is written
// "$${". Variables, locals and everything else that is known when a file is
// read have been put in already.
type Template string

// Literal returns the template that stands for exactly s.
func Literal(s string) Template {
	s = strings.ReplaceAll(s, "${", "$${")
	return Template(strings.ReplaceAll(s, "%{", "%%{"))
}

// IsLiteral reports whether the template has nothing to fill in.
func (t Template) IsLiteral() bool {
	_, literal := t.literal()
	return literal
}

// Text returns the string that a literal template stands for, and the template
// as it is written if it is not literal.
func (t Template) Text() string {
	if text, ok := t.literal(); ok {
		return text
	}
	return string(t)
}

// literal undoes Literal. It reads from left to right as HCL's scanner does,
// so that "$$${" is a dollar and an escaped "${", and reports false if it
// meets something to fill in.
func (t Template) literal() (string, bool) {
	s := string(t)
	if !strings.Contains(s, "{") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		rest := s[i:]
		switch {
		case strings.HasPrefix(rest, "$${"), strings.HasPrefix(rest, "%%{"):
			b.WriteString(rest[1:3])
			i += 3
		case strings.HasPrefix(rest, "${"), strings.HasPrefix(rest, "%{"):
			return "", false
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), true
}
