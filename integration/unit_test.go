package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// What the unit must say for the laws to hold under systemd, and why.
var unitLaws = map[string][2]string{
	"Type":                    {"notify", "the service is up when it works, not when it was forked"},
	"Restart":                 {"always", "the agent leaves a dead watchdog to systemd"},
	"KillMode":                {"process", "the end of the watchdog must not be the end of what it runs"},
	"OOMPolicy":               {"continue", "one instance without memory must not stop all"},
	"TimeoutStartFailureMode": {"kill", "SIGTERM would stop what a slow watchdog has just adopted"},
	"StartLimitIntervalSec":   {"0", "systemd must not give up"},
}

func TestTheUnitKeepsTheLaws(t *testing.T) {
	text, err := os.ReadFile("../examples/deploy/systemd/meshrun.service")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			said[name] = value
		}
	}
	for name, law := range unitLaws {
		if said[name] != law[0] {
			t.Errorf("%s=%s, want %s: %s", name, said[name], law[0], law[1])
		}
	}
}

// The watchdog raises its own limit of open files; select(2) and programs that
// close every descriptor suffer where that is handed on.
func TestInstancesGetTheLimitOfOpenFilesThatMeshrunWasStartedWith(t *testing.T) {
	n := newNode(t)
	cmd := exec.Command("sh", "-c", `ulimit -Sn 321; exec "$0" agent -data-dir "$1"`, meshrunBinary, n.data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	eventually(t, patience, "the agent answers", func() error { _, err := n.tryStatus(); return err })
	n.apply(`
job "limits" {
  process "p" {
    command = ["sh", "-c", "echo limit $(ulimit -Sn); exec sleep 1000"]
  }
}
`)
	check := func() error { return n.logged("limits", "limit 321") }
	eventually(t, patience, "an instance has the limit", check)
	// A successor in place hands the same limit on.
	n.must("upgrade")
	pid := n.waitPhase("limits/p/0", spec.PhaseRunning).PID
	n.must("restart", "-wait", "limits")
	eventually(t, patience, "after an upgrade it has, too", func() error {
		if i, err := n.instance("limits/p/0"); err != nil || i.PID == pid {
			return fmt.Errorf("not restarted: pid %d (%v)", i.PID, err)
		}
		if c := strings.Count(n.must("logs", "limits"), "limit 321"); c != 2 {
			return fmt.Errorf("%d of 2 have it", c)
		}
		return nil
	})
}
