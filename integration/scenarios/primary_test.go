package scenarios

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/integration/ledger"
)

// losePrimary does something to the primary that takes it away, checks that
// another one works instead, undoes it, and checks that all is well again.
// The exclusive shards of the old one are never two, whatever it still does.
func losePrimary(t *testing.T, lose, undo func(w *world, primary *cluster.Host)) {
	t.Helper()
	w := newWorld(t, 5, 16, 5)
	time.Sleep(3 * time.Second) // who ends another's session must have been there before it fell silent
	victim := w.primary()
	steps := w.stepsOf(victim)
	before, at := w.snapshot(), ledger.Now()
	lose(w, victim)
	lost := time.Now()
	w.scaleBy(w.other(victim))
	placed := eventually(t, lostBound, "a new primary places the new shard", func() error { return w.placedAll(victim) })
	w.report("the primary is lost: a new one has placed a new shard after", placed, noticedTarget, lostBound)
	eventually(t, lostBound, "the exclusive shards run elsewhere", func() error { return w.aliveBut(victim) })
	w.report("the primary is lost: all its exclusive shards run elsewhere after", time.Since(lost), lostTarget, lostBound)
	steps.log(at)
	_, gap := w.recovery(at)
	t.Logf("%v", gap)
	w.undisturbed(before, victim)
	undo(w, victim)
	back := time.Now()
	must(t, victim.WaitConsul(w.soon()))
	consul := time.Since(back)
	w.settle()
	t.Logf("the old one is back: Consul takes its node for healthy after %v, and all is well after %v", round(consul), round(time.Since(back)))
	w.verdict()
}

// scaleBy orders one more plain shard, which only a primary can place.
func (w *world) scaleBy(h *cluster.Host) {
	w.t.Helper()
	w.plain++
	eventually(w.t, lostBound, "the order is taken", func() error {
		r, err := h.Meshrun(w.soon(), "scale", "job/plain", fmt.Sprint(w.plain))
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		return err
	})
}

// placedAll: every plain shard has a place, and none on that node, if one is given.
func (w *world) placedAll(not *cluster.Host) error {
	k, err := w.keptNow(w.t.Context())
	if err != nil {
		return err
	}
	n := 0
	for node, shards := range k.placements["job"].Processes["plain"] {
		if not != nil && node == not.Name {
			return fmt.Errorf("%s still has a place on %s", shards, node)
		}
		n += len(shards)
	}
	if n != w.plain {
		return fmt.Errorf("%d plain shards have a place, want %d", n, w.plain)
	}
	return nil
}

func TestAPrimaryWhoseNodeDiesIsReplaced(t *testing.T) {
	needLong(t)
	losePrimary(t, func(w *world, h *cluster.Host) {
		must(t, h.Kill())
	}, (*world).bringBack)
}

// The watchdog takes an agent that says nothing for hung. Its successor goes on
// as the primary: what runs is not touched, but for what its lease has ended.
func TestAPrimaryThatIsStoppedHasASuccessorOnItsOwnNode(t *testing.T) {
	needLong(t)
	w := newWorld(t, 5, 16, 5)
	victim := w.primary()
	before, at := w.snapshot(), ledger.Now()
	if n, err := victim.Signal(syscall.SIGSTOP, cluster.IsAgent); err != nil || n != 1 {
		t.Fatalf("%d agents on %s: %v", n, victim.Name, err)
	}
	lost := time.Now()
	w.scaleBy(w.other(victim))
	placed := eventually(t, lostBound, "the primary places the new shard", func() error { return w.placedAll(nil) })
	w.report("the primary is stopped: a new shard is placed after", placed, lostTarget, lostBound)
	eventually(t, lostBound, "all exclusive shards run", func() error { return w.aliveBut() })
	w.report("the primary is stopped: all exclusive shards run again after", time.Since(lost), lostTarget, lostBound)
	_, gap := w.recovery(at)
	t.Logf("%v", gap)
	w.settle()
	w.plainUndisturbed(before)
	if now := w.primary(); now != victim {
		t.Errorf("%s is the primary, and %s was", now.Name, victim.Name)
	}
	w.verdict()
}

func TestAPrimaryThatIsCutOffFromConsulIsReplaced(t *testing.T) {
	losePrimary(t, func(w *world, h *cluster.Host) {
		must(t, w.Cut(h, w.Servers...))
	}, func(w *world, h *cluster.Host) { must(t, w.Heal()) })
}

func TestAPrimaryThatIsCutOffFromEverybodyIsReplaced(t *testing.T) {
	needLong(t)
	losePrimary(t, func(w *world, h *cluster.Host) {
		must(t, w.Isolate(h))
	}, func(w *world, h *cluster.Host) { must(t, w.Heal()) })
}

func TestANetworkThatFailsInOneDirectionNeverMakesTwo(t *testing.T) {
	needLong(t)
	for name, cut := range map[string]func(w *world, h *cluster.Host) error{
		"from the node": func(w *world, h *cluster.Host) error { return w.CutOneWay(h, w.Hosts()...) },
		"to the node": func(w *world, h *cluster.Host) error {
			for _, o := range w.Hosts() {
				if err := w.CutOneWay(o, h); err != nil {
					return err
				}
			}
			return nil
		},
		"from the node to Consul": func(w *world, h *cluster.Host) error { return w.CutOneWay(h, w.Servers...) },
	} {
		t.Run(name, func(t *testing.T) {
			losePrimary(t, func(w *world, h *cluster.Host) { must(t, cut(w, h)) },
				func(w *world, h *cluster.Host) { must(t, w.Heal()) })
		})
	}
}
