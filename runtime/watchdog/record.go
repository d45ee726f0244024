package watchdog

import (
	"cmp"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// record is one line of the journal. Launches may contain secrets, so the files
// have mode 0600, and only the events are sent to clients.
type record struct {
	Event  spec.Event   `json:"event"`
	Launch *spec.Launch `json:"launch,omitempty"`
	Keep   *keep        `json:"keep,omitempty"`
	// Removed says that the event's instance is removed.
	Removed bool `json:"removed,omitempty"`
}

// keep is what only a successor of the watchdog needs to know of an instance.
type keep struct {
	Phase phase `json:"phase"`
	// Nonce is of the process that lives or is forked next.
	Nonce   string  `json:"nonce,omitempty"`
	History history `json:"history,omitzero"`
	// Forking is set from before a fork until it is known to have worked.
	Forking bool `json:"forking,omitempty"`
	// Lease is the one that the process was started under, which may not be its
	// launch's.
	Lease string `json:"lease,omitempty"`
	// Session is the group and session of the process, if not the PID.
	Session int `json:"session,omitempty"`
	// Blame is why it is being killed, if it is: its end counts as a failure.
	Blame string `json:"blame,omitempty"`
	// Hook is which hook lives or is forked next; empty for the program.
	Hook spec.HookTime `json:"hook,omitempty"`
	// Old is what the generation was started from, if its after_stop hook is to
	// run and another launch is wanted by now.
	Old *spec.Launch `json:"old,omitempty"`
}

// entry is all that is known of one instance: what a segment begins with, and
// what a replay ends with.
type entry struct {
	Launch   spec.Launch   `json:"launch"`
	Instance spec.Instance `json:"instance"`
	Keep     keep          `json:"keep"`
}

// segmentHead is the first line of a segment; as many entry lines follow as
// Entries says.
type segmentHead struct {
	// From is the number of the first event in the segment.
	From    uint64 `json:"from"`
	Entries int    `json:"entries"`
}

// line is any line of a segment: exactly one of its kinds.
type line struct {
	Head  *segmentHead `json:"head,omitempty"`
	Entry *entry       `json:"entry,omitempty"`
	record
}

// note is an event of an instance that is about to be recorded.
type note struct {
	kind     spec.EventType
	severity spec.Severity // empty for spec.Info
	message  string
	launch   bool // the journal keeps the launch with it
}

// record writes an event of an instance as it is now.
func (j *journal) record(in *instance, n note) {
	view, k := in.view, in.kept()
	r := record{Keep: &k, Removed: n.kind == spec.EventRemoved, Event: spec.Event{Time: time.Now().UTC(), Type: n.kind,
		Severity: cmp.Or(n.severity, spec.Info), Job: view.ID.Job, Version: view.Version, Who: "watchdog", Message: n.message, Instance: &view}}
	if n.launch {
		r.Launch = in.launch
	}
	j.append(r)
	if r.Event.Severity != spec.Info && j.log.IsWarn() {
		j.log.Warn(n.message, "instance", view.ID.String(), "event", string(n.kind))
	} else if j.log.IsDebug() {
		j.log.Debug(n.message, "instance", view.ID.String(), "event", string(n.kind))
	}
}

// recordOwn writes an event of the watchdog itself; job names the job that it
// concerns, if any.
func (j *journal) recordOwn(kind spec.EventType, severity spec.Severity, job, message string) {
	j.append(record{Event: spec.Event{Time: time.Now().UTC(), Type: kind, Severity: severity, Job: job, Who: "watchdog", Message: message}})
	if severity != spec.Info {
		j.log.Warn(message, "event", string(kind))
	}
}
