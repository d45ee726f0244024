package watchdog

import (
	"fmt"
	"slices"
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
	var tried []spec.Instance
	d.await("every start has been tried", func() bool {
		tried = d.tableOrNil()
		return len(tried) == len(all) && !slices.ContainsFunc(tried, func(in spec.Instance) bool {
			return in.Phase != spec.PhaseRunning && in.Phase != spec.PhaseFailed
		})
	})
	before := map[spec.InstanceID]int{}
	for _, in := range tried {
		if in.Phase == spec.PhaseRunning {
			before[in.ID] = in.PID
		} else if !strings.Contains(in.LastExit.Error, "limit of 188 open files, which is enough for 10: raise it") {
			t.Fatalf("refused with %v", in.LastExit)
		}
	}
	if len(before) != room {
		t.Errorf("%d instances run, want %d", len(before), room)
	}
	d.upgrade()
	table, err := d.client.Table(t.Context())
	if err != nil || len(table.Instances) != len(all) {
		t.Errorf("%d instances are known, want %d (%v)", len(table.Instances), len(all), err)
	}
	for _, in := range table.Instances {
		if pid := before[in.ID]; pid != in.PID {
			t.Errorf("%s is process %d, was %d", in.ID, in.PID, pid)
		}
	}
}
