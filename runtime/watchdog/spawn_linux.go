package watchdog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// lockFD is the descriptor of the lock that an exclusive process inherits.
const lockFD = 3

// handOver is how many results are passed on together while more forks follow:
// each time wakes a thread, on a processor that a new process could use. The
// last ones of a batch are passed on at once, so that little is left to do when
// they are forked.
const (
	handOver = 32
	lastOnes = 4
)

// forked is the result of one fork.
type forked struct {
	i, pid int
	// ticks is when the process was born, in clock ticks since boot; 0 if that
	// has to be read.
	ticks uint64
	// joined is set if it was born in its cgroup.
	joined bool
	err    error
}

// Start prepares the launches, forks them on the spawner's thread, and
// meanwhile handles those that are forked.
func (k *linuxKernel) Start(starts []start, done func(int, *process, error)) {
	results := make(chan []forked, len(starts)/handOver+lastOnes+1) // the spawner never waits
	var batch []forked                                              // the spawner's thread alone
	for i, st := range starts {
		o, err := k.prepareFork(st)
		if err != nil {
			k.settleGroup(st, nil, false)
			done(i, nil, err)
			continue
		}
		k.spawner.post(func() {
			f := forked{i: i}
			f.err = k.fork(o, &f)
			if batch = append(batch, f); len(batch) == handOver || i >= len(starts)-lastOnes {
				results <- batch
				batch = nil
			}
		})
	}
	k.spawner.post(func() {
		results <- batch
		close(results)
	})
	for batch := range results {
		for _, f := range batch {
			if f.err != nil {
				k.settleGroup(starts[f.i], nil, false)
				done(f.i, nil, f.err)
				continue
			}
			proc, err := k.watchChild(f)
			if err == nil {
				k.resetOOMScore(starts[f.i].launch.ID, f.pid)
			}
			k.settleGroup(starts[f.i], proc, f.joined)
			done(f.i, proc, err)
		}
	}
}

// forkJob is all that a fork needs, so that the spawner's thread has little
// else to do.
type forkJob struct {
	prepared
	launch  *spec.Launch
	argv    []string
	env     []string
	cleanup bool
	stem    string // of the paths of the instance's pipes, socket and lock
	notify  bool
	group   *cgroup.Group // to be born in, or nil
}

// prepareFork checks a launch and opens what its instance keeps.
func (k *linuxKernel) prepareFork(st start) (forkJob, error) {
	l := st.launch
	p, err := prepare(l, st.argv())
	if err != nil {
		return forkJob{}, err
	}
	k.recreate(l.ID)
	if _, err := k.Hold(l, false); err != nil {
		return forkJob{}, err
	}
	return forkJob{prepared: p, launch: l, argv: st.argv(), env: k.environment(st), cleanup: st.isCleanup(), stem: k.path(l.ID, ""),
		notify: k.held[l.ID].notify >= 0, group: k.groups.prepared[l.ID]}, nil
}

// resetOOMScore takes from an instance the protection that the watchdog has: if
// memory is short, the kernel is to kill instances, not meshrun.
func (k *linuxKernel) resetOOMScore(id spec.InstanceID, pid int) {
	if !k.oomProtected || id == AgentID {
		return
	}
	if err := os.WriteFile(oomPath(strconv.Itoa(pid)), []byte("0"), 0); err != nil {
		k.log.Debug("cannot reset oom_score_adj", "pid", pid, "error", err)
	}
}

// fork opens what the process inherits, and forks, on the spawner's thread. It
// sets when the process was born if that costs no further call.
func (k *linuxKernel) fork(o forkJob, f *forked) error {
	if !k.fence.allows(o.launch.Lease, o.cleanup) {
		return errFenced
	}
	files, err := o.files(k.spawner.null)
	defer func() {
		for _, fd := range files[1:] {
			unix.Close(int(fd))
		}
	}()
	if err != nil {
		return err
	}
	sys := &syscall.SysProcAttr{Setsid: true, Credential: o.cred}
	attr := &syscall.ProcAttr{Dir: o.dir, Env: o.env, Files: files, Sys: sys}
	into := func(fd int) { sys.UseCgroupFD, sys.CgroupFD = fd >= 0, fd }
	f.joined, err = k.spawner.within(o.group, into, func() error {
		before := bootTicks()
		var err error
		if f.pid, err = syscall.ForkExec(o.path, o.argv, attr); err != nil {
			return explain(err, o.prepared, o.launch)
		}
		if after := bootTicks(); after == before {
			f.ticks = after
		}
		return nil
	})
	return err
}

func oomPath(pid string) string { return "/proc/" + pid + "/oom_score_adj" }

// isOOMProtected reports whether this process has a negative oom_score_adj.
func isOOMProtected() bool {
	b, err := os.ReadFile(oomPath("self"))
	return err == nil && len(b) > 0 && b[0] == '-'
}

// watchChild opens and watches a new child. If that fails, it kills the child:
// no process runs unwatched.
func (k *linuxKernel) watchChild(f forked) (*process, error) {
	pid := f.pid
	proc := &process{pid: pid, bootID: k.bootID, session: pid, startTicks: f.ticks}
	var err error
	// Only the loop reaps, so the number is still this child's.
	if proc.pidfd, err = unix.PidfdOpen(pid, 0); err == nil && f.ticks == 0 {
		var st procStat
		st, err = readStat(pid)
		proc.startTicks = st.startTicks
	}
	if err == nil {
		err = k.watchProcess(proc)
	}
	if err == nil {
		return proc, nil
	}
	// An unreaped child's number cannot be anybody else's.
	unix.Kill(-pid, unix.SIGKILL)
	var ws unix.WaitStatus
	for {
		if _, werr := unix.Wait4(pid, &ws, 0, nil); !errors.Is(werr, unix.EINTR) {
			break
		}
	}
	if proc.pidfd >= 0 {
		unix.Close(proc.pidfd)
	}
	return nil, fmt.Errorf("watch started process: %w", err)
}

// files opens what a process inherits: /dev/null, its own blocking ends of the
// pipes, and the lock of an exclusive one. The caller closes all but the first,
// even after an error.
func (o *forkJob) files(null int) ([]uintptr, error) {
	files := []uintptr{uintptr(null)}
	for _, suffix := range [...]string{".out", ".err"} {
		path := o.stem + suffix
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return files, fmt.Errorf("open output pipe %s: %w", path, err)
		}
		files = append(files, uintptr(fd))
		if o.cred != nil { // so that it can open its /dev/stdout
			if err := unix.Fchown(fd, int(o.cred.Uid), -1); err != nil {
				return files, fmt.Errorf("hand over output pipe: %w", err)
			}
		}
	}
	if o.cred != nil && o.notify {
		if err := unix.Chown(o.stem+".notify", int(o.cred.Uid), -1); err != nil {
			return files, fmt.Errorf("hand over notify socket: %w", err)
		}
	}
	if !o.launch.Exclusive {
		return files, nil
	}
	fd, err := unix.Open(o.stem+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return files, fmt.Errorf("open lock: %w", err)
	}
	files = append(files, uintptr(fd))
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return files, errLocked
		}
		return files, fmt.Errorf("take lock: %w", err)
	}
	return files, nil
}

// environment is that of the launch and the watchdog's variables, which replace
// those of the same name.
func (k *linuxKernel) environment(st start) []string {
	l, m := st.launch, st.marks
	add := []string{
		envInstance + "=" + l.ID.String(),
		envGeneration + "=" + markGeneration(m),
		envWatchdog + "=" + k.id,
	}
	if m.unrecorded {
		add = append(add, envUnrecorded+"=1")
	}
	if st.hook != nil {
		add = append(add, envHook+"="+string(st.hook.When))
	}
	if st.isCleanup() {
		add = append(add, envExit+"="+st.exit)
	}
	if st.hook == nil && wantsNotify(l) {
		add = append(add, "NOTIFY_SOCKET="+k.path(l.ID, ".notify"))
	}
	if st.hook == nil && l.Watchdog != nil {
		add = append(add, "WATCHDOG_USEC="+strconv.FormatInt(int64(l.Watchdog.Timeout.Std()/time.Microsecond), 10))
	}
	if l.Exclusive {
		add = append(add, envLockFD+"="+strconv.Itoa(lockFD))
	}
	if l.Lease != "" {
		add = append(add, envLease+"="+l.Lease)
	}
	own := map[string]bool{"NOTIFY_SOCKET": true, "WATCHDOG_USEC": true, "WATCHDOG_PID": true,
		envInstance: true, envGeneration: true, envWatchdog: true, envUnrecorded: true, envLockFD: true, envLease: true,
		envHook: true, envExit: true}
	env := make([]string, 0, len(l.Env)+len(add))
	for _, v := range l.Env {
		if name, _, _ := strings.Cut(v, "="); !own[name] {
			env = append(env, v)
		}
	}
	return append(env, add...)
}
