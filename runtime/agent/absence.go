package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// absentEvery is how often a node that is absent asks another one, and
// absentTimeout how long one may take.
const (
	absentEvery   = 500 * time.Millisecond
	absentTimeout = time.Second
)

// absence ends this node's session through another node when this one does not
// reach Consul's servers but the other does. Gossip goes round such a cut and
// still vouches for the node, and the servers take 20 s to see that a session is
// not renewed.
//
// It is safe at any time and by anybody: nobody gets a lock for the lock delay
// from the end on, and what was renewed before the end is over by then.
type absence struct {
	node   string
	store  state.Store
	tenure *tenure
	// after is how long the node must not have renewed its session to be absent:
	// the fence, after which its exclusive shards have ended. What else runs on it
	// is started elsewhere, too, as if gossip had lost the node.
	after time.Duration
	// peer returns the agent of another node.
	peer   func(spec.Node) (peer, error)
	logger hclog.Logger

	mu     sync.Mutex // guards others
	others []spec.Node

	// What follows belongs to run's goroutine.
	turns int
	ended string // the session that was ended
}

// run looks again and again whether the node is absent, until the context ends.
func (a *absence) run(ctx context.Context) error {
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch.Go(func() { a.follow(ctx) })
	tick := time.NewTicker(absentEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.turn(ctx)
		}
	}
}

// turn asks one other node, if this one is absent.
func (a *absence) turn(ctx context.Context) {
	session, silent := a.tenure.silent()
	if session == "" || session == a.ended || silent < a.after {
		return
	}
	a.mu.Lock()
	others := a.others
	a.mu.Unlock()
	if len(others) == 0 {
		return
	}
	other := others[a.turns%len(others)]
	a.turns++
	ctx, cancel := context.WithTimeout(ctx, absentTimeout)
	defer cancel()
	p, err := a.peer(other)
	if err == nil {
		err = p.EndSession(ctx, api.SessionEnd{Node: a.node, Session: session, Silent: spec.Duration(silent)})
	}
	if err != nil {
		a.logger.Info("another node does not end this one's session", "node", other.Name, "error", err)
		return
	}
	a.ended = session
	a.logger.Warn("this node does not reach Consul, and another one does: it has ended this one's session", "node", other.Name, "session", session)
}

// follow keeps the other nodes as they were when the store last answered. It
// shares its query with the membership.
func (a *absence) follow(ctx context.Context) {
	for index := uint64(0); ctx.Err() == nil; {
		entries, next, err := a.store.Watch(ctx, state.NodesPrefix, index)
		if err != nil {
			pause(ctx, renewEvery)
			continue
		}
		index = next
		var others []spec.Node
		for _, e := range entries {
			if n, err := state.Decode[spec.Node](e); err == nil && n.Name != a.node && n.Address != "" {
				others = append(others, n)
			}
		}
		a.mu.Lock()
		a.others = others
		a.mu.Unlock()
	}
}

// EndSession ends the session of another node that asks for it. If this node was
// a member before that one fell silent, and without a break since, the store was
// not away for all.
func (b *backend) EndSession(ctx context.Context, end api.SessionEnd) error {
	if b.tenure.unbroken() <= time.Duration(end.Silent) {
		return fmt.Errorf("end the session of node %s: this node has not been a member for as long as that one is silent, so the store may be away for all: %w", end.Node, api.ErrUnavailable)
	}
	entry, err := b.store.Get(ctx, state.NodeKey(end.Node))
	if errors.Is(err, state.ErrNotFound) || err == nil && entry.Session != end.Session {
		return nil // it has ended
	}
	if err == nil {
		err = b.store.DestroySession(ctx, end.Session)
	}
	if err != nil {
		return fmt.Errorf("end the session of node %s: %w", end.Node, err)
	}
	b.logger.Warn("a node that does not reach the store asked for the end of its session", "node", end.Node, "session", end.Session)
	return nil
}
