package spec

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// render writes a value as the user would write it in a job file. Different
// values have different texts.
func render(v reflect.Value) string {
	if t, ok := v.Interface().(Template); ok {
		return quote(string(t))
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err == nil {
			return quote(string(text))
		}
	}
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range v.Len() {
			parts[i] = render(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.String:
		return quote(string(Literal(v.String())))
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	default:
		return fmt.Sprint(v.Interface())
	}
}

// quote writes a template as an HCL string on one line. What stands within an
// interpolation is code, not text, and is kept as it is.
func quote(template string) string {
	var b strings.Builder
	b.WriteByte('"')
	depth := 0
	for i := 0; i < len(template); i++ {
		if depth == 0 && opensInterpolation(template, i) {
			b.WriteString(template[i : i+2])
			depth, i = 1, i+1
			continue
		}
		c := template[i]
		if depth > 0 {
			depth += braces(c)
			b.WriteByte(c)
			continue
		}
		quoteByte(&b, c)
	}
	b.WriteByte('"')
	return b.String()
}

// opensInterpolation reports whether "${" or "%{" begins at i and is not
// escaped by doubling.
func opensInterpolation(s string, i int) bool {
	if i+1 >= len(s) || s[i+1] != '{' || (s[i] != '$' && s[i] != '%') {
		return false
	}
	return i == 0 || s[i-1] != s[i]
}

func braces(c byte) int {
	switch c {
	case '{':
		return 1
	case '}':
		return -1
	default:
		return 0
	}
}

func quoteByte(b *strings.Builder, c byte) {
	switch {
	case c == '"' || c == '\\':
		b.WriteByte('\\')
		b.WriteByte(c)
	case c == '\n':
		b.WriteString(`\n`)
	case c == '\t':
		b.WriteString(`\t`)
	case c == '\r':
		b.WriteString(`\r`)
	case c < 0x20 || c == 0x7f:
		fmt.Fprintf(b, `\u%04x`, c)
	default:
		b.WriteByte(c)
	}
}
