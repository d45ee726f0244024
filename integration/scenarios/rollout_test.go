package scenarios

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/ledger"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// A rollout of exclusive shards, two at a time, loses a node on its way. It goes
// on with the others, never runs two of one, and takes no more than two down
// beside those that the node took with it.
func TestARolloutGoesOnWhileANodeIsLost(t *testing.T) {
	const parallel = 2
	w := newWorld(t, 5, 20, 0)
	w.more = fmt.Sprintf("env = { REVISION = \"2\" }\nupdate {\n max_parallel = %d\n min_healthy = \"200ms\"\n}", parallel)
	victim := w.other(w.primary())
	began := ledger.Now()
	w.apply(w.Nodes[0], w.job("job"))
	eventually(t, settleBound, "the rollout is on its way", func() error {
		if n := w.restarted(began); n < 5 {
			return fmt.Errorf("only %d shards have been restarted", n)
		}
		return nil
	})
	lost := ledger.Now()
	if n := w.downAtOnce(began, lost); n > parallel {
		t.Errorf("%d shards were down at once before the node was lost, and %d may be", n, parallel)
	}
	must(t, victim.Kill())
	took := eventually(t, 2*time.Minute, "the rollout is done", func() error {
		r, err := w.rollout("job")
		if err == nil && (r.State != spec.RolloutDone || r.Version != 2) {
			err = fmt.Errorf("it is %+v", r)
		}
		return err
	})
	t.Logf("the rollout of %d shards was done %v after the loss", w.exclusive, round(took))
	w.settle()
	if n := w.restarted(began); n != w.exclusive {
		t.Errorf("%d of %d shards were restarted", n, w.exclusive)
	}
	w.bringBack(victim)
	w.verdict()
}

// rollout returns what is remembered of a job's rollout.
func (w *world) rollout(job string) (spec.Rollout, error) {
	var r spec.Rollout
	api, err := w.Consul(w.t.Context())
	if err != nil {
		return r, err
	}
	entries, err := api.List(w.t.Context(), state.RolloutKey(job))
	if err != nil {
		return r, err
	}
	for _, e := range entries {
		if e.Key == state.RolloutKey(job) {
			return state.Decode[spec.Rollout](state.Entry{Key: e.Key, Value: e.Value})
		}
	}
	return r, fmt.Errorf("%s: %w", state.RolloutKey(job), errEmpty)
}

// restarted counts the shards that have started since a moment.
func (w *world) restarted(since time.Duration) int {
	n := 0
	for _, copies := range w.book().Copies() {
		if slices.ContainsFunc(copies, func(c ledger.Copy) bool { return c.First > since }) {
			n++
		}
	}
	return n
}

// downAtOnce returns the most shards that were down in the same moment.
func (w *world) downAtOnce(from, to time.Duration) int {
	type turn struct {
		at   time.Duration
		down int
	}
	var turns []turn
	for _, copies := range w.book().Copies() {
		for i := 1; i < len(copies); i++ {
			if down, up := copies[i-1].Last, copies[i].First; down > from && up < to {
				turns = append(turns, turn{down, 1}, turn{up, -1})
			}
		}
	}
	slices.SortFunc(turns, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.down, b.down)) })
	most, down := 0, 0
	for _, t := range turns {
		down += t.down
		most = max(most, down)
	}
	return most
}
