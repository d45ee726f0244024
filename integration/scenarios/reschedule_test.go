package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/spec"
)

// picky is the world's job, of which an exclusive shard ends at once on a node for
// which there is a file.
func (w *world) picky() string {
	return fmt.Sprintf(`job "job" {
  process "only" {
    command   = ["sh", "-c", "test ! -e %s-${node.name} || exit 7; exec %s -shard %s -every %s"]
    shards    = %d
    exclusive = true
    restart {
      delay     = "50ms"
      attempts  = 2
      exhausted = "reschedule"
    }
    stop {
      timeout = "1s"
    }
  }
}
`, w.barrier(), workload, w.ledger, aliveEvery, w.exclusive)
}

func (w *world) barrier() string { return filepath.Join(w.Dir, "barrier") }

// bar lets the shards of the picky job fail on a node, or ends that.
func (w *world) bar(h *cluster.Host, bar bool) {
	w.t.Helper()
	path := w.barrier() + "-" + h.Name
	if bar {
		must(w.t, os.WriteFile(path, nil, 0o644))
		return
	}
	must(w.t, os.Remove(path))
}

// told returns the messages of the events of shards that have used up their restarts.
func (w *world) told(severity spec.Severity) []string {
	w.t.Helper()
	k, err := w.keptNow(w.t.Context())
	must(w.t, err)
	var out []string
	for _, ev := range k.events {
		if ev.Type == spec.EventRescheduled && ev.Severity == severity {
			out = append(out, ev.Message)
		}
	}
	return out
}

// What fails on one node runs on the others, each exclusive shard once; what fails
// on all stays down, is told of, and is tried again when somebody asks for it. The
// agent that decides is killed on the way.
func TestWhatFailsOnOneNodeRunsOnAnother(t *testing.T) {
	w := newWorld(t, 3, 6, 0)
	victim := w.Host(w.snapshot()[spec.InstanceID{Job: "job", Process: "only"}].node)
	w.bar(victim, true)
	w.apply(w.Nodes[0], w.picky())
	took := eventually(t, settleBound, "nothing belongs on the node where it fails", func() error {
		k, err := w.keptNow(t.Context())
		if err != nil {
			return err
		}
		if p := k.placements["job"]; p.Version != 2 || len(p.Processes["only"][victim.Name]) > 0 {
			return fmt.Errorf("placed %+v", p)
		}
		return w.laws()
	})
	moved := w.told(spec.Warning)
	if len(moved) == 0 || !strings.Contains(moved[0], "its restarts are used up on "+victim.Name+" (exit 7)") || len(w.told(spec.Critical)) > 0 {
		t.Errorf("told %q, and %q", moved, w.told(spec.Critical))
	}
	status := w.must(w.Nodes[0], "status")
	if !strings.Contains(status, "its restarts are used up on "+victim.Name) || !strings.Contains(status, "was moved to") {
		t.Errorf("the status does not say it:\n%s", status)
	}
	t.Logf("all shards of %s run elsewhere %v after the apply: %q", victim.Name, round(took), moved)

	for _, h := range w.Nodes {
		if h != victim {
			w.bar(h, true)
		}
	}
	w.must(w.Nodes[0], "restart", "job/only/0")
	must(t, w.primary().KillAgent())
	eventually(t, settleBound, "a shard that fails everywhere stays down", func() error {
		k, err := w.keptNow(t.Context())
		if err != nil {
			return err
		}
		if p := k.placements["job"]; len(p.SpentOn("only", 0)) != 3 {
			return fmt.Errorf("it is spent on %v", p.SpentOn("only", 0))
		}
		return nil
	})
	down := w.told(spec.Critical)
	if len(down) != 1 || !strings.HasPrefix(down[0], "only/0 stays down on ") || !strings.Contains(down[0], "n1, n2, n3") {
		t.Errorf("told %q", down)
	}
	if status := w.must(w.Nodes[0], "status"); !strings.Contains(status, "only/0 stays down") {
		t.Errorf("the status does not say it:\n%s", status)
	}
	if running := w.snapshot(); len(running) != w.exclusive-1 {
		t.Errorf("the others go on, and there run %v", running)
	}

	for _, h := range w.Nodes {
		w.bar(h, false)
	}
	w.must(w.Nodes[0], "restart", "job/only/0")
	w.verdict()
	if status := w.must(w.Nodes[0], "status"); strings.Contains(status, "only/0 stays down") {
		t.Errorf("it runs again, and the status says\n%s", status)
	}
}
