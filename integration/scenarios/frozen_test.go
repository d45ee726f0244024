package scenarios

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/integration/ledger"
)

// A machine that is frozen as a whole and wakes up is the one case in which no
// program on it can keep the law: there, the old copy lives until the watchdog
// has had its turn, and the token is what protects. This says how long it is.
func TestAFrozenMachineThatWakesUpIsFencedAtOnce(t *testing.T) {
	needLong(t)
	w := newWorld(t, 4, 16, 4)
	victim := w.other(w.primary())
	must(t, victim.Freeze())
	eventually(t, lostBound, "the exclusive shards run elsewhere", func() error { return w.aliveBut(victim) })
	woken := ledger.Now()
	must(t, victim.Thaw())
	var longest time.Duration
	overlaps := w.conclude().Overlaps()
	for _, o := range overlaps {
		longest = max(longest, o.Old.Last-woken)
		if o.Old.Node != victim.Name || o.Old.Token >= o.New.Token {
			t.Errorf("an overlap that no frozen machine explains: %v", o)
		}
	}
	w.report("a frozen machine wakes up: its old copies are gone after", longest, 100*time.Millisecond, 2*time.Second)
	t.Logf("%d old copies said a last word, each with a token that its successor's is greater than", len(overlaps))
}

// A watchdog that is stopped kills nothing, and is replaced too late: the agent
// has to do it.
func TestAStoppedWatchdogLeavesNoGapInTheFence(t *testing.T) {
	needLong(t)
	w := newWorld(t, 4, 16, 4)
	victim := w.other(w.primary())
	if _, err := victim.Signal(syscall.SIGSTOP, cluster.IsWatchdog); err != nil {
		t.Fatal(err)
	}
	must(t, w.Isolate(victim))
	eventually(t, lostBound, "the exclusive shards run elsewhere", func() error { return w.aliveBut(victim) })
	must(t, w.Heal(), victim.Thaw())
	w.settle()
	w.verdict()
}

// The judge has to be able to find what the other scenarios say is not there.
// Here the fence is taken away: the watchdog and the agent of a node are
// stopped and the node is cut off, while its shards go on. Nothing of meshrun can
// keep the law then, and the judge must see it broken.
func TestWithoutTheFenceTheJudgeFindsTwo(t *testing.T) {
	needLong(t)
	w := newWorld(t, 4, 16, 4)
	victim := w.other(w.primary())
	theirs := 0
	for id, at := range w.snapshot() {
		if id.Process == "only" && at.node == victim.Name {
			theirs++
		}
	}
	must(t, w.Isolate(victim))
	for _, part := range []func(cluster.Process) bool{cluster.IsWatchdog, cluster.IsAgent} {
		if _, err := victim.Signal(syscall.SIGSTOP, part); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, lostBound, "the exclusive shards run elsewhere too", func() error {
		b, err := ledger.ReadFile(w.ledger)
		if err != nil {
			return err
		}
		if n := len(b.Overlaps()); n < theirs {
			return fmt.Errorf("%d of %d overlap", n, theirs)
		}
		return nil
	})
	must(t, w.Heal(), victim.Thaw())
	overlaps := w.conclude().Overlaps()
	for _, o := range overlaps {
		if o.Old.Node != victim.Name || o.Old.Token >= o.New.Token {
			t.Errorf("an overlap that the missing fence does not explain: %v", o)
		}
	}
	t.Logf("without the fence: %d of %d shards were two, and all new ones have greater tokens", len(overlaps), theirs)
	if theirs == 0 {
		t.Error("the victim had no exclusive shard")
	}
}
