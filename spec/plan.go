package spec

import "time"

// Effect is how much a change matters to a running instance.
type Effect string

// The effects, from the least to the greatest.
const (
	EffectNone    Effect = ""
	EffectLive    Effect = "live"
	EffectReload  Effect = "reload"
	EffectReplace Effect = "replace"
)

// Change is one field that differs between two versions of a job.
type Change struct {
	// Process is the process that the field belongs to; empty for the job's own.
	Process string `json:"process,omitempty"`
	// Path is the field as the user writes it: "restart.delay", "env.PORT".
	Path string `json:"path"`
	// Old and New are the values as the user writes them; empty with OldSet
	// or NewSet false if there is none. Sensitive values read "(sensitive)".
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
	OldSet bool   `json:"old_set,omitempty"`
	NewSet bool   `json:"new_set,omitempty"`
	Effect Effect `json:"effect"`
}

// JobAction is what an apply does to a job.
type JobAction string

// What can be done to a job.
const (
	JobKeep   JobAction = "keep"
	JobCreate JobAction = "create"
	JobUpdate JobAction = "update"
	JobRemove JobAction = "remove"
)

// InstanceAction is what an apply does to an instance.
type InstanceAction string

// What can be done to an instance.
const (
	ActionKeep    InstanceAction = "keep"
	ActionStart   InstanceAction = "start"
	ActionStop    InstanceAction = "stop"
	ActionRestart InstanceAction = "restart"
	ActionReload  InstanceAction = "reload"
	ActionUpdate  InstanceAction = "update" // live change: policies, limits
	ActionMove    InstanceAction = "move"
	ActionWait    InstanceAction = "wait" // will start once what it waits for is there
	ActionRefuse  InstanceAction = "refuse"
	// ActionSchedule: it runs at its times.
	ActionSchedule InstanceAction = "schedule"
)

// Plan is what an apply would do: computed on a snapshot of the state by the
// same functions that act, and refused by apply if that state has moved since.
type Plan struct {
	// Format is PlanFormat; apply refuses another one.
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	// Node is the node whose agent made the plan, and alone can apply it.
	Node string `json:"node,omitempty"`
	// Index is the state's index that the plan was computed at.
	Index uint64    `json:"index"`
	Jobs  []JobPlan `json:"jobs"`
	// Warnings are things to know that do not stop an apply.
	Warnings []string `json:"warnings,omitempty"`
}

// PlanFormat is the version of the saved plan's layout.
const PlanFormat = 1

// JobPlan is what an apply would do to one job.
type JobPlan struct {
	Job    string    `json:"job"`
	Action JobAction `json:"action"`
	// Base is the index of jobs/<job> that the plan builds on; 0 if the job
	// must not exist.
	Base uint64 `json:"base"`
	// Placed is the index of placements/<job> that the plan builds on; 0 if
	// there is none.
	Placed uint64 `json:"placed,omitempty"`
	// Needs are the indexes of other jobs, by name, on which the version newly
	// depends, directly or through others: a change of those could close a circle.
	Needs map[string]uint64 `json:"needs,omitempty"`
	// From and To are the job's versions before and after.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// Wanted is the version to be written, sensitive values left out; nil if
	// the job is kept or removed.
	Wanted *JobVersion `json:"wanted,omitempty"`
	// Sealed is the same with nothing left out, encrypted and authenticated by
	// the agent that planned, which alone can apply it.
	Sealed    []byte         `json:"sealed,omitempty"`
	Changes   []Change       `json:"changes,omitempty"`
	Instances []InstancePlan `json:"instances,omitempty"`
	// Steps is set if update blocks bound how fast that happens.
	Steps bool `json:"steps,omitempty"`
	// Ends names the processes of the version after that run to their end
	// (Process.Ends): they are as wanted once they have completed.
	Ends []string `json:"ends,omitempty"`
}

// InstancePlan is what an apply would do to one instance, and why.
type InstancePlan struct {
	ID   InstanceID `json:"id"`
	Node string     `json:"node,omitempty"`
	// From is the node that the instance moves away from.
	From   string         `json:"from,omitempty"`
	Action InstanceAction `json:"action"`
	Reason string         `json:"reason,omitempty"`
}

// Counts returns how many instances each action concerns.
func (p *Plan) Counts() map[InstanceAction]int {
	counts := map[InstanceAction]int{}
	for _, j := range p.Jobs {
		for _, i := range j.Instances {
			counts[i.Action]++
		}
	}
	return counts
}

// Empty reports whether an apply would change nothing.
func (p *Plan) Empty() bool {
	for _, j := range p.Jobs {
		if j.Action != JobKeep {
			return false
		}
	}
	return true
}
