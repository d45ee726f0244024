package scenarios

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/integration/ledger"
	"github.com/synergymesh/meshrun/spec"
)

func TestTheLossOfConsulsLeaderStopsNoPlainShard(t *testing.T) {
	w := newWorld(t, 4, 16, 4)
	before := w.snapshot()
	lose := func(what string, lose, back func(leader *cluster.Host) error) {
		leader, err := w.Leader(w.soon())
		must(t, err)
		at, lost := ledger.Now(), time.Now()
		must(t, lose(leader))
		led := make(chan time.Duration, 1)
		soon := w.soon()
		go func() {
			_, _ = w.WaitLeader(soon) // that there is none shows below
			led <- time.Since(lost)
		}()
		w.scaleBy(w.Nodes[0])
		ordered := time.Since(lost)
		placed := eventually(t, settleBound, "the new shard is placed", func() error { return w.placedAll(nil) })
		w.settle()
		w.report(what+": a new shard is placed and runs after", time.Since(lost), 5*time.Second, lostBound)
		t.Logf("%s: another one leads after %v, the order is taken after %v, and the shard placed after %v", what, round(<-led), round(ordered), round(ordered+placed))
		_, gap := w.recovery(at)
		w.report(what+": no exclusive shard is down for longer than", gap.For(), 0, lostBound)
		must(t, back(leader), leader.WaitConsul(w.soon()))
		w.plainUndisturbed(before)
	}
	lose("Consul's leader is killed", (*cluster.Host).KillConsul, (*cluster.Host).StartConsul)
	if *long {
		lose("the host of Consul's leader dies", (*cluster.Host).Kill, func(h *cluster.Host) error {
			return errors.Join(h.Boot(), h.StartConsul())
		})
	}
	w.verdict()
}

// plainUndisturbed checks that no shard but exclusive ones was touched.
func (w *world) plainUndisturbed(before map[spec.InstanceID]where) {
	w.t.Helper()
	plain := map[spec.InstanceID]where{}
	for id, at := range before {
		if id.Process == "plain" {
			plain[id] = at
		}
	}
	w.undisturbed(plain)
}

func TestAllOfConsulIsGoneForAMinuteAndBack(t *testing.T) {
	needLong(t)
	w := newWorld(t, 4, 16, 8)
	before := w.snapshot()
	for _, s := range w.Servers {
		must(t, s.Kill())
	}
	gone := ledger.Now()
	for ledger.Now()-gone < time.Minute {
		w.plainUndisturbed(before)
		time.Sleep(time.Second)
	}
	// Exclusive shards cannot outlive their leases.
	b := w.book()
	for id := range b.Copies() {
		if last, _ := b.Last(id); last.Last > gone+6*time.Second {
			t.Errorf("without Consul for a minute: %v", last)
		}
	}
	at := time.Now()
	for _, s := range w.Servers {
		must(t, s.Boot(), s.StartConsul())
	}
	_, err := w.WaitLeader(w.soon())
	must(t, err)
	t.Logf("Consul is back after %v", round(time.Since(at)))
	at = time.Now()
	eventually(t, settleBound, "the exclusive shards live", func() error { return w.aliveBut() })
	w.report("Consul is back: all exclusive shards run again after", time.Since(at), lostTarget, lostBound)
	w.settle()
	w.plainUndisturbed(before)
	w.verdict()
}

// TestAnIdleClusterCostsNothing counts what agents cost Consul when nothing
// happens.
func TestAnIdleClusterCostsNothing(t *testing.T) {
	plain, quiet := 100, 15*time.Second
	if *long {
		plain, quiet = 1000, time.Minute
	}
	w := newWorld(t, 5, 10, plain)
	var at cluster.Load
	// What is left of the start is over when nothing is written for a while.
	eventually(t, settleBound, "the cluster has come to rest", func() error {
		first, err := w.Load(t.Context())
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
		if at, err = w.Load(t.Context()); err != nil {
			return err
		}
		if at.Writes != first.Writes {
			return fmt.Errorf("%d writes in 5 s", at.Writes-first.Writes)
		}
		return nil
	})
	time.Sleep(quiet) // nothing is to happen in it: there is nothing to wait for
	now, err := w.Load(t.Context())
	must(t, err)
	writes, sessions := now.Writes-at.Writes, now.Sessions-at.Sessions
	t.Logf("%d instances on %d nodes, in %v: %d writes, %d sessions made (targets 0)", plain+10, len(w.Nodes), quiet, writes, sessions)
	if writes != 0 || sessions != 0 {
		t.Error("an idle cluster writes")
	}
	for _, h := range w.Nodes {
		// A control shard that is being handed over has one more, for a moment.
		eventually(t, settleBound, h.Name+" waits for few things", func() error {
			keys, certificates, err := h.Waiting(t.Context())
			if err != nil {
				return err
			}
			t.Logf("%s: %d blocking queries for keys (target at most 5), %d for certificates", h.Name, keys, certificates)
			if keys > 5 {
				return fmt.Errorf("%s has %d blocking queries", h.Name, keys)
			}
			return nil
		})
	}
	w.verdict()
}
