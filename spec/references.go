package spec

import (
	"reflect"
	"strings"
)

// References returns the run-time references of a template in the order in
// which they occur, such as "shard.index" or "port.http". Of one that does not
// go on with a plain name, such as node.labels["zone"] or shard["count"], it
// returns the part before that.
func (t Template) References() []string {
	var refs []string
	s := string(t)
	for i := 0; i < len(s); i++ {
		if !opensInterpolation(s, i) {
			continue
		}
		end, found := scanInterpolation(s, i+2)
		refs = append(refs, found...)
		i = end
	}
	return refs
}

// scanInterpolation reads from behind "${" to its closing brace and returns
// that brace's position and the references on the way. Within quotes only
// nested interpolations count.
func scanInterpolation(s string, i int) (end int, refs []string) {
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '}':
			return i, refs
		case c == '{':
			inner, found := scanInterpolation(s, i+1)
			refs, i = append(refs, found...), inner
		case c == '"':
			inner, found := scanQuoted(s, i+1)
			refs, i = append(refs, found...), inner
		case isNameStart(c):
			ref, last := scanReference(s, i)
			refs, i = append(refs, ref), last
		}
	}
	return i, refs
}

// scanQuoted reads from behind an opening quote to the closing one.
func scanQuoted(s string, i int) (end int, refs []string) {
	for ; i < len(s) && s[i] != '"'; i++ {
		switch {
		case s[i] == '\\':
			i++
		case opensInterpolation(s, i):
			inner, found := scanInterpolation(s, i+2)
			refs, i = append(refs, found...), inner
		}
	}
	return i, refs
}

// scanReference reads name(.name)* and returns it with its last byte's position.
func scanReference(s string, start int) (ref string, last int) {
	i := start
	for i < len(s) && (isNamePart(s[i]) || (s[i] == '.' && i+1 < len(s) && isNameStart(s[i+1]))) {
		i++
	}
	return s[start:i], i - 1
}

func isNameStart(c byte) bool {
	return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}

func isNamePart(c byte) bool { return isNameStart(c) || c == '-' || (c >= '0' && c <= '9') }

// UsesShardCount reports whether running instances of the process know how
// many shards there are, so that another count restarts them. In doubt, such
// as for shard[…], they do.
func (p *Process) UsesShardCount() bool {
	uses := false
	eachTemplate(reflect.ValueOf(p).Elem(), func(t Template) {
		if !strings.Contains(string(t), "shard") {
			return
		}
		for _, ref := range t.References() {
			uses = uses || ref == "shard.count" || ref == "shard"
		}
	})
	return uses
}

// eachTemplate visits the templates in the fields tagged "replace".
func eachTemplate(v reflect.Value, visit func(Template)) {
	for tag, field := range blockFields(v) {
		if tag.kind != string(EffectReplace) {
			continue
		}
		switch value := field.Interface().(type) {
		case Template:
			visit(value)
		case []Template:
			for _, t := range value {
				visit(t)
			}
		case map[string]Template:
			for _, t := range value {
				visit(t)
			}
		}
	}
}
