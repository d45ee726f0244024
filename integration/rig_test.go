package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// The binaries under test, built once.
var meshrunBinary, workloadBinary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	// The race detector makes every process of ours sleep for a second at its
	// end, to report what it finds late; that would be most of the time.
	os.Setenv("GORACE", "atexit_sleep_ms=20 halt_on_error=1 exitcode=66")
	dir, err := os.MkdirTemp("", "mrbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	meshrunBinary, workloadBinary = filepath.Join(dir, "meshrun"), filepath.Join(dir, "workload")
	for out, args := range map[string][]string{
		meshrunBinary:  {"build", "-race", "-o", meshrunBinary, "../cmd/meshrun"},
		workloadBinary: {"build", "-o", workloadBinary, "./workload"},
	} {
		if text, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", out, err, text)
			return 1
		}
	}
	return m.Run()
}

// node is a machine of its own: a data directory and what runs on it.
type node struct {
	t    *testing.T
	dir  string // holds everything of the test
	data string
	// env is more environment, of the agent that is started and of commands.
	env []string
}

// newNode makes an empty node. When the test ends, everything that runs on it
// is stopped, and what it logged is shown if the test failed.
func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "mr")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, data: filepath.Join(dir, "d")}
	if err := os.WriteFile(n.ledger(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			n.showLogs()
		}
		n.destroy()
		if run, err := os.Readlink(filepath.Join(n.data, "watchdog", "run")); err == nil {
			os.RemoveAll(run)
		}
		os.RemoveAll(dir)
	})
	return n
}

func (n *node) ledger() string { return filepath.Join(n.dir, "ledger") }

// start runs `meshrun agent` in the background and waits until it answers.
func (n *node) start(args ...string) {
	n.t.Helper()
	n.spawn(args...)
	eventually(n.t, patience, "the agent answers", func() error {
		_, err := n.tryStatus()
		return err
	})
}

// spawn runs `meshrun agent` in the background.
func (n *node) spawn(args ...string) {
	n.t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(meshrunBinary, append([]string{"agent", "-data-dir", n.data}, args...)...)
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
}

// result is what a command printed and returned.
type result struct {
	stdout, stderr string
	code           int
}

// commandTime is how long a command may take here; see patience.
const commandTime = 3 * time.Minute

// run runs a command of meshrun against the node.
func (n *node) run(args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, meshrunBinary, args...)
	cmd.Env = append(append(os.Environ(), "MESHRUN_DATA_DIR="+n.data, "NO_COLOR=1"), n.env...)
	cmd.Dir = n.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		n.t.Fatalf("meshrun %s did not end\n%s%s", strings.Join(args, " "), &stdout, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !asExit(err, &exit) {
		n.t.Fatalf("meshrun %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func asExit(err error, target **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*target = e
	return ok
}

// must runs a command that has to succeed.
func (n *node) must(args ...string) string {
	n.t.Helper()
	r := n.run(args...)
	if r.code != 0 {
		n.t.Fatalf("meshrun %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// write writes a file in the node's directory, by rename, and returns its path.
func (n *node) write(name, text string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// apply writes a job file and applies it.
func (n *node) apply(text string) {
	n.t.Helper()
	n.must("apply", "-yes", n.write("job.hcl", text))
}

// status is what `meshrun status -json` prints.
type status struct {
	Agent struct {
		PID         int `json:"pid"`
		WatchdogPID int `json:"watchdog_pid"`
	} `json:"agent"`
	Instances []spec.Instance `json:"instances"`
}

func (n *node) tryStatus() (status, error) {
	var s status
	r := n.run("status", "-json")
	if r.code != 0 {
		return s, fmt.Errorf("status: exit %d: %s", r.code, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	if s.Agent.PID <= 1 || s.Agent.WatchdogPID <= 1 {
		return s, errors.New("status: one of agent and watchdog is just being replaced")
	}
	return s, nil
}

func (n *node) status() status {
	n.t.Helper()
	s, err := n.tryStatus()
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// instance returns one instance by its ID.
func (n *node) instance(id string) (spec.Instance, error) {
	s, err := n.tryStatus()
	if err != nil {
		return spec.Instance{}, err
	}
	for _, i := range s.Instances {
		if i.ID.String() == id {
			return i, nil
		}
	}
	return spec.Instance{}, fmt.Errorf("no instance %s", id)
}

// waitShards waits until the first shards of a process run, and returns the pid
// of each.
func (n *node) waitShards(process string, shards int) map[string]int {
	n.t.Helper()
	pids := map[string]int{}
	for i := range shards {
		id := fmt.Sprintf("%s/%d", process, i)
		pids[id] = n.waitPhase(id, spec.PhaseRunning).PID
	}
	return pids
}

// waitPhase waits until an instance is in a phase, and returns it.
func (n *node) waitPhase(id string, phase spec.Phase) spec.Instance {
	n.t.Helper()
	var found spec.Instance
	eventually(n.t, patience, id+" is "+string(phase), func() error {
		i, err := n.instance(id)
		if err != nil {
			return err
		}
		if i.Phase != phase {
			return fmt.Errorf("%s is %s: %s", id, i.Phase, i.Reason)
		}
		found = i
		return nil
	})
	return found
}

// events returns what `meshrun events -json` prints.
func (n *node) events() []spec.Event {
	n.t.Helper()
	var events []spec.Event
	dec := json.NewDecoder(strings.NewReader(n.must("events", "-json")))
	for dec.More() {
		var ev spec.Event
		if err := dec.Decode(&ev); err != nil {
			n.t.Fatalf("read events: %v", err)
		}
		events = append(events, ev)
	}
	return events
}

// destroy stops the node, and kills whatever of it is left.
func (n *node) destroy() {
	s, err := n.tryStatus()
	if err == nil {
		_ = syscall.Kill(s.Agent.WatchdogPID, syscall.SIGTERM)
		end := time.Now().Add(15 * time.Second)
		for time.Now().Before(end) && alive(s.Agent.WatchdogPID) {
			time.Sleep(20 * time.Millisecond)
		}
	}
	for range 50 {
		left := n.processes("")
		if len(left) == 0 {
			return
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes returns the live processes of this node whose command line holds
// the text: those that name the node's directory in their arguments, or carry
// its watchdog's mark in their environment.
func (n *node) processes(text string) map[int]string {
	found := map[int]string{}
	mark := []byte(n.dir + "/")
	if id, err := os.ReadFile(filepath.Join(n.data, "watchdog", "id")); err == nil {
		mark = []byte("MESHRUN_WATCHDOG_ID=" + strings.TrimSpace(string(id)))
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		line := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if line == "" || !strings.Contains(line, text) {
			continue
		}
		if strings.Contains(line, n.dir) || bytes.Contains(environ, mark) {
			found[pid] = line
		}
	}
	return found
}

func (n *node) showLogs() {
	paths, _ := filepath.Glob(filepath.Join(n.dir, "*.log"))
	more, _ := filepath.Glob(filepath.Join(n.data, "logs", "meshrun", "agent", "0", "*.log"))
	wd, _ := filepath.Glob(filepath.Join(n.data, "watchdog", "*.log"))
	for _, path := range append(append(paths, more...), wd...) {
		text, _ := os.ReadFile(path)
		if len(text) > 8000 {
			text = text[len(text)-8000:]
		}
		n.t.Logf("%s:\n%s", path, text)
	}
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

// patience is how long anything is waited for that is to come soon. It only
// bounds how long a test takes to fail: on a busy machine a single command can
// take seconds.
const patience = time.Minute

// eventually polls until the condition holds, and fails the test with the
// condition's last word if it doesn't within the time.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatalf("waited %v until %s: %v", within, what, err)
}

// goBuild builds a command of this repository.
func goBuild(out, pkg string) ([]byte, error) {
	return exec.Command("go", "build", "-o", out, pkg).CombinedOutput()
}
