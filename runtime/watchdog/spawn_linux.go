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

	"github.com/synergymesh/meshrun/spec"
)

// lockFD is the descriptor that an exclusive process inherits locked.
const lockFD = 3

// Start checks launches, forks them on the spawner's thread, and meanwhile
// sees to those that are forked.
func (k *linuxKernel) Start(starts []start, done func(int, *process, error)) {
	type result struct {
		i, pid int
		err    error
	}
	results := make(chan result, len(starts))
	for i, st := range starts {
		p, err := prepare(st.launch)
		if err == nil {
			k.renew(st.launch.ID)
			_, err = k.Hold(st.launch, false)
		}
		if err != nil {
			results <- result{i: i, err: err}
			continue
		}
		notify := k.held[st.launch.ID].notify >= 0
		k.spawner.post(func() {
			pid, err := k.fork(st, p, notify)
			results <- result{i, pid, err}
		})
	}
	for range starts {
		r := <-results
		if r.err != nil {
			done(r.i, nil, r.err)
			continue
		}
		proc, err := k.attendChild(r.pid)
		if err == nil {
			k.expose(starts[r.i].launch.ID, r.pid)
		}
		done(r.i, proc, err)
	}
}

// expose gives up for an instance what the watchdog is spared: that memory is
// short is the instances' matter, not meshrun's.
func (k *linuxKernel) expose(id spec.InstanceID, pid int) {
	if !k.spared || id == AgentID {
		return
	}
	if err := os.WriteFile(oomPath(strconv.Itoa(pid)), []byte("0"), 0); err != nil {
		k.log.Debug("cannot reset oom_score_adj", "pid", pid, "error", err)
	}
}

// fork opens what the process inherits, and forks. It runs on the spawner's
// thread.
func (k *linuxKernel) fork(st start, p prepared, notify bool) (int, error) {
	l := st.launch
	if !k.fence.allows(l.Lease) {
		return 0, errFenced
	}
	files, err := k.files(l, p, notify)
	defer func() {
		for _, fd := range files {
			unix.Close(int(fd))
		}
	}()
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(p.path, l.Argv, &syscall.ProcAttr{Dir: p.dir, Env: k.environment(l, st.marks), Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: p.cred}})
	if err != nil {
		return 0, explain(err, p, l)
	}
	return pid, nil
}

func oomPath(pid string) string { return "/proc/" + pid + "/oom_score_adj" }

// isSpared reports whether this process has a negative oom_score_adj.
func isSpared() bool {
	b, err := os.ReadFile(oomPath("self"))
	return err == nil && len(b) > 0 && b[0] == '-'
}

// attendChild learns who a fresh child is. Should that fail, the child is
// ended: nothing runs that is not watched.
func (k *linuxKernel) attendChild(pid int) (*process, error) {
	proc := &process{pid: pid, bootID: k.bootID, session: pid}
	var err error
	// Only the loop reaps, so the number is still this child's.
	if proc.pidfd, err = unix.PidfdOpen(pid, 0); err == nil {
		var st procStat
		if st, err = readStat(pid); err == nil {
			proc.startTicks = st.startTicks
			err = k.attend(proc)
		}
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
// pipes, and the lock of an exclusive one. They are the caller's to close, also
// if there is an error.
func (k *linuxKernel) files(l *spec.Launch, p prepared, notify bool) ([]uintptr, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	files := []uintptr{uintptr(null)}
	for _, suffix := range [...]string{".out", ".err"} {
		path := k.path(l.ID, suffix)
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return files, fmt.Errorf("open output pipe %s: %w", path, err)
		}
		files = append(files, uintptr(fd))
		if p.cred != nil { // so that it can open its /dev/stdout
			if err := unix.Fchown(fd, int(p.cred.Uid), -1); err != nil {
				return files, fmt.Errorf("hand over output pipe: %w", err)
			}
		}
	}
	if p.cred != nil && notify {
		if err := unix.Chown(k.path(l.ID, ".notify"), int(p.cred.Uid), -1); err != nil {
			return files, fmt.Errorf("hand over notify socket: %w", err)
		}
	}
	if !l.Exclusive {
		return files, nil
	}
	fd, err := unix.Open(k.path(l.ID, ".lock"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
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

// environment is the launch's own and what the watchdog adds; of a variable
// that is there twice, the watchdog's counts.
func (k *linuxKernel) environment(l *spec.Launch, m marks) []string {
	add := []string{
		envInstance + "=" + l.ID.String(),
		envGeneration + "=" + markGeneration(m),
		envWatchdog + "=" + k.id,
	}
	if m.unrecorded {
		add = append(add, envUnrecorded+"=1")
	}
	if wantsNotify(l) {
		add = append(add, "NOTIFY_SOCKET="+k.path(l.ID, ".notify"))
	}
	if l.Watchdog != nil {
		add = append(add, "WATCHDOG_USEC="+strconv.FormatInt(int64(l.Watchdog.Timeout.Std()/time.Microsecond), 10))
	}
	if l.Exclusive {
		add = append(add, envLockFD+"="+strconv.Itoa(lockFD))
	}
	if l.Lease != "" {
		add = append(add, envLease+"="+l.Lease)
	}
	own := map[string]bool{"NOTIFY_SOCKET": true, "WATCHDOG_USEC": true, "WATCHDOG_PID": true,
		envInstance: true, envGeneration: true, envWatchdog: true, envUnrecorded: true, envLockFD: true, envLease: true}
	env := make([]string, 0, len(l.Env)+len(add))
	for _, v := range l.Env {
		if name, _, _ := strings.Cut(v, "="); !own[name] {
			env = append(env, v)
		}
	}
	return append(env, add...)
}
