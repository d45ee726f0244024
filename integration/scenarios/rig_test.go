// Package scenarios breaks a cluster, hosts and network and Consul and meshrun
// itself, and checks what meshrun promises while it is broken and afterwards.
// It needs root and the machine for itself: make test runs it on its own.
package scenarios

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

var (
	long = flag.Bool("cluster.long", false, "also run the scenarios that make test has no time for")
	race = flag.Bool("cluster.race", false, "run meshrun under the race detector; times mean nothing then")
	keep = flag.Bool("cluster.keep", false, "print all logs of all hosts, also if a test passes")
)

var (
	programs cluster.Programs
	workload string
	// missing says why no cluster can be made here; "" if one can.
	missing string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	os.Setenv("GORACE", "atexit_sleep_ms=20 halt_on_error=1 exitcode=66")
	consul, err := cluster.FindConsul("../..")
	if missing = cluster.Missing(); missing == "" && err != nil {
		missing = err.Error()
	}
	if missing != "" {
		return m.Run() // the tests say it
	}
	dir := os.Getenv(envChild)
	if dir == "" {
		if dir, err = os.MkdirTemp("", "mrbin"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	programs = cluster.Programs{Host: path("host"), Consul: consul, Meshrun: path("meshrun")}
	workload = path("workload")
	if os.Getenv(envChild) == "" && !build() {
		return 1
	}
	return m.Run()
}

// envChild makes one of the tests its own victim; it is where its parent has
// put the programs.
const envChild = "MESHRUN_TEST_CHILD"

// build builds the programs.
func build() bool {
	for out, pkg := range map[string]string{programs.Host: "../cluster/host", programs.Meshrun: "../../cmd/meshrun", workload: "../workload"} {
		args := []string{"build", "-o", out}
		if *race && out == programs.Meshrun {
			args = append(args, "-race")
		}
		if text, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, text)
			return false
		}
	}
	return true
}

// needCluster skips the test where no cluster can be made. In CI it has to be
// possible.
func needCluster(t *testing.T) {
	t.Helper()
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatalf("CI has to be able to make a cluster: %s", missing)
	default:
		t.Skip(missing)
	}
}

// needLong skips the test unless it was asked for.
func needLong(t *testing.T) {
	t.Helper()
	if !*long {
		t.Skip("runs with make cluster-test (-cluster.long)")
	}
}

// newCluster makes a cluster and starts it, without meshrun. When the test
// ends, its logs are shown if the test failed, and all of it is removed.
func newCluster(t *testing.T, servers, nodes int) *cluster.Cluster {
	t.Helper()
	needCluster(t)
	c, err := cluster.New(programs, servers, nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || *keep {
			showLogs(t, c)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// showLogs prints the ends of the logs of all hosts.
func showLogs(t *testing.T, c *cluster.Cluster) {
	for _, h := range c.Hosts() {
		paths, _ := filepath.Glob(filepath.Join(h.Dir, "*.log"))
		agent, _ := filepath.Glob(filepath.Join(h.Data(), "logs", "meshrun", "agent", "0", "*.log"))
		watchdog, _ := filepath.Glob(filepath.Join(h.Data(), "watchdog", "*.log"))
		for _, path := range append(append(paths, agent...), watchdog...) {
			text, _ := os.ReadFile(path)
			if len(text) > 6000 {
				text = text[len(text)-6000:]
			}
			if len(text) > 0 {
				t.Logf("%s of %s:\n%s", filepath.Base(path), h.Name, text)
			}
		}
	}
}

// eventually polls until the condition holds, and fails the test with the
// condition's last word if it doesn't within the time. It returns how long it
// took.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) time.Duration {
	t.Helper()
	start := time.Now()
	var err error
	for time.Since(start) < within {
		if err = condition(); err == nil {
			return time.Since(start)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waited %v until %s: %v", within, what, err)
	return 0
}

// must fails the test on an error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
