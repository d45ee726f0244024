package watchdog

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

func TestOnlyWhatIsTheInstanceIsKilled(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := leasedProgram("a")
	l.Argv = []string{"/bin/sh", "-c", "sleep 1000 & exec sleep 1000"}
	d.renew(30 * time.Second)
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	if in.Lease != l.Lease || in.Lease == "" {
		t.Fatalf("it is said to live under %q, want %q", in.Lease, l.Lease)
	}
	// While it executes the next program, nobody can read its environment.
	d.await("it has become what it is to be", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", in.PID))
		return err == nil && string(name) == "sleep\n" && readMarks(in.PID)[envInstance] != ""
	})
	if err := unix.Kill(d.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(d.cmd.Process.Pid, syscall.SIGCONT) })
	for name, spoil := range map[string]func(*spec.Instance){
		"another start time": func(in *spec.Instance) { in.StartTicks++ },
		"another boot":       func(in *spec.Instance) { in.BootID = "other" },
		"another lease":      func(in *spec.Instance) { in.Lease = "other" },
		"no lease":           func(in *spec.Instance) { in.Lease = "" },
		"another instance":   func(in *spec.Instance) { in.ID.Shard++ },
		"no process":         func(in *spec.Instance) { in.PID = 0 },
	} {
		other := in
		spoil(&other)
		if killed, err := KillOutlived(dir, &other); killed || err != nil {
			t.Errorf("%s: killed %v, %v", name, killed, err)
		}
	}
	if killed, err := KillOutlived(t.TempDir(), &in); killed || err != nil {
		t.Errorf("another data directory: killed %v, %v", killed, err)
	}
	if st, err := readStat(in.PID); err != nil || st.state == 'Z' {
		t.Fatalf("it was killed by mistake: %+v, %v", st, err)
	}
	if killed, err := KillOutlived(dir, &in); !killed || err != nil {
		t.Fatalf("killed %v, %v", killed, err)
	}
	d.await("the whole group is dead", func() bool { return members(in.PID) == 0 })
	if killed, err := KillOutlived(dir, &in); killed || err != nil {
		t.Errorf("once more: killed %v, %v", killed, err)
	}
}
