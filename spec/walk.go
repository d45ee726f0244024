package spec

import (
	"iter"
	"reflect"
	"strconv"
	"strings"
)

// sensitiveText stands for values that must not be shown.
const sensitiveText = "(sensitive)"

// leaf is one value of a job as the walk over the `diff` tags finds it.
type leaf struct {
	path string // as the user writes it
	pos  string // sorts leaves in the order of the types' fields
	// text is the value as the user writes it, and shown the same with
	// sensitive values hidden.
	text, shown string
	// hidden tells which parts of the value are sensitive.
	hidden string
	effect Effect
	// set is false for a zero that means that nothing is said.
	set bool
	// zero values do not count in hashes, so that a new field restarts nothing.
	zero bool
}

// counts is what the leaf contributes to a hash.
func (l leaf) counts() string {
	if l.zero {
		return ""
	}
	return l.text
}

// walker collects the leaves of a value.
type walker struct {
	sensitive []string
	leaves    []leaf
}

// processLeaves returns the leaves of a process in the order of its fields.
func processLeaves(p *Process) []leaf {
	w := walker{sensitive: p.Sensitive}
	w.block(reflect.ValueOf(p).Elem(), "", "")
	if p.UsesShardCount() {
		for i := range w.leaves {
			if w.leaves[i].path == "shards" {
				w.leaves[i].effect = EffectReplace
			}
		}
	}
	return w.leaves
}

// labelLeaves returns the leaves of a job beside its processes.
func labelLeaves(j *Job) []leaf {
	w := walker{}
	for name, field := range blockFields(reflect.ValueOf(j).Elem()) {
		if name.kind != tagWalk {
			w.field(name, field, "", "")
		}
	}
	return w.leaves
}

// The words of a `diff` tag. "walk" and "mark" may be followed by the name
// that the user writes, where that is not the JSON's: `diff:"walk,port"`.
const (
	tagKey  = "key"
	tagWalk = "walk"
	tagMark = "mark"
)

// fieldTag is what a struct field's tags say.
type fieldTag struct {
	name      string
	kind      string
	omitEmpty bool
	order     int
}

// fieldTags holds the tags of the fields of every struct below Job: reading
// them is most of the work of a walk, so it is done once.
var fieldTags = readTags(reflect.TypeFor[Job](), map[reflect.Type][]fieldTag{})

func readTags(t reflect.Type, tags map[reflect.Type][]fieldTag) map[reflect.Type][]fieldTag {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || tags[t] != nil {
		return tags
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind, written, renamed := strings.Cut(f.Tag.Get("diff"), ",")
		if renamed {
			name = written
		}
		tags[t] = append(tags[t], fieldTag{name: name, kind: kind, omitEmpty: options == "omitempty", order: i})
	}
	for i := range t.NumField() {
		readTags(t.Field(i).Type, tags)
	}
	return tags
}

// blockFields yields the fields of a struct with what their tags say.
func blockFields(v reflect.Value) iter.Seq2[fieldTag, reflect.Value] {
	return func(yield func(fieldTag, reflect.Value) bool) {
		for i, tag := range fieldTags[v.Type()] {
			if !yield(tag, v.Field(i)) {
				return
			}
		}
	}
}

// block walks over the fields of a struct.
func (w *walker) block(v reflect.Value, path, pos string) {
	for tag, field := range blockFields(v) {
		w.field(tag, field, path, pos)
	}
}

func (w *walker) field(tag fieldTag, v reflect.Value, path, pos string) {
	path = join(path, tag.name)
	pos += string(rune('A'+tag.order)) + "/"
	switch {
	case tag.kind == tagKey || tag.kind == tagMark:
	case tag.kind == tagWalk && v.Kind() == reflect.Slice:
		w.elements(v, path, pos)
	case tag.kind == tagWalk && v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			w.element(v.Elem(), path, pos, EffectLive)
		}
	case tag.kind == tagWalk:
		w.block(v, path, pos)
	case v.Kind() == reflect.Map:
		for it := v.MapRange(); it.Next(); {
			key := it.Key().String()
			w.leaf(join(path, key), pos+key, it.Value(), Effect(tag.kind), true)
			w.leaves[len(w.leaves)-1].zero = false // an empty variable is not an absent one
		}
	default:
		w.leaf(path, pos, v, Effect(tag.kind), !tag.omitEmpty)
	}
}

// elements walks over a list of blocks, each under its key.
func (w *walker) elements(list reflect.Value, path, pos string) {
	for i := range list.Len() {
		key := elementKey(list.Index(i))
		w.element(list.Index(i), join(path, key), pos+key+"/", presence(list.Type().Elem()))
	}
}

// element walks over a block that need not be there: it has a leaf of its own
// that says that it is.
func (w *walker) element(v reflect.Value, path, pos string, effect Effect) {
	w.leaves = append(w.leaves, leaf{
		path: path, pos: pos, text: "{}", shown: "{}", effect: effect, set: true, zero: effect == EffectLive,
	})
	w.block(v, path, pos)
}

// elementKey returns the value of a block's field tagged "key".
func elementKey(v reflect.Value) string {
	for tag, field := range blockFields(v) {
		if tag.kind == tagKey {
			return field.String()
		}
	}
	return ""
}

// presence returns what the coming or going of an element of a list means to a
// running instance: as much as the most important of its fields.
func presence(t reflect.Type) Effect {
	effect := EffectLive
	for _, tag := range fieldTags[t] {
		effect = maxEffect(effect, Effect(tag.kind))
	}
	return effect
}

func (w *walker) leaf(path, pos string, v reflect.Value, effect Effect, set bool) {
	l := leaf{path: path, pos: pos, text: render(v), effect: effect, zero: v.IsZero()}
	l.set = set || !l.zero
	l.shown, l.hidden = w.hide(path, v, l.text)
	w.leaves = append(w.leaves, l)
}

// hide returns a value's text with the sensitive parts hidden, and which ones
// these are.
func (w *walker) hide(path string, v reflect.Value, text string) (shown, hidden string) {
	if len(w.sensitive) == 0 {
		return text, ""
	}
	if isSensitive(w.sensitive, path) {
		return sensitiveText, path
	}
	if v.Kind() != reflect.Slice {
		return text, ""
	}
	parts := make([]string, v.Len())
	for i := range v.Len() {
		parts[i] = render(v.Index(i))
		if element := path + "[" + strconv.Itoa(i) + "]"; isSensitive(w.sensitive, element) {
			parts[i] = sensitiveText
			hidden += element + " "
		}
	}
	return "[" + strings.Join(parts, ", ") + "]", hidden
}

// Hides reports whether the value at a path ("dir", "command[0]", "health.up.tcp")
// came from a sensitive variable: no message may show it.
func (p *Process) Hides(path string) bool { return isSensitive(p.Sensitive, path) }

// Conceal replaces secrets in a text for people.
func Conceal(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, sensitiveText)
	}
	return text
}

// isSensitive reports whether a path, or something that holds it, is listed.
func isSensitive(sensitive []string, path string) bool {
	for _, s := range sensitive {
		rest, ok := strings.CutPrefix(path, s)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// maxEffect returns the greater of two effects; other words count as none.
func maxEffect(a, b Effect) Effect {
	if effectRank(b) > effectRank(a) {
		return b
	}
	return a
}

func effectRank(e Effect) int {
	switch e {
	case EffectLive:
		return 1
	case EffectReload:
		return 2
	case EffectReplace:
		return 3
	default:
		return 0
	}
}
