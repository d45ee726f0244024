package scheduler

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

func drawNodes(t *rapid.T) []spec.Node {
	var nodes []spec.Node
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		nodes = append(nodes, spec.Node{
			Name:     fmt.Sprintf("node-%d", i),
			Weight:   rapid.SampledFrom([]float64{0, 0, 0.5, 3}).Draw(t, "weight"),
			Draining: rapid.IntRange(0, 5).Draw(t, "draining") == 0,
			Labels:   map[string]string{"disk": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")},
		})
	}
	return nodes
}

func drawJob(t *rapid.T) *spec.JobVersion {
	v := &spec.JobVersion{Version: 1, Job: spec.Job{Name: "j"}}
	for i := range rapid.IntRange(1, 3).Draw(t, "processes") {
		p := spec.DefaultProcess(fmt.Sprintf("p%d", i))
		p.Shards = rapid.IntRange(0, 20).Draw(t, "shards")
		if rapid.IntRange(0, 3).Draw(t, "static") == 0 {
			p.Ports = []spec.Port{{Name: "http", Static: rapid.SampledFrom([]int{80, 81}).Draw(t, "port")}}
		}
		if rapid.IntRange(0, 3).Draw(t, "constrained") == 0 {
			p.Placing = &spec.Placing{Constraints: []spec.Constraint{{Label: "disk", Is: "ssd"}}}
		}
		v.Job.Processes = append(v.Job.Processes, p)
	}
	return v
}

// places lists where each shard is, and fails if it is anywhere twice.
func places(t *rapid.T, p spec.Placement) map[string]string {
	out := map[string]string{}
	for process, nodes := range p.Processes {
		for node, shards := range nodes {
			for _, shard := range shards {
				id := fmt.Sprintf("%s/%d", process, shard)
				if out[id] != "" {
					t.Fatalf("%s is on %s and on %s", id, out[id], node)
				}
				out[id] = node
			}
		}
	}
	return out
}

func eligible(p *spec.Process, nodes []spec.Node) (names []string, total float64) {
	for _, n := range nodes {
		if refusal(p, n) == "" {
			names = append(names, n.Name)
			total += weight(n)
		}
	}
	return names, total
}

// check demands the laws of one placement.
func check(t *rapid.T, v *spec.JobVersion, nodes []spec.Node, p spec.Placement) map[string]string {
	where := places(t, p)
	unplaced := map[string]bool{}
	for _, u := range p.Unplaced {
		id := fmt.Sprintf("%s/%d", u.Process, u.Shard)
		if unplaced[id] || where[id] != "" || u.Reason == "" {
			t.Fatalf("unplaced %+v: twice, or placed too, or without a reason", u)
		}
		unplaced[id] = true
	}
	listens := map[string]string{}
	count := 0
	for i := range v.Job.Processes {
		proc := &v.Job.Processes[i]
		count += proc.Shards
		may, total := eligible(proc, nodes)
		for shard := range proc.Shards {
			id := fmt.Sprintf("%s/%d", proc.Name, shard)
			if (where[id] != "") == unplaced[id] {
				t.Fatalf("%s is neither placed nor unplaced, or both", id)
			}
			if where[id] == "" {
				continue
			}
			if !slices.Contains(may, where[id]) {
				t.Fatalf("%s is on %s, which must not have it", id, where[id])
			}
			for _, port := range proc.Ports {
				key := fmt.Sprintf("%s:%d", where[id], port.Static)
				if listens[key] != "" {
					t.Fatalf("%s and %s share %s", id, listens[key], key)
				}
				listens[key] = id
			}
		}
		for _, n := range nodes {
			if have := len(p.Processes[proc.Name][n.Name]); have > 0 && have > Bound(proc.Shards, weight(n), total) {
				t.Fatalf("%s has %d of %d shards of %s, above its bound", n.Name, have, proc.Shards, proc.Name)
			}
		}
	}
	if len(where)+len(unplaced) != count {
		t.Fatalf("%d placed and %d unplaced of %d shards", len(where), len(unplaced), count)
	}
	return where
}

func TestEveryShardHasOnePlaceWithinBoundsOrAReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t), drawNodes(t)
		p := Place(v, nodes, nil)
		check(t, v, nodes, p)
		for _, u := range p.Unplaced {
			proc := v.Job.Processes[slices.IndexFunc(v.Job.Processes, func(p spec.Process) bool { return p.Name == u.Process })]
			if may, _ := eligible(&proc, nodes); len(may) > 0 && len(proc.Ports) == 0 {
				t.Fatalf("%+v, but %v may have it", u, may)
			}
		}
	})
}

func TestSameInputSameAnswerWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t), drawNodes(t)
		p := Place(v, nodes, nil)
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		if again := Place(v, shuffled, nil); !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v\n%+v", p, again)
		}
		if again := Place(v, nodes, &p); !reflect.DeepEqual(p, again) {
			t.Fatalf("placing again moves something: %+v\n%+v", p, again)
		}
	})
}

func TestALeavingNodeMovesOnlyItsOwnShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, nodes := drawJob(t), drawNodes(t)
		before := Place(v, nodes, nil)
		if len(nodes) == 0 {
			return
		}
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		left := slices.Delete(slices.Clone(nodes), gone, gone+1)
		after := check(t, v, left, Place(v, left, &before))
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
		v, nodes := drawJob(t), drawNodes(t)
		before := Place(v, nodes, nil)
		if rapid.Bool().Draw(t, "resize") {
			for i := range v.Job.Processes {
				v.Job.Processes[i].Shards = rapid.IntRange(0, 20).Draw(t, "shards")
			}
		} else {
			nodes = append(nodes, spec.Node{Name: "new", Labels: map[string]string{"disk": "ssd"}})
		}
		after := Place(v, nodes, &before)
		where := check(t, v, nodes, after)
		for i := range v.Job.Processes {
			p := &v.Job.Processes[i]
			_, total := eligible(p, nodes)
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

func TestWeightsAreFollowed(t *testing.T) {
	p := spec.DefaultProcess("p")
	p.Shards = 1000
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	placed := Place(v, []spec.Node{{Name: "big", Weight: 3}, {Name: "small"}}, nil)
	if n := len(placed.Processes["p"]["big"]); n < 700 || n > 800 {
		t.Errorf("the node with three quarters of the weight has %d of 1000 shards", n)
	}
}

func TestTheReasonNamesWhatIsInTheWay(t *testing.T) {
	p := spec.DefaultProcess("web")
	p.Shards, p.Ports = 2, []spec.Port{{Name: "http", Static: 80}}
	v := &spec.JobVersion{Job: spec.Job{Name: "j", Processes: []spec.Process{p}}}
	for want, nodes := range map[string][]spec.Node{
		"there is no node":                        nil,
		"1 of 1 nodes: draining":                  {{Name: "a", Draining: true}},
		"1 of 1 nodes: port 80 is taken by web/0": {{Name: "a"}},
	} {
		placed := Place(v, nodes, nil)
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
	previous := Place(v, nodes, nil)
	for b.Loop() {
		Place(v, nodes, &previous)
	}
}
