package catalog

import (
	"maps"
	"slices"
)

// Actions make what is listed what is wanted.
type Actions struct {
	// Register are the services to be listed anew, or otherwise.
	Register []Service
	// Deregister are the IDs of those to be taken off.
	Deregister []string
	// Report are the services whose check is another one.
	Report []Service
}

// Diff compares what is wanted with what is listed, by ID. What is listed and
// not wanted goes if it is mine; what is not mine is never touched.
func Diff(wanted []Service, listed map[string]Service, mine func(id string) bool) Actions {
	var a Actions
	want := make(map[string]bool, len(wanted))
	for _, w := range wanted {
		if !mine(w.ID) || want[w.ID] {
			continue
		}
		want[w.ID] = true
		switch is, ok := listed[w.ID]; {
		case !ok || is.Check.State == "" || !sameEntry(&is, &w):
			a.Register = append(a.Register, w)
		case is.Check != w.Check:
			a.Report = append(a.Report, w)
		}
	}
	for id := range listed {
		if mine(id) && !want[id] {
			a.Deregister = append(a.Deregister, id)
		}
	}
	slices.Sort(a.Deregister)
	return a
}

// sameEntry reports whether two services differ in their checks at most.
func sameEntry(a, b *Service) bool {
	return a.Name == b.Name && a.Address == b.Address && a.Port == b.Port &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}
