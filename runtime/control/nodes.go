package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// drainRetries is how often a drain is tried again that met another change
	// of the node's record.
	drainRetries = 5
	// maxDrainWarnings is how many shards are named that find no other node.
	maxDrainWarnings = 5
)

// Cluster returns the nodes and what each of them has to decide.
func (b *Node) Cluster(ctx context.Context) (api.Cluster, error) {
	store := b.storeFor(ctx)
	nodes, _, err := store.List(ctx, state.NodesPrefix)
	if err != nil {
		return api.Cluster{}, fmt.Errorf("read nodes: %w", err)
	}
	locks, _, err := store.List(ctx, state.LocksPrefix)
	if err != nil {
		return api.Cluster{}, fmt.Errorf("read locks: %w", err)
	}
	observed, _, err := state.ListAs[spec.Observed](ctx, store, state.ObservedPrefix)
	if err != nil {
		return api.Cluster{}, fmt.Errorf("read what runs: %w", err)
	}
	placements, err := b.Placements(ctx)
	if err != nil {
		return api.Cluster{}, err
	}
	return clusterOf(nodes, locks, observed, placements)
}

// clusterOf puts together what is known of the nodes, ordered by name.
func clusterOf(nodes, locks []state.Entry, observed []spec.Observed, placements []spec.Placement) (api.Cluster, error) {
	byName, bySession := map[string]*api.NodeStatus{}, map[string]*api.NodeStatus{}
	for _, e := range nodes {
		node, err := state.Decode[spec.Node](e)
		if err != nil {
			return api.Cluster{}, err
		}
		status := &api.NodeStatus{Node: node, State: api.NodeReady, Session: e.Session}
		if node.Draining {
			status.State = api.NodeDraining
		}
		byName[node.Name] = status
		if e.Session != "" {
			bySession[e.Session] = status
		}
	}
	for _, o := range observed {
		status := byName[o.Node]
		if status == nil {
			status = &api.NodeStatus{Node: spec.Node{Name: o.Node}, State: api.NodeGone}
			byName[o.Node] = status
		}
		for _, i := range o.Instances {
			if i.Phase.Alive() {
				status.Instances++
			}
		}
	}
	for i := range placements {
		for node, load := range scheduler.Loads(&placements[i]) {
			if status := byName[node]; status != nil {
				status.Reserved.CPU += float64(load.CPU) / 1000
				status.Reserved.Memory += spec.Size(load.Memory)
			}
		}
	}
	c := api.Cluster{Nodes: []api.NodeStatus{}, ControlShards: make([]string, state.ControlShards)}
	for _, e := range locks {
		if holder := bySession[follow.HolderOf(e).Session]; holder != nil {
			noteLock(&c, holder, e.Key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		slices.Sort(byName[name].ControlShards)
		c.Nodes = append(c.Nodes, *byName[name])
	}
	return c, nil
}

// noteLock notes what a held lock says of its holder.
func noteLock(c *api.Cluster, holder *api.NodeStatus, key string) {
	if key == state.SchedulerLock {
		c.Primary, holder.Primary = holder.Name, true
	}
	if text, ok := strings.CutPrefix(key, state.OrchestratorLocksPrefix); ok {
		if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(c.ControlShards) {
			c.ControlShards[n] = holder.Name
			holder.ControlShards = append(holder.ControlShards, n)
		}
	}
	if id, ok := strings.CutPrefix(key, state.ShardLocksPrefix); ok {
		holder.Exclusive = append(holder.Exclusive, id)
	}
}

// Drain makes a node give its shards to others, or ends that. The record stays
// held by the node's session; its own agent remembers the order.
func (b *Node) Drain(ctx context.Context, order api.Drain) (api.Drained, error) {
	store := b.storeFor(ctx)
	for try := 0; ; try++ {
		nodes, entry, err := b.drainable(ctx, store, order.Node)
		if err != nil {
			return api.Drained{}, err
		}
		at := slices.IndexFunc(nodes, func(n spec.Node) bool { return n.Name == order.Node })
		out := api.Drained{Changed: nodes[at].Draining == order.Off}
		if nodes[at].Draining = !order.Off; out.Changed {
			err = b.writeDrain(ctx, store, nodes[at], entry)
		}
		if errors.Is(err, state.ErrConflict) && try < drainRetries {
			continue
		}
		if err != nil {
			return api.Drained{}, fmt.Errorf("drain %s: %w", order.Node, err)
		}
		if !order.Off {
			if out.Warnings, err = drainWarnings(ctx, store, nodes, order.Node); err != nil {
				b.cfg.Logger.Warn("cannot tell where the shards of a drained node go", "node", order.Node, "error", err)
			}
		}
		return out, nil
	}
}

// drainable returns all nodes, and the entry of the one to be drained.
func (b *Node) drainable(ctx context.Context, store state.Store, name string) ([]spec.Node, state.Entry, error) {
	entries, _, err := store.List(ctx, state.NodesPrefix)
	if err != nil {
		return nil, state.Entry{}, fmt.Errorf("read nodes: %w", err)
	}
	nodes, err := state.DecodeAll[spec.Node](entries)
	if err != nil {
		return nil, state.Entry{}, err
	}
	var names []string
	for i, n := range nodes {
		if n.Name == name {
			return nodes, entries[i], nil
		}
		names = append(names, n.Name)
	}
	hint := "`meshrun nodes` shows which there are"
	if near := spec.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return nil, state.Entry{}, api.Errorf(api.ErrNotFound, "there is no node %q: %s", name, hint)
}

func (b *Node) writeDrain(ctx context.Context, store state.Store, node spec.Node, entry state.Entry) error {
	message := "its shards move to other nodes, and it takes no new ones"
	if !node.Draining {
		message = "it takes shards again"
	}
	event, err := state.EventOp(spec.Event{
		Time: time.Now().UTC(), Type: spec.EventNodeDraining, Severity: spec.Info, Node: node.Name, Who: api.Who(ctx),
		Message: fmt.Sprintf("node %s: %s", node.Name, message),
	})
	if err != nil {
		return err
	}
	_, err = store.Txn(ctx, state.Op{Kind: state.OpCAS, Key: entry.Key, Index: entry.ModifyIndex, Value: state.Encode(node)}, event)
	return err
}

// drainWarnings says what may keep the shards of a node from going on elsewhere.
func drainWarnings(ctx context.Context, store state.Store, nodes []spec.Node, node string) ([]string, error) {
	jobs, _, err := state.ListAs[spec.JobVersion](ctx, store, state.JobsPrefix)
	if err != nil {
		return nil, err
	}
	list, _, err := state.ListAs[spec.Placement](ctx, store, state.PlacementsPrefix)
	if err != nil {
		return nil, err
	}
	rollouts, _, err := state.ListAs[spec.Rollout](ctx, store, state.RolloutsPrefix)
	if err != nil {
		return nil, err
	}
	placements := make(map[string]*spec.Placement, len(list))
	for i := range list {
		placements[list[i].Job] = &list[i]
	}
	return append(homeless(jobs, placements, nodes, node), heldBack(rollouts, placements, node)...), nil
}

// homeless returns a sentence for each shard that is placed on the node and
// that no other node can take, as the scheduler will find: it ends.
func homeless(jobs []spec.JobVersion, placements map[string]*spec.Placement, nodes []spec.Node, node string) []string {
	var out []string
	more := 0
	for i := range jobs {
		placement := placements[jobs[i].Job.Name]
		if placement == nil {
			continue
		}
		for _, u := range scheduler.Place(&jobs[i], nodes, nil, placement).Unplaced {
			if !slices.Contains(placement.Processes[u.Process][node], u.Shard) {
				continue
			}
			if len(out) == maxDrainWarnings {
				more++
				continue
			}
			out = append(out, fmt.Sprintf("%s/%s/%d ends, because no other node can take it: %s", jobs[i].Job.Name, u.Process, u.Shard, u.Reason))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more end, because no other node can take them", more))
	}
	return out
}

// heldBack returns a sentence for each job with shards on the node whose rollout
// has failed: what that has taken down counts as down for moves, too.
func heldBack(rollouts []spec.Rollout, placements map[string]*spec.Placement, node string) []string {
	var out []string
	for i := range rollouts {
		r := &rollouts[i]
		process := r.Process
		if placement := placements[r.Job]; r.State != spec.RolloutFailed || placement == nil || len(placement.Processes[process][node]) == 0 {
			continue
		}
		remedy := "apply a version that works"
		if r.Good != 0 && r.Good < r.Version {
			remedy = fmt.Sprintf("go back with `meshrun revert %s`, or %s", r.Job, remedy)
		}
		out = append(out, fmt.Sprintf("shards of %s/%s may stay, because version %d has failed (%s): %s", r.Job, process, r.Version, r.Reason, remedy))
	}
	return out
}
