package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// signalTimeout bounds how long a node may take to send a signal.
const signalTimeout = 10 * time.Second

// Mesh answers for all nodes. What is in the store this node's own backend
// tells; what only another node knows or can do, that one is asked, as a Local
// call, so that no question goes round.
type Mesh struct {
	api.Backend // this node's
	node        string
	view        *clusterView
	peers       *peers
	engines     *Registry
	logger      hclog.Logger
}

// NewMesh returns a mesh over a node's own backend, which knows the instances of
// all nodes from then on. Run must run, and so must the node's registry. Cred is
// what the mesh shows to other agents.
func NewMesh(b *Node, store state.Store, cred api.Credentials, logger hclog.Logger) *Mesh {
	dial := func(node spec.Node) peer {
		return api.NewClientOf(api.ClientConfig{Address: "https://" + node.Address, Credentials: cred, Node: node.Name})
	}
	m := &Mesh{
		Backend: b, node: b.cfg.Node, peers: newPeers(dial), engines: b.cfg.Engines, logger: logger.Named("mesh"),
		view: newClusterView(b.cfg.Node, store, b.cfg.Engine.WaitInstances, func(text string) { b.Problem("other nodes", text) }, logger),
	}
	b.seen = m.view.wait
	return m
}

// passOn returns the context of a call that is passed on to another node.
func passOn(ctx context.Context) context.Context {
	call := api.CallOf(ctx)
	call.Local = true
	return api.WithCall(ctx, call)
}

// isLocal reports whether this node shall answer for itself alone.
func isLocal(ctx context.Context) bool { return api.CallOf(ctx).Local }

// Instances returns the instances of all nodes and their version.
func (m *Mesh) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	if isLocal(ctx) {
		return m.Backend.Instances(ctx, after)
	}
	return m.view.wait(ctx, after)
}

// Logs calls each with the lines of all nodes, in order of time.
func (m *Mesh) Logs(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
	if isLocal(ctx) {
		return m.Backend.Logs(ctx, q, each)
	}
	return fanOut(ctx, m, query[spec.LogLine]{
		what: "the output", at: func(l *spec.LogLine) time.Time { return l.Time }, follow: q.Follow,
		begin: func(string) reader[spec.LogLine] {
			var resume api.LogResume
			return func(ctx context.Context, b api.Backend, each func(spec.LogLine) error) error {
				return b.Logs(ctx, resume.Query(q), func(l spec.LogLine) error {
					if !resume.Fresh(&l) {
						return nil
					}
					return each(l)
				})
			}
		},
	}, each)
}

// Events calls each with the decisions, and with what the instances of all
// nodes did, in order of time.
func (m *Mesh) Events(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
	if isLocal(ctx) {
		return m.Backend.Events(ctx, q, each)
	}
	if q.After == "" {
		return m.events(ctx, q, map[string]string{}, each)
	}
	// Only the whole order tells what came after an event. If it is no longer
	// known, all is new.
	history := q
	history.After, history.Follow = "", false
	last := map[string]string{}
	var later []spec.Event
	err := m.events(ctx, history, last, func(ev spec.Event) error {
		if later = append(later, ev); ev.ID == q.After {
			later = later[:0]
		}
		return nil
	})
	if err != nil && (!errors.Is(err, api.ErrPartial) || ctx.Err() != nil) {
		return err
	}
	for _, ev := range later {
		if err := each(ev); err != nil {
			return err
		}
	}
	if !q.Follow {
		return err
	}
	q.After = ""
	return m.events(ctx, q, last, each)
}

// events asks all nodes. Last holds, by node, the ID of the last event that it
// has told, "" for this node: each is asked for what came after that, and last
// is up to date when events returns.
func (m *Mesh) events(ctx context.Context, q api.EventQuery, last map[string]string, each func(spec.Event) error) error {
	var mu sync.Mutex // guards last
	return fanOut(ctx, m, query[spec.Event]{
		what: "what instances did", at: func(ev *spec.Event) time.Time { return ev.Time }, follow: q.Follow,
		begin: func(node string) reader[spec.Event] {
			return func(ctx context.Context, b api.Backend, each func(spec.Event) error) error {
				q := q
				mu.Lock()
				q.After = last[node]
				mu.Unlock()
				return b.Events(ctx, q, func(ev spec.Event) error {
					mu.Lock()
					last[node] = ev.ID
					mu.Unlock()
					return each(ev)
				})
			}
		},
	}, each)
}

// Apply does what a plan says. A plan is encrypted by the agent that made it, so
// that one is asked to do it.
func (m *Mesh) Apply(ctx context.Context, p spec.Plan) (api.ApplyResult, error) {
	if isLocal(ctx) || p.Node == "" || p.Node == m.node {
		return m.Backend.Apply(ctx, p)
	}
	made, err := m.named(ctx, p.Node)
	if err != nil {
		return api.ApplyResult{}, fmt.Errorf("only node %s can open this plan, which it made: %w: plan again here", p.Node, err)
	}
	return made.Apply(passOn(ctx), p)
}

// named returns the agent of the node of a name.
func (m *Mesh) named(ctx context.Context, name string) (peer, error) {
	nodes, _, whole, err := m.view.nodes(ctx)
	switch at := slices.IndexFunc(nodes, func(n spec.Node) bool { return n.Name == name }); {
	case err != nil:
		return nil, err
	case !whole:
		return nil, fmt.Errorf("the store does not tell where it is: %w", api.ErrUnavailable)
	case at < 0:
		return nil, fmt.Errorf("it is gone: %w", api.ErrUnavailable)
	default:
		return m.peers.of(nodes[at])
	}
}

// Signal sends a signal to the live instances of a target, on whichever nodes
// they are.
func (m *Mesh) Signal(ctx context.Context, target string, signal spec.Signal) (int, error) {
	if isLocal(ctx) {
		return m.Backend.Signal(ctx, target, signal)
	}
	t, err := api.ParseTarget(target)
	if err != nil {
		return 0, err
	}
	instances, _, err := m.view.wait(ctx, 0)
	if err != nil {
		return 0, err
	}
	on := map[string]bool{}
	for _, i := range instances {
		if t.Matches(i.ID) {
			on[i.Node] = true
		}
	}
	if len(on) == 0 {
		return m.Backend.Signal(passOn(ctx), target, signal) // it knows how to say that there is none
	}
	var all sync.WaitGroup
	answers := make(chan signalled, len(on))
	for node := range on {
		all.Go(func() {
			n, err := m.signalOn(ctx, node, target, signal)
			answers <- signalled{node, n, err}
		})
	}
	all.Wait()
	close(answers)
	return sumUp(answers, target, signal)
}

// signalled is what one node did.
type signalled struct {
	node string
	n    int
	err  error
}

func (m *Mesh) signalOn(ctx context.Context, node, target string, signal spec.Signal) (int, error) {
	ctx, cancel := context.WithTimeout(passOn(ctx), signalTimeout)
	defer cancel()
	if node == m.node {
		return m.Backend.Signal(ctx, target, signal)
	}
	p, err := m.named(ctx, node)
	if err != nil {
		return 0, err
	}
	n, err := p.Signal(ctx, target, signal)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it has not answered within %v, so it may have sent the signal: %w", signalTimeout, api.ErrUnavailable)
	}
	return n, err
}

// sumUp adds what the nodes did. That an instance has moved away meanwhile is
// no failure of one node while another one knows it.
func sumUp(answers <-chan signalled, target string, signal spec.Signal) (int, error) {
	sent, knew := 0, false
	var failed []signalled
	var unknown error
	for a := range answers {
		sent += a.n
		switch {
		case a.err == nil:
			knew = true
		case errors.Is(a.err, api.ErrNotFound):
			unknown = a.err
		default:
			failed = append(failed, a)
		}
	}
	if len(failed) == 0 {
		if !knew {
			return 0, unknown
		}
		return sent, nil
	}
	slices.SortFunc(failed, func(a, b signalled) int { return cmp.Compare(a.node, b.node) })
	if sent == 0 && !knew && len(failed) == 1 {
		return 0, fmt.Errorf("signal %s on node %s: %w", target, failed[0].node, failed[0].err)
	}
	var parts []string
	for _, f := range failed {
		parts = append(parts, f.node+": "+f.err.Error())
	}
	return sent, api.Errorf(api.ErrPartial, "%s was sent to %d instances of %s, but not on every node: %s", signal, sent, target, strings.Join(parts, "; "))
}

// Run keeps what is known of the instances of all nodes until the context ends.
func (m *Mesh) Run(ctx context.Context) error { return m.view.run(ctx) }

// Close closes the connections to other agents.
func (m *Mesh) Close() { m.peers.close() }

// EndOwnSession asks the agent of another node to end this node's session, which
// it has not renewed for a time. See membership.Partition.
func (m *Mesh) EndOwnSession(ctx context.Context, other spec.Node, session string, silent time.Duration) error {
	p, err := m.peers.of(other)
	if err != nil {
		return err
	}
	return p.EndSession(ctx, api.SessionEnd{Node: m.node, Session: session, Silent: spec.Duration(silent)})
}
