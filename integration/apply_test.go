package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// sleeper is a job of one process with the given lines in its block.
func sleeper(lines string) string {
	return fmt.Sprintf("job \"web\" {\n  process \"app\" {\n    command = [\"sleep\", \"1000\"]\n%s\n  }\n  process \"other\" {\n    command = [\"sleep\", \"1001\"]\n  }\n}\n", lines)
}

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 3"))
	before := map[string]int{}
	for i := range 3 {
		id := fmt.Sprintf("web/app/%d", i)
		before[id] = n.waitPhase(id, spec.PhaseRunning).PID
	}
	before["web/other/0"] = n.waitPhase("web/other/0", spec.PhaseRunning).PID

	same := func(when string, ids ...string) {
		t.Helper()
		for _, id := range ids {
			if i, err := n.instance(id); err != nil || i.PID != before[id] {
				t.Errorf("%s: %s was pid %d, now %d (%v)", when, id, before[id], i.PID, err)
			}
		}
	}

	n.apply(sleeper("shards = 3\nrestart {\n  delay = \"3s\"\n  attempts = 7\n}\nlogs {\n  keep = 9\n}"))
	time.Sleep(300 * time.Millisecond)
	same("a new restart policy", "web/app/0", "web/app/1", "web/app/2", "web/other/0")

	n.apply(sleeper("shards = 5"))
	n.waitPhase("web/app/4", spec.PhaseRunning)
	same("more shards", "web/app/0", "web/app/1", "web/app/2", "web/other/0")

	n.apply(sleeper("shards = 2"))
	eventually(t, patience, "shards 2 to 4 are gone", func() error {
		for _, id := range []string{"web/app/2", "web/app/3", "web/app/4"} {
			if _, err := n.instance(id); err == nil {
				return fmt.Errorf("%s is still there", id)
			}
		}
		return nil
	})
	same("fewer shards", "web/app/0", "web/app/1", "web/other/0")

	n.apply(sleeper("shards = 2\nenv = { MODE = \"new\" }"))
	eventually(t, patience, "the shards have the new environment", func() error {
		for _, id := range []string{"web/app/0", "web/app/1"} {
			i, err := n.instance(id)
			if err != nil || i.PID == before[id] || i.Phase != spec.PhaseRunning {
				return fmt.Errorf("%s: pid %d, %s (%v)", id, i.PID, i.Phase, err)
			}
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", i.PID))
			if err != nil || !strings.Contains(string(env), "MODE=new") {
				return fmt.Errorf("%s runs without MODE=new (%v)", id, err)
			}
		}
		return nil
	})
	same("an edit of its neighbour", "web/other/0")
}

func TestPlanSaysWhatApplyDoes(t *testing.T) {
	n := newNode(t)
	n.start()
	file := n.write("job.hcl", sleeper("shards = 2"))
	if r := n.run("plan", file); r.code != 2 {
		t.Fatalf("a plan with changes: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	n.must("apply", "-yes", file)
	n.waitPhase("web/app/1", spec.PhaseRunning)
	if r := n.run("plan", file); r.code != 0 {
		t.Fatalf("a plan without changes: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	n.write("job.hcl", sleeper("shards = 3\nenv = { A = \"1\" }"))
	r := n.run("plan", "-json", file)
	if r.code != 2 {
		t.Fatalf("plan -json: exit %d\n%s", r.code, r.stderr)
	}
	var plan spec.Plan
	if err := json.Unmarshal([]byte(r.stdout), &plan); err != nil {
		t.Fatalf("plan -json: %v", err)
	}
	got := map[string]spec.InstanceAction{}
	for _, j := range plan.Jobs {
		for _, i := range j.Instances {
			got[i.ID.String()] = i.Action
			if i.Action != spec.ActionKeep && i.Reason == "" {
				t.Errorf("%s: %s without a reason", i.ID, i.Action)
			}
		}
	}
	want := map[string]spec.InstanceAction{
		"web/app/0": spec.ActionRestart, "web/app/1": spec.ActionRestart,
		"web/app/2": spec.ActionStart, "web/other/0": spec.ActionKeep,
	}
	for id, action := range want {
		if got[id] != action {
			t.Errorf("plan for %s: %q, want %q", id, got[id], action)
		}
	}
	if r := n.run("plan", filepath.Join(n.dir, "missing.hcl")); r.code != 1 {
		t.Errorf("a plan of a missing file: exit %d", r.code)
	}
}

func TestSavedPlanIsRefusedWhenTheWorldHasMoved(t *testing.T) {
	n := newNode(t)
	n.start()
	file := n.write("job.hcl", sleeper("shards = 1"))
	saved := filepath.Join(n.dir, "saved.plan")
	if r := n.run("plan", "-out", saved, file); r.code != 2 {
		t.Fatalf("plan -out: exit %d\n%s", r.code, r.stderr)
	}
	n.apply(sleeper("shards = 2"))
	r := n.run("apply", "-yes", saved)
	if r.code != 1 || !strings.Contains(r.stderr, "plan") {
		t.Fatalf("a stale plan: exit %d, %q", r.code, r.stderr)
	}
	n.waitPhase("web/app/1", spec.PhaseRunning)

	n.write("job.hcl", sleeper("shards = 3"))
	n.run("plan", "-out", saved, file)
	n.must("apply", "-yes", saved)
	n.waitPhase("web/app/2", spec.PhaseRunning)

	n.write("job.hcl", sleeper("shards = 4"))
	n.run("plan", "-out", saved, file)
	text, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(text), `"job": "web"`, `"job": "evil"`, 1)
	if forged == string(text) {
		t.Fatal("the saved plan has no job to forge")
	}
	if err := os.WriteFile(saved, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := n.run("apply", "-yes", saved); r.code != 1 {
		t.Errorf("a forged plan: exit %d", r.code)
	}
}

func TestSavingAFileIsEnoughAndABrokenOneChangesNothing(t *testing.T) {
	n := newNode(t)
	n.write("jobs/web.hcl", sleeper("shards = 1"))
	n.start("-jobs", filepath.Join(n.dir, "jobs"))
	pid := n.waitPhase("web/app/0", spec.PhaseRunning).PID

	n.write("jobs/web.hcl", sleeper("shards = 1\n    bogus = true"))
	n.write("jobs/second.hcl", "job \"second\" {\n  process \"x\" {\n    command = [\"sleep\", \"1002\"]\n  }\n}\n")
	eventually(t, patience, "the refusal is an event", func() error {
		for _, ev := range n.events() {
			if ev.Type == spec.EventJobRefused && strings.Contains(ev.Message, "web.hcl:5") {
				return nil
			}
		}
		return fmt.Errorf("no event names web.hcl:5")
	})
	if i, err := n.instance("web/app/0"); err != nil || i.PID != pid {
		t.Errorf("a broken file touched web/app/0: pid %d → %d (%v)", pid, i.PID, err)
	}

	n.write("jobs/web.hcl", sleeper("shards = 2"))
	n.waitPhase("web/app/1", spec.PhaseRunning)
	n.waitPhase("second/x/0", spec.PhaseRunning)
	if err := os.Remove(filepath.Join(n.dir, "jobs/second.hcl")); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the job of the removed file is gone", func() error {
		if _, err := n.instance("second/x/0"); err == nil {
			return fmt.Errorf("second/x/0 is still there")
		}
		return nil
	})
	if i, err := n.instance("web/app/0"); err != nil || i.PID != pid {
		t.Errorf("web/app/0 was touched: pid %d → %d (%v)", pid, i.PID, err)
	}

	if err := os.Remove(filepath.Join(n.dir, "jobs/web.hcl")); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "a directory without jobs is refused", func() error {
		for _, ev := range n.events() {
			if ev.Type == spec.EventJobRefused && strings.Contains(ev.Message, "no job file is left") {
				return nil
			}
		}
		return fmt.Errorf("no event says so")
	})
	if i, err := n.instance("web/app/0"); err != nil || i.PID != pid {
		t.Errorf("an empty directory touched web/app/0: pid %d → %d (%v)", pid, i.PID, err)
	}
}

func TestSecretsAreShownNowhere(t *testing.T) {
	n := newNode(t)
	n.start()
	const secret = "hunter2-hunter2"
	file := n.write("job.hcl", `
variable "token" {
  type      = string
  sensitive = true
}
job "vault" {
  process "app" {
    command = ["sleep", "1000"]
    env     = { TOKEN = var.token, PREFIXED = "x-${var.token}" }
  }
}
`)
	saved := filepath.Join(n.dir, "saved.plan")
	var shown strings.Builder
	show := func(r result) { shown.WriteString(r.stdout + r.stderr) }
	show(n.run("plan", "-var", "token="+secret, "-out", saved, file))
	show(n.run("plan", "-json", "-var", "token="+secret, file))
	show(n.run("apply", "-yes", saved))
	pid := n.waitPhase("vault/app/0", spec.PhaseRunning).PID
	// While it executes its program, nobody can read its environment.
	eventually(t, patience, "the process has its secret", func() error {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && !strings.Contains(string(env), "TOKEN="+secret) {
			err = errors.New("it has not")
		}
		return err
	})
	failing := n.write("failing.hcl", `
variable "token" {
  type      = string
  sensitive = true
}
job "failing" {
  process "dir" {
    command = ["sleep", "1000"]
    dir     = "/nowhere/${var.token}"
  }
  process "command" { command = ["/nowhere/${var.token}"] }
  process "check" {
    command = ["sleep", "1000"]
    health "address" {
      tcp          = "${var.token}:99"
      interval     = "100ms"
      timeout      = "1s"
      failures     = 1
      start_period = "0s"
    }
  }
}
`)
	show(n.run("apply", "-yes", "-var", "token="+secret, failing))
	eventually(t, patience, "all three have failed", func() error {
		for process, failed := range map[string]func(spec.Instance) bool{
			"dir": func(i spec.Instance) bool {
				return i.LastExit != nil && strings.Contains(i.LastExit.Error, "does not exist")
			},
			"command": func(i spec.Instance) bool {
				return i.LastExit != nil && strings.Contains(i.LastExit.Error, "(sensitive)")
			},
			"check": func(i spec.Instance) bool { return i.Health == spec.HealthFailing },
		} {
			if i, err := n.instance("failing/" + process + "/0"); err != nil || !failed(i) {
				return fmt.Errorf("%s is %+v, %v", process, i, err)
			}
		}
		return nil
	})
	show(n.run("plan", "-json", "-var", "token=another", file))
	show(n.run("plan", "-var", "token=another", file))
	show(n.run("apply", "-yes", "-var", "token=another-"+secret, file))
	show(n.run("status", "-json"))
	show(n.run("events", "-json"))
	show(n.run("history", "-json", "vault"))
	show(n.run("logs", "-json", "vault"))
	plan, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(plan)
	log, _ := os.ReadFile(filepath.Join(n.dir, "agent.log"))
	shown.Write(log)
	if i := strings.Index(shown.String(), secret); i >= 0 {
		t.Errorf("the secret is shown: …%s…", shown.String()[max(0, i-200):i+len(secret)])
	}
}

func TestAnApplyThatWaitsFollowsABatchProcessToItsEnd(t *testing.T) {
	n := newNode(t)
	n.start()
	for code, want := range map[int]int{0: 0, 5: 1} {
		job := n.write("batch.hcl", fmt.Sprintf(`job "batch%[1]d" {
  process "once" {
    command = ["sh", "-c", "sleep 1; exit %[1]d"]
    restart { policy = "never" }
  }
}
`, code))
		r := n.run("apply", "-yes", "-wait", job)
		i, err := n.instance(fmt.Sprintf("batch%d/once/0", code))
		if err != nil || i.Phase.Alive() || i.LastExit == nil || i.LastExit.Code != code {
			t.Errorf("exit %d: apply returned with it %s, %v (%v)", code, i.Phase, i.LastExit, err)
		}
		if r.code != want {
			t.Errorf("exit %d: apply returned %d\n%s%s", code, r.code, r.stdout, r.stderr)
		}
	}
}
