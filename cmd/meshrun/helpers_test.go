package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n--- want\n%s--- got\n%s", path, want, got)
	}
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testNow is the time in all tests.
func testNow() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

// testTerm returns a terminal that is none, with what was printed on it.
func testTerm(env map[string]string) (term *terminal, out, err *buffer) {
	out, err = new(buffer), new(buffer)
	return &terminal{
		in: strings.NewReader(""), out: out, err: err,
		size: func() (int, int) { return 0, 0 },
		env:  func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		now:  testNow,
	}, out, err
}

// meshrun runs a command line against the backend and returns what it printed
// and its exit code.
func meshrun(t *testing.T, backend api.Backend, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	env := map[string]string{"MESHRUN_DATA_DIR": t.TempDir()}
	if backend != nil {
		env["MESHRUN_DATA_DIR"] = apitest.Serve(t, backend)
	}
	term, out, errOut := testTerm(env)
	code = run(t.Context(), args, term)
	return out.String(), errOut.String(), code
}

// jobFile writes a job file and returns its path.
func jobFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job.hcl")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const webJob = `job "web" {
  process "app" {
    command = ["sleep", "1000"]
    shards  = 2
  }
}
`

func id(process string, shard int) spec.InstanceID {
	return spec.InstanceID{Job: "web", Process: process, Shard: shard}
}

// changingPlan is a plan of one change.
func changingPlan() spec.Plan {
	return spec.Plan{Format: spec.PlanFormat, Index: 7, Jobs: []spec.JobPlan{{
		Job: "web", Action: spec.JobUpdate, From: 3, To: 4,
		Changes: []spec.Change{{Process: "app", Path: "shards", Old: "1", New: "2", OldSet: true, NewSet: true, Effect: spec.EffectLive}},
		Instances: []spec.InstancePlan{
			{ID: id("app", 0), Action: spec.ActionKeep},
			{ID: id("app", 1), Action: spec.ActionStart, Reason: "new shard"},
		},
	}}}
}

func emptyPlan() spec.Plan {
	return spec.Plan{Format: spec.PlanFormat, Index: 7, Jobs: []spec.JobPlan{{
		Job: "web", Action: spec.JobKeep, Instances: []spec.InstancePlan{{ID: id("app", 0), Action: spec.ActionKeep}},
	}}}
}
