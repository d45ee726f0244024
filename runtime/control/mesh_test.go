package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// nodes is a cluster of a test: one store, and an agent a node whose API
// answers with real certificates.
type nodes struct {
	t       *testing.T
	ca      *apitest.CA
	store   state.Store
	cred    api.Credentials
	problem func(string)
}

func newNodes(t *testing.T) *nodes {
	t.Helper()
	store := local.OpenMemory(local.Options{})
	t.Cleanup(func() { store.Close() })
	ca := apitest.NewCA(t, "mesh")
	return &nodes{t: t, ca: ca, store: store, cred: ca.Credentials(t, apitest.Leaf{DNS: "node-a"}), problem: func(string) {}}
}

func (n *nodes) write(ops ...state.Op) {
	n.t.Helper()
	if _, err := n.store.Txn(n.t.Context(), ops...); err != nil {
		n.t.Fatal(err)
	}
}

// join serves a node's own backend, or the mesh of it, and writes its record.
func (n *nodes) join(name string, backend api.Backend) *api.Server {
	n.t.Helper()
	server := apitest.ServeTLS(n.t, backend, n.ca.Credentials(n.t, apitest.Leaf{DNS: name}))
	n.record(name, server.Address())
	return server
}

func (n *nodes) record(name, address string) {
	n.t.Helper()
	n.write(state.Op{Kind: state.OpSet, Key: state.NodeKey(name), Value: state.Encode(spec.Node{Name: name, Address: address})})
}

func (n *nodes) leave(name string) {
	n.t.Helper()
	n.write(state.Op{Kind: state.OpDelete, Key: state.NodeKey(name)})
}

// observe writes what a node reports of the job web.
func (n *nodes) observe(node string, instances ...spec.Instance) {
	n.t.Helper()
	n.write(state.Op{Kind: state.OpSet, Key: state.ObservedKey(node, "web"), Value: state.Encode(spec.Observed{Job: "web", Node: node, Instances: instances})})
}

// mesh runs a node's mesh until the test ends.
func (n *nodes) mesh(name string, own api.Backend) *Mesh {
	n.t.Helper()
	m := &Mesh{
		Backend: own, node: name, logger: hclog.NewNullLogger(),
		view: newClusterView(name, n.store, own.Instances, n.problem, hclog.NewNullLogger()),
		peers: newPeers(func(node spec.Node) peer {
			return api.NewClientOf(api.ClientConfig{Address: "https://" + node.Address, Credentials: n.cred, Node: node.Name})
		}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.view.run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		m.peers.close()
	})
	return m
}

func web(shard int, phase spec.Phase) spec.Instance {
	return spec.Instance{ID: spec.InstanceID{Job: "web", Process: "app", Shard: shard}, Phase: phase, Version: 1}
}

// own is a backend whose instances are those, and never change.
func own(node string, instances ...spec.Instance) *apitest.Backend {
	for i := range instances {
		instances[i].Node = node
	}
	return &apitest.Backend{InstancesFunc: func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
		if after > 0 {
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}
		return instances, 1, nil
	}}
}

func told(list []spec.Instance) string {
	var parts []string
	for _, i := range list {
		parts = append(parts, fmt.Sprintf("%s@%s:%s", i.ID, i.Node, i.Phase))
	}
	return strings.Join(parts, " ")
}

func TestAnyAgentTellsWhatRunsOnAllNodes(t *testing.T) {
	n := newNodes(t)
	for _, name := range []string{"node-a", "node-b", "node-c"} {
		n.record(name, "")
	}
	n.observe("node-a", web(0, spec.PhaseStarting)) // older than what the agent knows itself
	n.observe("node-b", web(1, spec.PhaseRunning), web(2, spec.PhaseStopping))
	n.observe("node-c", web(2, spec.PhaseRunning), web(3, spec.PhaseRunning), web(4, spec.PhaseCompleted))
	m := n.mesh("node-a", own("node-a", web(0, spec.PhaseRunning)))
	list, index, err := m.Instances(t.Context(), 0)
	want := "web/app/0@node-a:running web/app/1@node-b:running web/app/2@node-b:stopping web/app/2@node-c:running web/app/3@node-c:running web/app/4@node-c:completed"
	if err != nil || told(list) != want {
		t.Fatalf("%s, %v\nwant %s", told(list), err, want)
	}
	if list, _, err := m.Instances(api.WithCall(t.Context(), api.Call{Local: true}), 0); err != nil || told(list) != "web/app/0@node-a:running" {
		t.Errorf("locally: %s, %v", told(list), err)
	}
	n.observe("node-a", web(0, spec.PhaseRunning)) // what we know ourselves wakes nobody
	n.leave("node-c")
	list, next, err := m.Instances(t.Context(), index)
	if err != nil || next == index {
		t.Fatal(next, err)
	}
	want = "web/app/0@node-a:running web/app/1@node-b:running web/app/2@node-b:stopping web/app/3@node-c:pending web/app/4@node-c:completed"
	if told(list) != want {
		t.Errorf("without node-c: %s\nwant %s", told(list), want)
	}
	if reason := list[3].Reason; !strings.HasPrefix(reason, "node-c is gone since ") || !strings.HasSuffix(reason, "it was running there") {
		t.Errorf("reason %q", reason)
	}
	n.observe("node-b", web(1, spec.PhaseRunning), web(2, spec.PhaseRunning), web(3, spec.PhaseRunning))
	if list, index, err = m.Instances(t.Context(), next); err != nil || told(list) != "web/app/0@node-a:running web/app/1@node-b:running web/app/2@node-b:running web/app/3@node-b:running web/app/4@node-c:completed" {
		t.Errorf("moved: %s, %v", told(list), err)
	}
	// An index of another agent is none of this one's.
	if _, _, err := m.Instances(t.Context(), index+1000); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if list, _, err := m.Instances(ctx, index); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing has changed: %s, %v", told(list), err)
	}
}

// away is a store that does not answer.
type away struct{ state.Store }

func (away) Watch(ctx context.Context, _ string, _ uint64) ([]state.Entry, uint64, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func TestWithoutTheStoreAnAgentStillTellsWhatRunsHere(t *testing.T) {
	n := newNodes(t)
	n.store = away{n.store}
	var problems atomic.Pointer[string]
	n.problem = func(text string) { problems.Store(&text) }
	m := n.mesh("node-a", own("node-a", web(0, spec.PhaseRunning)))
	list, index, err := m.Instances(t.Context(), 0)
	if err != nil || index != 0 || told(list) != "web/app/0@node-a:running" || problems.Load() == nil || *problems.Load() == "" {
		t.Errorf("%s, %d, %v; problem %v", told(list), index, err, problems.Load())
	}
}

// printing is a backend that prints lines at given seconds.
func printing(node string, seconds ...int) *apitest.Backend {
	b := own(node)
	b.LogsFunc = func(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		if q.Job != "web" {
			return api.Errorf(api.ErrNotFound, "nothing of that name ever ran here")
		}
		for _, s := range seconds {
			at := time.Unix(int64(s), 0).UTC()
			if at.Before(q.Since) {
				continue
			}
			if err := each(spec.LogLine{ID: web(0, "").ID, Node: node, Time: at, Text: fmt.Sprint(s)}); err != nil {
				return err
			}
		}
		if q.Follow {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	return b
}

func logsOf(ctx context.Context, b api.Backend, q spec.LogQuery) (string, error) {
	var texts []string
	err := b.Logs(ctx, q, func(l spec.LogLine) error { texts = append(texts, l.Node[5:]+l.Text); return nil })
	return strings.Join(texts, " "), err
}

func TestOutputOfAllNodesComesInOrderOfTime(t *testing.T) {
	n := newNodes(t)
	a := n.mesh("node-a", printing("node-a", 1, 4, 7))
	n.record("node-a", "")
	// Both others answer as whole agents do, so that a question could go round.
	var asked atomic.Int32
	b, c := printing("node-b", 2, 5, 8), printing("node-c", 3, 6, 9)
	inner := b.LogsFunc
	b.LogsFunc = func(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		asked.Add(1)
		if call := api.CallOf(ctx); call.Who != "alice" || call.Token != "hers" || !call.Local {
			t.Errorf("asked as %+v", call)
		}
		return inner(ctx, q, each)
	}
	n.join("node-b", n.mesh("node-b", b))
	n.join("node-c", n.mesh("node-c", c))
	ctx := api.WithCall(t.Context(), api.Call{Who: "alice", Token: "hers"})
	got, err := logsOf(ctx, a, spec.LogQuery{Job: "web", Shard: -1})
	if err != nil || got != "a1 b2 c3 a4 b5 c6 a7 b8 c9" || asked.Load() != 1 {
		t.Errorf("%q, %v; node-b was asked %d times", got, err, asked.Load())
	}
	if _, err := logsOf(ctx, a, spec.LogQuery{Job: "nope", Shard: -1}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("what no node knows: %v", err)
	}
}

func TestANodeThatDoesNotAnswerIsSaidToBeMissing(t *testing.T) {
	n := newNodes(t)
	n.record("node-a", "")
	n.join("node-b", printing("node-b", 2))
	n.record("node-c", "") // takes nobody in
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	n.record("node-d", hung.Addr().String())
	other := apitest.NewCA(t, "elsewhere")
	n.record("node-e", apitest.ServeTLS(t, printing("node-e", 3), other.Credentials(t, apitest.Leaf{DNS: "node-e"})).Address())
	m := n.mesh("node-a", printing("node-a", 1))
	got, err := logsOf(t.Context(), m, spec.LogQuery{Job: "web", Shard: -1})
	if got != "a1 b2" || !errors.Is(err, api.ErrPartial) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, part := range []string{"node-c: it lets no other node in", "node-d: the agent at ", "does not answer", "node-e: who answers for node-e is not trusted"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
}

func TestAFollowedNodeThatBreaksOffIsFollowedAgain(t *testing.T) {
	n := newNodes(t)
	n.record("node-a", "")
	m := n.mesh("node-a", printing("node-a", 1))
	first := n.join("node-b", printing("node-b", 2, 3))
	lines := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- m.Logs(ctx, spec.LogQuery{Job: "web", Shard: -1, Follow: true}, func(l spec.LogLine) error { lines <- l.Node[5:] + l.Text; return nil })
	}()
	want := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			select {
			case got := <-lines:
				if got != text {
					t.Fatalf("got %q, want %q", got, text)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%q did not come", text)
			}
		}
	}
	want("a1", "b2", "b3")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	n.join("node-b", printing("node-b", 2, 3, 4)) // on another port: the node has joined again
	want("b4")
	n.join("node-c", printing("node-c", 5)) // a new one
	want("c5")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestASignalReachesAllNodesAndWhatFailedIsSaid(t *testing.T) {
	n := newNodes(t)
	signals := func(node string, count int, err error) *apitest.Backend {
		b := own(node)
		b.SignalFunc = func(ctx context.Context, target string, sig spec.Signal) (int, error) {
			if target != "web" || sig != "SIGHUP" || !api.CallOf(ctx).Local || api.Who(ctx) != "alice" {
				t.Errorf("%s got %s for %s as %+v", node, sig, target, api.CallOf(ctx))
			}
			return count, err
		}
		return b
	}
	n.record("node-a", "")
	a := signals("node-a", 1, nil)
	a.InstancesFunc = own("node-a", web(0, spec.PhaseRunning)).InstancesFunc
	m := n.mesh("node-a", a)
	n.join("node-b", signals("node-b", 2, nil))
	n.join("node-x", signals("node-x", 100, nil)) // runs nothing of it
	n.observe("node-b", web(1, spec.PhaseRunning), web(2, spec.PhaseRunning))
	ctx := api.WithCall(t.Context(), api.Call{Who: "alice"})
	if sent, err := m.Signal(ctx, "web", "SIGHUP"); err != nil || sent != 3 {
		t.Errorf("%d, %v", sent, err)
	}
	n.join("node-c", signals("node-c", 0, errors.New("the watchdog is away")))
	n.join("node-d", signals("node-d", 0, fmt.Errorf("moved: %w", api.ErrNotFound)))
	n.observe("node-c", web(3, spec.PhaseRunning))
	n.observe("node-d", web(4, spec.PhaseRunning))
	n.observe("node-e", web(5, spec.PhaseRunning)) // gone
	waitFor(t, "node-e", func() bool { list, _, _ := m.Instances(ctx, 0); return len(list) == 6 })
	_, err := m.Signal(ctx, "web", "SIGHUP")
	if !errors.Is(err, api.ErrPartial) {
		t.Fatal(err)
	}
	if want := "SIGHUP was sent to 3 instances of web, but not on every node: node-c: the watchdog is away; node-e: it is gone"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20s", what)
		}
	}
}
