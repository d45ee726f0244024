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

// A process that a watchdog forked at the moment of its death holds a copy of
// its lock until it has executed its program: takeLock waits that long.
const (
	lockGrace = 5 * time.Second
	lockPoll  = 5 * time.Millisecond
)

// stateOf returns the state of the process with that PID, as in /proc/<pid>/stat;
// 0 if there is none.
func stateOf(pid string) byte {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return 0
	}
	st, _ := readStat(n)
	return st.state
}

// isAlive reports whether a process with that PID is alive.
func isAlive(pid string) bool {
	state := stateOf(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// isStopped reports whether the process with that PID is suspended, by SIGSTOP or
// a debugger.
func isStopped(pid string) bool {
	state := stateOf(pid)
	return state == 'T' || state == 't'
}

// takeLock makes this process the only watchdog of its data directory.
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
	// The PID overwrites the old one, which needs no space on a full disk. If it
	// fails all the same, the lock is held, and only its holder is not named.
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if _, err = f.WriteAt([]byte(pid), 0); err == nil {
		_ = f.Truncate(int64(len(pid)))
	}
	return f, nil
}

// ErrNoOwner: no process is known to hold the data directory's lock.
var ErrNoOwner = errors.New("no watchdog holds the data directory")

// Owner is the process that holds a data directory's lock: its watchdog,
// whether or not it answers. It stays that process even if its PID is reused.
type Owner struct {
	PID   int
	path  string // of the lock
	pidfd int
}

// OpenOwner finds the owner of a data directory: the process that the lock file
// names, provided that it holds the lock. It returns ErrNoOwner if there is
// none, or none that this process may examine. Close it after use.
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

// Close closes the handle of the process.
func (o *Owner) Close() { unix.Close(o.pidfd) }

// Stopped reports whether the process is suspended, by SIGSTOP or a debugger.
func (o *Owner) Stopped() bool { return isStopped(strconv.Itoa(o.PID)) }

// Kill ends the process with SIGKILL, if it still holds the lock. Its instances
// keep running, for its successor.
func (o *Owner) Kill() error {
	if !o.owns() {
		return fmt.Errorf("kill watchdog: %w: process %d no longer holds the lock", ErrNoOwner, o.PID)
	}
	if err := unix.PidfdSendSignal(o.pidfd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill watchdog: %w", err)
	}
	return nil
}

// owns reports whether the process holds the lock. What was read under its PID
// is true of the process if that still exists afterwards, since a PID is not
// reused before.
func (o *Owner) owns() bool {
	return holdsLock(o.PID, o.path) && unix.PidfdSendSignal(o.pidfd, 0, nil, 0) == nil
}

// holdsLock reports whether a process has an open descriptor of the file with a
// lock on it (proc_pid_fdinfo(5)).
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
