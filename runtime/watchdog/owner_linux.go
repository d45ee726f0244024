package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a watchdog forked in the moment of its death holds a copy of its lock
// until it has executed its program: that moment is waited for.
const (
	lockGrace = 5 * time.Second
	lockPoll  = 5 * time.Millisecond
)

// isAlive reports whether there is a process of the number.
func isAlive(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	st, err := readStat(n)
	return err == nil && st.state != 'Z' && st.state != 'X'
}

// isStopped reports whether the process of a number stands still: by SIGSTOP,
// or because somebody debugs it.
func isStopped(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	st, err := readStat(n)
	return err == nil && (st.state == 'T' || st.state == 't')
}

// takeLock makes this watchdog the only one of its data directory.
func takeLock(path, root string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	fd := int(f.Fd())
	for deadline := time.Now().Add(lockGrace); ; time.Sleep(lockPoll) {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0)
		owner := strings.TrimSpace(string(b[:n]))
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("take lock: %w", err)
		case isAlive(owner) || time.Now().After(deadline):
			f.Close()
			advice := "stop it, or use another directory"
			if isStopped(owner) {
				advice = fmt.Sprintf("it is suspended: resume it with kill -CONT %s, or end it with kill -9 %s", owner, owner)
			}
			return nil, fmt.Errorf("%w: process %s has data directory %s: %s", ErrRunning, owner, root, advice)
		}
	}
	// Written over, not anew: that needs no room on a full disk. Should it fail
	// all the same, the lock holds, and nobody can tell whose it is.
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if _, err = f.WriteAt([]byte(pid), 0); err == nil {
		_ = f.Truncate(int64(len(pid)))
	}
	return f, nil
}

// ErrNoOwner: no process is known to hold the data directory's lock.
var ErrNoOwner = errors.New("no watchdog holds the data directory")

// Owner is the process that holds a data directory's lock: its watchdog,
// whether or not it answers. It stays that process, also when its number has
// become another's.
type Owner struct {
	PID   int
	path  string // of the lock
	pidfd int
}

// OpenOwner finds the owner of a data directory: the process that the lock
// file names, if it has the lock indeed. It returns ErrNoOwner if there is
// none, or none that this process may look at. Close it after use.
func OpenOwner(dataDir string) (*Owner, error) {
	o := &Owner{path: filepath.Join(dataDir, "watchdog", lockName)}
	b, err := os.ReadFile(o.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoOwner, err)
	}
	if o.PID, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil || o.PID <= 1 {
		return nil, fmt.Errorf("%w: the lock file names no process", ErrNoOwner)
	}
	if o.pidfd, err = unix.PidfdOpen(o.PID, 0); err != nil {
		return nil, fmt.Errorf("%w: open process %d: %w", ErrNoOwner, o.PID, err)
	}
	if !o.owns() {
		o.Close()
		return nil, fmt.Errorf("%w: process %d does not hold the lock", ErrNoOwner, o.PID)
	}
	return o, nil
}

// Close lets go of the process.
func (o *Owner) Close() { unix.Close(o.pidfd) }

// Stopped reports whether the process stands still: by SIGSTOP, or because
// somebody debugs it.
func (o *Owner) Stopped() bool { return isStopped(strconv.Itoa(o.PID)) }

// Kill ends the process with SIGKILL, if it still has the lock. What it keeps
// alive lives on, for its successor.
func (o *Owner) Kill() error {
	if !o.owns() {
		return fmt.Errorf("kill watchdog: %w: process %d no longer holds the lock", ErrNoOwner, o.PID)
	}
	if err := unix.PidfdSendSignal(o.pidfd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill watchdog: %w", err)
	}
	return nil
}

// owns reports whether the process has the lock. What is read of the number is
// true of the process if that is still there afterwards: numbers are not given
// away before.
func (o *Owner) owns() bool {
	return holdsLock(o.PID, o.path) && unix.PidfdSendSignal(o.pidfd, 0, nil, 0) == nil
}

// holdsLock reports whether a process has a descriptor of the file with a lock
// on it, as the kernel tells (proc_pid_fdinfo(5)).
func holdsLock(pid int, path string) bool {
	lock, err := os.Stat(path)
	if err != nil {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		info, err := os.Stat(filepath.Join(proc, "fd", fd.Name()))
		if err != nil || !os.SameFile(lock, info) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if err == nil && strings.Contains(string(text), "FLOCK") {
			return true
		}
	}
	return false
}
