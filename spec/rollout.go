package spec

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// RolloutState is how far a rollout is.
type RolloutState string

// The states of a rollout.
const (
	RolloutRunning RolloutState = "running"
	// RolloutWaiting: the canaries are healthy, and wait to be promoted.
	RolloutWaiting RolloutState = "waiting"
	RolloutPaused  RolloutState = "paused"
	RolloutFailed  RolloutState = "failed"
	RolloutDone    RolloutState = "done"
)

// Rollout is what is remembered of a job's rollout: the value of rollouts/<job>.
// Everything else about it can be seen.
type Rollout struct {
	Job     string       `json:"job"`
	Version uint64       `json:"version"` // of the job
	State   RolloutState `json:"state"`
	// Process is the one whose progress has the job's state, and Waits what that
	// progress says; both are empty for a rollout that runs or is done.
	Process string `json:"process,omitempty"`
	Waits   string `json:"waits,omitempty"`
	// TooLarge is set if the rollout has failed because its assignments cannot be
	// written.
	TooLarge bool `json:"too_large,omitempty"`
	// Reason is the text of the three above, for people; see SetReason.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Good is the last version of the job whose rollout was done; 0 if none was.
	Good uint64 `json:"good,omitempty"`
	// Promoted are the processes whose canaries were promoted by themselves, with
	// the version of the definition that was on trial.
	Promoted map[string]uint64 `json:"promoted,omitempty"`
}

// rolloutTooLarge is the reason of a rollout whose assignments cannot be written.
const rolloutTooLarge = "its old and its new version are too large to be told to a node together; keep large texts in files, or remove the update block"

// SetReason renders Reason.
func (r *Rollout) SetReason() {
	switch {
	case r.TooLarge:
		r.Reason = rolloutTooLarge
	case r.Process != "":
		r.Reason = r.Process + ": " + r.Waits
	default:
		r.Reason = ""
	}
}

// UnmarshalJSON also reads records of before Process, Waits and TooLarge, which
// have Reason alone.
func (r *Rollout) UnmarshalJSON(data []byte) error {
	type plain Rollout
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	if r.Reason == "" || r.Process != "" || r.TooLarge {
		return nil
	}
	if strings.HasSuffix(r.Reason, rolloutTooLarge) {
		r.TooLarge = true
	} else if process, waits, ok := strings.Cut(r.Reason, ": "); ok {
		r.Process, r.Waits = process, waits
	}
	return nil
}

// Progress is how far the rollout of one process is.
type Progress struct {
	Process string       `json:"process"`
	State   RolloutState `json:"state"`
	// Wanted shards shall run; Updated are assigned as the job wants them, and
	// Healthy are those of them that have been healthy for long enough.
	Wanted  int `json:"wanted"`
	Updated int `json:"updated"`
	Healthy int `json:"healthy"`
	// Waits says what is waited for, and why; empty if for nothing.
	Waits string `json:"waits,omitempty"`
}

// ManualRun precedes the number of a run by hand in its ID.
const ManualRun = "manual-"

// RunState is how a run of a scheduled process is going.
type RunState string

// The states of a run.
const (
	RunActive    RunState = "active"
	RunSucceeded RunState = "succeeded"
	RunFailed    RunState = "failed"
	RunSkipped   RunState = "skipped" // it was due, and not started
)

// Run is one run of a scheduled process: the value of runs/<job>/<process>/<id>.
// Its key is written by a transaction that demands that there is none yet, in
// the same that assigns it, so that a tick is run at most once.
type Run struct {
	Job     string `json:"job"`
	Process string `json:"process"`
	// ID is the tick in UTC, "20261124T030000Z", or "manual-N" for the Nth run
	// that was asked for by hand.
	ID   string    `json:"id"`
	Tick time.Time `json:"tick"`
	// Shard is what runs it, -1 for all shards of the process but for those
	// Without: which had no node, or were stopped or lost since.
	Shard   int      `json:"shard"`
	Without ShardSet `json:"without,omitempty"`
	// Epoch is higher than that of any run before; a shard's own is the sum of
	// it and of its order's.
	Epoch uint64    `json:"epoch,omitempty"`
	Node  string    `json:"node,omitempty"`
	State RunState  `json:"state"`
	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	Exit  *Exit     `json:"exit,omitempty"`
	// Reason says why it was skipped, or failed without an exit.
	Reason string `json:"reason,omitempty"`
	// Ticks is how many ticks in a row a skipped one stands for; ID is the last.
	Ticks int `json:"ticks,omitempty"`
}

// Why says in words how the run ended, or why it was skipped; "" if it succeeded,
// or is under way.
func (r *Run) Why() string {
	why := r.Reason
	if r.Exit != nil && !r.Exit.Success() {
		if why != "" {
			why += "; "
		}
		why += r.Exit.String()
	}
	if r.Ticks > 1 {
		why += fmt.Sprintf(" (%d times in a row)", r.Ticks)
	}
	return why
}
