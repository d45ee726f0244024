package api

import (
	"context"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Backend is what an agent does for people. Every method is safe for
// concurrent use, honours the context, and returns an error that wraps one of
// this package's sentinels where the caller can do something about it; any
// other error is a fault of the agent. Nothing that it returns holds a
// sensitive value.
//
// Who(ctx) tells who asks.
type Backend interface {
	// Plan says what an apply of the request would do, computed on the state
	// as it is now. Nothing is written. It returns ErrInvalid for a request
	// that contradicts itself or a job that may not run, and ErrNotFound for
	// an order or a rollback of something that does not exist.
	Plan(ctx context.Context, req PlanRequest) (spec.Plan, error)
	// Apply does what a plan of this agent says, or returns ErrStale if the
	// state has moved since and ErrInvalid if the plan was altered. When it
	// returns nil, the change is durable; the instances follow.
	Apply(ctx context.Context, plan spec.Plan) (ApplyResult, error)
	// PlanAndApply does both for who agrees unseen, and returns what was done.
	// The plan is only to be shown: it can't be applied again, and of the
	// versions it has what names them, not the jobs. Errors are those of both.
	PlanAndApply(ctx context.Context, req PlanRequest) (Done, error)

	// Jobs returns what is wanted now, ordered by name.
	Jobs(ctx context.Context) ([]spec.JobVersion, error)
	// Job returns what is wanted of one job, or ErrNotFound.
	Job(ctx context.Context, name string) (spec.JobVersion, error)
	// History returns every kept version of a job, the oldest first, the
	// current one included; also of a job that was removed. It returns
	// ErrNotFound if there never was one.
	History(ctx context.Context, name string) ([]spec.JobVersion, error)

	// Runs returns the kept runs of a job's scheduled processes, by process and the
	// oldest first, or ErrNotFound.
	Runs(ctx context.Context, name string) ([]spec.Run, error)

	// Rollout says how far the rollout of a job is, or returns ErrNotFound. With
	// the tag of an answer it blocks until there is another one.
	Rollout(ctx context.Context, name, after string) (RolloutStatus, error)

	// Rollouts returns what is remembered of the jobs' rollouts, by name.
	Rollouts(ctx context.Context) ([]spec.Rollout, error)

	// Placements returns where the shards of all jobs belong, by name.
	Placements(ctx context.Context) ([]spec.Placement, error)

	// Instances returns all instances, ordered by ID, and their index. With an
	// index it blocks until something has changed after it; an index greater
	// than the present one (of an agent that has since been restarted)
	// returns at once.
	Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error)
	// Logs calls each with the lines that the query selects, in order of
	// time, until there are no more; with Follow until the context ends. It
	// returns each's error, ErrNotFound if nothing of that name ever ran, and
	// ErrPartial, after all that there is, if a node's lines are missing.
	Logs(ctx context.Context, query spec.LogQuery, each func(spec.LogLine) error) error
	// Events calls each with the events that the query selects, in order of
	// time, decisions and what instances did alike; with Follow until the
	// context ends. It returns each's error, and ErrPartial, after all that
	// there is, if what a node's instances did is missing. In a call that is
	// Local there are no decisions, which are the same on every node.
	Events(ctx context.Context, query EventQuery, each func(spec.Event) error) error

	// Signal sends a signal to the live instances of a target (see
	// ParseTarget) and returns how many got it; ErrNotFound if the target
	// names nothing, and ErrPartial, with what was done in words, if some
	// nodes could not be reached.
	Signal(ctx context.Context, target string, signal spec.Signal) (int, error)
	// Info says who the agent is and what is wrong with it.
	Info(ctx context.Context) (Info, error)
	// Shutdown begins to end the agent and its watchdog and returns at once.
	// With stopInstances everything is stopped first, each by its stop block;
	// what is wanted stays wanted, and the next agent starts it again.
	// Otherwise the instances go on.
	Shutdown(ctx context.Context, stopInstances bool) error
	// Upgrade begins to put the binary that is installed now in the place of
	// the running watchdog and agent, and returns at once. No instance is
	// touched.
	Upgrade(ctx context.Context) error

	ClusterBackend
}

// PlanRequest says what is wanted; the plan is the difference to what is.
type PlanRequest struct {
	// Jobs are to be as they are here.
	Jobs []JobSource `json:"jobs,omitempty"`
	// Paths are the absolute paths of the files and directories that were
	// read: a job that came from below one of them (JobVersion.Source) and is
	// not among Jobs is to be removed.
	Paths []string `json:"paths,omitempty"`
	// Remove names jobs to be removed.
	Remove []string `json:"remove,omitempty"`
	// Orders are operators' wishes beside the files.
	Orders []Order `json:"orders,omitempty"`
	// Rollbacks bring earlier versions back, as new versions.
	Rollbacks []Rollback `json:"rollbacks,omitempty"`
	// Who asks; the server fills it in from the connection if it is empty.
	Who string `json:"who,omitempty"`
}

// from fills in who asks.
func (r PlanRequest) from(ctx context.Context) PlanRequest {
	if r.Who == "" {
		r.Who = Who(ctx)
	}
	return r
}

// JobSource is a job and the file that it came from.
type JobSource struct {
	Job spec.Job `json:"job"`
	// Source is an absolute path; empty if the job came from no file.
	Source string `json:"source,omitempty"`
}

// Order is an operator's wish for a job, a process or one shard.
type Order struct {
	Op spec.Op `json:"op"`
	// Target is "job", "job/process" or "job/process/shard" (ParseTarget).
	Target string `json:"target"`
	// Count is the number of shards, for OpScale.
	Count int `json:"count,omitempty"`
}

// Rollback names an earlier version of a job.
type Rollback struct {
	Job string `json:"job"`
	// Version is the version to bring back; 0 is the last one before
	// the current that defines the job otherwise.
	Version uint64 `json:"version,omitempty"`
	// Good, with a Version of 0, brings back the last version that was rolled out
	// completely, if any is known.
	Good bool `json:"good,omitempty"`
}

// ApplyResult says what an apply has done.
type ApplyResult struct {
	// Index is the state's index of the change.
	Index uint64 `json:"index"`
	// Applied names the jobs that were written or removed.
	Applied []string `json:"applied"`
}

// Done is a plan that was applied, and what came of it. A plan that was empty
// has a result with its index.
type Done struct {
	Plan   spec.Plan   `json:"plan"`
	Result ApplyResult `json:"result"`
}

// EventQuery selects events.
type EventQuery struct {
	// After is the ID of an event: only later ones are wanted.
	After string    `json:"after,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Types are the wanted types; none means all. A type that ends with a dot
	// ("instance.") selects all that begin with it.
	Types []spec.EventType `json:"types,omitempty"`
	// Job keeps the events of one job.
	Job    string `json:"job,omitempty"`
	Follow bool   `json:"follow,omitempty"`
}

// Info is an agent's word about itself.
type Info struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// WatchdogPID is 0 while there is no watchdog.
	WatchdogPID int       `json:"watchdog_pid"`
	DataDir     string    `json:"data_dir"`
	Started     time.Time `json:"started"`
	// Problems are sentences about what is wrong with the node now.
	Problems []string `json:"problems,omitempty"`
}

// Signal is a request to send a signal.
type Signal struct {
	Target string      `json:"target"`
	Signal spec.Signal `json:"signal"`
}

// Signalled says how many instances got a signal.
type Signalled struct {
	Count int `json:"count"`
}

// Shutdown is a request to end the agent.
type Shutdown struct {
	StopInstances bool `json:"stop_instances,omitempty"`
}
