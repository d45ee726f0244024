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

// workloadJob is a job with one process that runs the workload program.
func (n *node) workloadJob(args, rest string) string {
	return fmt.Sprintf(`
job "load" {
  process "w" {
    command = concat([%q, "-ledger", %q, "-id"], ["load/w/0"], %s)
    %s
  }
}
`, workloadBinary, n.ledger(), args, rest)
}

func TestNothingStopsWhenAPartOfMeshrunIsKilled(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 5"))
	pids := n.waitShards("web/app", 5)
	for _, victim := range []string{"agent", "watchdog", "watchdog", "agent"} {
		s := n.status()
		pid := map[string]int{"agent": s.Agent.PID, "watchdog": s.Agent.WatchdogPID}[victim]
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s %d: %v", victim, pid, err)
		}
		eventually(t, patience, "the "+victim+" has a successor", func() error {
			s, err := n.tryStatus()
			if err != nil {
				return err
			}
			now := map[string]int{"agent": s.Agent.PID, "watchdog": s.Agent.WatchdogPID}[victim]
			if now == pid || now == 0 {
				return fmt.Errorf("%s is still pid %d", victim, now)
			}
			return nil
		})
		for id, pid := range pids {
			i := n.waitPhase(id, spec.PhaseRunning)
			if i.PID != pid || !alive(pid) {
				t.Errorf("%s killed: %s was pid %d, now %d", victim, id, pid, i.PID)
			}
		}
	}
	// The adopted ones are still kept alive, and stopped when that is wanted.
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
	n.must("stop", "web")
	eventually(t, patience, "all of web has ended", func() error {
		if left := n.processes("sleep 100"); len(left) > 0 {
			return fmt.Errorf("still there: %v", left)
		}
		return nil
	})
}

func TestExitsThatNobodySawAreStillKnown(t *testing.T) {
	n := newNode(t)
	n.start()
	let := filepath.Join(n.dir, "let")
	n.apply(fmt.Sprintf(`
job "load" {
  process "w" {
    command = ["sh", "-c", "while [ ! -e %s ]; do sleep 0.05; done; exit 7"]
    restart {
      policy = "never"
    }
  }
}
`, let))
	pid := n.waitPhase("load/w/0", spec.PhaseRunning).PID
	agent := n.status().Agent.PID
	if err := syscall.Kill(agent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.write("let", "")
	eventually(t, patience, "it ends while nobody can look", func() error {
		if alive(pid) {
			return fmt.Errorf("process %d is alive", pid)
		}
		return nil
	})
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	i := n.waitPhase("load/w/0", spec.PhaseFailed)
	if i.LastExit == nil || i.LastExit.Code != 7 || i.LastExit.Unknown {
		t.Errorf("last exit: %+v, want code 7", i.LastExit)
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(n.workloadJob(`["-ignore-term", "-children", "3"]`, "stop {\n timeout = \"500ms\"\n}"))
	n.waitPhase("load/w/0", spec.PhaseRunning)
	eventually(t, patience, "the children run", func() error {
		if c := n.processes("trap"); len(c) != 3 {
			return fmt.Errorf("%d children", len(c))
		}
		return nil
	})
	n.must("stop", "load")
	eventually(t, patience, "the group is gone", func() error {
		if left := n.processes("trap"); len(left) > 0 {
			return fmt.Errorf("children left: %v", left)
		}
		if left := n.processes("-ledger"); len(left) > 0 {
			return fmt.Errorf("leader left: %v", left)
		}
		return nil
	})
}

func TestAttemptsAreUsedUpAndThenItStaysDown(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(n.workloadJob(`["-run", "10ms", "-exit", "3"]`,
		"critical = true\nrestart {\n delay = \"20ms\"\n max_delay = \"100ms\"\n attempts = 3\n window = \"10m\"\n stable = \"5m\"\n}"))
	i := n.waitPhase("load/w/0", spec.PhaseFailed)
	if i.Restarts != 3 || i.LastExit == nil || i.LastExit.Code != 3 {
		t.Errorf("restarts %d, last exit %v; want 3 restarts and exit 3", i.Restarts, i.LastExit)
	}
	eventually(t, patience, "a critical alert is an event", func() error {
		for _, ev := range n.events() {
			if ev.Type == spec.EventExhausted && ev.Severity == spec.Critical {
				return nil
			}
		}
		return fmt.Errorf("none")
	})
	starts := len(n.ledgerLines("start"))
	time.Sleep(500 * time.Millisecond)
	if now := len(n.ledgerLines("start")); now != starts || now != 4 {
		t.Errorf("%d starts, then %d; want 4 for good", starts, now)
	}
	n.must("restart", "load")
	eventually(t, patience, "an operator's restart tries again", func() error {
		if now := len(n.ledgerLines("start")); now != 8 {
			return fmt.Errorf("%d starts", now)
		}
		return nil
	})
}

// Where there is no other node to try, it stays down as with "fail", and says so
// once, also to the next agent.
func TestWhatHasNoOtherNodeToGoToStaysDown(t *testing.T) {
	n := newNode(t)
	n.start()
	job := n.workloadJob(`["-run", "10ms", "-exit", "3"]`,
		"restart {\n delay = \"20ms\"\n attempts = 1\n window = \"1m\"\n stable = \"5s\"\n exhausted = \"reschedule\"\n}")
	n.apply(job)
	n.waitPhase("load/w/0", spec.PhaseFailed)
	told := func() (all []string) {
		for _, ev := range n.events() {
			if ev.Type == spec.EventRescheduled {
				all = append(all, string(ev.Severity)+": "+ev.Message)
			}
		}
		return all
	}
	eventually(t, 5*time.Second, "a critical alert is an event", func() error {
		if all := told(); len(all) != 1 || !strings.HasPrefix(all[0], "critical: w/0 stays down on ") || !strings.Contains(all[0], "(exit 3)") {
			return fmt.Errorf("told %q", all)
		}
		return nil
	})
	if text := n.must("status"); !strings.Contains(text, "w/0 stays down: its restarts are used up on ") {
		t.Errorf("the status does not say it:\n%s", text)
	}
	if starts := len(n.ledgerLines("start")); starts != 2 {
		t.Errorf("%d starts", starts)
	}
	n.killAgent()
	n.apply(job + "job \"other\" {\n process \"p\" {\n command = [\"sleep\", \"1000\"]\n }\n}\n")
	n.waitPhase("other/p/0", spec.PhaseRunning) // the next agent has looked at all jobs by then
	if all := told(); len(all) != 1 {
		t.Errorf("the next agent tells it again: %q", all)
	}
	n.must("restart", "load")
	eventually(t, 10*time.Second, "an operator's restart tries again, and it is told again", func() error {
		if starts, all := len(n.ledgerLines("start")), told(); starts != 4 || len(all) != 2 {
			return fmt.Errorf("%d starts, told %q", starts, all)
		}
		return nil
	})
}

// ledgerLines returns the fields of the ledger's lines of one kind.
func (n *node) ledgerLines(kind string) [][]string {
	n.t.Helper()
	text, err := os.ReadFile(n.ledger())
	if err != nil {
		n.t.Fatal(err)
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 6 && f[0] == kind {
			out = append(out, f)
		}
	}
	return out
}

func TestUpgradeTouchesNoInstance(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 2"))
	pid := n.waitPhase("web/app/1", spec.PhaseRunning).PID
	before := n.status().Agent
	n.must("upgrade")
	eventually(t, patience, "watchdog and agent are new", func() error {
		s, err := n.tryStatus()
		if err != nil {
			return err
		}
		if s.Agent.PID == before.PID {
			return fmt.Errorf("the agent is still pid %d", s.Agent.PID)
		}
		if s.Agent.WatchdogPID != before.WatchdogPID {
			return fmt.Errorf("the watchdog's pid changed from %d to %d", before.WatchdogPID, s.Agent.WatchdogPID)
		}
		return nil
	})
	if i := n.waitPhase("web/app/1", spec.PhaseRunning); i.PID != pid {
		t.Errorf("web/app/1 was pid %d, now %d", pid, i.PID)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is still kept alive, and its signal is known", func() error {
		i, err := n.instance("web/app/1")
		if err != nil || i.Phase != spec.PhaseRunning || i.PID == pid || i.LastExit == nil || i.LastExit.Signal != "SIGKILL" {
			return fmt.Errorf("%s pid %d last exit %v (%v)", i.Phase, i.PID, i.LastExit, err)
		}
		return nil
	})
}

func TestReloadFilesSendTheSignalAndRestartNothing(t *testing.T) {
	n := newNode(t)
	n.start()
	conf := n.write("app.conf", "one\n")
	n.apply(fmt.Sprintf(`
job "r" {
  process "app" {
    command = ["sh", "-c", "trap 'echo got hup' HUP; echo up; while :; do sleep 0.1; done"]
    reload {
      signal = "SIGHUP"
      files  = [%q]
    }
  }
}
`, conf))
	pid := n.waitPhase("r/app/0", spec.PhaseRunning).PID
	eventually(t, patience, "the process is up", func() error { return n.logged("r", "up") })
	n.write("app.conf", "two\n")
	eventually(t, patience, "the process got its signal", func() error { return n.logged("r", "got hup") })
	if i, err := n.instance("r/app/0"); err != nil || i.PID != pid {
		t.Errorf("pid %d → %d (%v)", pid, i.PID, err)
	}
}

// logged reports whether the job's log holds the text.
func (n *node) logged(job, text string) error {
	if out := n.must("logs", job); !strings.Contains(out, text) {
		return fmt.Errorf("the log lacks %q: %s", text, out)
	}
	return nil
}

func TestSynergymeshRunsAsAWhole(t *testing.T) {
	n := newNode(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := goBuild(filepath.Join(root, "bin", "synergy"), "../examples/synergymesh/synergy"); err != nil {
		t.Fatalf("build synergy: %v\n%s", err, out)
	}
	n.start()
	n.must("apply", "-yes", "-wait", "-var", "data="+filepath.Join(n.dir, "synergy"), filepath.Join(root, "examples", "synergymesh"))
	n.waitPhase("synergymesh/migrate/0", spec.PhaseCompleted)
	n.waitPhase("synergymesh/launcher/0", spec.PhaseRunning)
	for _, id := range []string{"orchestrator/2", "engine-render/3", "engine-mail/0"} {
		n.waitPhase("synergymesh/"+id, spec.PhaseRunning)
	}
	eventually(t, patience, "everybody has registered", func() error {
		i, err := n.instance("synergymesh/launcher/0")
		if err != nil || i.Status != "8 members" {
			return fmt.Errorf("status %q (%v)", i.Status, err)
		}
		return nil
	})
	eventually(t, patience, "it has said so", func() error {
		return n.logged("synergymesh/engine-render", "engine-render-3 owns its shard with token")
	})
}
