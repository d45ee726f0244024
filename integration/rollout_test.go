package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// stepper is a job of shards that change one at a time.
func stepper(shards int, command, update string) string {
	return fmt.Sprintf("job \"web\" {\n  process \"app\" {\n    command = [\"sh\", \"-c\", %q]\n    shards  = %d\n"+
		"    restart { policy = \"never\" }\n    update {\n      min_healthy = \"200ms\"\n%s\n    }\n  }\n}\n", command, shards, update)
}

// pidsOf returns the pids of the shards of web/app.
func (n *node) pidsOf() map[string]int {
	n.t.Helper()
	pids := map[string]int{}
	for _, i := range n.status().Instances {
		pids[i.ID.String()] = i.PID
	}
	return pids
}

// changed returns how many of the shards are other processes than before.
func (n *node) changed(before map[string]int) int {
	n.t.Helper()
	count := 0
	for id, pid := range n.pidsOf() {
		if before[id] != pid {
			count++
		}
	}
	return count
}

func TestARolloutWaitsForItsPromotionAndIsPromotedPausedAndReverted(t *testing.T) {
	n := newNode(t)
	n.start()
	file := n.write("job.hcl", stepper(4, "echo one; exec sleep 1000", "canary = 1"))
	n.must("apply", "-yes", "-wait", file)
	before := n.pidsOf()

	file = n.write("job.hcl", stepper(4, "echo two; exec sleep 1000", "canary = 1"))
	r := n.run("apply", "-yes", "-wait", file)
	if r.code != 3 || !strings.Contains(r.stderr, "meshrun promote web/app") {
		t.Fatalf("apply -wait with canaries: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := n.changed(before); got != 1 {
		t.Errorf("%d shards were changed before the promotion", got)
	}
	if text := n.must("status", "web"); !strings.Contains(text, "waits for promotion") || !strings.Contains(text, "1 of 4 updated") {
		t.Errorf("status does not show it:\n%s", text)
	}
	if text := n.must("pause", "web"); !strings.Contains(text, "web/app: paused, with 1 of 4 updated") {
		t.Errorf("pause says %s", text)
	}
	if text := n.must("resume", "web/app"); !strings.Contains(text, "meshrun promote web/app") {
		t.Errorf("resume says %s", text)
	}
	n.must("promote", "-wait", "web")
	if got := n.changed(before); got != 4 {
		t.Errorf("%d shards were changed after the promotion", got)
	}
	if text := n.must("pause", "web"); !strings.Contains(text, "what is applied waits for `meshrun resume web/app`") {
		t.Errorf("pause with nothing under way says %s", text)
	}
	before = n.pidsOf()
	file = n.write("job.hcl", stepper(4, "echo three; exec sleep 1000", ""))
	for _, step := range []string{"the next one", "the same again"} {
		if r := n.run("apply", "-yes", "-wait", file); r.code != 3 || !strings.Contains(r.stderr, "paused by ") || n.changed(before) != 0 {
			t.Errorf("apply -wait of %s while it is paused: exit %d\n%s%s", step, r.code, r.stdout, r.stderr)
		}
	}
	n.must("resume", "-wait", "web")
	if got := n.changed(before); got != 4 {
		t.Errorf("%d shards were changed once it was resumed", got)
	}
	if r := n.run("revert", "-yes", "web"); r.code != 1 || !strings.Contains(r.stderr, "meshrun rollback web") {
		t.Errorf("a revert of what is done: exit %d\n%s", r.code, r.stderr)
	}
}

func TestABadVersionIsTakenBackAndTheOthersNeverNotice(t *testing.T) {
	n := newNode(t)
	n.start()
	good := "exec sleep 1000"
	n.must("apply", "-yes", "-wait", n.write("job.hcl", stepper(20, good, "canary = 1\nauto_revert = true")))
	before := n.pidsOf()
	r := n.run("apply", "-yes", "-wait", n.write("job.hcl", stepper(20, "exit 3", "canary = 1\nauto_revert = true")))
	if r.code != 1 || !strings.Contains(r.stderr, "exit 3") || !strings.Contains(r.stderr, "it is replaced by version 1, as version 3") {
		t.Errorf("apply -wait of a bad version: exit %d\n%s", r.code, r.stderr)
	}
	if got := n.changed(before); got != 1 {
		t.Errorf("%d of 20 shards are other processes, one was to try it", got)
	}

	// Without auto_revert it stops where it is, until somebody takes it back.
	r = n.run("apply", "-yes", "-wait", n.write("job.hcl", stepper(20, "exit 4", "canary = 1")))
	if r.code != 1 || !strings.Contains(r.stderr, "meshrun revert web") {
		t.Errorf("apply -wait of a bad version: exit %d\n%s", r.code, r.stderr)
	}
	n.must("revert", "-yes", "-wait", "web")
	for _, i := range n.status().Instances {
		if i.Phase != spec.PhaseRunning {
			t.Errorf("after the revert %s is %s", i.ID, i.Phase)
		}
	}
}

func TestAWaitForTheStopOfWhatNeverStartedIsOverAtOnce(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply("job \"web\" {\n  process \"never\" {\n    command = [\"sleep\", \"1000\"]\n    depends_on \"fails\" { condition = \"completed\" }\n  }\n" +
		"  process \"fails\" {\n    command = [\"false\"]\n    restart { policy = \"never\" }\n  }\n}\n")
	n.waitPhase("web/fails/0", spec.PhaseFailed)
	n.must("stop", "-wait", "web/never") // within the time that a command may take here, not the five minutes of -wait
}
