package orchestrator

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// replace places all shards of nodes that aren't there on others, as the
// scheduler does.
func replace(t *rapid.T, w *world) {
	live := sortedKeys(w.Live)
	for process, nodes := range w.Placement.Processes {
		moved := map[string]spec.ShardSet{}
		for _, node := range sortedKeys(nodes) {
			for _, shard := range nodes[node] {
				to := node
				if !w.Live[node] {
					to = rapid.SampledFrom(live).Draw(t, "to")
				}
				moved[to] = spec.NewShardSet(append(moved[to], shard)...)
			}
		}
		w.Placement.Processes[process] = moved
	}
}

// Nodes go and come back at any step, with what ran on them. No shard is ever
// assigned on two nodes that are there; in the end each runs where it is placed.
func TestRolloutOverNodesThatComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		slow := func() bool { return rapid.IntRange(0, 3).Draw(t, "slow") == 0 }
		turn := func() {
			w.decide()
			onceAlive(t, w)
			if rapid.Bool().Draw(t, "act") {
				w.act(slow)
			}
		}
		for n := range uint64(rapid.IntRange(1, 3).Draw(t, "versions")) {
			w.Job = drawVersion(t, n+1)
			w.Placement = drawPlacement(t, w.Job)
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				node := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
				if w.Live[node] && len(w.Live) > 1 {
					delete(w.Live, node)
				} else {
					w.Live[node] = true
				}
				for range rapid.IntRange(0, 2).Draw(t, "before it is placed anew") {
					turn()
				}
				replace(t, w)
				for range rapid.IntRange(0, 3).Draw(t, "after") {
					turn()
				}
			}
		}
		w.settle(t, slow, func() { onceAlive(t, w) })
		want := map[string]uint64{}
		for process, nodes := range w.Placement.Processes {
			for node, shards := range nodes {
				for _, shard := range shards {
					want[fmt.Sprintf("%s/%d@%s", process, shard, node)] = w.Job.Order(process, shard).Epoch
				}
			}
		}
		for node := range w.Observed {
			if !w.Live[node] {
				delete(w.Observed, node) // the scheduler cleans up
			}
		}
		if got := w.running(); !reflect.DeepEqual(got, want) {
			t.Fatalf("running %v\nwanted  %v\nassigned %+v", got, want, w.Current)
		}
		for node := range w.Current {
			if !w.Live[node] {
				t.Fatalf("%s is gone, and is assigned %+v", node, w.Current[node])
			}
		}
	})
}

// onceAlive demands that no shard is assigned to two nodes, and none is started
// while it is still on another one that is there.
func onceAlive(t *rapid.T, w *world) {
	at := map[spec.InstanceID]string{}
	for node, a := range w.Current {
		for _, p := range a.Processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: "j", Process: p.Process.Name, Shard: shard}
				if at[id] != "" {
					t.Fatalf("%s is assigned on %s and on %s", id, at[id], node)
				}
				at[id] = node
				if _, held := p.Held[shard]; held || !w.Live[node] || w.instance(node, p.Process.Name, shard) != nil {
					continue
				}
				for other := range w.Live {
					if other != node && w.instance(other, p.Process.Name, shard) != nil {
						t.Fatalf("%s is to start on %s while %s still has it", id, node, other)
					}
				}
			}
		}
	}
}

func TestWhatIsOnANodeThatIsGoneWaitsForAnotherPlaceAsItIs(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("p")))
	w.settle(t, nil, func() {})
	before := w.Current["a"]
	delete(w.Live, "a")
	d := w.decide()
	if !reflect.DeepEqual(w.Current["a"], before) {
		t.Errorf("a is gone, and is assigned %+v", w.Current["a"])
	}
	if why := d.Reasons[spec.InstanceID{Job: "j", Process: "p"}]; why != "waits to be placed on another node: a is gone" {
		t.Errorf("the reason is %q", why)
	}
	w.Placement = onNode(w.Job, "b")
	if w.decide(); len(w.Current) != 1 || len(w.Current["b"].Processes) != 1 {
		t.Fatalf("it is placed on b, and assigned is %+v", w.Current)
	}
	w.act(nil)
	w.Live["a"] = true // with what ran on it
	if w.decide(); len(w.Current) != 1 || w.Current["b"].Processes[0].Held != nil {
		t.Fatalf("a is back, and assigned is %+v", w.Current)
	}
}
