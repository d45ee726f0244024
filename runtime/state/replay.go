package state

import (
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Snapshot is what had been decided at one moment. It holds no values of jobs,
// which may be secret: history/<job>/<version> has them.
type Snapshot struct {
	// Time is that of the last event that is in it, and Events their number.
	Time   time.Time `json:"time"`
	Events int       `json:"events"`
	// Jobs maps each wanted job to its version.
	Jobs map[string]uint64 `json:"jobs"`
	// Placements are by job.
	Placements map[string]spec.Placement `json:"placements"`
	// Assignments are by node and job.
	Assignments map[string]map[string][]spec.AssignedShards `json:"assignments"`
}

// Replay gives the state as the events made it, up to and without the first
// event that is later than until: always one that was, also if clocks differed.
// Events are given in order, as Events returns them.
//
// It rests on this: whoever writes one of these keys records, in the same
// transaction, the event beside it.
//
//	jobs/<job>               job.applied, job.scaled, job.stopped, job.restarted, rollout.ordered with Version; job.removed
//	placements/<job>         job.placed with Placement, nil for its removal
//	assignments/<node>/<job> job.assigned with Node and Assigned, empty for its removal
func Replay(events []spec.Event, until time.Time) Snapshot {
	s := Snapshot{
		Jobs:        map[string]uint64{},
		Placements:  map[string]spec.Placement{},
		Assignments: map[string]map[string][]spec.AssignedShards{},
	}
	for _, ev := range events {
		if ev.Time.After(until) {
			break
		}
		s.apply(ev)
	}
	return s
}

// apply does to the snapshot what the event tells.
func (s *Snapshot) apply(ev spec.Event) {
	s.Time = ev.Time
	s.Events++
	switch ev.Type {
	case spec.EventJobApplied, spec.EventJobScaled, spec.EventJobStopped, spec.EventJobRestarted, spec.EventRolloutOrdered:
		s.Jobs[ev.Job] = ev.Version
	case spec.EventJobRemoved:
		delete(s.Jobs, ev.Job)
	case spec.EventPlaced:
		if ev.Placement == nil {
			delete(s.Placements, ev.Job)
		} else {
			s.Placements[ev.Job] = *ev.Placement
		}
	case spec.EventAssigned:
		s.assign(ev.Node, ev.Job, ev.Assigned)
	}
}

func (s *Snapshot) assign(node, job string, assigned []spec.AssignedShards) {
	if len(assigned) > 0 {
		if s.Assignments[node] == nil {
			s.Assignments[node] = map[string][]spec.AssignedShards{}
		}
		s.Assignments[node][job] = assigned
		return
	}
	delete(s.Assignments[node], job)
	if len(s.Assignments[node]) == 0 {
		delete(s.Assignments, node)
	}
}
