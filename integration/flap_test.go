package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// flapping is a job that others of another job depend on in each way. It stays
// down when it is killed, until it is told to start.
const flapping = `
job "store" {
  process "redis" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "redis"]
    restart {
      policy = "never"
    }
  }
}

job "shop" {
  process "waits" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "waits"]
    depends_on "store/redis" {}
  }
  process "stops" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "stops"]
    depends_on "store/redis" { on_failure = "stop" }
  }
  process "above" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "above"]
    depends_on "stops" { on_failure = "stop" }
  }
  process "restarts" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "restarts"]
    restart {
      attempts  = 100
      delay     = "10ms"
      max_delay = "10ms"
    }
    depends_on "store/redis" { on_failure = "restart" }
  }
}
`

func TestADependencyFlaps(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(fmt.Sprintf(flapping, workloadBinary, n.ledger()))
	ids := []string{"waits", "stops", "above", "restarts"}
	redis := n.waitPhase("store/redis/0", spec.PhaseRunning)
	for _, id := range ids {
		n.waitPhase("shop/"+id+"/0", spec.PhaseRunning)
	}
	for flap := 1; flap <= 4; flap++ {
		n.settledIn("shop", ids)
		if err := syscall.Kill(redis.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.waitPhase("store/redis/0", spec.PhaseFailed)
		for _, id := range []string{"stops", "above"} {
			if in := n.waitPhase("shop/"+id+"/0", spec.PhasePending); !strings.HasPrefix(in.Reason, "waits for ") {
				t.Errorf("flap %d: %s is pending, as it %q", flap, id, in.Reason)
			}
		}
		before := map[string]int{"redis": flap, "waits": 1, "stops": flap, "above": flap, "restarts": flap}
		eventually(t, patience, "those that are up say so", func() error { return n.startedAs(before) })

		if flap == 3 { // whoever decides then
			n.killAgent()
		}
		n.must("restart", "store/redis")
		redis = n.waitPhase("store/redis/0", spec.PhaseRunning)
		for _, id := range ids {
			n.waitPhase("shop/"+id+"/0", spec.PhaseRunning)
		}
		want := map[string]int{"redis": flap + 1, "waits": 1, "stops": flap + 1, "above": flap + 1, "restarts": flap + 1}
		eventually(t, patience, "all follow", func() error { return n.startedAs(want) })
	}
	last := ""
	for _, e := range n.ledgerLines("term") {
		if id := e[1]; id == "stops" && last != "above" {
			t.Errorf("stops was stopped after %q: %v", last, n.ledgerLines("term"))
		}
		if e[1] != "restarts" {
			last = e[1]
		}
	}
}

// settledIn waits until instances have run for so long that their node has
// certainly reported them: who decides cannot order what it has not heard of.
func (n *node) settledIn(job string, ids []string) {
	n.t.Helper()
	eventually(n.t, patience, "all have run for a while", func() error {
		for _, id := range ids {
			if up := time.Since(n.waitPhase(job+"/"+id+"/0", spec.PhaseRunning).Started); up < 2*time.Second {
				return fmt.Errorf("%s is up for %s", id, up)
			}
		}
		return nil
	})
}

// killAgent kills the agent, and returns once its watchdog has brought back
// another one.
func (n *node) killAgent() {
	n.t.Helper()
	pid := n.status().Agent.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, patience, "the agent is back", func() error {
		s, err := n.tryStatus()
		if err == nil && s.Agent.PID == pid {
			err = fmt.Errorf("it is process %d still", pid)
		}
		return err
	})
}

// startedAs tells unless each workload says that it was started so many times.
// From then on it heeds SIGTERM.
func (n *node) startedAs(want map[string]int) error {
	got := map[string]int{}
	for _, line := range n.ledgerLines("start") {
		got[line[1]]++
	}
	for id, times := range want {
		if got[id] != times {
			return fmt.Errorf("%s was started %d times, not %d", id, got[id], times)
		}
	}
	return nil
}

func TestUpStopsDependentsInOtherJobsFirst(t *testing.T) {
	n := newNode(t)
	cmd := n.up(n.write("jobs/flap.hcl", fmt.Sprintf(flapping, workloadBinary, n.ledger())))
	for _, id := range []string{"waits", "stops", "above", "restarts"} {
		n.waitPhase("shop/"+id+"/0", spec.PhaseRunning)
	}
	all := map[string]int{"redis": 1, "waits": 1, "stops": 1, "above": 1, "restarts": 1}
	eventually(t, patience, "all say that they are up", func() error { return n.startedAs(all) })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	ends := n.ledgerLines("term")
	if len(ends) != 5 || ends[4][1] != "redis" {
		t.Errorf("ends: %v, want redis last", ends)
	}
}
