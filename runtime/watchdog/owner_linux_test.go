package watchdog

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestAStoppedWatchdogIsKnownAndCanBeReplaced(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenOwner(dir); !errors.Is(err, ErrNoOwner) {
		t.Errorf("an empty directory: %v", err)
	}
	d := startDaemon(t, dir)
	l := shell("a", "exec sleep 1000")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	o, err := OpenOwner(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.PID != d.cmd.Process.Pid || o.Stopped() {
		t.Errorf("the owner is %d, stopped %v; want %d, which runs", o.PID, o.Stopped(), d.cmd.Process.Pid)
	}
	if err := syscall.Kill(o.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.await("it is stopped", o.Stopped)
	if out, err := exec.Command(os.Args[0], "watchdog-main", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "kill -CONT") {
		t.Errorf("another watchdog is told %q (%v), want what to do", out, err)
	}
	if err := o.Kill(); err != nil {
		t.Fatal(err)
	}
	d.cmd.Wait()
	if err := o.Kill(); !errors.Is(err, ErrNoOwner) {
		t.Errorf("killed again: %v", err)
	}
	if after := startDaemon(t, dir).awaitPhase(l.ID, spec.PhaseRunning); after.PID != before.PID {
		t.Errorf("the successor has process %d, want %d", after.PID, before.PID)
	}
}

func TestWhoIsNamedInTheLockFileButHasNoLockIsNoOwner(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "watchdog"), 0o700); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	path := filepath.Join(dir, "watchdog", lockName)
	for _, text := range []string{strconv.Itoa(other.Process.Pid) + "\n", "", "1\n", "-1\n", "x\n", "99999999\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := OpenOwner(dir); !errors.Is(err, ErrNoOwner) {
			t.Errorf("lock file %q: owner %+v (%v)", text, o, err)
		}
	}
}
