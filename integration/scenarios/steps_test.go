package scenarios

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/integration/ledger"
	"github.com/synergymesh/meshrun/spec"
)

// steps tells when each step was done on the way from a node's loss to its
// shards running elsewhere. They are looked for in their order, so that one
// that was done early shows the time of the one before it; the grain is that of
// looking.
type steps struct {
	world  *world
	node   string
	shards []spec.InstanceID // the exclusive ones that it ran
	was    holders           // before the loss
	found  []step
	stop   context.CancelFunc
	done   chan struct{}
}

// step is one that was done, and when.
type step struct {
	what string
	at   time.Duration
}

// lookEvery is how often it is looked whether the next step is done.
const lookEvery = 20 * time.Millisecond

// stepsOf begins to look; it is to be called while the node is there still.
func (w *world) stepsOf(h *cluster.Host) *steps {
	w.t.Helper()
	s := &steps{world: w, node: h.Name, done: make(chan struct{})}
	for id, at := range w.snapshot() {
		if id.Process == "only" && at.node == h.Name {
			s.shards = append(s.shards, id)
		}
	}
	var err error
	s.was, err = w.holdersNow(w.t.Context())
	must(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	s.stop = cancel
	go s.look(ctx)
	w.t.Cleanup(s.end)
	return s
}

func (s *steps) end() {
	s.stop()
	<-s.done
}

// look waits for one step after the other, until the context ends.
func (s *steps) look(ctx context.Context) {
	defer close(s.done)
	for _, next := range []struct {
		what string
		is   func(context.Context, *cluster.Consul) bool
	}{
		{"Consul takes it for lost", s.noticed},
		{"its session has ended", s.ended},
		{"another is the primary", s.held("locks/scheduler")},
		{"others have its control shards", s.held("locks/orchestrators/")},
		{"placed", s.placed},
		{"assigned", s.assigned},
		{"first lock taken", s.locked(1)},
		{"last lock taken", s.locked(len(s.shards))},
	} {
		for {
			// A leader that is changing is asked again.
			if api, err := s.world.Consul(ctx); err == nil && next.is(ctx, api) {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(lookEvery):
			}
		}
		s.found = append(s.found, step{next.what, ledger.Now()})
	}
}

// noticed: gossip has lost the node, or somebody has ended its session before.
func (s *steps) noticed(ctx context.Context, api *cluster.Consul) bool {
	var checks []struct{ CheckID, Status string }
	if err := api.Get(ctx, "/v1/health/node/"+s.node, &checks); err != nil {
		return false
	}
	for _, c := range checks {
		if c.CheckID == "serfHealth" && c.Status == "passing" {
			return s.ended(ctx, api)
		}
	}
	return true
}

func (s *steps) ended(ctx context.Context, api *cluster.Consul) bool {
	var list []cluster.Session
	err := api.Get(ctx, "/v1/session/info/"+s.was.sessions[s.node], &list)
	return err == nil && len(list) == 0
}

// held: what the node held of a kind of locks is others'.
func (s *steps) held(prefix string) func(context.Context, *cluster.Consul) bool {
	return func(ctx context.Context, _ *cluster.Consul) bool {
		now, err := s.world.holdersNow(ctx)
		if err != nil {
			return false
		}
		for lock, node := range s.was.nodes {
			if node == s.node && strings.HasPrefix(lock, prefix) && (now.nodes[lock] == "" || now.nodes[lock] == s.node) {
				return false
			}
		}
		return true
	}
}

func (s *steps) placed(ctx context.Context, _ *cluster.Consul) bool {
	k, err := s.world.keptNow(ctx)
	if err != nil {
		return false
	}
	for _, p := range k.placements {
		for _, nodes := range p.Processes {
			if len(nodes[s.node]) > 0 {
				return false
			}
		}
	}
	return true
}

// assigned: another node is to run each of the shards.
func (s *steps) assigned(ctx context.Context, _ *cluster.Consul) bool {
	k, err := s.world.keptNow(ctx)
	if err != nil {
		return false
	}
	for _, id := range s.shards {
		there := false
		for _, h := range s.world.Nodes {
			there = there || h.Name != s.node && assigned(k, h.Name, id)
		}
		if !there {
			return false
		}
	}
	return true
}

// locked: others have at least so many of the shards' locks.
func (s *steps) locked(n int) func(context.Context, *cluster.Consul) bool {
	return func(ctx context.Context, _ *cluster.Consul) bool {
		now, err := s.world.holdersNow(ctx)
		taken := 0
		for _, id := range s.shards {
			if node := now.nodes["locks/shards/"+id.String()]; node != "" && node != s.node {
				taken++
			}
		}
		return err == nil && taken >= n
	}
}

// log prints, in one line, when each step was done after the loss. It is to be
// called when the shards run again.
func (s *steps) log(lost time.Duration) {
	s.world.t.Helper()
	select {
	case <-s.done:
	case <-time.After(time.Second): // a step that never was
	}
	s.end()
	var b strings.Builder
	fmt.Fprintf(&b, "steps after %s and its %d exclusive shards were lost", s.node, len(s.shards))
	for _, f := range append(s.found, s.starts(lost)...) {
		fmt.Fprintf(&b, "; %s %.2f s", f.what, (f.at - lost).Seconds())
	}
	load, err := os.ReadFile("/proc/loadavg")
	must(s.world.t, err)
	s.world.t.Logf("%s; load %s", &b, bytes.TrimSpace(load))
}

// starts are the first and the last start of the shards since the loss.
func (s *steps) starts(lost time.Duration) []step {
	var first, last time.Duration
	copies := s.world.book().Copies()
	for _, id := range s.shards {
		for _, c := range copies[id.String()] {
			if c.First > lost && c.Node != s.node {
				if first == 0 || c.First < first {
					first = c.First
				}
				last = max(last, c.First)
				break
			}
		}
	}
	return []step{{"first start", first}, {"last start", last}}
}

// holders says who holds what.
type holders struct {
	nodes    map[string]string // by lock, without the root
	sessions map[string]string // by node
}

// holdersNow returns which node holds each lock, by the name that it has
// written: it counts while the node's record is held by the session beside it,
// which a shard's lock calls so, and a role's the node's membership.
func (w *world) holdersNow(ctx context.Context) (holders, error) {
	h := holders{nodes: map[string]string{}, sessions: map[string]string{}}
	api, err := w.Consul(ctx)
	if err != nil {
		return h, err
	}
	nodes, err := api.List(ctx, root+"nodes/")
	if err != nil {
		return h, err
	}
	for _, e := range nodes {
		h.sessions[strings.TrimPrefix(e.Key, root+"nodes/")] = e.Session
	}
	locks, err := api.List(ctx, root+"locks/")
	if err != nil {
		return h, err
	}
	for _, e := range locks {
		var holder struct{ Node, Member, Session string }
		if err := json.Unmarshal(e.Value, &holder); err != nil {
			return h, fmt.Errorf("read %s: %w", e.Key, err)
		}
		if by := cmp.Or(holder.Member, holder.Session); by != "" && h.sessions[holder.Node] == by {
			h.nodes[strings.TrimPrefix(e.Key, root)] = holder.Node
		}
	}
	return h, nil
}
