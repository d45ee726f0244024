package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// runs returns the recorded runs of a target.
func (n *node) runs(target string) []spec.Run {
	n.t.Helper()
	var runs []spec.Run
	if err := json.Unmarshal([]byte(n.must("runs", "-json", target)), &runs); err != nil {
		n.t.Fatal(err)
	}
	return runs
}

func TestAScheduledProcessRunsByHandAndTellsHowItEnded(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(`
job "reports" {
  process "good" {
    command = ["sh", "-c", "echo written"]
    schedule { cron = "0 3 29 2 *" }
  }
  process "bad" {
    command = ["sh", "-c", "exit 7"]
    schedule { cron = "@yearly" }
  }
  process "flaky" {
    command = ["sh", "-c", "test -e tried && exit 0; touch tried; exit 1"]
    schedule { cron = "@yearly" }
    restart {
      policy = "on-failure"
      delay  = "100ms"
    }
  }
}
`)
	eventually(t, patience, "good waits for its time", func() error {
		i, err := n.instance("reports/good/0")
		if err != nil || i.Phase != spec.PhasePending || !strings.Contains(i.Reason, "next run at 20") {
			return fmt.Errorf("%s: %s (%v)", i.Phase, i.Reason, err)
		}
		return nil
	})
	n.must("run", "-wait", "reports/good")
	eventually(t, patience, "good has written", func() error { return n.logged("reports/good/0", "written") })
	if r := n.run("run", "-wait", "reports/bad"); r.code != 1 || !strings.Contains(r.stderr, "exit 7") {
		t.Errorf("a run that fails: exit %d, %s", r.code, r.stderr)
	}
	n.must("run", "-wait", "reports/flaky")
	n.must("run", "-wait", "reports/good") // its instance is started afresh
	got := map[string]string{}
	for _, r := range n.runs("reports") {
		got[r.Process] += fmt.Sprintf("%s %s %d; ", r.ID, r.State, r.Exit.Code)
	}
	for process, want := range map[string]string{
		"good": "manual-1 succeeded 0; manual-2 succeeded 0; ", "bad": "manual-1 failed 7; ", "flaky": "manual-1 succeeded 0; ",
	} {
		if got[process] != want {
			t.Errorf("runs of %s: %s, want %s", process, got[process], want)
		}
	}
	n.must("stop", "reports/bad")
	if r := n.run("run", "reports/bad"); r.code != 1 || !strings.Contains(r.stderr, "is stopped") {
		t.Errorf("a run of what is stopped: exit %d, %s", r.code, r.stderr)
	}
}

func TestATickIsRunInItsMinute(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(`
job "ticks" {
  process "p" {
    command = ["true"]
    schedule { cron = "* * * * *" }
  }
}
`)
	eventually(t, 90*time.Second, "a tick has run", func() error {
		for _, r := range n.runs("ticks/p") {
			if r.State == spec.RunSucceeded && r.Tick.Second() == 0 && r.Node != "" {
				return nil
			}
		}
		return fmt.Errorf("%+v", n.runs("ticks/p"))
	})
}
