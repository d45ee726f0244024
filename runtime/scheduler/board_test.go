package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// testBoard is a board of jobs with one process each, whose changes are recorded.
type testBoard struct {
	Board
	jobs    map[string]*spec.JobVersion
	placed  map[string]*spec.Placement
	changes []string
	refuse  map[string]error // Change of these jobs: nil is not kept
}

func newTestBoard(nodes []spec.Node, shards map[string]int) *testBoard {
	b := &testBoard{jobs: map[string]*spec.JobVersion{}, placed: map[string]*spec.Placement{}, refuse: map[string]error{}}
	for name, n := range shards {
		b.wants(name, n)
	}
	b.Board = Board{
		Nodes:     nodes,
		Removed:   func(name string) bool { return b.jobs[name] == nil },
		Job:       func(name string) (*spec.JobVersion, bool) { return b.jobs[name], true },
		Placed:    func() []string { return slices.Sorted(maps.Keys(b.placed)) },
		Placement: func(name string) *spec.Placement { return b.placed[name] },
		Observed:  func(string, string) []spec.Instance { return nil },
		Change: func(name string, _, after *spec.Placement) (bool, error) {
			if err, refused := b.refuse[name]; refused {
				return false, err
			}
			if b.placed[name] == nil && after == nil {
				return true, nil
			}
			b.changes = append(b.changes, name)
			if b.placed[name] = after; after == nil {
				delete(b.placed, name)
			}
			return true, nil
		},
	}
	return b
}

func (b *testBoard) wants(name string, shards int) {
	p := spec.DefaultProcess("p")
	p.Shards = shards
	b.jobs[name] = &spec.JobVersion{Version: 1, Job: spec.Job{Name: name, Processes: []spec.Process{p}}}
}

// state lists how many shards of each job have a node and how many have none.
func (b *testBoard) state() string {
	text := ""
	for _, name := range b.Placed() {
		n := 0
		for _, l := range Loads(b.placed[name]) {
			n += l.Instances
		}
		text += fmt.Sprintf("%s %d+%d ", name, n, len(b.placed[name].Unplaced))
	}
	return text
}

func TestAJobThatLeavesRoomLetsTheOthersInWithinOneCall(t *testing.T) {
	b := newTestBoard([]spec.Node{{Name: "n", Capacity: 4}}, map[string]int{"a": 3, "b": 3})
	if left, err := b.PlaceAll([]string{"b", "a"}); err != nil || left != nil || b.state() != "a 3+0 b 1+2 " {
		t.Fatalf("%q, %v, %v", b.state(), left, err)
	}
	b.changes = nil
	delete(b.jobs, "a") // and a third one comes, which is not there yet when a goes
	b.wants("c", 1)
	if _, err := b.PlaceAll([]string{"c", "a"}); err != nil || b.state() != "b 3+0 c 1+0 " {
		t.Errorf("%q, %v", b.state(), err)
	}
	if !slices.Equal(b.changes, []string{"a", "c", "b"}) {
		t.Errorf("changed in the order %q", b.changes)
	}
	b.changes = nil
	if _, err := b.PlaceAll([]string{"b", "c"}); err != nil || b.changes != nil {
		t.Errorf("placed again, %q changed, %v", b.changes, err)
	}
}

func TestAPlacementThatIsNotKeptLeavesNoRoom(t *testing.T) {
	b := newTestBoard([]spec.Node{{Name: "n", Capacity: 4}}, map[string]int{"a": 4, "b": 2})
	if _, err := b.PlaceAll([]string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	b.refuse["a"] = nil
	b.wants("a", 1)
	if _, err := b.PlaceAll([]string{"a", "b"}); err != nil || b.state() != "a 4+0 b 0+2 " {
		t.Errorf("not kept: %q, %v", b.state(), err)
	}
	b.refuse["a"] = errors.New("the lock is lost")
	if left, err := b.PlaceAll([]string{"a", "b"}); err == nil || !slices.Equal(left, []string{"a", "b"}) {
		t.Errorf("failed: %q is left, %v", left, err)
	}
	delete(b.refuse, "a")
	if _, err := b.PlaceAll([]string{"a"}); err != nil || b.state() != "a 1+0 b 2+0 " {
		t.Errorf("kept: %q, %v", b.state(), err)
	}
}
