package watchdog

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

func TestDeclaredProcessRunsAndIsStartedAgainWhenKilled(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("sleeper", "echo hello; exec sleep 1000")
	d.declare(l)
	first := d.awaitPhase(l.ID, spec.PhaseRunning)
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
