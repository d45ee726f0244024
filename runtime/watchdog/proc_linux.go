package watchdog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// procStat is the part of /proc/<pid>/stat that the watchdog uses.
type procStat struct {
	state      byte
	parent     int
	group      int
	session    int
	startTicks uint64
	exitCode   int // as wait(2) returns it; 0 unless it is a zombie that this process may inspect
}

// readStat reads /proc/<pid>/stat.
func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parseStat(b)
}

// bootTicks is the present time in the unit of a start time in
// /proc/<pid>/stat: hundredths of a second since boot; 0 if it cannot be read.
func bootTicks() uint64 {
	const perSecond = 100 // USER_HZ, on all that Go runs on
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return uint64(t.Nano()) / uint64(time.Second/perSecond)
}

// parseStat parses the file. The name in it, in parentheses, may contain
// anything, so it counts fields from the last parenthesis.
func parseStat(b []byte) (procStat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("parse process status %q: no name", b)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 50 {
		return procStat{}, fmt.Errorf("parse process status: %d fields", len(f))
	}
	s := procStat{state: f[0][0]}
	var errs [5]error
	s.parent, errs[0] = strconv.Atoi(f[1])
	s.group, errs[1] = strconv.Atoi(f[2])
	s.session, errs[2] = strconv.Atoi(f[3])
	s.startTicks, errs[3] = strconv.ParseUint(f[19], 10, 64)
	s.exitCode, errs[4] = strconv.Atoi(f[49])
	for _, err := range errs {
		if err != nil {
			return procStat{}, fmt.Errorf("parse process status: %w", err)
		}
	}
	return s, nil
}

// mayInspect reports whether the kernel shows this process the full status of
// another: it does to the same user.
func mayInspect(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		ids, ok := strings.CutPrefix(l, "Uid:")
		if !ok {
			continue
		}
		self := strconv.Itoa(os.Geteuid())
		for _, id := range strings.Fields(ids) {
			if id != self {
				return false
			}
		}
		return true
	}
	return false
}

// readMarks reads the marks in a process's environment. It finds none if the
// program has overwritten its environment, as those that set their title do, or
// is a zombie.
func readMarks(pid int) (m map[string]string) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if !bytes.HasPrefix(v, []byte("MESHRUN_")) {
			continue
		}
		name, value, ok := strings.Cut(string(v), "=")
		switch name {
		case envInstance, envGeneration, envWatchdog, envUnrecorded, envLease, envHook:
			if ok {
				if m == nil {
					m = make(map[string]string, 4)
				}
				m[name] = value
			}
		}
	}
	return m
}

// markGeneration is the value of MESHRUN_GENERATION.
func markGeneration(m marks) string {
	return strconv.FormatUint(m.generation, 10) + "." + m.nonce
}

func parseGeneration(s string) (generation uint64, nonce string) {
	number, nonce, _ := strings.Cut(s, ".")
	generation, _ = strconv.ParseUint(number, 10, 64)
	return generation, nonce
}

// BootID returns the name of the running boot (random(4)).
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// otherProcesses lists the processes of the machine but this one.
func otherProcesses() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != self {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Scan searches all processes for this watchdog's marks and pipes.
func (k *linuxKernel) Scan(ids []spec.InstanceID) []foundProcess {
	pids, err := otherProcesses()
	if err != nil {
		k.log.Error("cannot list processes: those left behind by ended instances are not found", "error", err)
		return nil
	}
	pipes := make(map[string]spec.InstanceID, 2*len(ids))
	for _, id := range ids {
		pipes[k.path(id, ".out")] = id
		pipes[k.path(id, ".err")] = id
	}
	var found []foundProcess
	for _, pid := range pids {
		if s, ok := k.examine(pid, pipes); ok {
			found = append(found, s)
		}
	}
	return found
}

// examine reports whether a process belongs to this watchdog.
func (k *linuxKernel) examine(pid int, pipes map[string]spec.InstanceID) (foundProcess, bool) {
	s := foundProcess{pid: pid}
	m := readMarks(pid)
	if m[envWatchdog] == k.id {
		id, err := spec.ParseInstanceID(m[envInstance])
		if err != nil {
			return s, false
		}
		s.id = id
		s.generation, s.nonce = parseGeneration(m[envGeneration])
		s.unrecorded, s.lease, s.hook = m[envUnrecorded] != "", m[envLease], spec.HookTime(m[envHook])
	} else if m[envWatchdog] != "" {
		return s, false // another watchdog's
	} else if id, ok := pipeOwner(pid, pipes); ok {
		s.id, s.byPipe = id, true
	} else {
		return s, false
	}
	st, err := readStat(pid)
	if err != nil || st.state == 'Z' || st.state == 'X' {
		return s, false
	}
	s.pgid, s.session, s.startTicks = st.group, st.session, st.startTicks
	return s, true
}

// pipeOwner returns the instance whose pipe a process has as its stdout or
// stderr.
func pipeOwner(pid int, pipes map[string]spec.InstanceID) (spec.InstanceID, bool) {
	for _, fd := range [...]string{"1", "2"} {
		target, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", fd))
		if err != nil {
			return spec.InstanceID{}, false
		}
		if id, ok := pipes[target]; ok {
			return id, true
		}
	}
	return spec.InstanceID{}, false
}
