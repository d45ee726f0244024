package orchestrator

import (
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// What is to be tried on another node has not failed while there is one, or the
// scheduler has not looked yet.
func TestARolloutHasNotFailedWhileAnotherNodeIsToBeTried(t *testing.T) {
	for name, test := range map[string]struct {
		exhausted spec.Exhausted
		place     string   // where the shard that failed on a belongs then
		spent     []string // where it has used up its restarts
		want      spec.RolloutState
	}{
		"it stays down":             {spec.ExhaustedFail, "a", nil, spec.RolloutFailed},
		"nobody has looked":         {spec.ExhaustedReschedule, "a", nil, spec.RolloutRunning},
		"it moves":                  {spec.ExhaustedReschedule, "b", []string{"a"}, spec.RolloutRunning},
		"no other node can take it": {spec.ExhaustedReschedule, "a", []string{"a", "b"}, spec.RolloutFailed},
	} {
		w := up(t, 3, nil)
		bad := rolled("bad", 3, nil)
		bad.Restart.Exhausted = test.exhausted
		w.release(version(2, bad))
		for range 2 {
			w.decide()
			w.act(nil)
		}
		if in := w.instance("a", "p", 0); in == nil || in.Phase != spec.PhaseFailed {
			t.Fatalf("%s: the first shard is %+v", name, in)
		}
		w.Placement.Processes["p"] = map[string]spec.ShardSet{"a": {1, 2}}
		w.Placement.Processes["p"][test.place] = spec.NewShardSet(append(w.Placement.Processes["p"][test.place], 0)...)
		for _, node := range test.spent {
			w.Placement.Spent = append(w.Placement.Spent, spec.Spent{Process: "p", Nodes: map[string]spec.ShardSet{node: {0}}})
		}
		if d := Rollout(w.Snapshot, w.now); d.Rollout.State != test.want {
			t.Errorf("%s: the rollout is %+v", name, d.Rollout)
		}
	}
}
