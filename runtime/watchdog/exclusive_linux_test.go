package watchdog

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// leaver is an exclusive program of which a part leaves its session.
func leaver() spec.Launch {
	l := leasedProgram("a")
	l.Argv = []string{"/bin/sh", "-c", "setsid sh -c 'echo left $$; exec sleep 1000' & exec sleep 1000"}
	return l
}

func runs(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.state != 'Z' && st.state != 'X'
}

func TestNothingOfAnExclusiveInstanceOutlivesItsLease(t *testing.T) {
	needGroups(t)
	dir := t.TempDir()
	d := startDaemon(t, dir)
	t.Cleanup(func() { removeGroups(dir) })
	l := leaver()
	d.renew(30 * time.Second)
	d.declare(l)
	pid := d.printedPID(l.ID, "left")
	d.renew(200 * time.Millisecond)
	d.await("what left its session is dead", func() bool { return !runs(pid) })
}

func TestTheAgentAlsoEndsWhatLeftTheSession(t *testing.T) {
	needGroups(t)
	dir := t.TempDir()
	d := startDaemon(t, dir)
	t.Cleanup(func() { removeGroups(dir) })
	l := leaver()
	d.renew(30 * time.Second)
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	pid := d.printedPID(l.ID, "left")
	if err := unix.Kill(d.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(d.cmd.Process.Pid, syscall.SIGCONT) })
	if killed, err := KillOutlived(dir, &in); !killed || err != nil {
		t.Fatalf("killed %v, %v", killed, err)
	}
	d.await("what left its session is dead", func() bool { return !runs(pid) })
}

func TestWithoutACgroupWhatLeftIsFoundByItsMarks(t *testing.T) {
	k := &linuxKernel{log: hclog.NewNullLogger(), id: newNonce()}
	m := marks{generation: 3, nonce: newNonce()}
	start := func(generation string) int {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{
			Env: []string{envWatchdog + "=" + k.id, envGeneration + "=" + generation}, Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		})
		return pid
	}
	own, other := start(markGeneration(m)), start("4.x")
	k.killMarked(&process{pid: own, marked: markGeneration(m)})
	for deadline := time.Now().Add(patience); runs(own); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what left lives on")
		}
	}
	if !runs(other) {
		t.Error("the next generation was killed with it")
	}
}

func TestALockThatIsHeldStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	removeLock(path)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("it is gone while it is held: %v", err)
	}
	f.Close()
	removeLock(path)
	if _, err := os.Stat(path); err == nil {
		t.Error("it stays though nobody holds it")
	}
}

// A group that stays, since a process in it has not disappeared yet, was killed
// for one process of the generation, and is there for the next.
func TestAKilledGroupTakesTheNextProcess(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	first, next := shell("first", "exec sleep 1000"), shell("next", "echo up; exec sleep 1000")
	first.Exclusive, next.Exclusive = true, true
	d.declare(first)
	d.awaitPhase(first.ID, spec.PhaseRunning)
	killed := false
	for _, tree := range groupDirs(d.dir) {
		dir := filepath.Join(tree, cgroup.Name(next.ID, 1))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		killed = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil || killed
	}
	if !killed {
		t.Skip("no cgroup.kill here")
	}
	d.declare(next)
	d.awaitOutput(next.ID, "up")
	in := d.awaitPhase(next.ID, spec.PhaseRunning)
	if in.Generation != 1 {
		t.Errorf("it runs in generation %d: %s", in.Generation, in.LastExit)
	}
	if got := d.groupFile(in, "cgroup.procs"); got != strconv.Itoa(in.PID) {
		t.Errorf("process %d runs, and its group has %q", in.PID, got)
	}
}
