package spec

import "strings"

// Job is a named group of processes that are planned, applied, versioned and
// rolled back together.
//
// Every field of Job and of the types below it carries a `diff` tag, which is
// the one place that says how much a change of that field matters:
//
//	key      names the element; two values with other keys are other things
//	replace  a running instance must be restarted to follow the change
//	reload   a running instance is told to reload (its reload signal)
//	live     takes effect without touching any running instance
//	walk     the field is a block: look at its fields one by one
//	mark     says how other fields are shown, and nothing of its own
//
// "walk" may be followed by the block's name as the user writes it, where that
// is not its name in JSON.
type Job struct {
	Name      string            `json:"name" diff:"key"`
	Labels    map[string]string `json:"labels,omitempty" diff:"live"`
	Processes []Process         `json:"processes" diff:"walk"`
}

// Process says how to run one program and in how many shards.
//
// Fields tagged `replace` keep the zero value as their default, so that a new
// version of meshrun with a new field restarts nothing.
type Process struct {
	Name string `json:"name" diff:"key"`
	// Command is the program and its arguments; no shell is involved.
	Command []Template `json:"command" diff:"replace"`
	// Dir is the working directory; empty means "/". A job file leaves it
	// never empty: its own directory is the default.
	Dir Template `json:"dir,omitempty" diff:"replace"`
	// User runs the process as "name" or "name:group"; empty means as meshrun.
	User string              `json:"user,omitempty" diff:"replace"`
	Env  map[string]Template `json:"env,omitempty" diff:"replace"`
	// Shards is the number of instances; 0 keeps the process without any. Its
	// change restarts running instances only where UsesShardCount is true.
	Shards int `json:"shards" diff:"live"`
	// Exclusive processes never run two copies of one shard.
	Exclusive bool `json:"exclusive,omitempty" diff:"replace"`
	// Critical processes are recovered; for others a failure only alerts.
	Critical bool `json:"critical,omitempty" diff:"live"`

	Restart  Restart   `json:"restart" diff:"walk"`
	Stop     Stop      `json:"stop" diff:"walk"`
	Reload   *Reload   `json:"reload,omitempty" diff:"walk"`
	Ready    *Ready    `json:"ready,omitempty" diff:"walk"`
	Watchdog *Watchdog `json:"watchdog,omitempty" diff:"walk"`
	Logs     Logs      `json:"logs" diff:"walk"`

	Ports     []Port       `json:"ports,omitempty" diff:"walk,port"`
	DependsOn []Dependency `json:"depends_on,omitempty" diff:"walk"`

	Health    []Health   `json:"health,omitempty" diff:"walk"`
	Guards    []Guard    `json:"guards,omitempty" diff:"walk,guard"`
	Resources *Resources `json:"resources,omitempty" diff:"walk"`
	Services  []Service  `json:"services,omitempty" diff:"walk,service"`
	Update    *Update    `json:"update,omitempty" diff:"walk"`
	Placing   *Placing   `json:"placing,omitempty" diff:"walk,placement"`
	Schedule  *Schedule  `json:"schedule,omitempty" diff:"walk"`
	Hooks     []Hook     `json:"hooks,omitempty" diff:"walk,hook"`

	// Sensitive lists the paths of values that came from sensitive variables,
	// such as "env.TOKEN" or "command[2]". Show them as "(sensitive)".
	Sensitive []string `json:"sensitive,omitempty" diff:"mark"`
}

// RestartPolicy says after which exits a process is started again.
type RestartPolicy string

// The restart policies.
const (
	RestartAlways    RestartPolicy = "always"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartNever     RestartPolicy = "never"
)

// Exhausted says what happens when the restart attempts are used up.
type Exhausted string

// What can happen when attempts are used up.
const (
	// ExhaustedFail: stay down and raise a critical alert.
	ExhaustedFail Exhausted = "fail"
	// ExhaustedRetry: raise a critical alert and go on trying every MaxDelay.
	ExhaustedRetry Exhausted = "retry"
	// ExhaustedReschedule: try another node; where none fits, ExhaustedFail.
	ExhaustedReschedule Exhausted = "reschedule"
)

// Restart is the restart policy of a process.
type Restart struct {
	Policy RestartPolicy `json:"policy" diff:"live"`
	// Delay is the wait before the first retry; it doubles with each further
	// one up to MaxDelay, with jitter. Zero restarts at once.
	Delay    Duration `json:"delay" diff:"live"`
	MaxDelay Duration `json:"max_delay" diff:"live"`
	// Attempts is how many restarts are allowed within the sliding Window.
	Attempts  int       `json:"attempts" diff:"live"`
	Window    Duration  `json:"window" diff:"live"`
	Exhausted Exhausted `json:"exhausted" diff:"live"`
	// Stable is the uptime after which a restart counts as recovered: the
	// backoff starts afresh and the recovery is recorded.
	Stable Duration `json:"stable" diff:"live"`
}

// Reschedules reports whether an instance that has used up its attempts is tried
// on another node.
func (r *Restart) Reschedules() bool {
	return r.Exhausted == ExhaustedReschedule && r.Policy != RestartNever
}

// Stop says how a process is asked to end.
type Stop struct {
	// Signal goes to the process group first; SIGKILL follows at Timeout.
	Signal  Signal   `json:"signal" diff:"live"`
	Timeout Duration `json:"timeout" diff:"live"`
}

// Reload says how a running process is told to read its files again, and
// which files those are.
type Reload struct {
	Signal Signal `json:"signal" diff:"live"`
	// Files are paths on the node; a relative one is relative to Dir.
	Files []Template `json:"files,omitempty" diff:"reload"`
}

// Ready says when a started process counts as running.
type Ready struct {
	// Notify waits for READY=1 on NOTIFY_SOCKET (sd_notify(3)).
	Notify bool `json:"notify,omitempty" diff:"replace"`
	// Timeout is how long readiness may take before the start has failed.
	Timeout Duration `json:"timeout" diff:"live"`
}

// Watchdog expects WATCHDOG=1 on NOTIFY_SOCKET at least every Timeout. The
// process learns the timeout from its environment, hence `replace`.
type Watchdog struct {
	Timeout Duration `json:"timeout" diff:"replace"`
}

// Logs bounds what is kept of a process's output, per instance.
type Logs struct {
	MaxSize Size `json:"max_size" diff:"live"`
	// Keep is the number of rotated files beside the current one.
	Keep int `json:"keep" diff:"live"`
}

// Port is a TCP or UDP port that the process listens on.
type Port struct {
	Name string `json:"name" diff:"key"`
	// Static is the port's number; 0 lets the node choose a free one.
	Static int `json:"static,omitempty" diff:"replace"`
}

// Condition is the state of a dependency that lets its dependents start.
type Condition string

// The conditions of a dependency.
const (
	ConditionStarted   Condition = "started"
	ConditionHealthy   Condition = "healthy"
	ConditionCompleted Condition = "completed"
)

// OnFailure says what happens to a running process whose dependency is no
// longer so far.
type OnFailure string

// What can happen to the dependents of a process that fails.
const (
	// OnFailureWait leaves what runs as it is; only starts wait.
	OnFailureWait OnFailure = "wait"
	// OnFailureRestart restarts dependents once the dependency, started anew, is
	// so far again.
	OnFailureRestart OnFailure = "restart"
	// OnFailureStop stops dependents until the dependency is so far again.
	OnFailureStop OnFailure = "stop"
)

// Dependency holds a process back until another one is so far, and says what
// follows if that one fails later.
type Dependency struct {
	// Process is the name of a process of the same job, or "job/process".
	Process   string    `json:"process" diff:"key"`
	Condition Condition `json:"condition" diff:"live"`
	// OnFailure is OnFailureWait if it is empty.
	OnFailure OnFailure `json:"on_failure,omitempty" diff:"live"`
}

// Of returns the job and the process that are depended on, seen from a job.
func (d *Dependency) Of(job string) (onJob, process string) {
	if other, name, far := strings.Cut(d.Process, "/"); far {
		return other, name
	}
	return job, d.Process
}

// HealthAction says what a failing check leads to, beside that whoever waits
// for the instance's health waits on.
type HealthAction string

// What a failing check can lead to.
const (
	// HealthAlert tells of it, and lists the instance's services as critical.
	HealthAlert HealthAction = "alert"
	// HealthWithdraw tells of it, and takes the instance's services out of the catalog.
	HealthWithdraw HealthAction = "withdraw"
	// HealthRestart restarts the instance, by its restart policy and when a
	// rollout would let it; its services are critical until then.
	HealthRestart HealthAction = "restart"
)

// Health is a check of a running process. Exactly one of URL, TCP, Command,
// GRPC, Notify and Log is set, and says of which kind it is.
type Health struct {
	Name string `json:"name" diff:"key"`
	// URL is asked over HTTP or HTTPS.
	URL Template `json:"url,omitempty" diff:"live"`
	// TCP is a host:port that must take a connection.
	TCP Template `json:"tcp,omitempty" diff:"live"`
	// Command is run as the process's user, and must exit with 0.
	Command []Template `json:"command,omitempty" diff:"live"`
	// GRPC is a host:port whose standard health service is asked.
	GRPC Template `json:"grpc,omitempty" diff:"live"`
	// Notify demands that READY=1 has come (sd_notify(3)).
	Notify bool `json:"notify,omitempty" diff:"live"`
	// Log is a regular expression (RE2) that a line of output must match once
	// in each generation.
	Log string `json:"log,omitempty" diff:"live"`

	// The next are for URL. Status lists the codes that are right, as numbers and
	// ranges ("200-299"); Body is a regular expression that the body must match.
	Method  string              `json:"method,omitempty" diff:"live"`
	Headers map[string]Template `json:"headers,omitempty" diff:"live"`
	Status  []string            `json:"status,omitempty" diff:"live"`
	Body    string              `json:"body,omitempty" diff:"live"`
	// Service is the name that is asked for with GRPC; empty for the server as a whole.
	Service string `json:"service,omitempty" diff:"live"`
	// TLS uses TLS with GRPC. CAFile replaces the system's authorities, and
	// SkipVerify trusts whoever answers.
	TLS        bool   `json:"tls,omitempty" diff:"live"`
	CAFile     string `json:"ca_file,omitempty" diff:"live"`
	SkipVerify bool   `json:"skip_verify,omitempty" diff:"live"`

	Interval Duration `json:"interval" diff:"live"`
	Timeout  Duration `json:"timeout" diff:"live"`
	// Failures in a row make the check fail, Successes make it pass.
	Failures  int `json:"failures" diff:"live"`
	Successes int `json:"successes" diff:"live"`
	// StartPeriod is how long failures don't count after a start, until the
	// first success.
	StartPeriod Duration     `json:"start_period" diff:"live"`
	OnFailure   HealthAction `json:"on_failure" diff:"live"`
}

// GuardKind is what a guard watches.
type GuardKind string

// The kinds of guards.
const (
	GuardCPU    GuardKind = "cpu"    // percent of one core, by the whole group
	GuardMemory GuardKind = "memory" // resident size of the whole group
	GuardZombie GuardKind = "zombie" // ended children that are not reaped
	GuardAbsent GuardKind = "absent" // it should run, and no process is there; it can only alert
)

// Guard acts when a process uses too much of something, or isn't what it
// should be, for too long.
type Guard struct {
	Name GuardKind `json:"name" diff:"key"`
	// Above is a percentage of one core ("95%"), a size ("512MiB"), or a number
	// of zombies; absent has none.
	Above string   `json:"above,omitempty" diff:"live"`
	For   Duration `json:"for" diff:"live"`
	// Interval is the time between two looks.
	Interval Duration    `json:"interval" diff:"live"`
	Action   GuardAction `json:"action" diff:"live"`
}

// GuardAction is what a guard does.
type GuardAction string

// What a guard can do.
const (
	GuardRestart GuardAction = "restart" // by the restart policy, when a rollout would let it
	GuardAlert   GuardAction = "alert"
)

// Resources are what all processes of an instance may use together; 0 is no limit.
type Resources struct {
	// CPU is in cores. It is a quota, and a weight when processors are short.
	CPU float64 `json:"cpu,omitempty" diff:"live"`
	// Memory includes what is swapped out.
	Memory Size `json:"memory,omitempty" diff:"live"`
	// PIDs bounds processes and threads.
	PIDs int `json:"pids,omitempty" diff:"live"`
}

// Service makes each instance be listed in a catalog of services, with its health.
type Service struct {
	// Name is a label of DNS; several processes may have the same.
	Name string `json:"name" diff:"key"`
	// Port is the name of one of the process's ports; empty for a service
	// without one.
	Port string   `json:"port,omitempty" diff:"live"`
	Tags []string `json:"tags,omitempty" diff:"live"`
}

// Update bounds a rollout, and every other restart that is not the process's
// own doing: at no time are more than MaxParallel shards down on purpose.
type Update struct {
	MaxParallel int `json:"max_parallel" diff:"live"`
	// Canary is the number of shards that get a new definition first, as a
	// trial; the others wait until it is promoted.
	Canary int `json:"canary,omitempty" diff:"live"`
	// MinHealthy is how long a shard must be healthy to count as such.
	MinHealthy Duration `json:"min_healthy" diff:"live"`
	// HealthyDeadline is how long a changed shard may take to become healthy, and
	// ProgressDeadline the time within which some shard must; a rollout that
	// misses one has failed.
	HealthyDeadline  Duration `json:"healthy_deadline" diff:"live"`
	ProgressDeadline Duration `json:"progress_deadline" diff:"live"`
	// AutoRevert goes back to the last good version of the job on failure.
	AutoRevert bool `json:"auto_revert,omitempty" diff:"live"`
	// AutoPromote ends the trial by itself once the canaries are healthy.
	AutoPromote bool `json:"auto_promote,omitempty" diff:"live"`
	// Stagger is the least time between two changes.
	Stagger Duration `json:"stagger,omitempty" diff:"live"`
}

// Placing are the rules by which nodes are chosen (the placement block).
type Placing struct {
	Constraints []Constraint `json:"constraints,omitempty" diff:"walk,constraint"`
	Spreads     []Spread     `json:"spreads,omitempty" diff:"walk,spread"`
}

// Constraint allows only nodes that carry a label with a value.
type Constraint struct {
	Label string `json:"label" diff:"key"`
	Is    string `json:"is" diff:"live"`
}

// Spread distributes shards over the values of a node label.
type Spread struct {
	Label string `json:"label" diff:"key"`
}

// CatchUp says what becomes of ticks that nobody was there for.
type CatchUp string

// What can become of missed ticks.
const (
	CatchUpNone CatchUp = "none" // they are skipped
	CatchUpOne  CatchUp = "one"  // the last of them is run late
)

// Schedule starts a process at times; in between it is down.
type Schedule struct {
	Cron     string `json:"cron" diff:"live"`
	TimeZone string `json:"time_zone,omitempty" diff:"live"`
	// Overlap starts a run even if the one before has not ended.
	Overlap bool    `json:"overlap,omitempty" diff:"live"`
	CatchUp CatchUp `json:"catch_up,omitempty" diff:"live"`
}

// HookTime says when a hook runs.
type HookTime string

// The times of hooks.
const (
	// HookBeforeStart runs before every start; if it fails, so has the start.
	HookBeforeStart HookTime = "before_start"
	// HookAfterStop runs after every end, and before the next start.
	HookAfterStop HookTime = "after_stop"
)

// Hook is a command that runs around a process's life, as its user, in its
// directory and with its environment.
type Hook struct {
	When    HookTime   `json:"when" diff:"key"`
	Command []Template `json:"command" diff:"live"`
	Timeout Duration   `json:"timeout" diff:"live"`
}
