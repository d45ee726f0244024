package watchdog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// The test binary is also the watchdog and the programs that it keeps alive:
// what it does is chosen by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if f, ok := programs[os.Args[1]]; ok {
			os.Exit(f(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// programs are what the test binary can be besides itself.
var programs = map[string]func(args []string) int{
	"watchdog-main":  watchdogMain,
	"watchdog-stuck": watchdogStuck,
}

// watchdogMain is `meshrun watchdog DATADIR [-- AGENT…]`.
func watchdogMain(args []string) int {
	cfg := Config{DataDir: args[0], Version: "test", Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: os.Stderr})}
	if len(args) == 2 && args[1] == "quiet" {
		cfg.Logger = nil
	}
	if len(args) > 2 && args[1] == "--" {
		cfg.Agent = args[2:]
	}
	if err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// watchdogStuck is a watchdog that can execute nothing in its place: the kernel
// takes no variable as long as the one that it has.
func watchdogStuck(args []string) int {
	os.Setenv("TOO_LONG", strings.Repeat("x", 256<<10))
	return watchdogMain(args)
}

// daemon is a real watchdog in a process of its own.
type daemon struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	client *Client
	log    *syncBuffer
}

// startDaemon starts a watchdog on a directory and waits until it answers.
// When the test ends, whatever it left running is killed.
func startDaemon(t *testing.T, dir string, agent ...string) *daemon {
	t.Helper()
	args := []string{"watchdog-main", dir}
	if len(agent) > 0 {
		args = append(append(args, "--"), agent...)
	}
	return launchDaemon(t, dir, exec.Command(os.Args[0], args...))
}

func launchDaemon(t *testing.T, dir string, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, cmd: cmd, client: NewClient(dir), log: &syncBuffer{}}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		killMarked(dir)
		removeRunDir(dir)
		removeGroups(dir)
		if t.Failed() {
			t.Logf("watchdog said:\n%s", d.log)
		}
	})
	d.await("the watchdog answers", func() bool { _, err := d.client.Health(t.Context()); return err == nil })
	return d
}

// kill is kill -9 of the watchdog alone.
func (d *daemon) kill() {
	if d.cmd.ProcessState == nil {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}
}

// killMarked ends what watchdogs of the directory left.
func killMarked(dir string) {
	id, err := os.ReadFile(dir + "/watchdog/id")
	if err != nil {
		return
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		if m := readMarks(pid); m[envWatchdog] == strings.TrimSpace(string(id)) {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// removeRunDir removes what a watchdog keeps in memory.
func removeRunDir(dir string) {
	if target, err := os.Readlink(filepath.Join(dir, "watchdog", "run")); err == nil {
		os.RemoveAll(target)
	}
}

// patience is how long anything is waited for. It only bounds how long a test
// takes to fail: on a busy machine the start of one process can take seconds.
const patience = time.Minute

// await polls until a condition holds.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			d.t.Fatalf("waited too long until %s\ntable: %+v\nlog:\n%s", what, d.tableOrNil(), d.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (d *daemon) tableOrNil() []spec.Instance {
	table, err := d.client.Table(d.t.Context())
	if err != nil {
		return nil
	}
	return table.Instances
}

// instance returns what is seen of an instance.
func (d *daemon) instance(id spec.InstanceID) (spec.Instance, bool) {
	for _, in := range d.tableOrNil() {
		if in.ID == id {
			return in, true
		}
	}
	return spec.Instance{}, false
}

// awaitInstance waits until an instance is as wanted, and returns it.
func (d *daemon) awaitInstance(id spec.InstanceID, what string, ok func(spec.Instance) bool) (got spec.Instance) {
	d.t.Helper()
	d.await(fmt.Sprintf("%s %s", id, what), func() bool {
		in, found := d.instance(id)
		got = in
		return found && ok(in)
	})
	return got
}

func (d *daemon) awaitPhase(id spec.InstanceID, p spec.Phase) spec.Instance {
	d.t.Helper()
	return d.awaitInstance(id, "is "+string(p), func(in spec.Instance) bool { return in.Phase == p })
}

// awaitOutput waits until an instance's log has a text, and returns the log.
func (d *daemon) awaitOutput(id spec.InstanceID, text string) (log string) {
	d.t.Helper()
	d.await(fmt.Sprintf("%s writes %q", id, text), func() bool {
		b, _ := os.ReadFile(filepath.Join(d.dir, "logs", id.String(), "current.log"))
		log = string(b)
		return strings.Contains(log, text)
	})
	return log
}

func (d *daemon) declare(set ...spec.Launch) {
	d.t.Helper()
	if err := d.client.Declare(d.t.Context(), set, nil); err != nil {
		d.t.Fatal(err)
	}
}

// events returns all events so far.
func (d *daemon) events(after uint64) []spec.Event {
	d.t.Helper()
	out, err := d.tryEvents(after)
	if err != nil {
		d.t.Fatalf("events: %v", err)
	}
	return out
}

func (d *daemon) tryEvents(after uint64) (out []spec.Event, err error) {
	table, err := d.client.Table(d.t.Context())
	if err != nil || after == table.Seq {
		return nil, err
	}
	enough := errors.New("enough")
	err = d.client.Events(d.t.Context(), after, func(e spec.Event) error {
		out = append(out, e)
		if e.Seq >= table.Seq {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return out, err
}

// upgrade makes the watchdog execute its program again, waits until that is up,
// and returns the table of before.
func (d *daemon) upgrade() (old spec.Table) {
	d.t.Helper()
	old, err := d.client.Table(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.client.Upgrade(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	d.await("the new program is up", func() bool {
		// Who asks just when the old one ends gets no answer.
		events, err := d.tryEvents(old.Seq)
		return err == nil && slices.ContainsFunc(events, func(e spec.Event) bool { return e.Type == spec.EventWatchdogUp })
	})
	return old
}

// shell is a launch of a shell script.
func shell(process, script string) spec.Launch {
	return spec.Launch{
		ID: spec.InstanceID{Job: "test", Process: process}, Version: 1, Hash: script,
		Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
		Restart: spec.Restart{Policy: spec.RestartAlways, Attempts: 100, Window: spec.Duration(time.Minute), Stable: spec.Duration(time.Minute)},
		Stop:    spec.Stop{Signal: "SIGTERM", Timeout: spec.Duration(5 * time.Second)},
	}
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// readAll reads the datagrams that wait on a socket.
func readAll(fd int) string {
	var out strings.Builder
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if err != nil {
			return out.String()
		}
		out.Write(b[:n])
		out.WriteByte('\n')
	}
}

// noControl is a controller of an answer that has no deadlines.
func noControl() *http.ResponseController {
	return http.NewResponseController(httptest.NewRecorder())
}
