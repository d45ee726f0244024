package api

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// RolloutStatus is how far a job is from what is wanted of it, as its
// orchestrator sees it.
type RolloutStatus struct {
	Job string `json:"job"`
	// Version is the one that is wanted; Why, Who and When tell of its making.
	Version uint64    `json:"version"`
	Why     string    `json:"why,omitempty"`
	Who     string    `json:"who,omitempty"`
	When    time.Time `json:"when,omitzero"`
	// Rollout is what is remembered of the version's rollout; nil for a job in
	// which no process has an update block, of which nothing is.
	Rollout *spec.Rollout `json:"rollout,omitempty"`
	// Progress tells of each process, by name.
	Progress []spec.Progress `json:"progress,omitempty"`
	// Waiting says of the instances that aren't as the job wants them why not.
	Waiting map[spec.InstanceID]string `json:"waiting,omitempty"`
	// Reverted is set if the version was made to take the place of a failed one.
	Reverted bool `json:"reverted,omitempty"`
	// Reverting is the version that the job is about to go back to; 0 for none.
	Reverting uint64 `json:"reverting,omitempty"`
	// Tag names all of the above: it is another one as soon as that is.
	Tag string `json:"tag,omitempty"`
}

// State is the state of the rollout as a whole; RolloutDone if none is
// remembered.
func (s *RolloutStatus) State() spec.RolloutState {
	if s.Rollout == nil {
		return spec.RolloutDone
	}
	return s.Rollout.State
}

// SetTag sets the tag from all other fields. Call it last.
func (s *RolloutStatus) SetTag() error {
	s.Tag = ""
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode rollout of job %s: %w", s.Job, err)
	}
	h := fnv.New64a()
	h.Write(data)
	s.Tag = strconv.FormatUint(h.Sum64(), 36)
	return nil
}
