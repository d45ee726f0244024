package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/spec"
)

const root = "meshrun/v1/"

// kept is what meshrun keeps in Consul: everything that the laws speak of, as
// of about one moment.
type kept struct {
	jobs        map[string]spec.JobVersion // by job
	placements  map[string]spec.Placement  // by job
	assignments map[string]spec.Assignment // by node/job
	observed    map[string]spec.Observed   // by node/job
	nodes       map[string]spec.Node       // by node
	roster      spec.Roster                // the nodes as the primary has seen them
	events      []spec.Event               // oldest first
}

// keptNow reads what meshrun keeps.
func (w *world) keptNow(ctx context.Context) (kept, error) {
	k := kept{
		jobs: map[string]spec.JobVersion{}, placements: map[string]spec.Placement{},
		assignments: map[string]spec.Assignment{}, observed: map[string]spec.Observed{}, nodes: map[string]spec.Node{},
	}
	api, err := w.Consul(ctx)
	if err != nil {
		return k, err
	}
	list, err := api.List(ctx, root)
	if err != nil {
		return k, err
	}
	for _, e := range list {
		kind, rest, _ := strings.Cut(strings.TrimPrefix(e.Key, root), "/")
		switch kind {
		case "jobs":
			err = into(k.jobs, rest, e.Value)
		case "placements":
			err = into(k.placements, rest, e.Value)
		case "assignments":
			err = into(k.assignments, rest, e.Value)
		case "observed":
			err = into(k.observed, rest, e.Value)
		case "nodes":
			err = into(k.nodes, rest, e.Value)
		case "roster":
			err = json.Unmarshal(e.Value, &k.roster)
		case "events":
			var ev spec.Event
			err = json.Unmarshal(e.Value, &ev)
			k.events = append(k.events, ev)
		}
		if err != nil {
			return k, fmt.Errorf("read %s: %w", e.Key, err)
		}
	}
	return k, nil
}

func into[T any](m map[string]T, name string, text []byte) error {
	var v T
	err := json.Unmarshal(text, &v)
	m[name] = v
	return err
}

// laws returns the first law that does not hold now. While something is being
// mended it is normal that one does not.
func (w *world) laws() error {
	k, err := w.keptNow(w.t.Context())
	if err != nil {
		return err
	}
	running, err := w.running()
	if err != nil {
		return err
	}
	if err := w.nodesAreThere(k); err != nil {
		return err
	}
	wanted := wantedShards(k)
	if len(wanted) == 0 {
		return errEmpty
	}
	for id := range wanted {
		if _, runs := running[id]; !runs {
			return fmt.Errorf("every wanted shard runs: %v does not", id)
		}
	}
	for id, at := range running {
		if !wanted[id] {
			return fmt.Errorf("nothing runs that is not wanted: %v on %s", id, at.node)
		}
		if !assigned(k, at.node, id) {
			return fmt.Errorf("nothing runs that is not assigned: %v on %s", id, at.node)
		}
		if !k.placements[id.Job].Processes[id.Process][at.node].Contains(id.Shard) {
			return fmt.Errorf("everything runs where it is placed: %v on %s", id, at.node)
		}
		if err := known(k, at, id); err != nil {
			return err
		}
	}
	return nobodyElse(k, running)
}

// nodesAreThere: exactly the nodes that are up are in the cluster.
func (w *world) nodesAreThere(k kept) error {
	up := map[string]bool{}
	for _, h := range w.Nodes {
		if h.Up() {
			up[h.Name] = true
		}
		if _, there := k.nodes[h.Name]; there != h.Up() {
			return fmt.Errorf("a node is there exactly while it is up: %s up: %v, there: %v", h.Name, h.Up(), there)
		}
	}
	for name, node := range k.nodes {
		if seen, told := k.roster.Nodes[name]; !told || node.Draining != (seen != spec.NodeHere) {
			return fmt.Errorf("the primary sees every node as it is: %s draining: %v, seen: %q", name, node.Draining, seen)
		}
	}
	for key := range k.assignments {
		if node, _, _ := strings.Cut(key, "/"); !up[node] {
			return fmt.Errorf("a lost node is assigned nothing: assignments/%s", key)
		}
	}
	for key := range k.observed {
		if node, _, _ := strings.Cut(key, "/"); !up[node] {
			return fmt.Errorf("nothing is seen on a lost node: observed/%s", key)
		}
	}
	return nil
}

// wantedShards are all shards of all jobs that nobody has stopped.
func wantedShards(k kept) map[spec.InstanceID]bool {
	wanted := map[spec.InstanceID]bool{}
	for _, v := range k.jobs {
		for _, p := range v.Job.Processes {
			for shard := range p.Shards {
				if !v.Order(p.Name, shard).Stopped {
					wanted[spec.InstanceID{Job: v.Job.Name, Process: p.Name, Shard: shard}] = true
				}
			}
		}
	}
	return wanted
}

// assigned reports whether the node is to run the shard, and nothing holds it.
func assigned(k kept, node string, id spec.InstanceID) bool {
	for _, p := range k.assignments[node+"/"+id.Job].Processes {
		if p.Process.Name == id.Process && p.Shards.Contains(id.Shard) {
			return true
		}
	}
	return false
}

// known: what runs is what its node says runs.
func known(k kept, at where, id spec.InstanceID) error {
	for _, i := range k.observed[at.node+"/"+id.Job].Instances {
		if i.ID != id {
			continue
		}
		if i.PID != at.pid || i.Phase != spec.PhaseRunning {
			return fmt.Errorf("no unknown process: %v is %d on %s, which says that it is %s with pid %d", id, at.pid, at.node, i.Phase, i.PID)
		}
		return nil
	}
	return fmt.Errorf("no unknown process: %v is %d on %s, which does not say so", id, at.pid, at.node)
}

// nobodyElse: what is said to run does.
func nobodyElse(k kept, running map[spec.InstanceID]where) error {
	for key, o := range k.observed {
		node, _, _ := strings.Cut(key, "/")
		for _, i := range o.Instances {
			if i.Phase.Alive() && (running[i.ID] != where{node, i.PID}) {
				return fmt.Errorf("what is said to run does: %v with pid %d on %s does not", i.ID, i.PID, node)
			}
		}
	}
	return nil
}

// eventsTell: the last event of each placement and of each node's part is what
// is there now, and every node's coming was told.
func (w *world) eventsTell() error {
	k, err := w.keptNow(w.t.Context())
	if err != nil {
		return err
	}
	placed, given, joined := map[string]*spec.Placement{}, map[string][]spec.AssignedShards{}, map[string]bool{}
	for _, ev := range k.events {
		switch ev.Type {
		case spec.EventPlaced:
			placed[ev.Job] = ev.Placement
		case spec.EventAssigned:
			given[ev.Node+"/"+ev.Job] = ev.Assigned
		case spec.EventNodeJoined, spec.EventNodeLeft:
			joined[ev.Node] = ev.Type == spec.EventNodeJoined
		}
	}
	for job, p := range k.placements {
		if !same(placed[job], &p) {
			return fmt.Errorf("each change is an event: the last one places %s as %s, and it is %s", job, text(placed[job]), text(p))
		}
	}
	for key, a := range k.assignments {
		if !same(sorted(given[key]), sorted(a.Assigned())) {
			return fmt.Errorf("each change is an event: the last one gives %s %s, and it is %s", key, text(given[key]), text(a.Assigned()))
		}
	}
	for name := range k.nodes {
		if !joined[name] {
			return fmt.Errorf("each change is an event: %s is there, and no event says that it joined", name)
		}
	}
	return nil
}

func sorted(list []spec.AssignedShards) []spec.AssignedShards {
	return slices.SortedFunc(slices.Values(list), func(a, b spec.AssignedShards) int {
		return strings.Compare(fmt.Sprint(a.Process, a.Version), fmt.Sprint(b.Process, b.Version))
	})
}

func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func same(a, b any) bool { return text(a) == text(b) }

// eventOf returns the first event that fits, younger than those before.
func (w *world) eventOf(fits func(spec.Event) bool) error {
	k, err := w.keptNow(w.t.Context())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(k.events, fits) {
		return nil
	}
	return fmt.Errorf("none of %d events", len(k.events))
}

// toldLost waits until an event says that a node was lost.
func (w *world) toldLost(h *cluster.Host) {
	w.t.Helper()
	eventually(w.t, settleBound, "an event tells that "+h.Name+" has left", func() error {
		return w.eventOf(func(ev spec.Event) bool {
			return ev.Type == spec.EventNodeLeft && ev.Node == h.Name && ev.Severity == spec.Critical
		})
	})
}
