package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// chatty returns n instances about which there is a lot to be told.
func chatty(n int, checked bool) spec.Observed {
	p := spec.Process{Name: "a"}
	at := time.Date(2026, 11, 25, 12, 34, 56, 123456789, time.UTC)
	o := spec.Observed{Job: "many", Node: "n1"}
	for i := range n {
		in := spec.Instance{
			ID: spec.InstanceID{Job: "many", Process: p.Name, Shard: i}, Node: "n1", Phase: spec.PhaseRunning, Reason: strings.Repeat("why ", 50),
			Version: 123, Hash: strings.Repeat("f", 32), Epoch: 12, Generation: 1234, PID: 4194303, StartTicks: 1 << 40, BootID: strings.Repeat("b", 36),
			Started: at, ReadyAt: at, Since: at, Restarts: 123, Status: "ready", Ports: map[string]int{"http": 12345},
			LastExit: &spec.Exit{Signal: "SIGKILL", Cause: strings.Repeat("cause ", 20), At: at}, Alerts: []string{strings.Repeat("alert ", 20)},
		}
		if checked {
			in.Health, in.HealthSince = spec.HealthPassing, at
			in.Checks = []spec.CheckResult{{Name: "http", State: spec.HealthPassing, Since: at, Output: strings.Repeat("out ", 100)}}
		}
		o.Instances = append(o.Instances, in)
	}
	return o
}

// The estimate by which jobs are refused is one that a report keeps to.
func TestAsManyInstancesAsAJobMayHaveOnANodeAreReported(t *testing.T) {
	for _, checked := range []bool{false, true} {
		p := spec.Process{Name: "a"}
		if checked {
			p.Health = make([]spec.Health, 1)
		}
		most := spec.MaxReportBytes / p.ReportBytes("many")
		seen := chatty(most, checked)
		data, err := encode(&seen)
		if err != nil || most < 900 {
			t.Fatalf("%d instances: %v", most, err)
		}
		var told spec.Observed
		if err := json.Unmarshal(data, &told); err != nil || len(told.Instances) != most {
			t.Fatalf("told of %d of %d instances, %v", len(told.Instances), most, err)
		}
		was := chatty(most, checked).Instances[most-1]
		got := told.Instances[most-1]
		if got.ID != was.ID || got.Phase != was.Phase || got.PID != was.PID || got.Generation != was.Generation || got.Hash != was.Hash ||
			got.Started.UnixMilli() != was.Started.UnixMilli() || got.LastExit.String() != "SIGKILL" || got.Health != was.Health {
			t.Errorf("told %+v", got)
		}
		t.Logf("%d instances take %d bytes", most, len(data))
	}
}

func TestAReportThatFitsLeavesOutNoMoreThanItMust(t *testing.T) {
	for n, left := range map[int]string{10: "status alerts reason checks", 380: "alerts reason checks", 520: "reason checks", 900: ""} {
		seen := chatty(n, true)
		if _, err := encode(&seen); err != nil {
			t.Fatal(err)
		}
		in, got := seen.Instances[0], ""
		for name, there := range map[string]bool{"status": in.Status != "", "alerts": in.Alerts != nil, "reason": in.Reason != "", "checks": in.Checks != nil} {
			if there != strings.Contains(left, name) {
				got += fmt.Sprintf(" %s: %t", name, there)
			}
		}
		if got != "" {
			t.Errorf("%d instances:%s", n, got)
		}
	}
}

func TestAJobThatCannotBeReportedIsAProblemUntilItCan(t *testing.T) {
	r := newRig(t)
	rep := newReporter(&r.cfg, nil)
	rep.tell("b", true)
	rep.tell("a", true)
	if !strings.Contains(r.agent.problem, "a, b") || !strings.Contains(r.agent.problem, "split") {
		t.Errorf("told %q", r.agent.problem)
	}
	rep.tell("b", false)
	rep.tell("a", false)
	want(t, r.agent.problem, "")
	seen := chatty(3000, false)
	if _, err := encode(&seen); !errors.Is(err, state.ErrTooLarge) {
		t.Errorf("3000 instances: %v", err)
	}
}
