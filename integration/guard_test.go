package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// guardJob has processes that grow once for every file that they find and
// remove, and guards that mind.
func guardJob(dir string) string {
	grows := `["/bin/sh", "-c", "until rm \"$0-$MESHRUN_SHARD\" 2>/dev/null; do sleep 0.2; done; x=$(head -c 50000000 /dev/zero | tr '\\0' x); while :; do sleep 1; done", "%s"]`
	return fmt.Sprintf(`job "shop" {
  process "web" {
    command = `+grows+`
    shards  = 2
    restart {
      attempts  = 0
      exhausted = "retry"
      delay     = "0s"
      max_delay = "1s"
    }
    guard "memory" {
      above    = "32MiB"
      interval = "1s"
      action   = "restart"
    }
    update {
      max_parallel = 1
      min_healthy  = "0s"
    }
  }
  process "leaky" {
    command = `+grows+`
    guard "memory" {
      above    = "32MiB"
      interval = "1s"
    }
  }
}
`, filepath.Join(dir, "web"), filepath.Join(dir, "leaky"))
}

// waitGrown lets a process grow, and waits until it has begun to.
func (n *node) waitGrown(names ...string) {
	n.t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(n.dir, name), nil, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	eventually(n.t, patience, "they begin to grow", func() error {
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(n.dir, name)); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s is still there, or nobody knows: %v", name, err)
			}
		}
		return nil
	})
}

// What uses too much memory is restarted, and one shard after the other.
func TestGuardRestartsWhatGrowsInItsTurn(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(guardJob(n.dir))
	shards := []string{"shop/web/0", "shop/web/1"}
	for _, id := range shards {
		n.waitPhase(id, spec.PhaseRunning)
	}
	n.waitGrown("web-0", "web-1")
	for _, id := range shards {
		eventually(t, 2*time.Minute, id+" is restarted and small", func() error {
			inst, err := n.instance(id)
			if err == nil && (inst.Generation < 2 || inst.Phase != spec.PhaseRunning || len(inst.Alerts) > 0 || inst.RestartCause != "") {
				err = fmt.Errorf("generation %d is %s, alerts of %q and restarts for %q", inst.Generation, inst.Phase, inst.Alerts, inst.RestartCause)
			}
			return err
		})
	}
	down := map[spec.InstanceID]bool{}
	ended := 0
	for _, ev := range n.events() {
		switch {
		case ev.Instance == nil:
		case strings.Contains(ev.Message, `its guard "memory": memory is `) && strings.Contains(ev.Message, "the restart policy decides"):
			ended++
			if down[ev.Instance.ID] = true; len(down) > 1 {
				t.Errorf("two shards were down at once: %s", ev.Message)
			}
		case ev.Type == spec.EventStarted:
			delete(down, ev.Instance.ID)
		}
	}
	if ended != 2 {
		t.Errorf("the guard ended %d generations, want 2", ended)
	}
}

// An alert is seen as long as it lasts.
func TestStatusShowsWhatAGuardAlertsOf(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(guardJob(n.dir))
	before := n.waitPhase("shop/leaky/0", spec.PhaseRunning)
	n.waitGrown("leaky-0")
	eventually(t, patience, "it alerts", func() error {
		if text := n.must("status", "shop"); !strings.Contains(text, `guard "memory": memory is `) {
			return errors.New(text)
		}
		return nil
	})
	if after, err := n.instance("shop/leaky/0"); err != nil || after.PID != before.PID {
		t.Errorf("it was touched, from pid %d to %d: %v", before.PID, after.PID, err)
	}
	n.must("restart", "shop/leaky")
	eventually(t, patience, "the alert is over", func() error {
		inst, err := n.instance("shop/leaky/0")
		if err == nil && (inst.PID == before.PID || len(inst.Alerts) > 0) {
			err = fmt.Errorf("pid %d alerts of %q", inst.PID, inst.Alerts)
		}
		return err
	})
}
