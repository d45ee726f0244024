package spec

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// Redacted returns a deep copy of the version in which every sensitive value
// reads "(sensitive)": what may be shown, logged or saved in a plan.
func (v *JobVersion) Redacted() *JobVersion {
	out := *v
	out.Job = v.Job.Clone()
	out.Orders = maps.Clone(v.Orders)
	for i := range out.Job.Processes {
		p := &out.Job.Processes[i]
		if len(p.Sensitive) > 0 {
			redactBlock(reflect.ValueOf(p).Elem(), "", p.Sensitive)
		}
	}
	return &out
}

// Redacted returns a deep copy of the process in which every sensitive value
// reads "(sensitive)".
func (p *Process) Redacted() Process {
	job := Job{Processes: []Process{*p}}
	return (&JobVersion{Job: job}).Redacted().Job.Processes[0]
}

// Clone returns a deep copy, in which lists and maps that are left out of the
// JSON when they are empty are nil then.
func (j *Job) Clone() Job {
	out := *j
	detach(reflect.ValueOf(&out).Elem(), false)
	return out
}

// detach gives v copies of its own of all that it shares with the value that
// it was copied from. OmitEmpty is what the tag of v's field says.
func detach(v reflect.Value, omitEmpty bool) {
	switch v.Kind() {
	case reflect.Struct:
		for tag, field := range blockFields(v) {
			detach(field, tag.omitEmpty)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			own := reflect.New(v.Type().Elem())
			own.Elem().Set(v.Elem())
			detach(own.Elem(), false)
			v.Set(own)
		}
	case reflect.Slice, reflect.Map:
		switch {
		case v.Len() == 0 && omitEmpty:
			v.SetZero()
		case v.IsNil():
		case v.Kind() == reflect.Slice:
			detachSlice(v)
		default:
			detachMap(v)
		}
	}
}

func detachSlice(v reflect.Value) {
	own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	reflect.Copy(own, v)
	if v.Type().Elem().Kind() != reflect.String {
		for i := range own.Len() {
			detach(own.Index(i), false)
		}
	}
	v.Set(own)
}

// detachMap takes the values as they are: those of all maps below Job are texts.
func detachMap(v reflect.Value) {
	own := reflect.MakeMapWithSize(v.Type(), v.Len())
	for it := v.MapRange(); it.Next(); {
		own.SetMapIndex(it.Key(), it.Value())
	}
	v.Set(own)
}

func redactBlock(v reflect.Value, path string, sensitive []string) {
	for tag, field := range blockFields(v) {
		if tag.kind == tagKey || tag.kind == tagMark {
			continue
		}
		redactField(tag, field, join(path, tag.name), sensitive)
	}
}

func redactField(tag fieldTag, v reflect.Value, path string, sensitive []string) {
	switch {
	case tag.kind == tagWalk && v.Kind() == reflect.Slice:
		for i := range v.Len() {
			redactBlock(v.Index(i), join(path, elementKey(v.Index(i))), sensitive)
		}
	case tag.kind == tagWalk && v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			redactBlock(v.Elem(), path, sensitive)
		}
	case tag.kind == tagWalk:
		redactBlock(v, path, sensitive)
	case v.Kind() == reflect.Map:
		for _, key := range slices.Clone(v.MapKeys()) {
			if isSensitive(sensitive, join(path, key.String())) {
				v.SetMapIndex(key, reflect.ValueOf(sensitiveText).Convert(v.Type().Elem()))
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if isSensitive(sensitive, path+"["+strconv.Itoa(i)+"]") {
				hideValue(v.Index(i))
			}
		}
	case isSensitive(sensitive, path):
		hideValue(v)
	}
}

// hideValue replaces a text by "(sensitive)" and anything else by its zero.
func hideValue(v reflect.Value) {
	if v.Kind() == reflect.String {
		v.SetString(sensitiveText)
		return
	}
	v.SetZero()
}
