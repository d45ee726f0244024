package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func TestAWatchdogThatIsStoppedIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the patience of an agent, half a minute")
	}
	t.Parallel()
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 3"))
	pids := n.waitShards("web/app", 3)
	before := n.status().Agent
	if err := syscall.Kill(before.WatchdogPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "status says what is the matter", func() error {
		out := n.must("status")
		if want := fmt.Sprintf("the watchdog (pid %d) does not answer: it is stopped; kill -CONT %d", before.WatchdogPID, before.WatchdogPID); !strings.Contains(out, want) {
			return fmt.Errorf("it lacks %q:\n%s", want, out)
		}
		return nil
	})
	eventually(t, 90*time.Second, "the watchdog has a successor", func() error {
		s, err := n.tryStatus()
		if err == nil && s.Agent.WatchdogPID == before.WatchdogPID {
			err = fmt.Errorf("it is still pid %d", before.WatchdogPID)
		}
		return err
	})
	if alive(before.WatchdogPID) {
		t.Error("there are two watchdogs")
	}
	if now := n.status().Agent.PID; now != before.PID {
		t.Errorf("the agent was pid %d, now %d", before.PID, now)
	}
	for id, pid := range pids {
		if i := n.waitPhase(id, spec.PhaseRunning); i.PID != pid || !alive(pid) {
			t.Errorf("%s was pid %d, now %d", id, pid, i.PID)
		}
	}
	eventually(t, patience, "an event tells of it, once", func() error {
		hung := 0
		for _, ev := range n.events() {
			if ev.Type == spec.EventWatchdogHung && ev.Severity == spec.Critical && strings.Contains(ev.Message, "SIGSTOP") {
				hung++
			}
		}
		if hung != 1 {
			return fmt.Errorf("%d do", hung)
		}
		return nil
	})
	// The successor does its duty.
	if err := syscall.Kill(pids["web/app/0"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "web/app/0 is back", func() error {
		i, err := n.instance("web/app/0")
		if err != nil || i.Phase != spec.PhaseRunning || i.PID == pids["web/app/0"] {
			return fmt.Errorf("%s pid %d (%v)", i.Phase, i.PID, err)
		}
		return nil
	})
}

func TestAWatchdogWhoseSocketWasRemovedIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the patience of an agent, half a minute")
	}
	t.Parallel()
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 1"))
	pid := n.waitPhase("web/app/0", spec.PhaseRunning).PID
	before := n.status().Agent.WatchdogPID
	if err := os.Remove(filepath.Join(n.data, "watchdog", "watchdog.sock")); err != nil {
		t.Fatal(err)
	}
	if out := n.must("status"); !strings.Contains(out, fmt.Sprintf("the watchdog (pid %d) does not answer; if", before)) {
		t.Errorf("status says\n%s", out)
	}
	eventually(t, 90*time.Second, "the watchdog has a successor", func() error {
		s, err := n.tryStatus()
		if err == nil && s.Agent.WatchdogPID == before {
			err = fmt.Errorf("it is still pid %d", before)
		}
		return err
	})
	if i := n.waitPhase("web/app/0", spec.PhaseRunning); i.PID != pid {
		t.Errorf("web/app/0 was pid %d, now %d", pid, i.PID)
	}
}

func TestAnAgentThatIsStoppedHasASuccessorAndNothingElseNotices(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 3"))
	pids := n.waitShards("web/app", 3)
	before := n.status().Agent
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the agent has a successor", func() error {
		if alive(before.PID) {
			return fmt.Errorf("%d is still there", before.PID) // whom status would wait for
		}
		_, err := n.tryStatus()
		return err
	})
	if now := n.status().Agent; now.WatchdogPID != before.WatchdogPID || now.PID == before.PID {
		t.Errorf("watchdog and agent were %d and %d, now %d and %d", before.WatchdogPID, before.PID, now.WatchdogPID, now.PID)
	}
	for id, pid := range pids {
		if i := n.waitPhase(id, spec.PhaseRunning); i.PID != pid || !alive(pid) {
			t.Errorf("%s was pid %d, now %d", id, pid, i.PID)
		}
	}
}
