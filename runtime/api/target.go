package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// Target names a job, a process of it, or one shard of that.
type Target struct {
	Job string
	// Process is empty if the whole job is meant.
	Process string
	// Shard is -1 if all shards are meant.
	Shard int
}

// ParseTarget reads "job", "job/process" or "job/process/shard"; anything
// else is ErrInvalid.
func ParseTarget(text string) (Target, error) {
	t := Target{Shard: -1}
	parts := strings.Split(text, "/")
	for _, p := range parts {
		if p == "" || len(parts) > 3 {
			return t, fmt.Errorf("%q names nothing: write JOB, JOB/PROCESS or JOB/PROCESS/SHARD: %w", text, ErrInvalid)
		}
	}
	t.Job = parts[0]
	if len(parts) > 1 {
		t.Process = parts[1]
	}
	if len(parts) > 2 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 0 || n >= spec.MaxShards {
			return t, fmt.Errorf("%q: %q is not a shard number: %w", text, parts[2], ErrInvalid)
		}
		t.Shard = n
	}
	return t, nil
}

// String returns what ParseTarget reads.
func (t Target) String() string {
	s := t.Job
	if t.Process != "" {
		s += "/" + t.Process
		if t.Shard >= 0 {
			s += "/" + strconv.Itoa(t.Shard)
		}
	}
	return s
}

// Matches reports whether the instance is meant.
func (t Target) Matches(id spec.InstanceID) bool {
	return id.Job == t.Job && (t.Process == "" || id.Process == t.Process) && (t.Shard < 0 || id.Shard == t.Shard)
}
