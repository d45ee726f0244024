package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// up runs `meshrun up` in the background; its output goes to a file.
func (n *node) up(args ...string) *exec.Cmd {
	n.t.Helper()
	out, err := os.Create(filepath.Join(n.dir, "up.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(meshrunBinary, append([]string{"up", "-data-dir", n.data}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return cmd
}

func (n *node) upSaid(text string) error {
	out, err := os.ReadFile(filepath.Join(n.dir, "up.log"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(out), text) {
		return fmt.Errorf("up did not say %q, but:\n%s", text, out)
	}
	return nil
}

func TestUpRunsTheQuickstartFollowsEditsAndStopsAll(t *testing.T) {
	n := newNode(t)
	text, err := os.ReadFile("../examples/quickstart/quickstart.hcl")
	if err != nil {
		t.Fatal(err)
	}
	file := n.write("jobs/quickstart.hcl", string(text))
	cmd := n.up(filepath.Dir(file))
	n.waitPhase("quickstart/setup/0", spec.PhaseCompleted)
	clock := n.waitPhase("quickstart/clock/0", spec.PhaseRunning)
	for i := range 3 {
		n.waitPhase(fmt.Sprintf("quickstart/worker/%d", i), spec.PhaseRunning)
	}
	eventually(t, patience, "the workers' words are shown", func() error { return n.upSaid("hello from shard 2") })

	worker := n.waitPhase("quickstart/worker/0", spec.PhaseRunning)
	n.write("jobs/quickstart.hcl", strings.Replace(string(text), "shards  = 3", "shards  = 4", 1))
	n.waitPhase("quickstart/worker/3", spec.PhaseRunning)
	if i, err := n.instance("quickstart/worker/0"); err != nil || i.PID != worker.PID {
		t.Errorf("another shard touched worker 0: pid %d → %d (%v)", worker.PID, i.PID, err)
	}
	n.write("jobs/quickstart.hcl", strings.Replace(string(text), "shards  = 3", "shards  = oops", 1))
	eventually(t, patience, "the fault is shown", func() error { return n.upSaid("oops") })
	if i, err := n.instance("quickstart/clock/0"); err != nil || i.PID != clock.PID {
		t.Errorf("clock was touched: pid %d → %d (%v)", clock.PID, i.PID, err)
	}

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("up ended with %v", err)
		}
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		t.Fatalf("up did not end within %s", patience)
	}
	eventually(t, patience, "nothing is left", func() error {
		if left := n.processes(""); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}

func TestWhatUpStartedOutlivesItsDeathAndTheNextUpGoesOn(t *testing.T) {
	n := newNode(t)
	file := n.write("job.hcl", sleeper("shards = 2"))
	first := n.up(file)
	pid := n.waitPhase("web/app/1", spec.PhaseRunning).PID
	_ = first.Process.Kill()
	_ = first.Wait()
	if !alive(pid) {
		t.Fatal("the instance died with up")
	}
	second := n.up(file)
	eventually(t, patience, "the second up watches", func() error { return n.upSaid("watching") })
	if i := n.waitPhase("web/app/1", spec.PhaseRunning); i.PID != pid {
		t.Errorf("pid %d → %d", pid, i.PID)
	}
	_ = second.Process.Signal(syscall.SIGTERM)
	_ = second.Wait()
	eventually(t, patience, "its processes have ended", func() error {
		if left := n.processes("sleep 100"); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}
