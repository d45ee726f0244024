package watchdog

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// errLocked: another process holds the lock of an exclusive instance.
var errLocked = errors.New("another copy still holds the lock")

// errFenced: the lease under which it was to be started does not hold.
var errFenced = errors.New("its lease is not valid")

// The marks that a process carries in its environment, so that a successor of
// this watchdog knows it again.
const (
	envInstance   = "MESHRUN_INSTANCE"
	envGeneration = "MESHRUN_GENERATION"
	envWatchdog   = "MESHRUN_WATCHDOG_ID"
	envUnrecorded = "MESHRUN_UNRECORDED"
	envLockFD     = "MESHRUN_LOCK_FD"
	envLease      = "MESHRUN_LEASE"
	envSocket     = "MESHRUN_WATCHDOG_SOCKET"
	envHook       = "MESHRUN_HOOK"
	envExit       = "MESHRUN_EXIT" // after_stop only: how the program ended
)

// process is one generation's process as the kernel knows it: a pidfd, and the
// identity that a reused pid cannot have.
type process struct {
	token      uint64 // of its kernel events; never used twice
	pidfd      int
	pid        int
	startTicks uint64
	bootID     string
	session    int  // the process group and session that it was started in
	dead       bool // seen dead, exit not read yet
	// group is its cgroup, if it has one; the fence reads it, too.
	group atomic.Pointer[cgroup.Group]
	// marked is the MESHRUN_GENERATION of an exclusive one without a cgroup.
	marked string
}

// marks tell a process and its finder who it is.
type marks struct {
	generation uint64
	nonce      string
	// unrecorded is set when the journal could not note the start first.
	unrecorded bool
}

// startBatch is how many forks are begun together: while the kernel works on
// one, the others are prepared and the ones before looked at. In between, a
// long queue of starts delays neither exits nor requests by more than that.
const startBatch = 64

// start is a launch to be forked now.
type start struct {
	launch *spec.Launch
	marks  marks
	// hook is forked instead of the program; nil for the program.
	hook *spec.LaunchHook
	exit string // MESHRUN_EXIT
}

// argv is what is executed.
func (st *start) argv() []string {
	if st.hook != nil {
		return st.hook.Argv
	}
	return st.launch.Argv
}

// cleans reports whether it is an after_stop hook: one may run until the end of
// the lease, under which nothing else is started any more.
func (st *start) cleans() bool { return st.hook != nil && st.hook.When == spec.HookAfterStop }

// kernelEvent is something that happened to a process or a notify socket.
// Tokens are never reused, so that a late event finds nobody.
type kernelEvent struct {
	token  uint64
	notify bool // the socket has messages; otherwise the process is dead
}

// notification is one message of a process on its notify socket.
type notification struct {
	ready, stopping, alive bool
	status                 string
	hasStatus              bool
	mainPID                int
	watchdog, extend       time.Duration
}

// sighting is a process found alive that carries this watchdog's marks or
// holds the pipes of one of its instances.
type sighting struct {
	id         spec.InstanceID
	generation uint64
	nonce      string
	lease      string // that it was started under
	hook       spec.HookTime
	unrecorded bool
	pid, pgid  int
	session    int
	startTicks uint64
	byPipe     bool // known by its pipes alone: id is set, the nonce is not
}

// leader reports whether it leads its session, as what was forked does.
func (s sighting) leader() bool { return s.pid == s.pgid && s.pid == s.session }

// kernel is all that the loop needs of the operating system. Its methods are
// called by the loop's goroutine alone and never wait for a process.
// The leases and their clock are the fence's.
type kernel interface {
	// Events delivers what happens, in bounded batches.
	Events() <-chan []kernelEvent
	// Hold opens what an instance keeps over its generations: its pipes and,
	// where it has one, its notify socket, whose token it returns.
	// What lives is held whatever the limit of descriptors says: it would
	// block on a pipe that nobody reads.
	Hold(l *spec.Launch, lives bool) (notifyToken uint64, err error)
	// Start forks for each of the starts, at most startBatch, and hands over
	// what came of them one by one, before it returns. An error says in words
	// why there is no process; errLocked if another copy holds the lock, errFenced
	// if its lease does not hold in the moment of the fork.
	Start(starts []start, done func(i int, p *process, err error))
	// Limit makes a launch's limits hold for a live process, without touching
	// it; for one that is nil, from its next start on, which has the marks'
	// generation. What can be set is set, whatever else the error says; it wraps
	// cgroup.ErrUnavailable if it is the machine's matter, not the instance's.
	Limit(l *spec.Launch, p *process, m marks) error
	// Reclaim ends and removes what is left of cgroups that are nobody's now;
	// it returns their names with how many processes were killed.
	Reclaim() map[string]int
	// Tidy removes the cgroups of what has ended; false if some are not empty
	// yet.
	Tidy() bool
	// Find opens a process that is said to live: nil if pid, start time and
	// boot are not all those of a live or unreaped process, or if the process
	// carries another generation's mark; an error if that cannot be told.
	Find(pid int, startTicks uint64, bootID string, m marks) (*process, error)
	// Scan looks at every process for this watchdog's marks and pipes.
	Scan(ids []spec.InstanceID) []sighting
	// Signal signals the process's whole group.
	Signal(p *process, sig syscall.Signal) error
	// Kill ends one process found by Find, not its group, and lets go of it.
	Kill(p *process) error
	// Collect reads how a dead process ended, kills the rest of its group and
	// lets go of it; false if the exit is not readable yet and last is not set.
	Collect(p *process, last bool) (spec.Exit, bool)
	// Messages reads what came on an instance's notify socket.
	Messages(id spec.InstanceID) []notification
	// Follow switches to the main process that a process named (MAINPID=);
	// an error if it is not one of the instance's own.
	Follow(old *process, pid int, m marks) (*process, error)
	// EndOutput ends the unfinished lines of a process that has exited.
	EndOutput(id spec.InstanceID)
	// Release closes and removes what Hold opened, after draining it.
	Release(id spec.InstanceID)
	// SetLogs changes how much output of an instance is kept.
	SetLogs(id spec.InstanceID, limits spec.Logs)
	// Dropped is ready when output was lost; TakeDropped returns how many
	// bytes since the last time.
	Dropped() <-chan struct{}
	TakeDropped() map[spec.InstanceID]uint64
	// Orphans reaps what was left to this process and is none of known; it
	// returns the tokens of known ones that have died.
	Orphans(known func(pid int) (uint64, bool)) []uint64
	// BootID names the running boot.
	BootID() string
}
