package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a live process on a host; zombies are none.
type Process struct {
	// PID is its number on the host, and outside that of the tests.
	PID, outside int
	// PGID is its process group's number on the host.
	PGID int
	Argv []string
	Env  map[string]string
	// Stopped is set if a signal has stopped it.
	Stopped bool
}

// Is reports whether the process runs the program of that name with these
// first arguments.
func (p Process) Is(program string, args ...string) bool {
	if len(p.Argv) < 1+len(args) || filepath.Base(p.Argv[0]) != program {
		return false
	}
	for i, arg := range args {
		if p.Argv[1+i] != arg {
			return false
		}
	}
	return true
}

// Processes returns what lives on the host, without its process 1.
func (h *Host) Processes() ([]Process, error) {
	if !h.Up() {
		return nil, nil
	}
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.init.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.Name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.Name, err)
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == h.init.Process.Pid {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || ns != ours {
			continue
		}
		if p, ok := readProcess(pid); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

// readProcess reads what /proc tells of a process; false if it has ended.
func readProcess(outside int) (Process, bool) {
	dir := fmt.Sprintf("/proc/%d/", outside)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return Process{}, false
	}
	p := Process{outside: outside, Env: map[string]string{}}
	state := ""
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "State":
			state = f[0]
		case "NSpid":
			p.PID, _ = strconv.Atoi(f[len(f)-1])
		case "NSpgid":
			p.PGID, _ = strconv.Atoi(f[len(f)-1])
		}
	}
	if state == "Z" || state == "X" {
		return Process{}, false
	}
	p.Stopped = state == "T"
	argv, _ := os.ReadFile(dir + "cmdline")
	environ, _ := os.ReadFile(dir + "environ")
	if len(argv) == 0 { // just dying, or just born
		return Process{}, false
	}
	p.Argv = strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00")
	for line := range bytes.SplitSeq(environ, []byte{0}) {
		if key, value, ok := strings.Cut(string(line), "="); ok {
			p.Env[key] = value
		}
	}
	return p, true
}

// Signal sends a signal to the processes that match, and returns how many
// they were. After SIGKILL it waits until they have ended.
func (h *Host) Signal(sig syscall.Signal, match func(Process) bool) (int, error) {
	all, err := h.Processes()
	if err != nil {
		return 0, err
	}
	var hit []Process
	for _, p := range all {
		if !match(p) {
			continue
		}
		if err := syscall.Kill(p.outside, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("send %v to %d on %s: %w", sig, p.PID, h.Name, err)
		}
		hit = append(hit, p)
	}
	if sig != syscall.SIGKILL {
		return len(hit), nil
	}
	end := time.Now().Add(5 * time.Second)
	for _, p := range hit {
		for {
			if now, alive := readProcess(p.outside); !alive || now.PID != p.PID {
				break
			}
			if time.Now().After(end) {
				return len(hit), fmt.Errorf("kill %d on %s: it has not ended", p.PID, h.Name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return len(hit), nil
}

// Freeze stops every process of the host at once, as a machine stops that is
// suspended; Thaw lets them go on.
func (h *Host) Freeze() error {
	// One that starts another while we go through the list is caught by the
	// next round.
	for range 20 {
		moving := func(p Process) bool { return !p.Stopped }
		n, err := h.Signal(syscall.SIGSTOP, moving)
		if err != nil {
			return fmt.Errorf("freeze %s: %w", h.Name, err)
		}
		if n == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("freeze %s: some processes do not stop", h.Name)
}

// Thaw lets every process of the host go on.
func (h *Host) Thaw() error {
	_, err := h.Signal(syscall.SIGCONT, func(p Process) bool { return p.Stopped })
	return err
}
