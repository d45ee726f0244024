package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/spec"
)

// groups divides jobs into those that depend on each other, as they are wanted
// or as they run, sorted, and leaves those out in which nothing is changed. The
// board has the placements of all jobs once the plan is applied.
func groups(s *Snapshot, board map[string]*spec.Placement, parts []part) [][]*part {
	all := map[string]*part{}
	for i := range parts {
		all[parts[i].wanted.Job] = &parts[i]
	}
	for name, stored := range s.Jobs {
		if all[name] == nil {
			job := stored.Value
			all[name] = &part{wanted: Wanted{Job: name}, current: &job, next: &job, beside: true}
		}
	}
	leader := map[string]string{}
	find := func(job string) string {
		for leader[job] != "" {
			job = leader[job]
		}
		return job
	}
	for name, j := range all {
		for _, on := range orchestrator.Needs(j.next, s.Assignments[name]) {
			if a, b := find(name), find(on); a != b && all[on] != nil {
				leader[a] = b
			}
		}
	}
	members, changed := map[string][]*part{}, map[string]bool{}
	for _, name := range sortedNames(all) {
		j := all[name]
		if j.beside || j.current == j.next && j.placement == nil { // what is placed anew was given room
			j.placement = board[name]
		} else {
			changed[find(name)] = true
		}
		members[find(name)] = append(members[find(name)], j)
	}
	var out [][]*part
	for _, name := range sortedNames(members) {
		if changed[name] {
			out = append(out, members[name])
		}
	}
	return out
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// run lets scheduler, orchestrator and nodes act on the jobs of a group, until
// nothing moves.
func run(s *Snapshot, group []*part, now time.Time) {
	together := map[string]*model{}
	turns := 0
	for _, j := range group {
		j.model = newModel(s, j, now)
		together[j.wanted.Job] = j.model
		// Each turn starts, ends or completes something, and few things do so twice.
		turns += 6*len(j.model.units) + 6*j.model.wantedShards() + 8
	}
	for range turns {
		moved := false
		for _, j := range group { // none of them sees yet what comes of it
			moved = j.model.decide(together) || moved
		}
		for _, j := range group {
			moved = j.model.act() || moved
		}
		if !moved && !complete(together) {
			return
		}
	}
}

// complete lets those processes end with success that others wait for to
// complete, and reports whether there were any.
func complete(together map[string]*model) bool {
	awaited := map[string]bool{} // "job/process"
	for job, m := range together {
		for _, a := range m.assigned {
			for _, p := range a.Processes {
				for _, d := range p.Process.DependsOn {
					if onJob, on := d.Of(job); d.Condition == spec.ConditionCompleted {
						awaited[onJob+"/"+on] = true
					}
				}
			}
		}
	}
	any := false
	for job, m := range together {
		for where, u := range m.units {
			if awaited[job+"/"+where.id.Process] && u.seen.Phase == spec.PhaseRunning && u.def != nil && u.def.Restart.Policy != spec.RestartAlways {
				u.seen.Phase, u.seen.LastExit = spec.PhaseCompleted, &spec.Exit{At: m.now}
				any = true
			}
		}
	}
	return any
}

// beside tells of the instances of jobs that a plan doesn't change, and that
// are restarted or stopped by it nevertheless, as they depend on what it changes.
func beside(group []*part) []string {
	var out []string
	for _, j := range group {
		if !j.beside || j.placement == nil {
			continue
		}
		for _, i := range tell(j) {
			if i.Action == spec.ActionRestart || i.Action == spec.ActionStop {
				out = append(out, fmt.Sprintf("%s is not changed, and yet: %s, as it %s", i.ID, i.Action, i.Reason))
			}
		}
	}
	return out
}
