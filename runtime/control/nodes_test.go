package control

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func openStore(t *testing.T) state.Store {
	t.Helper()
	store := local.OpenMemory(local.Options{})
	t.Cleanup(func() { store.Close() })
	return store
}

func write(t *testing.T, store state.Store, ops ...state.Op) {
	t.Helper()
	if _, err := store.Txn(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

// hold makes a session that holds locks, with values; those of roles name it.
func hold(t *testing.T, store state.Store, locks map[string]any) string {
	t.Helper()
	session, err := store.CreateSession(t.Context(), state.SessionConfig{Behavior: state.BehaviorDelete})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range locks {
		if strings.HasPrefix(key, state.LocksPrefix) && !strings.HasPrefix(key, state.ShardLocksPrefix) {
			write(t, store, claimed(key, session))
			continue
		}
		write(t, store, state.Op{Kind: state.OpLock, Key: key, Session: session, Value: state.Encode(value)})
	}
	return session
}

// claimed makes a session's node the holder of a role's lock.
func claimed(lock, session string) state.Op {
	return state.Op{Kind: state.OpSet, Key: lock, Value: state.Encode(follow.Holder{Session: session})}
}

func storeBackend(store state.Store) *Node {
	return &Node{cfg: Config{Node: "node-a", Store: store, Logger: hclog.NewNullLogger()}}
}

func TestTheNodesAreToldWithWhatTheyDecide(t *testing.T) {
	store := openStore(t)
	a := hold(t, store, map[string]any{
		state.NodeKey("node-a"): spec.Node{Name: "node-a", Address: "10.0.0.1:7450"}, state.SchedulerLock: 1,
		state.OrchestratorLock(11): 1, state.OrchestratorLock(2): 1,
	})
	b := hold(t, store, map[string]any{
		state.NodeKey("node-b"): spec.Node{Name: "node-b", Draining: true}, state.OrchestratorLock(3): 1, state.ShardLocksPrefix + "web/app/0": 1,
	})
	hold(t, store, map[string]any{state.OrchestratorLock(4): 1}) // of a node whose record is gone
	for _, node := range []string{"node-a", "node-c"} {
		write(t, store, state.Op{Kind: state.OpSet, Key: state.ObservedKey(node, "web"), Value: state.Encode(spec.Observed{
			Job: "web", Node: node, Instances: []spec.Instance{web(0, spec.PhaseRunning), web(1, spec.PhaseBackoff), web(2, spec.PhaseStopping)},
		})})
	}
	write(t, store, state.Op{Kind: state.OpSet, Key: state.PlacementKey("web"), Value: state.Encode(spec.Placement{
		Job: "web", Processes: map[string]map[string]spec.ShardSet{"app": {"node-a": {0, 1, 2}, "node-z": {3}}, "free": {"node-a": {0}}},
		Resources: map[string]spec.Resources{"app": {CPU: 0.5, Memory: 1 << 30}},
	})})
	got, err := storeBackend(store).Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []api.NodeStatus{
		{Node: spec.Node{Name: "node-a", Address: "10.0.0.1:7450"}, State: api.NodeReady, Instances: 2, Reserved: spec.Resources{CPU: 1.5, Memory: 3 << 30}, Primary: true, ControlShards: []int{2, 11}, Session: a},
		{Node: spec.Node{Name: "node-b", Draining: true}, State: api.NodeDraining, ControlShards: []int{3}, Exclusive: []string{"web/app/0"}, Session: b},
		{Node: spec.Node{Name: "node-c"}, State: api.NodeGone, Instances: 2},
	}
	if !reflect.DeepEqual(got.Nodes, want) {
		t.Errorf("%+v\nwant %+v", got.Nodes, want)
	}
	if got.Primary != "node-a" || got.ControlShards[2] != "node-a" || got.ControlShards[3] != "node-b" || got.ControlShards[4] != "" || len(got.ControlShards) != state.ControlShards {
		t.Errorf("primary %q, control shards %q", got.Primary, got.ControlShards)
	}
}

func TestADrainLeavesTheRecordWithItsSession(t *testing.T) {
	store := openStore(t)
	b := storeBackend(store)
	session := hold(t, store, map[string]any{state.NodeKey("node-b"): spec.Node{Name: "node-b", Labels: map[string]string{"disk": "ssd"}}})
	hold(t, store, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a"}})
	job := spec.JobVersion{Job: spec.Job{Name: "web", Processes: []spec.Process{spec.DefaultProcess("app")}}, Version: 1}
	job.Job.Processes[0].Shards = 1
	nodes := []spec.Node{{Name: "node-b"}}
	placement := scheduler.Place(&job, nodes, nil, nil)
	write(t, store, state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: state.Encode(job)},
		state.Op{Kind: state.OpSet, Key: state.PlacementKey("web"), Value: state.Encode(placement)})

	for _, changed := range []bool{true, false} {
		out, err := b.Drain(t.Context(), api.Drain{Node: "node-b"})
		if err != nil || out.Changed != changed || len(out.Warnings) != 0 {
			t.Errorf("%+v, %v; node-a can take all", out, err)
		}
	}
	node, entry, err := state.GetAs[spec.Node](t.Context(), store, state.NodeKey("node-b"))
	if err != nil || !node.Draining || node.Labels["disk"] != "ssd" || entry.Session != session {
		t.Errorf("%+v held by %q, %v", node, entry.Session, err)
	}
	events, err := state.Events(t.Context(), store)
	if err != nil || len(events) != 1 || events[0].Type != spec.EventNodeDraining || events[0].Node != "node-b" {
		t.Errorf("events %+v, %v", events, err)
	}
	if out, err := b.Drain(t.Context(), api.Drain{Node: "node-b", Off: true}); err != nil || !out.Changed {
		t.Errorf("off: %+v, %v", out, err)
	}
	write(t, store, state.Op{Kind: state.OpDelete, Key: state.NodeKey("node-a")})
	out, err := b.Drain(t.Context(), api.Drain{Node: "node-b"})
	if err != nil || len(out.Warnings) != 1 || !strings.HasPrefix(out.Warnings[0], "web/app/0 ends, because no other node can take it: ") {
		t.Errorf("the last one: %+v, %v", out, err)
	}
	if _, err := b.Drain(t.Context(), api.Drain{Node: "node-d"}); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "node-b"?`) {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestADrainSaysWhichFailedRolloutsMayHoldItUp(t *testing.T) {
	store := openStore(t)
	b := storeBackend(store)
	for _, node := range []string{"node-a", "node-b"} {
		hold(t, store, map[string]any{state.NodeKey(node): spec.Node{Name: node}})
	}
	job := spec.JobVersion{Job: spec.Job{Name: "web", Processes: []spec.Process{spec.DefaultProcess("app")}}, Version: 2}
	job.Job.Processes[0].Shards = 1
	placement := scheduler.Place(&job, []spec.Node{{Name: "node-b"}}, nil, nil)
	failed := spec.Rollout{Job: "web", Version: 2, State: spec.RolloutFailed, Reason: "app: shard 0 has failed: exit 1", Good: 1}
	write(t, store, state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: state.Encode(job)},
		state.Op{Kind: state.OpSet, Key: state.PlacementKey("web"), Value: state.Encode(placement)},
		state.Op{Kind: state.OpSet, Key: state.RolloutKey("web"), Value: state.Encode(failed)})
	for _, changed := range []bool{true, false} { // whoever asks again is told again
		out, err := b.Drain(t.Context(), api.Drain{Node: "node-b"})
		if err != nil || out.Changed != changed || len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], "shard 0 has failed: exit 1): go back with `meshrun revert web`") {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if out, err := b.Drain(t.Context(), api.Drain{Node: "node-a"}); err != nil || strings.Contains(strings.Join(out.Warnings, ""), "revert") {
		t.Errorf("of a node that has none of it: %+v, %v", out, err)
	}
}

func TestASnapshotGoesIntoAClusterThatHasNodesButNoJobs(t *testing.T) {
	from, to := openStore(t), openStore(t)
	hold(t, from, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a", Version: "old"}})
	job := state.Encode(spec.JobVersion{Job: spec.Job{Name: "web"}, Version: 1})
	seen := func(pid int) []byte {
		return state.Encode(spec.Observed{Job: "web", Node: "node-a", Instances: []spec.Instance{{ID: web(0, "").ID, PID: pid}}})
	}
	write(t, from, state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: job}, state.Op{Kind: state.OpSet, Key: state.ObservedKey("node-a", "web"), Value: seen(1)})
	var text bytes.Buffer
	keys, err := storeBackend(from).SaveSnapshot(t.Context(), &text)
	if err != nil || keys != 2 {
		t.Fatal(keys, err)
	}
	contents, err := api.InspectSnapshot(bytes.NewReader(text.Bytes()))
	if err != nil || contents.Keys != 2 || contents.Bytes != int64(text.Len()) || !reflect.DeepEqual(contents.Jobs, []string{"web"}) ||
		!reflect.DeepEqual(contents.Kinds, map[string]int{"jobs": 1, "observed": 1}) {
		t.Errorf("%+v, %v", contents, err)
	}
	// An agent runs there already, and reports what it sees.
	hold(t, to, map[string]any{state.NodeKey("node-a"): spec.Node{Name: "node-a", Version: "new"}, state.SchedulerLock: 1})
	write(t, to, state.Op{Kind: state.OpSet, Key: state.ObservedKey("node-a", "web"), Value: seen(2)})
	if keys, err := storeBackend(to).RestoreSnapshot(t.Context(), bytes.NewReader(text.Bytes())); err != nil || keys != 1 {
		t.Errorf("restored %d, %v; its own reports are left", keys, err)
	}
	if observed, _, err := state.GetAs[spec.Observed](t.Context(), to, state.ObservedKey("node-a", "web")); err != nil || observed.Instances[0].PID != 2 {
		t.Errorf("the report is %+v, %v", observed, err)
	}
	if jobs, err := storeBackend(to).Jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	for what, broken := range map[string][]byte{"again": text.Bytes(), "cut off": text.Bytes()[:text.Len()/2]} {
		if _, err := storeBackend(to).RestoreSnapshot(t.Context(), bytes.NewReader(broken)); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
