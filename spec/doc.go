// Package spec holds meshrun's nouns: what users want (Job, Process and
// their blocks), what meshrun decides (Placement, Assignment, Launch), what is
// seen (Instance, Exit) and what is told (Event, Plan).
//
// One noun has one type. The JSON of these types is the body of the API, the
// value in the store and the text of a saved plan; nothing mirrors them. The
// package imports the standard library only, does no I/O and reads no clock.
package spec
