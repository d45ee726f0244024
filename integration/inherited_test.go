package integration

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// A cron job that starts meshrun while it holds a lock, or a script that reads
// what its children write, waits for ever if anything keeps its descriptors.
func TestNoDescriptorOfTheStarterStaysOpen(t *testing.T) {
	n := newNode(t)
	lock, err := os.OpenFile(filepath.Join(n.dir, "cron.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// The shell puts the pipe where meshrun's own descriptors would be, too.
	sh := exec.Command("sh", "-c", `exec 9>&4 "$0" agent -data-dir "$1" >"$2" 2>&1`, meshrunBinary, n.data, filepath.Join(n.dir, "agent.log"))
	sh.ExtraFiles = []*os.File{lock, in}
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = sh.Wait() }()
	lock.Close()
	in.Close()
	eventually(t, patience, "the agent answers", func() error {
		_, err := n.tryStatus()
		return err
	})
	n.apply(`job "j" {
  process "p" {
    command = ["sh", "-c", "ls -l /proc/$$/fd; exec sleep 1000"]
    hook "before_start" { command = ["true"] }
    health "here" {
      command  = ["true"]
      interval = "1s"
    }
  }
}`)
	n.waitPhase("j/p/0", spec.PhaseRunning)

	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, out)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("something keeps the starter's pipe open")
	}
	again, err := os.OpenFile(lock.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	eventually(t, patience, "the lock is free", func() error {
		return syscall.Flock(int(again.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if text := n.run("logs", "j/p").stdout; strings.Contains(text, "cron.lock") {
		t.Errorf("the process has the starter's lock:\n%s", text)
	}
}
