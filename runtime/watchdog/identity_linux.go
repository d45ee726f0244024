package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Find opens a process by its identity.
func (k *linuxKernel) Find(pid int, startTicks uint64, bootID string, m marks) (*process, error) {
	if bootID != k.bootID {
		return nil, nil
	}
	fd, _, err := openProcess(pid, startTicks, func() bool { return k.carries(pid, m) })
	if err != nil || fd < 0 {
		return nil, err
	}
	p := &process{pidfd: fd, pid: pid, startTicks: startTicks, bootID: bootID, session: pid}
	if err := k.watchProcess(p); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return p, nil
}

// openProcess opens the process that has a PID, a start time of this boot, and
// what else matches checks; the descriptor is -1 if there is none. An error says
// that this is not certain.
func openProcess(pid int, startTicks uint64, matches func() bool) (fd int, st procStat, err error) {
	if pid <= 1 {
		return -1, st, nil
	}
	if fd, err = unix.PidfdOpen(pid, 0); err == nil {
		st, err = readStat(pid)
		// What was read is true of the process if it still has its PID now.
		if err == nil && st.startTicks == startTicks && matches() && unix.PidfdSendSignal(fd, 0, nil, 0) == nil {
			return fd, st, nil
		}
		unix.Close(fd)
	}
	if outOfResources(err) {
		return -1, st, fmt.Errorf("open process %d: %w: raise LimitNOFILE (ulimit -n)", pid, err)
	}
	return -1, st, nil
}

// outOfResources reports whether a call failed for lack of a resource, which
// says nothing about its subject.
func outOfResources(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// carries reports whether the marks of a process do not contradict its
// identity. A program that sets its title overwrites its environment, so that
// missing marks prove nothing: then PID, start time and boot decide.
func (k *linuxKernel) carries(pid int, m marks) bool {
	found := readMarks(pid)
	if w := found[envWatchdog]; w != "" && w != k.id {
		return false
	}
	g := found[envGeneration]
	return g == "" || m.nonce == "" || g == markGeneration(m)
}

// watchProcess gives a process a token and watches it: edge-triggered, since a
// pidfd becomes ready twice, when the process dies and when it is reaped.
func (k *linuxKernel) watchProcess(p *process) error {
	k.nextToken++
	p.token = k.nextToken
	return k.poll.watch(p.pidfd, unix.EPOLLIN|unix.EPOLLET, p.token)
}

// watchdogID returns the permanent ID of a data directory, which all its
// processes carry.
func watchdogID(dir string, fresh func() string) (string, error) {
	path := filepath.Join(dir, "id")
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 33 {
		return string(b[:32]), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read watchdog id: %w", err)
	}
	id := fresh()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write watchdog id: %w", err)
	}
	return id, nil
}
