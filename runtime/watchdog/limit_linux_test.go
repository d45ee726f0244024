package watchdog

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// A watchdog that fills its table of descriptors can neither answer nor adopt,
// and what it cannot adopt it would start a second time.
func TestTooFewDescriptorsHarmNothing(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	const room = 10
	limit := unix.Rlimit{Cur: ownDescriptors + room*eachDescriptors, Max: ownDescriptors + room*eachDescriptors}
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var all []spec.Launch
	for i := range 8 * room {
		l := shell(fmt.Sprintf("p%02d", i), "echo here; exec sleep 1000")
		l.Restart.Policy = spec.RestartNever
		all = append(all, l)
	}
	d.declare(all...)
	d.await("every start has been tried", func() bool {
		for _, in := range d.tableOrNil() {
			if in.Phase != spec.PhaseRunning && in.Phase != spec.PhaseFailed {
				return false
			}
		}
		return true
	})
	before := map[spec.InstanceID]int{}
	for _, in := range d.tableOrNil() {
		if in.Phase == spec.PhaseRunning {
			before[in.ID] = in.PID
		} else if !strings.Contains(in.LastExit.Error, "limit of 188 open files, which is enough for 10: raise it") {
			t.Fatalf("refused with %v", in.LastExit)
		}
	}
	if len(before) != room {
		t.Errorf("%d instances run, want %d", len(before), room)
	}
	old, err := d.client.Table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.client.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.await("the new program is up", func() bool {
		for _, e := range d.events(old.Seq) {
			if e.Type == spec.EventWatchdogUp {
				return true
			}
		}
		return false
	})
	for _, in := range d.tableOrNil() {
		if pid := before[in.ID]; pid != in.PID {
			t.Errorf("%s is process %d, was %d", in.ID, in.PID, pid)
		}
	}
}
