package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// healthJob has a process that is healthy as long as a file is there, and one
// that waits for it.
func healthJob(file string) string {
	return fmt.Sprintf(`job "shop" {
  process "web" {
    command = ["/bin/sh", "-c", "echo listening; exec sleep 100000"]
    restart {
      attempts = 0
      exhausted = "retry"
      delay = "0s"
      max_delay = "1s"
    }
    health "file" {
      command    = ["/bin/sh", "-c", "echo \"looked by $MESHRUN_PROCESS\"; test -e %s"]
      interval   = "200ms"
      timeout    = "20s"
      failures   = 2
      on_failure = "restart"
    }
    health "output" {
      log      = "^listening$"
      interval = "200ms"
      timeout  = "20s"
    }
    update { min_healthy = "0s" }
  }
  process "client" {
    command = ["/bin/sh", "-c", "exec sleep 100000"]
    depends_on "web" { condition = "healthy" }
  }
}
`, file)
}

// waitHealth waits until an instance says that it is so.
func (n *node) waitHealth(id string, want spec.HealthState, of func(*spec.Instance) bool) (seen spec.Instance) {
	n.t.Helper()
	eventually(n.t, patience, id+" is "+string(want), func() error {
		inst, err := n.instance(id)
		if err != nil {
			return err
		}
		if inst.Health != want || !of(&inst) {
			return fmt.Errorf("it is %q, generation %d: %+v", inst.Health, inst.Generation, inst.Checks)
		}
		seen = inst
		return nil
	})
	return seen
}

func TestFailingCheckRestartsAndHealthLetsOthersStart(t *testing.T) {
	n := newNode(t)
	n.start()
	file := filepath.Join(n.dir, "healthy")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.apply(healthJob(file))
	whichever := func(*spec.Instance) bool { return true }
	first := n.waitHealth("shop/web/0", spec.HealthPassing, whichever)
	n.waitPhase("shop/client/0", spec.PhaseRunning)
	if text := n.must("status", "shop/web"); !strings.Contains(text, "looked by web") || !strings.Contains(text, "HEALTH") {
		t.Errorf("status does not tell what its checks say:\n%s", text)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	later := func(i *spec.Instance) bool { return i.Generation > first.Generation }
	eventually(t, patience, "it is restarted", func() error {
		inst, err := n.instance("shop/web/0")
		if err == nil && !later(&inst) {
			err = fmt.Errorf("generation %d, %s, restarts for %q", inst.Generation, inst.Health, inst.RestartCause)
		}
		return err
	})
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.waitHealth("shop/web/0", spec.HealthPassing, later)
	eventually(t, patience, "an event tells that it was unhealthy", func() error {
		if !slices.ContainsFunc(n.events(), func(ev spec.Event) bool { return ev.Type == spec.EventUnhealthy }) {
			return errors.New("none does")
		}
		return nil
	})
}

// An agent's death ends the commands of its checks, and forgets nothing that
// they have found out.
func TestChecksSurviveTheirAgentAndTheirCommandsDoNot(t *testing.T) {
	n := newNode(t)
	n.start()
	hung, file := filepath.Join(n.dir, "hung"), filepath.Join(n.dir, "pid")
	n.apply(fmt.Sprintf(`job "shop" {
  process "web" {
    command = ["/bin/sh", "-c", "exec sleep 100000"]
    health "slow" {
      command  = ["/bin/sh", "-c", "test -e %s || exit 0; echo $$ > %s; exec sleep 50000"]
      interval = "200ms"
      timeout  = "1m"
    }
  }
}
`, hung, file))
	before := n.waitHealth("shop/web/0", spec.HealthPassing, func(*spec.Instance) bool { return true })
	if err := os.WriteFile(hung, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := 0
	eventually(t, patience, "a check hangs", func() error {
		text, err := os.ReadFile(file)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	if err := syscall.Kill(n.status().Agent.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the check's command ends", func() error {
		if alive(pid) {
			return fmt.Errorf("process %d still runs", pid)
		}
		return nil
	})
	if err := os.Remove(hung); err != nil {
		t.Fatal(err)
	}
	after := n.waitHealth("shop/web/0", spec.HealthPassing, func(*spec.Instance) bool { return true })
	if !after.HealthSince.Equal(before.HealthSince) || after.PID != before.PID {
		t.Errorf("it is healthy since %s with pid %d, was since %s with %d", after.HealthSince, after.PID, before.HealthSince, before.PID)
	}
}
