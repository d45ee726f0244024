package spec

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// InstanceID names one shard of one process of one job: the primary key of
// everything that runs. Its text form is "job/process/shard".
type InstanceID struct {
	Job     string
	Process string
	Shard   int
}

// String returns "job/process/shard".
func (id InstanceID) String() string {
	return id.Job + "/" + id.Process + "/" + strconv.Itoa(id.Shard)
}

// MarshalText makes the ID usable as a JSON string and as a map key.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads "job/process/shard".
func (id *InstanceID) UnmarshalText(b []byte) error {
	parsed, err := ParseInstanceID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseInstanceID reads "job/process/shard".
func ParseInstanceID(s string) (InstanceID, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return InstanceID{}, fmt.Errorf("parse instance %q: want job/process/shard", s)
	}
	shard, err := strconv.Atoi(parts[2])
	if err != nil || shard < 0 {
		return InstanceID{}, fmt.Errorf("parse instance %q: %q is not a shard number", s, parts[2])
	}
	return InstanceID{Job: parts[0], Process: parts[1], Shard: shard}, nil
}

// Compare orders IDs by job, process and shard number.
func (id InstanceID) Compare(other InstanceID) int {
	if c := strings.Compare(id.Job, other.Job); c != 0 {
		return c
	}
	if c := strings.Compare(id.Process, other.Process); c != 0 {
		return c
	}
	return id.Shard - other.Shard
}

// Phase is where an instance is in its life.
type Phase string

// The phases of an instance.
const (
	PhasePending   Phase = "pending"   // assigned, held back (a dependency, a lock, a lease)
	PhaseStarting  Phase = "starting"  // forked, not ready yet
	PhaseRunning   Phase = "running"   // ready
	PhaseStopping  Phase = "stopping"  // asked to end, or being killed
	PhaseBackoff   Phase = "backoff"   // down, waiting for its next start
	PhaseCompleted Phase = "completed" // ended as its policy wants; stays down
	PhaseFailed    Phase = "failed"    // given up: attempts used up, or may not restart
)

// Alive reports whether a process exists in this phase.
func (p Phase) Alive() bool {
	return p == PhaseStarting || p == PhaseRunning || p == PhaseStopping
}

// Exit is how a generation of an instance ended.
type Exit struct {
	// Code is the exit code; meaningful only if Signal, Error and Unknown are unset.
	Code int `json:"code"`
	// Signal is the signal that ended the process.
	Signal Signal `json:"signal,omitempty"`
	// Unknown is set if nobody could read the exit code: it is never guessed.
	Unknown bool `json:"unknown,omitempty"`
	// OOM is set if the kernel killed the process because its memory was used up,
	// or a process for which it stood (a shell's exit code 137).
	OOM bool `json:"oom,omitempty"`
	// Cause says why meshrun ended the process, if it did: a check, a guard, a
	// timeout, a dependency.
	Cause string `json:"cause,omitempty"`
	// Error says why the process could not be started at all.
	Error string    `json:"error,omitempty"`
	At    time.Time `json:"at"`
}

// Success reports whether the process is known to have exited with code 0.
func (e Exit) Success() bool {
	return e.Code == 0 && e.Signal == "" && !e.Unknown && e.Error == ""
}

// String tells the exit in a few words: "exit 1", "SIGKILL", "exit code unknown".
func (e Exit) String() string {
	text := "exit " + strconv.Itoa(e.Code)
	switch {
	case e.Error != "":
		return e.Error
	case e.Unknown:
		return "exit code unknown"
	case e.Signal != "":
		text = string(e.Signal)
	}
	if e.OOM {
		text += ", out of memory"
	}
	return text
}

// Launch is all that the watchdog needs to start one instance and keep it
// alive by itself: resolved, with no templates left. Declaring the same Launch
// twice changes nothing. Of a Launch declared for a known instance, another
// Hash, Epoch or Lease restarts it, another ReloadHash sends it its reload signal,
// and everything else takes effect without touching it.
type Launch struct {
	ID InstanceID `json:"id"`
	// Version is the job version that this launch was made from.
	Version uint64 `json:"version"`
	// Hash identifies the fields whose change needs a restart (ReplaceHash).
	Hash string `json:"hash"`
	// Epoch counts the restarts that an operator asked for.
	Epoch uint64 `json:"epoch,omitempty"`
	// ReloadHash identifies what the reload signal makes the process read:
	// the list of its files and their contents.
	ReloadHash string `json:"reload_hash,omitempty"`

	Argv []string `json:"argv"`
	// Env is the whole environment, as KEY=value; the watchdog adds
	// NOTIFY_SOCKET and WATCHDOG_USEC. It may hold secrets.
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	User string   `json:"user,omitempty"`
	// Secrets are values of what is above that messages would quote, and must not.
	// They are in no order that matters, but what holds another one comes first.
	Secrets []string `json:"secrets,omitempty"`
	// Exclusive hands the process a locked descriptor, so that the kernel
	// refuses a second local copy.
	Exclusive bool `json:"exclusive,omitempty"`
	Critical  bool `json:"critical,omitempty"`
	// Lease is the session under whose lease the instance lives: it is started
	// only while that holds, and is killed at its end. Empty means that it lives
	// under none. Another Lease restarts it, since it comes with another token.
	Lease string `json:"lease,omitempty"`

	Restart  Restart        `json:"restart"`
	Stop     Stop           `json:"stop"`
	Reload   *Reload        `json:"reload,omitempty"`
	Ready    *Ready         `json:"ready,omitempty"`
	Watchdog *Watchdog      `json:"watchdog,omitempty"`
	Logs     Logs           `json:"logs"`
	Ports    map[string]int `json:"ports,omitempty"`

	// Resources are the limits of the instance's cgroup; nil for none.
	Resources *Resources   `json:"resources,omitempty"`
	Hooks     []LaunchHook `json:"hooks,omitempty"`
	// Expire ends one generation of the instance by its restart policy, as if it
	// had failed by itself. It is nothing to any other generation.
	Expire *Expire `json:"expire,omitempty"`
}

// LaunchHook is a Hook with no templates left.
type LaunchHook struct {
	When    HookTime `json:"when"`
	Argv    []string `json:"argv"`
	Timeout Duration `json:"timeout"`
}

// Expire says that one generation of an instance shall end, and why. Nothing
// comes of it once that generation is gone.
type Expire struct {
	Generation uint64 `json:"generation"`
	Why        string `json:"why"`
	// Planned is set if that is no fault of the instance: it is started again at
	// once, and no attempt of its restart policy is used up.
	Planned bool `json:"planned,omitempty"`
}

// Lease lets the instances of a session live until a time, and no longer. The
// agent renews it; the watchdog enforces it by itself.
type Lease struct {
	Session string `json:"session"`
	// Until is in nanoseconds of CLOCK_BOOTTIME, which goes on while the machine
	// sleeps. One that is over, such as 0, ends the lease at once.
	Until int64 `json:"until"`
}

// Instance is what is seen of one instance on its node.
type Instance struct {
	ID    InstanceID `json:"id"`
	Node  string     `json:"node,omitempty"`
	Phase Phase      `json:"phase"`
	// Reason says in words why the instance is in this phase, if that is not plain.
	Reason string `json:"reason,omitempty"`

	Version    uint64 `json:"version"`
	Hash       string `json:"hash,omitempty"`
	Epoch      uint64 `json:"epoch,omitempty"`
	ReloadHash string `json:"reload_hash,omitempty"`

	// Generation counts the starts of this instance since it was declared.
	Generation uint64 `json:"generation"`
	PID        int    `json:"pid,omitempty"`
	// StartTicks is the kernel's start time of PID, in clock ticks since
	// boot (proc(5), stat field 22): with it and BootID, PID is an identity.
	StartTicks uint64 `json:"start_ticks,omitempty"`
	BootID     string `json:"boot_id,omitempty"`
	// Lease is the session under whose lease PID lives, if it lives under one.
	Lease   string    `json:"lease,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// ReadyAt is when this generation became ready.
	ReadyAt time.Time `json:"ready_at,omitzero"`
	// NextStart is when an instance in backoff is started again.
	NextStart time.Time `json:"next_start,omitzero"`
	// Since is when the present Hash, Epoch or Lease was declared.
	Since time.Time `json:"since,omitzero"`
	// Restarts counts the recoveries since the launch was last replaced.
	Restarts int   `json:"restarts"`
	LastExit *Exit `json:"last_exit,omitempty"`
	// Status is the last STATUS= that the process told (sd_notify(3)).
	Status string         `json:"status,omitempty"`
	Ports  map[string]int `json:"ports,omitempty"`
	// Health is what the checks of this generation say; empty if there are none.
	Health HealthState `json:"health,omitempty"`
	// HealthSince is when Health became what it is.
	HealthSince time.Time     `json:"health_since,omitzero"`
	Checks      []CheckResult `json:"checks,omitempty"`
	// Withdrawn is set while a failing check keeps the services out of catalogs.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// RestartCause says why this generation should be restarted, as a check or a guard
	// finds; the orchestrator says when.
	RestartCause string `json:"ailing,omitempty"`
	// GuardFindings are the guards that found a value above their bound, each until
	// the value is within it again. Alerts are the same as text.
	GuardFindings []GuardFinding `json:"guard_findings,omitempty"`
	Alerts        []string       `json:"alerts,omitempty"`
	// Refused is the version that the instance shall have and that this node cannot
	// launch, for which Reason says why; 0 if there is none.
	Refused uint64 `json:"refused,omitempty"`
	// Services are what a catalog lists of the instance.
	Services []Endpoint `json:"services,omitempty"`
	Critical bool       `json:"critical,omitempty"`
	// DroppedBytes counts output that was not kept because its bound was hit.
	DroppedBytes uint64 `json:"dropped_bytes,omitempty"`
}

// HealthState is what the checks of an instance say together.
type HealthState string

// The states of health: failing if one check is, passing if all are, and
// unknown before that.
const (
	HealthUnknown HealthState = "unknown"
	HealthPassing HealthState = "passing"
	HealthFailing HealthState = "failing"
)

// CheckResult is what one check of an instance says.
type CheckResult struct {
	Name  string      `json:"name"`
	State HealthState `json:"state"`
	Since time.Time   `json:"since,omitzero"`
	// Output is the end of what the last check answered that said something new.
	Output string `json:"output,omitempty"`
}

// Life tells the generations of an instance apart, also across its removal:
// what was found out about one says nothing about another.
type Life struct {
	Generation uint64
	StartTicks uint64
}

// Life returns the generation that the instance is in.
func (i *Instance) Life() Life { return Life{Generation: i.Generation, StartTicks: i.StartTicks} }

// HealthyAt returns since when the instance has been up and, as far as it has
// checks, healthy; false if it isn't.
func (i *Instance) HealthyAt() (time.Time, bool) {
	switch {
	case i.Phase != PhaseRunning:
		return time.Time{}, false
	case i.Health == "":
		return i.ReadyAt, true
	case i.Health == HealthPassing:
		return i.HealthSince, true
	}
	return time.Time{}, false
}

// Table is what a watchdog keeps: its instances as of event Seq.
type Table struct {
	Seq uint64 `json:"seq"`
	// PID and Version are the watchdog's own.
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Halting is set once everything is to end, the agent last.
	Halting bool `json:"halting,omitempty"`
	// Unlimited says why instances run without some of the limits that their
	// launches have; empty if they have them all.
	Unlimited string     `json:"unlimited,omitempty"`
	Instances []Instance `json:"instances"`
}

// LogLine is one line of an instance's output.
type LogLine struct {
	ID     InstanceID `json:"id"`
	Node   string     `json:"node,omitempty"`
	Time   time.Time  `json:"time"`
	Stream string     `json:"stream"` // stdout or stderr
	Text   string     `json:"text"`
	// Partial marks a piece of a line whose end comes in a later LogLine.
	Partial bool `json:"partial,omitempty"`
}

// LogQuery selects lines of output.
type LogQuery struct {
	// Job, Process and Shard narrow the instances; Process "" and Shard -1 mean all.
	Job     string    `json:"job"`
	Process string    `json:"process,omitempty"`
	Shard   int       `json:"shard"`
	Since   time.Time `json:"since,omitzero"`
	// Last keeps only the last lines of each instance; 0 means all.
	Last int `json:"last,omitempty"`
	// Grep is a regular expression (RE2) that the text must match.
	Grep   string `json:"grep,omitempty"`
	Follow bool   `json:"follow,omitempty"`
}
