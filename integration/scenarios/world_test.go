package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/integration/ledger"
	"github.com/synergymesh/meshrun/spec"
)

// How long things may take. The targets are printed beside what was measured;
// these bounds only tell broken from slow, on a machine with two cores.
const (
	settleBound = 60 * time.Second
	// aliveEvery is how often an exclusive shard says that it lives: the
	// grain of all times that come from the ledger.
	aliveEvery = 10 * time.Millisecond
)

// world is a cluster that has work to do, and what has to stay true of it.
type world struct {
	t *testing.T
	*cluster.Cluster
	ledger string
	born   time.Duration
	// plain and exclusive are how many shards there are of each kind, and more is
	// what the block of the exclusive ones says beside.
	plain, exclusive int
	more             string
}

// newWorld starts a cluster with a job of exclusive shards, and of plain ones.
func newWorld(t *testing.T, nodes, exclusive, plain int) *world {
	t.Helper()
	return startWorld(t, newCluster(t, 3, nodes), exclusive, plain)
}

// startWorld starts meshrun on a cluster without it, and gives it work.
func startWorld(t *testing.T, c *cluster.Cluster, exclusive, plain int) *world {
	t.Helper()
	w := &world{t: t, Cluster: c, born: ledger.Now(), exclusive: exclusive, plain: plain}
	for _, h := range c.Nodes {
		must(t, h.StartAgent())
	}
	w.ledger = filepath.Join(w.Dir, "ledger")
	must(t, os.WriteFile(w.ledger, nil, 0o644))
	must(t, w.WaitAgents(w.soon()))
	w.apply(w.Nodes[0], w.job("job"))
	took := w.settle()
	t.Logf("%d exclusive and %d plain shards run on %d nodes %v after the apply", exclusive, plain, len(c.Nodes), round(took))
	return w
}

// soon is a context for what has to happen within a minute.
func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

// job is the text of the world's job.
func (w *world) job(name string) string {
	return fmt.Sprintf(`job %q {
  process "only" {
    command   = [%q, "-shard", %q, "-every", %q]
    shards    = %d
    exclusive = true
    restart {
      delay = "50ms"
    }
    stop {
      timeout = "1s"
    }
    %s
  }
  process "plain" {
    command = ["sleep", "1000000"]
    shards  = %d
  }
}
`, name, workload, w.ledger, aliveEvery, w.exclusive, w.more, w.plain)
}

// apply applies a job file on a node.
func (w *world) apply(h *cluster.Host, text string) {
	w.t.Helper()
	path := filepath.Join(w.Dir, "job.hcl")
	must(w.t, os.WriteFile(path, []byte(text), 0o644))
	w.must(h, "apply", "-yes", path)
}

// must runs a command of meshrun on a node that has to succeed.
func (w *world) must(h *cluster.Host, args ...string) string {
	w.t.Helper()
	r, err := h.Meshrun(w.soon(), args...)
	must(w.t, err)
	if r.Code != 0 {
		w.t.Fatalf("meshrun %s on %s: exit %d\n%s%s", strings.Join(args, " "), h.Name, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// primary returns the node that decides where shards run.
func (w *world) primary() *cluster.Host {
	w.t.Helper()
	var found *cluster.Host
	eventually(w.t, settleBound, "there is a primary", func() error {
		now, err := w.holdersNow(w.t.Context())
		if found = w.Host(now.nodes["locks/scheduler"]); found == nil && err == nil {
			err = errEmpty
		}
		return err
	})
	return found
}

// other returns a node that is up and none of those.
func (w *world) other(not ...*cluster.Host) *cluster.Host {
	w.t.Helper()
next:
	for _, h := range w.Nodes {
		for _, n := range not {
			if h == n {
				continue next
			}
		}
		if h.Up() {
			return h
		}
	}
	w.t.Fatal("no other node is up")
	return nil
}

// where is one live instance.
type where struct {
	node string
	pid  int
}

// running returns where every instance runs. It is an error that one runs twice.
func (w *world) running() (map[spec.InstanceID]where, error) {
	found := map[spec.InstanceID]where{}
	for _, h := range w.Nodes {
		shards, err := h.Shards()
		if err != nil {
			return nil, err
		}
		for id, processes := range shards {
			for _, p := range processes {
				if at, twice := found[id]; twice {
					return nil, fmt.Errorf("%v runs twice: on %s (%d) and on %s (%d)", id, at.node, at.pid, h.Name, p.PID)
				}
				found[id] = where{h.Name, p.PID}
			}
		}
	}
	return found, nil
}

// snapshot is running, of a world in which nothing is wrong.
func (w *world) snapshot() map[spec.InstanceID]where {
	w.t.Helper()
	now, err := w.running()
	must(w.t, err)
	return now
}

// undisturbed checks that what ran before on nodes that nothing was done to
// still runs there, in the same processes.
func (w *world) undisturbed(before map[spec.InstanceID]where, victims ...*cluster.Host) {
	w.t.Helper()
	now := map[string]map[spec.InstanceID][]cluster.Process{}
	for _, h := range w.Nodes {
		if slices.Contains(victims, h) {
			continue
		}
		shards, err := h.Shards()
		must(w.t, err)
		now[h.Name] = shards
	}
	for id, at := range before {
		shards, spared := now[at.node]
		is := func(p cluster.Process) bool { return p.PID == at.pid }
		if spared && !slices.ContainsFunc(shards[id], is) {
			w.t.Errorf("%v was disturbed: it ran on %s with pid %d", id, at.node, at.pid)
		}
	}
}

// settle waits until all is as it should be.
func (w *world) settle() time.Duration {
	w.t.Helper()
	return eventually(w.t, settleBound, "all is as the job wants", w.laws)
}

// book reads what the exclusive shards have written so far.
func (w *world) book() *ledger.Book {
	w.t.Helper()
	b, err := ledger.ReadFile(w.ledger)
	must(w.t, err)
	return b
}

// recovery returns how long after the moment the last exclusive shard that was
// down since then ran again; and the longest time that one was down.
func (w *world) recovery(since time.Duration) (back time.Duration, longest ledger.Gap) {
	w.t.Helper()
	for _, g := range w.book().Gaps(since, ledger.Now(), time.Second) {
		back = max(back, g.To-since)
		if g.For() > longest.For() {
			longest = g
		}
	}
	return back, longest
}

// report prints a figure beside its target, and fails the test if it is beyond
// the bound.
func (w *world) report(what string, took, target, bound time.Duration) {
	w.t.Helper()
	w.t.Logf("%s: %v (target %v)", what, round(took), target)
	if took > bound {
		w.t.Errorf("%s took %v, the test's bound is %v", what, round(took), bound)
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// verdict is the last word on a scenario: all is as it should be, and there
// was never a moment at which an exclusive shard was two.
func (w *world) verdict() {
	w.t.Helper()
	for _, o := range w.conclude().Overlaps() {
		w.t.Errorf("never two of an exclusive shard: %v", o)
	}
}

// conclude is verdict without its judgement of overlaps.
func (w *world) conclude() *ledger.Book {
	w.t.Helper()
	w.settle()
	b := w.book()
	for _, f := range b.TokenFaults() {
		w.t.Errorf("a token fences what had an earlier one: %v", f)
	}
	shards, copies := b.Copies(), 0
	if len(shards) != w.exclusive {
		w.t.Errorf("the ledger is of %d shards, want %d", len(shards), w.exclusive)
	}
	for _, list := range shards {
		copies += len(list)
	}
	w.t.Logf("%d copies of %d exclusive shards in %v, %d overlaps; longest gap: %v", copies, len(shards),
		(ledger.Now() - w.born).Round(time.Second), len(b.Overlaps()), ledger.Longest(b.Gaps(w.born, ledger.Now(), time.Second)))
	must(w.t, w.eventsTell())
	return b
}

// errEmpty says that a list that has to have something in it is empty.
var errEmpty = errors.New("nothing is there")
