package watchdog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// withHooks gives a launch hooks that are shell scripts.
func withHooks(l spec.Launch, before, after string) spec.Launch {
	l.Hooks = []spec.LaunchHook{
		{When: spec.HookBeforeStart, Argv: []string{"/bin/sh", "-c", before}, Timeout: spec.Duration(time.Hour)},
		{When: spec.HookAfterStop, Argv: []string{"/bin/sh", "-c", after}, Timeout: spec.Duration(time.Hour)}}
	return l
}

func TestHooksRunAsTheirProcessDoes(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	const tell = `echo "$MESHRUN_HOOK in $PWD, $COLOUR, exit '$MESHRUN_EXIT', socket '$NOTIFY_SOCKET'"`
	l := withHooks(shell("hooked", tell+`; sleep 0.1; exit 3`), tell, tell)
	l.Dir, l.Restart.Policy = t.TempDir(), spec.RestartNever
	l.Env = append(l.Env, "COLOUR=blue", "MESHRUN_EXIT=forged")
	l.Exclusive = true
	d.declare(l)
	if v := d.awaitPhase(l.ID, spec.PhaseFailed); v.LastExit.Code != 3 {
		t.Errorf("last exit %s", v.LastExit)
	}
	log := d.awaitOutput(l.ID, "after_stop")
	for _, want := range []string{
		"before_start in " + l.Dir + ", blue, exit '', socket ''",
		" in " + l.Dir + ", blue, exit '', socket ''",
		"after_stop in " + l.Dir + ", blue, exit '3', socket ''",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
}

func TestHookIsKilledWithItsWholeGroup(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := withHooks(shell("slow", "sleep 1000"), `trap "" TERM; sleep 1000 & wait; sleep 1000`, "true")
	l.Hooks[0].Timeout = spec.Duration(200 * time.Millisecond)
	l.Restart.Policy = spec.RestartNever
	d.declare(l)
	v := d.awaitPhase(l.ID, spec.PhaseFailed)
	if !strings.Contains(v.LastExit.Error, "did not end within 200ms") {
		t.Errorf("last exit %q", v.LastExit)
	}
	awaitNobody(d)
}

func TestHookThatDoesNotExistIsNamed(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := withHooks(shell("wrong", "sleep 1000"), "", "")
	l.Hooks[0].Argv = []string{"/nowhere/hook"}
	l.Restart.Policy = spec.RestartNever
	d.declare(l)
	if v := d.awaitPhase(l.ID, spec.PhaseFailed); !strings.Contains(v.LastExit.Error, "before_start hook could not be started: command /nowhere/hook does not exist") {
		t.Errorf("last exit %q", v.LastExit)
	}
}

func TestWatchdogKilledWhileAHookRuns(t *testing.T) {
	dir := t.TempDir()
	go1, go2 := filepath.Join(dir, "go1"), filepath.Join(dir, "go2")
	wait := func(path string) string { return "while [ ! -e " + path + " ]; do sleep 0.01; done" }
	d := startDaemon(t, dir)
	l := withHooks(shell("held", "sleep 1000"), wait(go1), wait(go2))
	d.declare(l)
	reason := func(want string) func(spec.Instance) bool {
		return func(v spec.Instance) bool { return v.Reason == want && v.PID != 0 }
	}
	before := d.awaitInstance(l.ID, "its before_start hook runs", reason(beforeStartRuns))
	d.kill()
	d = startDaemon(t, dir)
	if v := d.awaitInstance(l.ID, "its before_start hook is adopted", reason(beforeStartRuns)); v.PID != before.PID || v.Phase != spec.PhaseStarting {
		t.Errorf("%s as process %d, was %d", v.Phase, v.PID, before.PID)
	}
	if err := os.WriteFile(go1, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.await("its before_start hook has ended", func() bool {
		v, _ := d.instance(l.ID)
		return v.Reason != beforeStartRuns
	})
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{l.ID}); err != nil {
		t.Fatal(err)
	}
	after := d.awaitInstance(l.ID, "its after_stop hook runs", reason(afterStopRuns))
	d.kill()
	d = startDaemon(t, dir)
	if v := d.awaitInstance(l.ID, "its after_stop hook is adopted", reason(afterStopRuns)); v.PID != after.PID || v.Phase != spec.PhaseStopping {
		t.Errorf("%s as process %d, was %d", v.Phase, v.PID, after.PID)
	}
	if err := os.WriteFile(go2, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.await("it is forgotten", func() bool { _, ok := d.instance(l.ID); return !ok })
	awaitNobody(d)
}

// awaitNobody waits until nothing of a watchdog is alive: what was killed with
// its group takes a moment.
func awaitNobody(d *daemon) {
	d.t.Helper()
	id, err := os.ReadFile(filepath.Join(d.dir, "watchdog", "id"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.await("nothing of it is alive", func() bool {
		procs, err := filepath.Glob("/proc/[0-9]*")
		return err == nil && !slices.ContainsFunc(procs, func(path string) bool {
			var pid int
			fmt.Sscan(filepath.Base(path), &pid)
			return readMarks(pid)[envWatchdog] == strings.TrimSpace(string(id))
		})
	})
}

// TestHookStorm kills the watchdog at random moments while instances with hooks
// start, end and are replaced. Each process notes its begin, so that the notes
// show whether one was doubled or not cleaned up after.
func TestHookStorm(t *testing.T) {
	const instances, kills = 10, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	d := startDaemon(t, dir)
	launches := make([]spec.Launch, instances)
	for i := range launches {
		note := func(what string) string {
			return fmt.Sprintf("echo %s >>%s/notes.%d; sleep 0.0%d", what, dir, i, 1+random.IntN(6))
		}
		l := withHooks(shell("storm", note("program")+"; exit 4"), note("before"), note("after"))
		l.ID.Shard, l.Restart.Attempts, l.Exclusive = i, spec.MaxAttempts, i%2 == 0
		l.Restart.Exhausted = spec.ExhaustedRetry
		launches[i] = l
	}
	// On a slow machine none of them would come to anything in the storm.
	d.declare(launches...)
	for i := range launches {
		d.await("each has noted something", func() bool {
			_, err := os.Stat(fmt.Sprintf("%s/notes.%d", dir, i))
			return err == nil
		})
	}
	seq := uint64(0)
	for range kills {
		for i := range launches {
			if random.IntN(10) == 0 {
				launches[i].Epoch++
			}
		}
		asked := make(chan struct{}) // it may be killed while it is asked
		go func() { defer close(asked); d.client.Declare(t.Context(), launches, nil) }()
		time.Sleep(time.Duration(random.IntN(120)) * time.Millisecond)
		d.kill()
		<-asked
		d = startDaemon(t, dir)
		for _, e := range d.events(seq) {
			if e.Type == spec.EventStray {
				t.Errorf("%s: %s", e.Type, e.Message)
			}
			seq = e.Seq
		}
	}
	ids := make([]spec.InstanceID, instances)
	for i := range launches {
		ids[i] = launches[i].ID
	}
	if err := d.client.Declare(t.Context(), nil, ids); err != nil {
		t.Fatal(err)
	}
	d.await("all are forgotten", func() bool {
		table, err := d.client.Table(t.Context())
		return err == nil && len(table.Instances) == 0
	})
	awaitNobody(d)
	for i := range launches {
		checkNotes(t, fmt.Sprintf("%s/notes.%d", dir, i))
	}
}

// checkNotes reads what the processes of one instance have noted: what ran is
// cleaned up before the next begins, once or, where a watchdog was killed, again.
func checkNotes(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	was := "after"
	for i, note := range strings.Fields(string(b)) {
		follows := map[string]string{"before": "after", "program": "before", "after": "before program after"}
		if !strings.Contains(follows[note], was) {
			t.Errorf("%s: %s comes after %s (line %d)", filepath.Base(path), note, was, i+1)
		}
		was = note
	}
	if was != "after" {
		t.Errorf("%s: %s is the last, and was not cleaned up after", filepath.Base(path), was)
	}
}
