package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// KillOutlived kills the process group of an instance that runs under a lease.
// The agent calls it only once that lease has expired, if its watchdog does not
// enforce the lease any more. It reports whether there was a process to kill.
//
// It kills nothing unless the process is certainly that of the instance, by
// boot, PID, start time and, as far as it can be read, environment. It may be
// called again; the watchdog or its successor finds the process dead.
func KillOutlived(dataDir string, in *spec.Instance) (killed bool, err error) {
	boot, err := BootID()
	if err != nil || in.Lease == "" || in.BootID != boot {
		return false, err
	}
	fd, st, err := openProcess(in.PID, in.StartTicks, func() bool { return livesUnder(dataDir, in) })
	if err != nil || fd < 0 {
		return false, err
	}
	defer unix.Close(fd)
	p := &process{pidfd: fd, pid: in.PID, startTicks: in.StartTicks, bootID: boot, session: in.PID}
	if st.group == st.session {
		p.session = st.group // a main process may be in the group of what started it
	}
	// A dead process that is not reaped still pins the number of its group, of
	// which other processes may live.
	if err := errors.Join(signalGroup(p, unix.SIGKILL), killCgroup(dataDir, in)); err != nil {
		return false, fmt.Errorf("kill a process that has outlived its lease: %w", err)
	}
	return st.state != 'Z' && st.state != 'X', nil
}

// writtenID returns the watchdogID of a data directory.
func writtenID(dataDir string) (string, error) {
	id, err := os.ReadFile(filepath.Join(dataDir, "watchdog", "id"))
	return strings.TrimSpace(string(id)), err
}

// killCgroup kills all processes in the cgroup of an instance, if it has one.
func killCgroup(dataDir string, in *spec.Instance) error {
	id, err := writtenID(dataDir)
	if err != nil {
		return fmt.Errorf("find cgroup of process %d: %w", in.PID, err)
	}
	tree := cgroup.NewTree(id, filepath.Join(dataDir, "watchdog", "cgroups"))
	if err := tree.Resume(); err != nil {
		return fmt.Errorf("find cgroup of process %d: %w", in.PID, err)
	}
	if g := tree.Find(cgroup.Name(in.ID, in.Generation)); g != nil {
		return g.Kill()
	}
	return nil
}

// livesUnder reports whether nothing in the environment of an instance's
// process contradicts that it is the instance's and runs under its lease.
func livesUnder(dataDir string, in *spec.Instance) bool {
	found := readMarks(in.PID)
	id, err := writtenID(dataDir)
	for name, want := range map[string]string{
		envWatchdog: id, envInstance: in.ID.String(), envLease: in.Lease,
	} {
		if got := found[name]; got != "" && got != want {
			return false
		}
	}
	return err == nil
}
