package scheduler

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

func TestEveryShardHasOnePlaceWithinBoundsOrAReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, true)
		taken := drawTaken(t, nodes)
		check(t, v, nodes, taken, Place(v, nodes, taken, nil))
	})
}

func TestSameInputSameAnswerWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, true)
		taken := drawTaken(t, nodes)
		p := Place(v, nodes, taken, nil)
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		if again := Place(v, shuffled, taken, nil); !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v\n%+v", p, again)
		}
		if again := Place(v, nodes, taken, &p); !reflect.DeepEqual(p, again) {
			t.Fatalf("placing again moves something: %+v\n%+v", p, again)
		}
	})
}

// Spread over two labels, what can't be divided may go to another value.
func TestALeavingNodeMovesOnlyItsOwnShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, false)
		for _, p := range v.Job.Processes {
			p.Placing.Spreads = p.Placing.Spreads[:min(1, len(p.Placing.Spreads))]
		}
		before := Place(v, nodes, nil, nil)
		if len(nodes) == 0 {
			return
		}
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		left := slices.Delete(slices.Clone(nodes), gone, gone+1)
		after := check(t, v, left, nil, Place(v, left, nil, &before))
		for id, node := range places(t, before) {
			if node != nodes[gone].Name && after[id] != node {
				t.Fatalf("%s left, and %s moved from %s to %s", nodes[gone].Name, id, node, after[id])
			}
		}
	})
}

// A new node, or another number of shards, moves what is above a bound, and
// nothing else.
func TestOnlyWhatIsAboveABoundMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t, 3), drawNodes(t, false)
		before := Place(v, nodes, nil, nil)
		if rapid.Bool().Draw(t, "resize") {
			for i := range v.Job.Processes {
				v.Job.Processes[i].Shards = rapid.IntRange(0, 20).Draw(t, "shards")
			}
		} else {
			nodes = append(nodes, spec.Node{Name: "new", Labels: map[string]string{"disk": "ssd", "zone": "a"}})
		}
		after := Place(v, nodes, nil, &before)
		where := check(t, v, nodes, nil, after)
		for i := range v.Job.Processes {
			p := &v.Job.Processes[i]
			_, total := eligible(p, nodes)
			if len(p.Placing.Spreads) > 0 {
				continue // see TestASpreadMovesNoMoreThanItMust
			}
			for _, n := range nodes {
				stay, had := 0, 0
				for _, shard := range before.Processes[p.Name][n.Name] {
					if shard < p.Shards {
						had++
						if where[fmt.Sprintf("%s/%d", p.Name, shard)] == n.Name {
							stay++
						}
					}
				}
				if want := min(had, Bound(p.Shards, weight(n), total)); had > 0 && stay < want {
					t.Fatalf("%s keeps %d shards of %s, it could keep %d", n.Name, stay, p.Name, want)
				}
			}
		}
	})
}

// A spread moves what is above a value's part, what is above a node's bound,
// and nothing else.
func TestASpreadMovesNoMoreThanItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawJob(t, 1)
		p := &v.Job.Processes[0]
		p.Ports, p.Placing.Spreads = nil, []spec.Spread{{Label: "zone"}}
		nodes := drawNodes(t, false)
		before := Place(v, nodes, nil, nil)
		nodes = append(nodes, drawNode(t, "new", false))
		after := Place(v, nodes, nil, &before)
		where := check(t, v, nodes, nil, after)
		may, _ := eligible(p, nodes)
		zones := map[string][]spec.Node{}
		for _, n := range may {
			zones[n.Labels["zone"]] = append(zones[n.Labels["zone"]], n)
		}
		for zone, members := range zones {
			has, had, stays, bounded := 0, 0, 0, 0
			total := 0.0
			for _, n := range members {
				total += weight(n)
				has += len(after.Processes[p.Name][n.Name])
			}
			for _, n := range members {
				was := before.Processes[p.Name][n.Name]
				had += len(was)
				bounded += max(0, len(was)-Bound(max(has, p.Shards/len(zones)), weight(n), total))
				for _, shard := range was {
					if where[fmt.Sprintf("%s/%d", p.Name, shard)] == n.Name {
						stays++
					}
				}
			}
			if want := min(had, p.Shards/len(zones)) - bounded; stays < want {
				t.Fatalf("zone %q keeps %d of its %d shards, it could keep %d", zone, stays, had, want)
			}
		}
	})
}

// Of two labels each has its say: first the one with fewer values.
func TestSpreadOverTwoLabels(t *testing.T) {
	p := spec.DefaultProcess("p")
	p.Shards, p.Placing = 8, &spec.Placing{Spreads: []spec.Spread{{Label: "rack"}, {Label: "zone"}}}
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	var nodes []spec.Node
	for i, at := range [][2]string{{"a", "1"}, {"a", "2"}, {"a", "3"}, {"b", "4"}} {
		nodes = append(nodes, spec.Node{Name: fmt.Sprintf("n%d", i), Labels: map[string]string{"zone": at[0], "rack": at[1]}})
	}
	placed := Place(v, nodes, nil, nil).Processes["p"]
	if len(placed["n3"]) != 4 || len(placed["n0"]) > 2 || len(placed["n1"]) > 2 || len(placed["n2"]) > 2 {
		t.Errorf("placed %v", placed)
	}
}

func TestANodeThatJoinsTakesWhatIsAboveTheBound(t *testing.T) {
	p := spec.DefaultProcess("p")
	p.Shards = 16
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	nodes, placed := []spec.Node{{Name: "a"}}, spec.Placement{}
	for _, want := range [][]int{{16}, {10, 6}, {7, 7, 2}} {
		placed = Place(v, nodes, nil, &placed)
		var has []int
		for _, n := range nodes {
			has = append(has, len(placed.Processes["p"][n.Name]))
		}
		if !slices.Equal(has, want) {
			t.Errorf("%d nodes have %v", len(nodes), has)
		}
		nodes = append(nodes, spec.Node{Name: string(rune('a' + len(nodes)))})
	}
}

func TestACapacityCountsOtherJobsAndOthersTakeTheRest(t *testing.T) {
	p := spec.DefaultProcess("p")
	p.Shards = 10
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	nodes := []spec.Node{{Name: "a", Capacity: 4}, {Name: "b"}}
	placed := Place(v, nodes, map[string]Load{"a": {Instances: 3}}, nil)
	if len(placed.Processes["p"]["a"]) > 1 || len(placed.Unplaced) != 0 {
		t.Errorf("a has room for one more, and placed is %+v", placed)
	}
	nodes[1].Capacity = 5
	placed = Place(v, nodes, map[string]Load{"a": {Instances: 3}}, &placed)
	if n := len(placed.Unplaced); n != 4 || placed.Unplaced[0].Reason != "no eligible node (2 full)" {
		t.Errorf("there is room for six, and placed is %+v", placed)
	}
}

func TestResourcesTakeRoom(t *testing.T) {
	small, big := spec.DefaultProcess("small"), spec.DefaultProcess("big")
	small.Shards, small.Resources = 4, &spec.Resources{Memory: 100, CPU: 0.1}
	big.Shards, big.Resources = 2, &spec.Resources{Memory: 500}
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{big, small}}}
	nodes := []spec.Node{{Name: "a", Memory: 800, CPU: 0.3}, {Name: "b", Memory: 650}}
	placed := Place(v, nodes, nil, nil)
	loads := Loads(&placed)
	if want := (map[string]Load{"a": {Instances: 4, CPU: 300, Memory: 800}, "b": {Instances: 2, CPU: 100, Memory: 600}}); !maps.Equal(loads, want) {
		t.Errorf("placed %+v: %+v", placed, loads)
	}
	big.Resources.Memory = 550 // moves no other: a node that is full keeps what fits
	after := Place(v, nodes, nil, &placed)
	if n := len(after.Unplaced); n != 1 || after.Unplaced[0].Reason != "no eligible node (2 with too little memory left)" && after.Unplaced[0].Reason != "no eligible node (1 with too little cpu left, 1 with too little memory left)" {
		t.Errorf("100 bytes are too many, and placed is %+v", after)
	}
	if !madeRoom(&after, &placed) || !madeRoom(&placed, &after) {
		t.Error("a shard less, or a smaller one, makes room")
	}
}

func TestWeightsAreFollowed(t *testing.T) {
	p := spec.DefaultProcess("p")
	p.Shards = 1000
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	placed := Place(v, []spec.Node{{Name: "big", Weight: 3}, {Name: "small"}}, nil, nil)
	if n := len(placed.Processes["p"]["big"]); n < 700 || n > 800 {
		t.Errorf("the node with three quarters of the weight has %d of 1000 shards", n)
	}
}

func TestTheReasonNamesWhatIsInTheWay(t *testing.T) {
	p := spec.DefaultProcess("web")
	p.Shards, p.Ports = 2, []spec.Port{{Name: "http", Static: 80}}
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	for want, nodes := range map[string][]spec.Node{
		"there is no node":                                 nil,
		"no eligible node (1 draining)":                    {{Name: "a", Draining: true}},
		"no eligible node (1 with port 80 taken by web/0)": {{Name: "a"}},
	} {
		placed := Place(v, nodes, nil, nil)
		if len(placed.Unplaced) == 0 || !strings.Contains(placed.Unplaced[len(placed.Unplaced)-1].Reason, want) {
			t.Errorf("got %+v, want %q", placed.Unplaced, want)
		}
	}
}

func BenchmarkPlaceThousandProcessesOnOneNode(b *testing.B) {
	v := &spec.JobVersion{Job: spec.Job{Name: "j"}}
	for i := range 1000 {
		v.Job.Processes = append(v.Job.Processes, spec.DefaultProcess(fmt.Sprintf("p%d", i)))
	}
	nodes := []spec.Node{{Name: "a"}}
	previous := Place(v, nodes, nil, nil)
	for b.Loop() {
		Place(v, nodes, nil, &previous)
	}
}
