package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/spec"
)

// place asks the scheduler where the shards of all jobs of a plan belong, as its
// loop would place them. It returns the placements of all jobs, and what happens
// to others for that: where nodes have bounds, a job may leave room for another.
func place(s *Snapshot, parts []part) (placed map[string]*spec.Placement, told []string) {
	placed = make(map[string]*spec.Placement, len(s.Placements))
	for name, stored := range s.Placements {
		placed[name] = &stored.Value
	}
	byName, names := map[string]*part{}, []string{}
	for i := range parts {
		j := &parts[i]
		byName[j.wanted.Job] = j
		if j.next != j.current || j.next == nil {
			names = append(names, j.wanted.Job)
		}
	}
	board := scheduler.Board{
		Nodes:   s.Nodes,
		Removed: func(name string) bool { return byName[name] != nil && byName[name].next == nil },
		Job: func(name string) (*spec.JobVersion, bool) {
			if j := byName[name]; j != nil {
				return j.next, true
			}
			stored, ok := s.Jobs[name]
			return &stored.Value, ok
		},
		Placed:    func() []string { return slices.Sorted(maps.Keys(placed)) },
		Placement: func(name string) *spec.Placement { return placed[name] },
		Observed:  func(job, node string) []spec.Instance { return s.Observed[job][node].Instances },
		Change: func(name string, _, after *spec.Placement) (bool, error) {
			if j := byName[name]; j != nil {
				j.placement = after
			}
			if placed[name] = after; after == nil {
				delete(placed, name)
			}
			return true, nil
		},
	}
	_, _ = board.PlaceAll(names) // Change never fails
	for name, j := range byName {
		if j.next != j.current {
			j.placement = placed[name]
		}
	}
	return placed, others(s, placed, byName)
}

// others tells of jobs that the plan doesn't change and that get the room that it makes.
func others(s *Snapshot, board map[string]*spec.Placement, byName map[string]*part) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(board)) {
		stored, ok := s.Placements[name]
		if j := byName[name]; !ok || j != nil && j.current != j.next {
			continue
		}
		if n := len(stored.Value.Unplaced) - len(board[name].Unplaced); n > 0 {
			out = append(out, fmt.Sprintf("job %q gets room for %d of its shards that had no node", name, n))
		}
	}
	return out
}

// warnings returns what is to be known of a job before it is applied.
func warnings(s *Snapshot, j *part) []string {
	if j.next == nil {
		return nil
	}
	placement := j.placement
	if placement == nil { // it is kept
		if stored, ok := s.Placements[j.wanted.Job]; ok {
			placement = &stored.Value
		}
	}
	var out []string
	for i := range j.next.Job.Processes {
		p := &j.next.Job.Processes[i]
		if text := unplaced(placement, j.wanted.Job, p); text != "" {
			out = append(out, text)
		}
		if o := j.next.Orders[p.Name]; o.Paused && p.Schedule == nil && j.wanted.Apply != nil && j.next != j.current {
			out = append(out, fmt.Sprintf("%s/%s is %s: it stays as it is until `meshrun resume %s`", j.wanted.Job, p.Name, o.PausedText(), j.wanted.Job))
		}
		if left := s.Grace; p.Exclusive && left > 0 && time.Duration(p.Stop.Timeout) > left {
			out = append(out, fmt.Sprintf("process %q of job %q may take %s to stop, but has at most %s when its node loses the cluster: then it is killed",
				p.Name, j.wanted.Job, p.Stop.Timeout, spec.Duration(left)))
		}
	}
	return out
}

// unplaced tells of the shards of a process that no node can take.
func unplaced(placement *spec.Placement, job string, p *spec.Process) string {
	if placement == nil {
		return ""
	}
	var shards []int
	why := ""
	for _, u := range placement.Unplaced {
		if u.Process == p.Name {
			shards = append(shards, u.Shard)
			why = u.Reason
		}
	}
	switch len(shards) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("cannot place %s/%s/%d: %s", job, p.Name, shards[0], why)
	default:
		return fmt.Sprintf("cannot place %d of the %d shards of %s/%s (%s): %s", len(shards), p.Shards, job, p.Name, spec.NewShardSet(shards...), why)
	}
}
