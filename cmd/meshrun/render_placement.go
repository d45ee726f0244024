package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// maxSpent is how many lines there are about restarts that are used up.
const maxSpent = 8

// readPlacements reads the placements that say more than the instances do: those
// with shards that no node can take, or that have used up their restarts on one.
// Where there can be none of those, which is mostly so, nothing is asked.
func (v *statusView) readPlacements(ctx context.Context, client *api.Client) error {
	ask := map[string]bool{}
	for i := range v.Jobs {
		job := &v.Jobs[i]
		moves := slices.ContainsFunc(job.Job.Processes, func(p spec.Process) bool { return p.Restart.Reschedules() })
		if moves || len(absentShards(job, v.Instances)) > 0 {
			ask[job.Job.Name] = true
		}
	}
	if len(ask) == 0 {
		return nil
	}
	all, err := client.Placements(ctx)
	if err != nil {
		return err
	}
	v.Placements = slices.DeleteFunc(all, func(p spec.Placement) bool { return !ask[p.Job] || len(p.Spent) == 0 && len(p.Unplaced) == 0 })
	return nil
}

// placement returns what was read of a job's placement, or an empty one.
func (v *statusView) placement(job string) *spec.Placement {
	for i := range v.Placements {
		if v.Placements[i].Job == job {
			return &v.Placements[i]
		}
	}
	return &spec.Placement{Job: job}
}

// renderSpent says of the shards that have used up their restarts on nodes where
// they are now, those together that share all of it.
func renderSpent(p *spec.Placement, o statusOptions) string {
	type fate struct{ process, on, at string }
	alike := map[fate][]int{}
	known := map[spec.InstanceID]bool{}
	for _, s := range p.Spent {
		for _, shards := range s.Nodes {
			for _, shard := range shards {
				id := spec.InstanceID{Job: p.Job, Process: s.Process, Shard: shard}
				if known[id] || !o.targets.match(id) {
					continue
				}
				known[id] = true
				of := fate{s.Process, strings.Join(p.SpentOn(s.Process, shard), ", "), p.Place(s.Process, shard)}
				alike[of] = append(alike[of], shard)
			}
		}
	}
	fates := slices.SortedFunc(maps.Keys(alike), func(a, b fate) int {
		return strings.Compare(a.process+"/"+a.on+"/"+a.at, b.process+"/"+b.on+"/"+b.at)
	})
	var b strings.Builder
	for i, of := range fates {
		if i == maxSpent {
			b.WriteString("  " + o.style.dim(fmt.Sprintf("… and %s more of restarts that are used up", count(len(fates)-maxSpent, "line"))) + "\n")
			break
		}
		shards := spec.NewShardSet(alike[of]...)
		name := of.process + "/" + shortSet(shards)
		if of.at != "" && !slices.Contains(p.SpentOn(of.process, shards[0]), of.at) {
			b.WriteString("  " + o.style.yellow("! ") + fmt.Sprintf("%s was moved to %s: its restarts are used up on %s\n", name, of.at, of.on))
			continue
		}
		b.WriteString("  " + o.style.red("! ") + fmt.Sprintf("%s stays down: its restarts are used up on %s, and no other node can take it; meshrun restart %s/%s tries again\n",
			name, of.on, p.Job, of.process))
	}
	return b.String()
}

// absentShards returns the shards that are wanted and not seen.
func absentShards(job *spec.JobVersion, instances []spec.Instance) []spec.InstanceID {
	seen := map[spec.InstanceID]bool{}
	for i := range instances {
		seen[instances[i].ID] = true
	}
	var out []spec.InstanceID
	for _, p := range job.Job.Processes {
		for shard := range p.Instances() {
			if id := (spec.InstanceID{Job: job.Job.Name, Process: p.Name, Shard: shard}); !seen[id] {
				out = append(out, id)
			}
		}
	}
	return out
}

// absentRows makes rows of the shards that are wanted and not seen: stopped by
// an order, without a place, or not assigned yet.
func absentRows(job *spec.JobVersion, instances []spec.Instance, unplaced []spec.Unplaced, o statusOptions) []statusRow {
	type group struct{ process, note string }
	groups := map[group][]int{}
	for _, id := range absentShards(job, instances) {
		if o.targets.match(id) {
			g := group{id.Process, absentNote(job, id, unplaced)}
			groups[g] = append(groups[g], id.Shard)
		}
	}
	var rows []statusRow
	for g, shards := range groups {
		rows = append(rows, statusRow{
			process: g.process, first: shards[0], name: g.process + "/" + spec.NewShardSet(shards...).String(), shown: g.note,
		})
	}
	return rows
}

// absentNote says why a shard is not there.
func absentNote(job *spec.JobVersion, id spec.InstanceID, unplaced []spec.Unplaced) string {
	if job.Order(id.Process, id.Shard).Stopped {
		return "stopped"
	}
	for _, u := range unplaced {
		if u.Process == id.Process && u.Shard == id.Shard {
			return u.Reason
		}
	}
	return "not started yet"
}
