package scenarios

import (
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/ledger"
)

func TestALostNodesShardsRunElsewhereAndNeverTwice(t *testing.T) {
	w := newWorld(t, 5, 16, 5)
	victim := w.other(w.primary())
	before, at := w.snapshot(), ledger.Now()
	must(t, victim.Kill())
	w.settle()
	back, gap := w.recovery(at)
	w.report("a node is lost: all its shards run elsewhere after", back, 12*time.Second, 40*time.Second)
	t.Logf("%v", gap)
	w.undisturbed(before, victim)
	w.toldLost(victim)

	must(t, victim.Boot(), victim.StartConsul(), victim.WaitConsul(w.soon()), victim.StartAgent())
	took := w.settle()
	t.Logf("the node is back and has work again after %v", round(took))
	w.verdict()
}
