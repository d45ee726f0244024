package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// killWatchdog is kill -9 of the watchdog, which returns once the next is up.
func (n *node) killWatchdog() {
	n.t.Helper()
	old := n.status().Agent.WatchdogPID
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, patience, "another watchdog is up", func() error {
		s, err := n.tryStatus()
		if err == nil && s.Agent.WatchdogPID == old {
			err = errors.New("the old one is still told")
		}
		return err
	})
}

// hookRuns waits until a hook of an instance runs, and returns its process.
func (n *node) hookRuns(id, reason string) (pid int) {
	n.t.Helper()
	eventually(n.t, patience, id+": "+reason, func() error {
		i, err := n.instance(id)
		if err == nil && (i.Reason != reason || i.PID == 0) {
			err = fmt.Errorf("%s is %s: %s", id, i.Phase, i.Reason)
		}
		pid = i.PID
		return err
	})
	return pid
}

// notes are the lines of a file in the node's directory.
func (n *node) notes(name string) []string {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// waitNotes waits until the notes end with that line: what runs may not have
// come to it yet.
func (n *node) waitNotes(name, last string) (notes []string) {
	n.t.Helper()
	eventually(n.t, patience, "the last note is "+last, func() error {
		notes = n.notes(name)
		if strings.TrimSpace(notes[len(notes)-1]) != last {
			return fmt.Errorf("there are %q", notes)
		}
		return nil
	})
	return notes
}

func TestHooksSurviveTheirWatchdogs(t *testing.T) {
	n := newNode(t)
	n.start()
	// Each part notes that it began, and the hooks wait to be let go.
	script := `["sh", "-c", "echo %[1]s $MESHRUN_EXIT >> notes; while [ ! -e go-%[1]s ]; do sleep 0.02; done; rm go-%[1]s"]`
	n.apply(fmt.Sprintf(`job "shop" {
  process "web" {
    command = ["sh", "-c", "echo program >> notes; exec sleep 1000"]
    dir     = %q
    hook "before_start" { command = %s }
    hook "after_stop" { command = %s }
  }
}`, n.dir, fmt.Sprintf(script, "before"), fmt.Sprintf(script, "after")))
	const id = "shop/web/0"
	before := n.hookRuns(id, "before_start hook runs")
	n.killWatchdog()
	if pid := n.hookRuns(id, "before_start hook runs"); pid != before {
		t.Errorf("before_start runs as process %d, was %d", pid, before)
	}
	n.write("go-before", "")
	// Its exit code may be lost with the watchdog that was its parent; then the
	// start has failed, and is cleaned up and tried again.
	eventually(t, patience, "the program runs", func() error {
		i, err := n.instance(id)
		if err != nil || i.Phase == spec.PhaseRunning {
			return err
		}
		n.write("go-"+map[bool]string{true: "after", false: "before"}[i.Phase == spec.PhaseStopping], "")
		return fmt.Errorf("it is %s: %s", i.Phase, i.Reason)
	})
	for _, left := range []string{"go-before", "go-after"} {
		os.Remove(filepath.Join(n.dir, left))
	}
	program, err := n.instance(id)
	if err != nil {
		t.Fatal(err)
	}
	n.killWatchdog()
	if i := n.waitPhase(id, spec.PhaseRunning); i.PID != program.PID {
		t.Errorf("the program runs as process %d, was %d", i.PID, program.PID)
	}
	if err := syscall.Kill(program.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after := n.hookRuns(id, "after_stop hook runs")
	n.killWatchdog()
	if pid := n.hookRuns(id, "after_stop hook runs"); pid != after {
		t.Errorf("after_stop runs as process %d, was %d", pid, after)
	}
	n.write("go-after", "")
	n.hookRuns(id, "before_start hook runs") // of the restart
	notes := n.waitNotes("notes", "before")
	if first := notes[0]; first != "before " && first != "before" {
		t.Errorf("%s came first", first)
	}
	kinds := make([]string, len(notes))
	for i, line := range notes {
		kinds[i] = strings.Fields(line)[0]
		if i > 0 && kinds[i] == "program" && kinds[i-1] != "before" || i > 0 && kinds[i] == "before" && kinds[i-1] != "after" {
			t.Errorf("%s comes after %s: %q", kinds[i], kinds[i-1], notes)
		}
	}
	if end := kinds[len(kinds)-3:]; !slices.Equal(end, []string{"program", "after", "before"}) {
		t.Errorf("it ended with %q", notes)
	}
	if !slices.ContainsFunc(notes, func(s string) bool { return s == "after SIGKILL" || s == "after unknown" }) {
		t.Errorf("after_stop was not told how the program ended: %q", notes)
	}
	r := n.run("stop", "shop")
	if r.code != 0 {
		t.Fatalf("stop: %s%s", r.stdout, r.stderr)
	}
	n.hookRuns(id, "after_stop hook runs") // before_start is ended and cleaned up after
	n.write("go-after", "")
	eventually(t, patience, "nothing of it is left", func() error {
		if left := n.processes("go-"); len(left) > 0 {
			return fmt.Errorf("%v are", left)
		}
		return nil
	})
}

func TestBatchProcessesCompleteOrFail(t *testing.T) {
	n := newNode(t)
	n.start()
	job := n.write("batch.hcl", fmt.Sprintf(`job "batch" {
  process "migrate" {
    command = ["sh", "-c", "echo migrate >> notes; sleep 0.5"]
    dir     = %[1]q
    restart { policy = "never" }
  }
  process "web" {
    command = ["sh", "-c", "echo web >> notes; exec sleep 1000"]
    dir     = %[1]q
    depends_on "migrate" { condition = "completed" }
  }
}`, n.dir))
	n.must("apply", "-yes", "-wait", job)
	migrated := n.waitPhase("batch/migrate/0", spec.PhaseCompleted)
	web := n.waitPhase("batch/web/0", spec.PhaseRunning)
	if migrated.LastExit == nil || !migrated.LastExit.Success() {
		t.Errorf("completed with %v", migrated.LastExit)
	}
	if got := n.waitNotes("notes", "web"); !slices.Equal(got, []string{"migrate", "web"}) {
		t.Errorf("ran %q", got)
	}
	if text := n.must("status"); !strings.Contains(text, "completed") {
		t.Errorf("status says\n%s", text)
	}
	// What has completed is as wanted, and its job may change beside it.
	if text := n.must("plan", job); !strings.Contains(text, "No changes") {
		t.Errorf("plan says\n%s", text)
	}
	// It runs again when it is asked to, and nobody else does.
	n.must("restart", "-wait", "batch/migrate")
	if i := n.waitPhase("batch/migrate/0", spec.PhaseCompleted); i.Generation != migrated.Generation+1 {
		t.Errorf("it is generation %d, was %d", i.Generation, migrated.Generation)
	}
	if i := n.waitPhase("batch/web/0", spec.PhaseRunning); i.PID != web.PID {
		t.Error("the other process was restarted as well")
	}
	if got := n.notes("notes"); !slices.Equal(got, []string{"migrate", "web", "migrate"}) {
		t.Errorf("ran %q", got)
	}

	// One that fails is tried as often as it may be; -wait tells that it failed.
	bad := n.write("bad.hcl", fmt.Sprintf(`job "bad" {
  process "import" {
    command = ["sh", "-c", "echo try >> tries; exit 3"]
    dir     = %q
    restart {
      policy   = "on-failure"
      attempts = 2
      delay    = "50ms"
    }
  }
  process "after" {
    command = ["sleep", "1000"]
    depends_on "import" { condition = "completed" }
  }
}`, n.dir))
	r := n.run("apply", "-yes", "-wait", bad)
	if r.code != 1 || !strings.Contains(r.stderr, "bad/import/0 is failed (exit 3") {
		t.Errorf("apply -wait: exit %d\n%s", r.code, r.stderr)
	}
	if i := n.waitPhase("bad/import/0", spec.PhaseFailed); i.Restarts != 2 {
		t.Errorf("restarted %d times", i.Restarts)
	}
	if i, err := n.instance("bad/after/0"); err != nil || i.Phase != spec.PhasePending || !strings.Contains(i.Reason, "import") {
		t.Errorf("what waits for it is %s: %s, %v", i.Phase, i.Reason, err)
	}
	if got := n.notes("tries"); len(got) != 3 {
		t.Errorf("tried %d times", len(got))
	}
	if r := n.run("restart", "-wait", "bad/import"); r.code != 1 {
		t.Errorf("restart -wait: exit %d\n%s", r.code, r.stderr)
	}
	if got := n.notes("tries"); len(got) != 6 {
		t.Errorf("tried %d times after a restart by hand", len(got))
	}
}
