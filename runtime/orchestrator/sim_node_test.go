package orchestrator_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

// simFence is the lock delay of a node's session.
const simFence = 5 * time.Second

// meter counts what a node asks of the store.
type meter struct {
	state.Store
	mu      sync.Mutex // guards both below
	txns    int
	blocked map[string]int // blocking queries under way, by prefix
}

func (m *meter) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	m.mu.Lock()
	m.txns++
	m.mu.Unlock()
	return m.Store.Txn(ctx, ops...)
}

func (m *meter) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	m.mu.Lock()
	m.blocked[prefix]++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.blocked[prefix]--; m.blocked[prefix] == 0 {
			delete(m.blocked, prefix)
		}
	}()
	return m.Store.Watch(ctx, prefix, after)
}

// read returns the transactions so far, and the blocking queries under way.
func (m *meter) read() (txns, queries int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.blocked {
		queries += n
	}
	return m.txns, queries
}

// simNode is an agent: its real loops, and an engine that obeys with delays.
type simNode struct {
	sim   *sim
	name  string
	meter *meter
	store state.Store
	rng   *rand.Rand // the engine's
	roles []interface {
		Run(context.Context) error
		Refresh()
	}
	stop func()
	wg   sync.WaitGroup
	poke chan struct{}

	mu       sync.Mutex // guards all below
	session  string
	draining bool
	units    map[spec.InstanceID]*simUnit
	born     uint64 // the last generation
	orders   map[string]spec.Assignment
	reported map[string]string // by job, within the session
}

type simUnit struct {
	seen spec.Instance
	due  time.Time // when its phase is over
	gone bool      // it isn't wanted any more
	bad  bool      // it uses up its restarts here
}

// join starts a node and lets it in.
func (s *sim) join(name string) *simNode {
	m := &meter{Store: s.store, blocked: map[string]int{}}
	n := &simNode{
		sim: s, name: name, meter: m, store: follow.Share(m, nil), rng: rand.New(rand.NewPCG(s.seed, uint64(len(s.nodes)))),
		poke: make(chan struct{}, 1), units: map[spec.InstanceID]*simUnit{}, orders: map[string]spec.Assignment{},
	}
	n.roles = append(n.roles, scheduler.New(n.store, name, n.Session, hclog.NewNullLogger()), orchestrator.New(n.store, name, n.Session, hclog.NewNullLogger()))
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = func() {
		cancel()
		n.wg.Wait()
	}
	for _, r := range n.roles {
		n.wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
	n.wg.Go(func() { n.engine(ctx) })
	n.wg.Go(func() { n.enter(ctx) })
	s.nodes[name] = n
	return n
}

// enter gives the node a session, and its record as soon as the delay of its
// last one is over.
func (n *simNode) enter(ctx context.Context) {
	session, err := n.store.CreateSession(ctx, state.SessionConfig{Node: n.name, LockDelay: simFence, Behavior: state.BehaviorDelete})
	for err == nil {
		value := state.Encode(spec.Node{Name: n.name, Draining: n.isDraining(), Labels: map[string]string{"zone": n.name[:1]}})
		_, taken := n.store.Txn(ctx, state.Op{Kind: state.OpLock, Key: state.NodeKey(n.name), Session: session, Value: value})
		if taken == nil {
			n.setSession(session)
			return
		}
		time.Sleep(time.Second)
		err = ctx.Err()
	}
}

func (n *simNode) Session() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.session
}

func (n *simNode) isDraining() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.draining
}

func (n *simNode) setSession(session string) {
	n.mu.Lock()
	n.session, n.reported = session, map[string]string{}
	n.mu.Unlock()
	for _, r := range n.roles {
		r.Refresh()
	}
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// lose ends the node's session in the store, as if it hadn't been renewed.
func (n *simNode) lose() {
	if err := n.store.DestroySession(context.Background(), n.Session()); err != nil {
		n.sim.t.Error(err)
	}
	n.setSession("")
}

// engine does what is assigned, as long as it hears of it, and reports.
func (n *simNode) engine(ctx context.Context) {
	updates := make(chan follow.Update)
	var watch sync.WaitGroup
	watch.Go(func() {
		_ = follow.Watch(ctx, n.store, state.AssignmentsPrefix+n.name+"/", updates, hclog.NewNullLogger())
	})
	defer watch.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-updates:
			n.obey(u)
		case <-timer.C:
		case <-n.poke:
		}
		timer.Reset(n.act(ctx))
	}
}

// obey takes assignments over.
func (n *simNode) obey(u follow.Update) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range u.Changed {
		if a, err := state.Decode[spec.Assignment](e); err == nil {
			n.orders[a.Job] = a
		}
	}
	for _, key := range u.Removed {
		delete(n.orders, follow.Name(u.Prefix, key))
	}
}

// act brings the units on, and returns how long nothing is to be done.
func (n *simNode) act(ctx context.Context) time.Duration {
	n.mu.Lock()
	now := time.Now()
	if n.session != "" { // else it goes on with what it knew
		n.follow(now)
	}
	next := time.Hour
	for id, u := range n.units {
		switch {
		case u.due.IsZero():
		case u.due.After(now):
			next = min(next, u.due.Sub(now))
		case u.gone:
			delete(n.units, id)
		case u.bad:
			u.seen.Phase, u.due = spec.PhaseFailed, time.Time{}
		default:
			u.seen.Phase, u.seen.ReadyAt, u.due = spec.PhaseRunning, now, time.Time{}
		}
	}
	session, reports := n.session, n.reports()
	n.mu.Unlock()
	if session != "" {
		for job, o := range reports {
			op := state.Op{Kind: state.OpSet, Key: state.ObservedKey(n.name, job), Value: state.Encode(o)}
			if len(o.Instances) == 0 {
				op.Kind = state.OpDelete
			}
			_, _ = n.store.Txn(ctx, op)
		}
	}
	return next
}

// follow compares the units with the orders; mu is held.
func (n *simNode) follow(now time.Time) {
	later := func(most time.Duration) time.Time { return now.Add(time.Duration(1 + n.rng.Int64N(int64(most)))) }
	told := map[spec.InstanceID]bool{}
	for job, a := range n.orders {
		for _, p := range a.Processes {
			hash := spec.ReplaceHash(&p.Process)
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: job, Process: p.Process.Name, Shard: shard}
				told[id] = true
				u := n.units[id]
				if _, held := p.Held[shard]; held {
					continue
				}
				if u == nil || u.seen.Hash != hash || u.gone || u.seen.Generation == p.Expire[shard].Generation {
					n.born++
					n.units[id] = &simUnit{
						seen: spec.Instance{ID: id, Phase: spec.PhaseStarting, Hash: hash, Since: now, Generation: n.born, Started: now}, due: later(500 * time.Millisecond),
						bad: fails(&p.Process, n.name),
					}
				}
				n.units[id].seen.Version = p.Version
			}
		}
	}
	for id, u := range n.units {
		if !told[id] && !u.gone {
			u.gone, u.seen.Phase, u.due = true, spec.PhaseStopping, later(3*time.Second)
		}
	}
}

// simFails is a program that uses up its restarts whenever it is started in zone x,
// and is to be tried on other nodes then.
const simFails = "run2"

// fails reports whether a process never comes up on a node.
func fails(p *spec.Process, node string) bool { return p.Command[0] == simFails && node[0] == 'x' }

// fail lets something that runs end by itself: it is started again after a while.
func (n *simNode) fail() (spec.InstanceID, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := slices.SortedFunc(maps.Keys(n.units), spec.InstanceID.Compare)
	ids = slices.DeleteFunc(ids, func(id spec.InstanceID) bool { return n.units[id].seen.Phase != spec.PhaseRunning })
	if len(ids) == 0 {
		return spec.InstanceID{}, false
	}
	u := n.units[ids[n.rng.IntN(len(ids))]]
	n.born++
	u.seen.Phase, u.seen.Generation, u.seen.Started = spec.PhaseBackoff, n.born, time.Now()
	u.due = time.Now().Add(time.Duration(1 + n.rng.Int64N(int64(5*time.Second))))
	select {
	case n.poke <- struct{}{}:
	default:
	}
	return u.seen.ID, true
}

// reports returns what has changed of what is seen of each job; mu is held.
func (n *simNode) reports() map[string]spec.Observed {
	out := map[string]spec.Observed{}
	for _, job := range n.sim.jobs {
		out[job] = spec.Observed{Job: job, Node: n.name}
	}
	for id, u := range n.units {
		o := out[id.Job]
		o.Instances = append(o.Instances, u.seen)
		out[id.Job] = o
	}
	for job, o := range out {
		sortInstances(o.Instances)
		if text := fmt.Sprint(o.Instances); n.reported[job] == text {
			delete(out, job)
		} else if n.session != "" {
			n.reported[job] = text
		}
	}
	return out
}

// hash returns what identifies the definition with which something runs.
func (n *simNode) hash(id spec.InstanceID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.units[id].seen.Hash
}

// running returns what runs on the node.
func (n *simNode) running() []spec.InstanceID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []spec.InstanceID
	for id, u := range n.units {
		if u.seen.Phase == spec.PhaseRunning {
			out = append(out, id)
		}
	}
	return out
}
