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

// spentPlacements returns the placements of those of the jobs of which shards
// have used up their restarts on a node, and go to others then.
func spentPlacements(ctx context.Context, client *api.Client, jobs []spec.JobVersion) ([]spec.Placement, error) {
	mayMove := map[string]bool{}
	for i := range jobs {
		if slices.ContainsFunc(jobs[i].Job.Processes, func(p spec.Process) bool { return p.Restart.Reschedules() }) {
			mayMove[jobs[i].Job.Name] = true
		}
	}
	if len(mayMove) == 0 {
		return nil, nil
	}
	all, err := client.Placements(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p spec.Placement) bool { return !mayMove[p.Job] || len(p.Spent) == 0 }), nil
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
