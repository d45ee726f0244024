package membership

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// askEvery is how often a node that is cut off asks another one, and
// askTimeout how long one may take.
const (
	askEvery   = 500 * time.Millisecond
	askTimeout = time.Second
)

// Partition ends this node's session through another node when this one does not
// reach Consul's servers but the other does. Gossip goes round such a partition
// and still vouches for the node, and the servers take 20 s to see that a session
// is not renewed.
//
// It is safe at any time and by anybody: nobody gets a lock for the lock delay
// from the end on, and what was renewed before the end is over by then.
type Partition struct {
	Node  string
	Store state.Store
	// Silent is that of the node's Member.
	Silent func() (session string, silent time.Duration)
	// After is how long the node must not have renewed its session: the fence,
	// after which its exclusive shards have ended. What else runs on it is started
	// elsewhere, too, as if gossip had lost the node.
	After time.Duration
	// End asks the agent of another node to end this one's session.
	End    func(ctx context.Context, other spec.Node, session string, silent time.Duration) error
	Logger hclog.Logger

	mu     sync.Mutex // guards others
	others []spec.Node

	// What follows belongs to Run's goroutine.
	asked int
	ended string // the session that was ended
}

// Run checks again and again whether the node is cut off, until the context ends.
func (p *Partition) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { p.watch(ctx) })
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.turn(ctx)
		}
	}
}

// turn asks one other node, if this one is cut off.
func (p *Partition) turn(ctx context.Context) {
	session, silent := p.Silent()
	if session == "" || session == p.ended || silent < p.After {
		return
	}
	p.mu.Lock()
	others := p.others
	p.mu.Unlock()
	if len(others) == 0 {
		return
	}
	other := others[p.asked%len(others)]
	p.asked++
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := p.End(ctx, other, session, silent); err != nil {
		p.Logger.Info("another node does not end this one's session", "node", other.Name, "error", err)
		return
	}
	p.ended = session
	p.Logger.Warn("this node does not reach Consul, and another one does: it has ended this one's session", "node", other.Name, "session", session)
}

// watch keeps the other nodes as they were when the store last answered. It
// shares its query with the membership.
func (p *Partition) watch(ctx context.Context) {
	for index := uint64(0); ctx.Err() == nil; {
		entries, next, err := p.Store.Watch(ctx, state.NodesPrefix, index)
		if err != nil {
			_ = loop.Sleep(ctx, renewEvery)
			continue
		}
		index = next
		var others []spec.Node
		for _, e := range entries {
			if n, err := state.Decode[spec.Node](e); err == nil && n.Name != p.Node && n.Address != "" {
				others = append(others, n)
			}
		}
		p.mu.Lock()
		p.others = others
		p.mu.Unlock()
	}
}
