package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestEventsReadWell(t *testing.T) {
	instance := seen("app", 1, spec.PhaseFailed)
	var asked api.EventQuery
	history := func(context.Context, string) ([]spec.JobVersion, error) {
		return []spec.JobVersion{{Job: spec.Job{Name: "web"}}}, nil
	}
	b := &apitest.Backend{HistoryFunc: history, EventsFunc: func(_ context.Context, q api.EventQuery, each func(spec.Event) error) error {
		asked = q
		for _, ev := range []spec.Event{
			{ID: "1", Time: testNow().Add(-time.Hour), Type: spec.EventJobApplied, Severity: spec.Info, Job: "web", Who: "alice", Message: "version 2, 1 to start"},
			{ID: "2", Time: testNow(), Type: spec.EventExhausted, Severity: spec.Critical, Who: "watchdog", Message: "3 restarts\nused up", Instance: &instance},
		} {
			if err := each(ev); err != nil {
				return err
			}
		}
		return nil
	}}
	stdout, stderr, code := meshrun(t, b, "events", "-type", "job.,instance.exhausted", "web")
	if code != 0 || !reflect.DeepEqual(asked, api.EventQuery{Job: "web", Types: []spec.EventType{"job.", "instance.exhausted"}}) {
		t.Errorf("exit %d, asked %+v: %s", code, asked, stderr)
	}
	golden(t, "events", stdout)
	stdout, _, _ = meshrun(t, b, "events", "-json")
	if strings.Count(stdout, "\n") != 2 {
		t.Errorf("-json:\n%s", stdout)
	}
}

func TestEventsAreThoseOfWhatIsNamed(t *testing.T) {
	of := func(process string, shard int) spec.Event {
		instance := seen(process, shard, spec.PhaseRunning)
		return spec.Event{Time: testNow(), Type: spec.EventStarted, Job: "web", Message: fmt.Sprintf("%s-%d", process, shard), Instance: &instance}
	}
	b := &apitest.Backend{
		HistoryFunc: func(_ context.Context, job string) ([]spec.JobVersion, error) {
			if job != "web" {
				return nil, api.Errorf(api.ErrNotFound, "there never was a job %q", job)
			}
			app, idle := spec.DefaultProcess("app"), spec.DefaultProcess("idle")
			app.Shards = 2
			return []spec.JobVersion{{Job: spec.Job{Name: "web", Processes: []spec.Process{app, idle}}}}, nil
		},
		EventsFunc: func(_ context.Context, q api.EventQuery, each func(spec.Event) error) error {
			for _, ev := range []spec.Event{
				{Time: testNow(), Type: spec.EventJobApplied, Job: "web", Message: "applied"}, of("app", 0), of("app", 1), of("gone", 0),
				{Time: testNow(), Type: spec.EventJobRemoved, Job: "past", Message: "removed"},
			} {
				if ev.Job != q.Job {
					continue
				}
				if err := each(ev); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for target, want := range map[string][]string{
		"web": {"applied", "app-0", "app-1", "gone-0"}, "web/app": {"app-0", "app-1"}, "web/app/1": {"app-1"},
		"web/gone": {"gone-0"}, "web/idle": {}, "past": {"removed"},
	} {
		stdout, stderr, code := meshrun(t, b, "events", "-json", target)
		if code != 0 || strings.Count(stdout, "\n") != len(want) {
			t.Errorf("%s: exit %d\n%s%s", target, code, stdout, stderr)
		}
		for _, message := range want {
			if !strings.Contains(stdout, `"`+message+`"`) {
				t.Errorf("%s does not tell of %s:\n%s", target, message, stdout)
			}
		}
	}
	for target, says := range map[string]string{
		"nope": "never was a job", "web/nope": `no process named "web/nope" was ever defined`, "web/app/7": "web/app/7", "web/app/x": "not a shard number",
	} {
		if stdout, stderr, code := meshrun(t, b, "events", target); code != 1 || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit %d\n%s%s", target, code, stdout, stderr)
		}
	}
}
