package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestAnOperatorRestartsStopsAndScales(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 3"))
	pids := n.waitShards("web/app", 3)

	n.must("restart", "web/app/1")
	eventually(t, patience, "shard 1 is a new process", func() error {
		i, err := n.instance("web/app/1")
		if err != nil || i.PID == pids["web/app/1"] || i.Phase != spec.PhaseRunning {
			return fmt.Errorf("%s pid %d (%v)", i.Phase, i.PID, err)
		}
		return nil
	})
	for _, id := range []string{"web/app/0", "web/app/2"} {
		if i, err := n.instance(id); err != nil || i.PID != pids[id] {
			t.Errorf("%s was touched: pid %d → %d (%v)", id, pids[id], i.PID, err)
		}
	}

	n.must("stop", "web/app/2")
	eventually(t, patience, "shard 2 is down", func() error {
		if i, err := n.instance("web/app/2"); err == nil && i.Phase.Alive() {
			return fmt.Errorf("%s", i.Phase)
		}
		return nil
	})
	n.must("restart", "web/app/2")
	n.waitPhase("web/app/2", spec.PhaseRunning)

	n.must("scale", "web/app", "4")
	n.waitPhase("web/app/3", spec.PhaseRunning)
	if i, err := n.instance("web/app/0"); err != nil || i.PID != pids["web/app/0"] {
		t.Errorf("scaling touched web/app/0 (%v)", err)
	}

	// The file has the last word again when it is applied.
	n.must("apply", "-yes", n.dir+"/job.hcl")
	eventually(t, patience, "shard 3 is gone", func() error {
		if i, err := n.instance("web/app/3"); err == nil {
			return fmt.Errorf("%s", i.Phase)
		}
		return nil
	})
}

func TestHistoryTellsWhoDidWhatAndRollbackGoesBack(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("env = { V = \"1\" }"))
	n.apply(sleeper("env = { V = \"2\" }"))
	n.must("scale", "web/other", "2")
	var versions []spec.JobVersion
	if err := json.Unmarshal([]byte(n.must("history", "-json", "web")), &versions); err != nil {
		t.Fatal(err)
	}
	if len(versions) != 3 {
		t.Fatalf("%d versions, want 3", len(versions))
	}
	for _, v := range versions {
		if v.Who == "" || v.When.IsZero() || v.Why == "" || v.Checksum == "" {
			t.Errorf("version %d does not tell who, when and why: %+v", v.Version, v)
		}
	}
	n.must("rollback", "-yes", "web", "1")
	eventually(t, patience, "version 1's environment is back", func() error {
		i, err := n.instance("web/app/0")
		if err != nil || i.Version != 4 || i.Phase != spec.PhaseRunning {
			return fmt.Errorf("version %d %s (%v)", i.Version, i.Phase, err)
		}
		return nil
	})
}

func TestARollbackGoesBackOverOrdersToAnotherDefinition(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("env = { V = \"1\" }"))
	if r := n.run("rollback", "-yes", "web"); r.code != 1 || !strings.Contains(r.stderr, "no earlier version") {
		t.Errorf("with one version: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	n.apply(sleeper("env = { V = \"2\" }"))
	n.must("restart", "-wait", "web/app")
	n.must("stop", "-wait", "web/other")
	if out := n.must("rollback", "-yes", "web"); !strings.Contains(out, "env.V") || !strings.Contains(out, "version 4 → 5") {
		t.Errorf("it changes\n%s", out)
	}
	var versions []spec.JobVersion
	if err := json.Unmarshal([]byte(n.must("history", "-json", "web")), &versions); err != nil {
		t.Fatal(err)
	}
	if last := versions[len(versions)-1]; last.Why != "rollback to version 1" || last.Checksum != versions[0].Checksum {
		t.Errorf("the last version is %d: %s", last.Version, last.Why)
	}
	n.must("stop", "-purge", "web")
	for job, says := range map[string]string{"web": "`meshrun rollback web VERSION`", "nope": "no job was ever named"} {
		if r := n.run("rollback", "-yes", job); r.code != 1 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit %d\n%s", job, r.code, r.stderr)
		}
	}
}

func TestSignalReachesTheProcess(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(`
job "s" {
  process "p" {
    command = ["sh", "-c", "trap 'echo got usr1' USR1; echo up; while :; do sleep 0.1; done"]
    shards  = 2
  }
}
`)
	eventually(t, patience, "it is up", func() error { return n.logged("s/p/1", "up") })
	n.must("signal", "USR1", "s/p/1")
	eventually(t, patience, "it got the signal", func() error { return n.logged("s/p/1", "got usr1") })
	if err := n.logged("s/p/0", "got usr1"); err == nil {
		t.Error("the other shard got it, too")
	}
	if r := n.run("signal", "NONSENSE", "s/p/1"); r.code != 1 {
		t.Errorf("an unknown signal: exit %d", r.code)
	}
}

func TestDependentsWaitAndStopFirst(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(fmt.Sprintf(`
job "chain" {
  process "setup" {
    command = ["sh", "-c", "sleep 0.5"]
    restart {
      policy = "never"
    }
  }
  process "base" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "base"]
    depends_on "setup" { condition = "completed" }
  }
  process "top" {
    command = [%[1]q, "-ledger", %[2]q, "-id", "top"]
    depends_on "base" { condition = "started" }
  }
}
`, workloadBinary, n.ledger()))
	top, base := n.waitPhase("chain/top/0", spec.PhaseRunning), n.waitPhase("chain/base/0", spec.PhaseRunning)
	n.waitPhase("chain/setup/0", spec.PhaseCompleted)
	if !base.Started.Before(top.Started) {
		t.Errorf("base was started at %s, and top, which depends on it, at %s", base.Started, top.Started)
	}
	eventually(t, patience, "both say that they are up", func() error {
		return n.startedAs(map[string]int{"base": 1, "top": 1})
	})
	n.must("stop", "chain")
	eventually(t, patience, "both have ended", func() error {
		if e := n.ledgerLines("term"); len(e) != 2 {
			return fmt.Errorf("%v", e)
		}
		return nil
	})
	if e := n.ledgerLines("term"); e[0][1] != "top" {
		t.Errorf("ends: %v, want top first", e)
	}
}

func TestReadinessByNotifyAndATimeout(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(`
job "r" {
  process "never" {
    command = ["sleep", "1000"]
    ready {
      notify  = true
      timeout = "400ms"
    }
    restart {
      attempts  = 1
      delay     = "10ms"
      max_delay = "10ms"
    }
  }
  process "after" {
    command = ["sleep", "1001"]
    depends_on "never" { condition = "started" }
  }
}
`)
	i := n.waitPhase("r/never/0", spec.PhaseFailed)
	if !strings.Contains(i.Reason, "READY") {
		t.Errorf("reason %q does not speak of readiness", i.Reason)
	}
	if i, err := n.instance("r/after/0"); err != nil || i.Phase != spec.PhasePending || !strings.Contains(i.Reason, "never") {
		t.Errorf("the dependent: %s %q (%v), want pending with the reason", i.Phase, i.Reason, err)
	}
}
