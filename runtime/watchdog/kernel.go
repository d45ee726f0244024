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

// errFenced: the lease of the launch is not valid.
var errFenced = errors.New("its lease is not valid")

// The marks in a process's environment, by which a successor of this watchdog
// recognizes it.
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

// process is the process of a generation as the kernel knows it: a pidfd, and
// an identity that a reused PID cannot have.
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

// marks identify a process to itself and to a successor of the watchdog.
type marks struct {
	generation uint64
	nonce      string
	// unrecorded is set if the start could not be journalled before the fork.
	unrecorded bool
}

// startBatch is how many forks are begun together: while the kernel works on
// one, the others are prepared and the earlier ones handled. It bounds how long
// a queue of starts delays exits and requests.
const startBatch = 64

// start is a process to be forked.
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

// isCleanup reports whether it is an after_stop hook, which may run until the
// lease expires, when nothing else is started under it any more.
func (st *start) isCleanup() bool { return st.hook != nil && st.hook.When == spec.HookAfterStop }

// kernelEvent reports something about a process or a notify socket. Tokens are
// never reused, so that a late event matches nothing.
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

// foundProcess is a live process that carries this watchdog's marks or holds
// the pipes of one of its instances.
type foundProcess struct {
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

// leader reports whether it leads its session, as every forked process does.
func (s foundProcess) leader() bool { return s.pid == s.pgid && s.pid == s.session }

// kernel is all that the loop needs of the operating system. Only the loop's
// goroutine calls its methods, which never wait for a process. Leases and their
// clock belong to the fence.
type kernel interface {
	// Events delivers what happens, in bounded batches.
	Events() <-chan []kernelEvent
	// Hold opens what an instance keeps across generations: its pipes and, if
	// it has one, its notify socket, whose token it returns. If lives is set,
	// the limit of descriptors does not count: the process would block on a
	// pipe that nobody reads.
	Hold(l *spec.Launch, lives bool) (notifyToken uint64, err error)
	// Start forks each of the starts, at most startBatch, and passes each
	// result to done before it returns. An error says why there is no process:
	// errLocked if another copy holds the lock, errFenced if the lease is not
	// valid at the moment of the fork.
	Start(starts []start, done func(i int, p *process, err error))
	// Limit applies a launch's limits to a live process, without disturbing it,
	// or if p is nil, to its next start, which has the marks' generation. It
	// applies as many limits as it can, even if it returns an error; that wraps
	// cgroup.ErrUnavailable if the cause is the machine and not the instance.
	Limit(l *spec.Launch, p *process, m marks) error
	// Reclaim kills what is left in cgroups that belong to no instance now, and
	// removes them; it returns their names and how many processes it killed in
	// each.
	Reclaim() map[string]int
	// Tidy removes the cgroups of ended processes; false if some are not empty
	// yet.
	Tidy() bool
	// Find opens a process by its identity. It returns nil unless PID, start
	// time and boot are those of a live or unreaped process that carries no
	// other generation's mark, and an error if it cannot tell.
	Find(pid int, startTicks uint64, bootID string, m marks) (*process, error)
	// Scan searches all processes for this watchdog's marks and pipes.
	Scan(ids []spec.InstanceID) []foundProcess
	// Signal sends a signal to the process's whole group.
	Signal(p *process, sig syscall.Signal) error
	// Kill kills one process that Find returned, not its group, and closes it.
	Kill(p *process) error
	// Collect reads how a dead process ended, kills the rest of its group and
	// closes it; false if the exit status is not readable yet and last is not
	// set.
	Collect(p *process, last bool) (spec.Exit, bool)
	// Messages reads the messages on an instance's notify socket.
	Messages(id spec.InstanceID) []notification
	// ChangeMain switches to the main process that a process named (MAINPID=);
	// an error if that does not belong to the instance.
	ChangeMain(old *process, pid int, m marks) (*process, error)
	// EndOutput ends the unfinished lines of a process that has exited.
	EndOutput(id spec.InstanceID)
	// Release drains, closes and removes what Hold opened.
	Release(id spec.InstanceID)
	// SetLogs changes how much output of an instance is kept.
	SetLogs(id spec.InstanceID, limits spec.Logs)
	// Dropped is ready when output was lost; TakeDropped returns how many bytes
	// since it was last called.
	Dropped() <-chan struct{}
	TakeDropped() map[spec.InstanceID]uint64
	// Orphans reaps children of ended parents that known does not know; it
	// returns the tokens of known ones that have died.
	Orphans(known func(pid int) (uint64, bool)) []uint64
	// BootID names the running boot.
	BootID() string
}
