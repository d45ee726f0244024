package spec

import (
	"encoding/json"
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

// Clone returns a deep copy.
func (j *Job) Clone() Job {
	data, err := json.Marshal(j)
	var out Job
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		// Every type below Job is made to survive its own JSON.
		panic("spec: clone job: " + err.Error())
	}
	return out
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
