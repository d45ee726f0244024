package watchdog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

func TestDeclaredProcessRunsAndIsStartedAgainWhenKilled(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("sleeper", "echo hello; exec sleep 1000")
	d.declare(l)
	first := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitOutput(l.ID, "hello")
	if err := unix.Kill(first.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := d.awaitInstance(l.ID, "runs again", func(in spec.Instance) bool {
		return in.Phase == spec.PhaseRunning && in.PID != first.PID
	})
	if second.Generation != 2 || second.Restarts != 1 || second.LastExit == nil || second.LastExit.Signal != "SIGKILL" {
		t.Errorf("successor is %+v, last exit %v", second, second.LastExit)
	}
	d.await("both generations' output is kept", func() bool {
		b, _ := os.ReadFile(d.dir + "/logs/test/sleeper/0/current.log")
		return strings.Count(string(b), " stdout F hello\n") == 2
	})
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{l.ID}); err != nil {
		t.Fatal(err)
	}
	d.await("it is gone", func() bool { _, ok := d.instance(l.ID); return !ok })
	if err := unix.Kill(second.PID, 0); err == nil {
		t.Errorf("process %d outlived its removal", second.PID)
	}
	var types []string
	for i, e := range d.events(0) {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has number %d", i+1, e.Seq)
		}
		types = append(types, string(e.Type))
	}
	want := "watchdog.started instance.declared instance.starting instance.started instance.exited " +
		"instance.starting instance.started instance.stopping instance.exited instance.removed"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("events are\n%s, want\n%s", got, want)
	}
}

func TestKilledWatchdogLosesNothing(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	stays, dies := shell("stays", "exec sleep 1000"), shell("dies", "exec sleep 1000")
	let := filepath.Join(dir, "let")
	codes := shell("codes", "while [ ! -e "+let+" ]; do sleep 0.01; done; exit 7")
	codes.Restart.Policy = spec.RestartNever
	d.declare(stays, dies, codes)
	before := d.awaitPhase(stays.ID, spec.PhaseRunning)
	victim := d.awaitPhase(dies.ID, spec.PhaseRunning)
	d.awaitPhase(codes.ID, spec.PhaseRunning)
	d.kill()
	if err := errors.Join(unix.Kill(victim.PID, unix.SIGKILL), os.WriteFile(let, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	d = startDaemon(t, dir)
	after := d.awaitPhase(stays.ID, spec.PhaseRunning)
	if after.PID != before.PID || after.Generation != 1 {
		t.Errorf("an untouched process is %+v, was %+v", after, before)
	}
	again := d.awaitInstance(dies.ID, "runs again", func(in spec.Instance) bool {
		return in.Phase == spec.PhaseRunning && in.PID != victim.PID
	})
	if again.Generation != 2 {
		t.Errorf("the one that died is %+v", again)
	}
	end := d.awaitPhase(codes.ID, spec.PhaseFailed)
	if !end.LastExit.Unknown && end.LastExit.Code != 7 {
		t.Errorf("an adopted process that exits with 7 is told as %v", end.LastExit)
	}
	t.Logf("adopted exit: %v", end.LastExit)
	for i, e := range d.events(0) {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has number %d: %+v", i+1, e.Seq, e)
		}
	}
}

func TestVanishedRunDirectoryIsMadeAgain(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("a", "echo pid $$; exec sleep 1000")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitOutput(l.ID, "pid")
	removeRunDir(d.dir)
	unix.Kill(before.PID, unix.SIGKILL)
	after := d.awaitInstance(l.ID, "runs again", func(in spec.Instance) bool {
		return in.Phase == spec.PhaseRunning && in.PID != before.PID
	})
	d.awaitOutput(l.ID, fmt.Sprint("pid ", after.PID))
	removeRunDir(d.dir)
	other := shell("b", "echo other; exec sleep 1000")
	d.declare(other)
	d.awaitOutput(other.ID, "other")
}

func TestUpgradeIsNoticedByNobody(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("steady", "trap 'exit 3' TERM; while :; do echo tick; sleep 0.01; done")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitOutput(l.ID, "tick")
	old := d.upgrade()
	after := d.awaitPhase(l.ID, spec.PhaseRunning)
	if after.PID != before.PID || after.Generation != before.Generation {
		t.Errorf("the instance is %+v, was %+v", after, before)
	}
	now, err := d.client.Table(t.Context())
	if err != nil || now.PID != old.PID {
		t.Errorf("watchdog is process %d, was %d (%v)", now.PID, old.PID, err)
	}
	// Its children are still its own: the exit code is read.
	l.Restart.Policy = spec.RestartNever
	d.declare(l)
	unix.Kill(after.PID, unix.SIGTERM)
	end := d.awaitPhase(l.ID, spec.PhaseFailed)
	if end.LastExit.Code != 3 || end.LastExit.Unknown {
		t.Errorf("ended with %v, want exit 3", end.LastExit)
	}
}

// All their names together are longer than any environment variable may be.
func TestUpgradeHandsOnTheSocketsOfAnyNumberOfInstances(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	launches := make([]spec.Launch, 400)
	for i := range launches {
		l := shell(strings.Repeat("p", 180), "")
		l.ID.Job, l.ID.Shard = strings.Repeat("j", 180), i
		l.Argv, l.Ready = []string{"/bin/sleep", "1000"}, &spec.Ready{Notify: true, Timeout: spec.Duration(time.Hour)}
		launches[i] = l
	}
	d.declare(launches...)
	d.await("all have a process", func() bool {
		h, err := d.client.Health(t.Context())
		return err == nil && h.Processes == len(launches) && h.Queued == 0
	})
	before := d.tableOrNil()
	old := d.upgrade()
	now, err := d.client.Table(t.Context())
	if err != nil || now.PID != old.PID {
		t.Fatalf("watchdog is process %d, was %d (%v)", now.PID, old.PID, err)
	}
	for i, in := range now.Instances {
		if in.PID != before[i].PID || in.Generation != before[i].Generation {
			t.Fatalf("%s is process %d, was %d", in.ID, in.PID, before[i].PID)
		}
	}
}

func TestAFailedUpgradeLeavesAllToASuccessor(t *testing.T) {
	dir := t.TempDir()
	d := launchDaemon(t, dir, exec.Command(os.Args[0], "watchdog-stuck", dir))
	l := shell("a", "exec sleep 1000")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	if err := d.client.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	var end *exec.ExitError
	if err := d.cmd.Wait(); !errors.As(err, &end) || end.ExitCode() != 1 {
		t.Errorf("the watchdog ended with %v, want exit 1", err)
	}
	if said := d.log.String(); !strings.Contains(said, "argument list too long: the next watchdog") || strings.Contains(said, "panic") {
		t.Errorf("it said:\n%s", said)
	}
	d = startDaemon(t, dir)
	if after := d.awaitPhase(l.ID, spec.PhaseRunning); after.PID != before.PID || after.Generation != before.Generation {
		t.Errorf("the instance is %+v, was %+v", after, before)
	}
}

func TestUserGetsItsOwnProcessAndSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := startDaemon(t, t.TempDir())
	l := shell("user", "id -un; id -gn; echo to stdout > /dev/stdout; sleep 1000")
	l.User = "nobody"
	d.declare(l)
	log := d.awaitOutput(l.ID, "to stdout")
	if !strings.Contains(log, "F nobody\n") || !strings.Contains(log, "F nogroup\n") {
		t.Errorf("it said:\n%s", log)
	}
}

func TestBirthIsKnownAsTheKernelTellsIt(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	const n = 2*handOver + 3 // some are told of together, and some in the end
	launches := make([]spec.Launch, n)
	for i := range launches {
		launches[i] = shell("sleeper", "exec sleep 1000")
		launches[i].ID.Shard = i
	}
	d.declare(launches...)
	for _, l := range launches {
		in := d.awaitPhase(l.ID, spec.PhaseRunning)
		st, err := readStat(in.PID)
		if err != nil {
			t.Fatal(err)
		}
		if in.StartTicks != st.startTicks {
			t.Errorf("process %d is said to be born at %d, the kernel says %d", in.PID, in.StartTicks, st.startTicks)
		}
	}
}

func TestOutputWrittenWhileNobodyWatchesIsKept(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("talker", "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.002; done; sleep 1000")
	d.declare(l)
	d.awaitOutput(l.ID, "line 20\n")
	d.kill()
	keeper, err := HoldOutput(dir, l.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	d = startDaemon(t, dir)
	log := d.awaitOutput(l.ID, "line 400\n")
	for i := range 400 {
		if n := strings.Count(log, fmt.Sprintf("stdout F line %d\n", i+1)); n != 1 {
			t.Errorf("line %d is there %d times", i+1, n)
		}
	}
}
