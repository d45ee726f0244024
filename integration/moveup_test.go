package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/spec"
)

// A machine that outgrows its embedded store takes its jobs to Consul, and its
// processes do not notice.
func TestAMachineMovesUpToConsulAndItsProcessesGoOn(t *testing.T) {
	t.Parallel()
	c, err := consultest.Start(t.Context(), consultest.Options{Config: "connect { enabled = true }"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	n := newNode(t)
	config := n.write("agent.hcl", "node = \"n1\"\n")
	n.start("-config", config)
	n.apply(`job "web" {
  process "app" {
    command = ["sleep", "1000"]
    shards  = 3
  }
  process "only" {
    command   = ["sleep", "1001"]
    exclusive = true
    stop {
      timeout = "1s"
    }
  }
}
`)
	plain := n.waitShards("web/app", 3)
	only := n.waitPhase("web/only/0", spec.PhaseRunning).PID
	agent := n.status().Agent.PID
	saved := filepath.Join(n.dir, "state.snapshot")
	n.must("snapshot", "save", saved)

	n.write("agent.hcl", fmt.Sprintf("node = \"n1\"\nconsul {\n  address = %q\n  prefix  = \"teams/a\"\n}\npeers { listen = \"127.0.0.1:0\" }\n", c.Address()))
	n.must("upgrade")
	eventually(t, patience, "the agent has seen that the new store is empty", func() error {
		s, err := n.tryStatus()
		if err != nil || s.Agent.PID == agent {
			return fmt.Errorf("the agent is still %d: %w", s.Agent.PID, err)
		}
		if log, err := os.ReadFile(filepath.Join(n.data, "logs", "meshrun", "agent", "0", "current.log")); err != nil ||
			!strings.Contains(string(log), "the store has never had a job") {
			return fmt.Errorf("it has not said so: %w", err)
		}
		return nil
	})
	if out := n.must("status"); !strings.Contains(out, "what runs is left as it is") {
		t.Errorf("status does not say what becomes of it:\n%s", out)
	}
	n.must("snapshot", "restore", saved)
	for id, pid := range plain {
		if i := n.waitPhase(id, spec.PhaseRunning); i.PID != pid {
			t.Errorf("%s was pid %d, now %d", id, pid, i.PID)
		}
	}
	// What was started without a lock and a lease is started once more with them.
	eventually(t, patience, "the exclusive one runs under a lease", func() error {
		i, err := n.instance("web/only/0")
		if err == nil && (i.PID == only || i.Phase != spec.PhaseRunning) {
			err = fmt.Errorf("it is %s with pid %d", i.Phase, i.PID)
		}
		return err
	})
	if alive(only) {
		t.Error("the exclusive one runs twice")
	}
	for id, pid := range plain {
		if !alive(pid) {
			t.Errorf("%s with pid %d has ended", id, pid)
		}
	}
	if r := n.run("plan", filepath.Join(n.dir, "job.hcl")); r.code != 0 {
		t.Errorf("there is something to do: %s", r.stdout)
	}
	// All of it is below the prefix.
	var keys []string
	if err := c.Call(t.Context(), http.MethodGet, "/v1/kv/?keys", nil, &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "teams/a/meshrun/v1/") {
			t.Errorf("the key %s is in somebody else's place", key)
		}
	}
	if len(keys) == 0 {
		t.Error("Consul has no keys")
	}
}
