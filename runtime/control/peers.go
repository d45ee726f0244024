package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// silence is for how long a peer may say nothing while it is listened to
	// before it is asked whether it is there at all.
	silence     = 10 * time.Second
	pingTimeout = 3 * time.Second
)

// errSilent: a peer does not answer any more, though nothing broke off.
var errSilent = errors.New("it does not answer any more")

// peer is another node's agent.
type peer interface {
	api.Backend
	// Healthy returns nil if the agent answers.
	Healthy(ctx context.Context) error
	// Close lets the connections go; what is under way goes on.
	Close()
}

// peers keeps a client of every other node that was asked.
type peers struct {
	dial func(spec.Node) peer

	mu    sync.Mutex // guards known
	known map[string]dialled
}

type dialled struct {
	peer    peer
	address string
}

func newPeers(dial func(spec.Node) peer) *peers {
	return &peers{dial: dial, known: map[string]dialled{}}
}

// of returns the agent of a node.
func (p *peers) of(node spec.Node) (peer, error) {
	if node.Address == "" {
		return nil, fmt.Errorf("it lets no other node in: it has no certificates, or no listen address: %w", api.ErrUnavailable)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.known[node.Name]
	if ok && d.address == node.Address {
		return d.peer, nil
	}
	if ok {
		d.peer.Close()
	}
	d = dialled{p.dial(node), node.Address}
	p.known[node.Name] = d
	return d.peer, nil
}

// keep lets the clients of all other nodes go.
func (p *peers) keep(nodes []spec.Node) {
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, d := range p.known {
		if !there[name] {
			d.peer.Close()
			delete(p.known, name)
		}
	}
}

// close lets all clients go.
func (p *peers) close() { p.keep(nil) }

// attend listens to a peer for as long as it is there: one that is silent for
// long is asked whether it is, and given up with errSilent if it isn't. Listen
// calls heard whenever something comes.
func attend(ctx context.Context, p peer, listen func(ctx context.Context, heard func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var count atomic.Uint64
	var guard sync.WaitGroup
	guard.Go(func() {
		tick := time.NewTicker(silence)
		defer tick.Stop()
		for before := count.Load(); ; before = count.Load() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if count.Load() != before {
				continue
			}
			ping, end := context.WithTimeout(ctx, pingTimeout)
			err := p.Healthy(ping)
			end()
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%w: %w", api.ErrUnavailable, errSilent))
			}
		}
	})
	err := listen(ctx, func() { count.Add(1) })
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		err = cause
	}
	cancel(nil)
	guard.Wait()
	return err
}
