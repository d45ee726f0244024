package scenarios

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

// answers waits until the host's agent answers, and returns how long it took.
func (w *world) answers(h *cluster.Host) time.Duration {
	w.t.Helper()
	return eventually(w.t, settleBound, "the agent of "+h.Name+" answers", func() error {
		_, err := h.Status(w.soon())
		return err
	})
}

func TestAKilledAgentMovesNothing(t *testing.T) {
	w := newWorld(t, 5, 16, 5)
	before := w.snapshot()

	primary := w.primary()
	must(t, primary.KillAgent())
	killed := time.Now()
	w.answers(primary)
	w.report("the primary's agent is killed: it answers again after", time.Since(killed), crashTarget, crashBound)
	w.settle()
	w.undisturbed(before)

	must(t, w.primary().KillAgent())
	killed = time.Now()
	w.plain++
	w.must(w.other(primary), "scale", "job/plain", fmt.Sprint(w.plain))
	w.settle()
	w.report("the primary's agent is killed while the job grows: the new shard runs after", time.Since(killed), crashTarget, crashBound)
	w.undisturbed(before)

	for _, h := range w.Nodes {
		must(t, h.KillAgent())
	}
	killed = time.Now()
	must(t, w.WaitAgents(w.soon()))
	w.report("all agents are killed: all answer again after", time.Since(killed), crashTarget, crashBound)
	w.settle()
	w.undisturbed(before)
	w.verdict()
}

func TestAgentsThatAreRestartedOneByOneMoveNothing(t *testing.T) {
	needLong(t)
	w := newWorld(t, 5, 16, 5)
	before := w.snapshot()
	for _, h := range w.Nodes {
		old, err := h.Status(w.soon())
		must(t, err)
		if n, err := h.Signal(syscall.SIGTERM, cluster.IsAgent); err != nil || n != 1 {
			t.Fatalf("%d agents on %s: %v", n, h.Name, err)
		}
		took := eventually(t, settleBound, "the agent of "+h.Name+" has a successor", func() error {
			now, err := h.Status(w.soon())
			if err == nil && now.Agent.PID == old.Agent.PID {
				err = fmt.Errorf("it is still %d", old.Agent.PID)
			}
			return err
		})
		w.report("the agent of "+h.Name+" is told to end: its successor answers after", took, crashTarget, crashBound)
		w.settle()
		w.undisturbed(before)
	}
	w.verdict()
}
