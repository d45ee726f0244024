package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/spec"
)

// maxTurns bounds how often jobs are placed again because others made room.
const maxTurns = 8

// place asks the scheduler where the shards of all jobs of a plan belong, in
// the order in which it would place them, and returns the placements of all
// jobs, and what happens to others for that. Only where nodes have capacities do
// jobs concern each other.
func place(s *Snapshot, parts []part) (board map[string]*spec.Placement, told []string) {
	board = map[string]*spec.Placement{}
	for name, stored := range s.Placements {
		board[name] = &stored.Value
	}
	byName, names := map[string]*part{}, []string{}
	for i := range parts {
		j := &parts[i]
		byName[j.wanted.Job] = j
		if j.next != j.current || j.next == nil {
			names = append(names, j.wanted.Job)
		}
	}
	gone := func(job string) bool { return byName[job] != nil && byName[job].next == nil }
	for turn := 0; len(names) > 0 && turn < maxTurns; turn++ {
		scheduler.SortTurns(names, gone)
		room := false
		for _, name := range names {
			room = placeOne(s, board, name, byName[name]) || room
		}
		names = nil
		for name, p := range board {
			if room && scheduler.Waits(p) {
				names = append(names, name)
			}
		}
	}
	return board, others(s, board, byName)
}

// placeOne places a job on the board, and reports whether that makes room for
// others. Without a part it is a job that stays as it is.
func placeOne(s *Snapshot, board map[string]*spec.Placement, name string, j *part) bool {
	previous := board[name]
	bounded := scheduler.Bounded(s.Nodes)
	if j != nil && j.next == nil {
		delete(board, name)
		return bounded && previous != nil
	}
	var version *spec.JobVersion
	if j != nil {
		version = j.next
	} else if stored, ok := s.Jobs[name]; ok {
		version = &stored.Value
	} else {
		return false
	}
	var taken map[string]scheduler.Load
	if bounded {
		var rest []*spec.Placement
		for other, p := range board {
			if other != name {
				rest = append(rest, p)
			}
		}
		taken = scheduler.Loads(rest...)
	}
	noted := scheduler.Note(version, previous, func(node string) []spec.Instance { return s.Observed[name][node].Instances })
	p := scheduler.Place(version, s.Nodes, taken, noted)
	board[name] = &p
	if j != nil {
		j.placement = &p
	}
	return bounded && previous != nil && scheduler.MadeRoom(previous, &p)
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
		return fmt.Sprintf("no node can take %s/%s/%d: %s", job, p.Name, shards[0], why)
	default:
		return fmt.Sprintf("no node can take %d of the %d shards of %s/%s (%s): %s", len(shards), p.Shards, job, p.Name, spec.NewShardSet(shards...), why)
	}
}
