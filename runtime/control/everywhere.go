package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// A peer that is followed is asked again, after askAgain at first and doubled
// up to askSlowest, when it has broken off.
const (
	askAgain   = 250 * time.Millisecond
	askSlowest = 10 * time.Second
)

// ask asks one agent, and goes on where it broke off when it is called again.
type ask[T any] func(ctx context.Context, b api.Backend, each func(T) error) error

// question is one that every node answers with a part.
type question[T any] struct {
	what   string // for people: what is missing where a node does not answer
	at     func(*T) time.Time
	follow bool
	begin  func() ask[T] // begins to ask one agent
}

// survey is a question while it is asked.
type survey[T any] struct {
	question[T]
	mesh  *Mesh
	mux   *mux[T]
	ctx   context.Context // of all asking
	end   context.CancelCauseFunc
	tasks sync.WaitGroup

	mu      sync.Mutex       // guards all below
	failed  map[string]error // by node
	unknown error            // this node's, that nothing of the name is known
	known   bool             // some node knows the name
	asked   map[string]context.CancelFunc
}

// everywhere asks all nodes and gives out their answers in order of time. It
// returns ErrPartial after the last one if some nodes could not be asked.
func everywhere[T any](ctx context.Context, m *Mesh, q question[T], each func(T) error) error {
	s := &survey[T]{question: q, mesh: m, mux: newMux(q.at, q.follow), failed: map[string]error{}, asked: map[string]context.CancelFunc{}}
	s.ctx, s.end = context.WithCancelCause(ctx)
	defer s.tasks.Wait()
	defer s.end(nil)
	s.askOwn()
	if err := s.askOthers(); err != nil {
		return err
	}
	err := s.mux.run(s.ctx, each)
	if cause := context.Cause(s.ctx); err != nil && ctx.Err() == nil && cause != nil {
		err = cause // why this node gave up
	}
	s.end(nil)
	s.tasks.Wait()
	if err != nil {
		return err
	}
	return s.verdict()
}

// askOwn asks this node. That it can't answer ends everything.
func (s *survey[T]) askOwn() {
	out, question := s.mux.add(), s.begin()
	// Not Local: the decisions, which are the same everywhere, are asked of
	// this node alone.
	s.tasks.Go(func() {
		defer out.end()
		err := question(s.ctx, s.mesh.Backend, func(v T) error { return out.put(s.ctx, v) })
		s.note("", err)
		if err != nil && !errors.Is(err, api.ErrNotFound) {
			s.end(err)
		}
	})
}

// askOthers asks all other nodes, and where the question is followed those
// that come later.
func (s *survey[T]) askOthers() error {
	nodes, changed, whole, err := s.mesh.feed.nodes(s.ctx)
	if err != nil {
		return err
	}
	if !whole {
		s.note("the other nodes", fmt.Errorf("the store does not tell which there are: %w", api.ErrUnavailable))
	}
	s.askNodes(nodes)
	if !s.follow {
		s.mux.closeSources()
		return nil
	}
	s.tasks.Go(func() {
		// Who asks keeps the feed going.
		defer s.mesh.feed.ask()()
		for s.ctx.Err() == nil {
			select {
			case <-s.ctx.Done():
				return
			case <-changed:
			case <-wakeIf(!whole):
			}
			if nodes, changed, whole, err = s.mesh.feed.nodes(s.ctx); err != nil {
				return
			}
			if whole {
				s.askNodes(nodes)
			}
		}
	})
	return nil
}

// wakeIf returns a channel that is ready at once if the store has to be asked
// again; the feed's own patience is the pause.
func wakeIf(again bool) <-chan struct{} {
	if !again {
		return nil
	}
	ready := make(chan struct{})
	close(ready)
	return ready
}

// askNodes begins to ask the nodes that aren't asked yet, and leaves those that
// are gone.
func (s *survey[T]) askNodes(nodes []spec.Node) {
	s.mesh.peers.keep(nodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[string]bool{}
	for _, node := range nodes {
		there[node.Name] = true
		if node.Name == s.mesh.node || s.asked[node.Name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(passOn(s.ctx))
		s.asked[node.Name] = cancel
		out := s.mux.add()
		s.tasks.Go(func() {
			defer cancel()
			defer out.end()
			s.note(node.Name, s.askPeer(ctx, node.Name, out))
		})
	}
	for name, cancel := range s.asked {
		if !there[name] {
			cancel()
			delete(s.asked, name)
		}
	}
}

// askPeer asks one node; what is followed is asked for again when it breaks off.
func (s *survey[T]) askPeer(ctx context.Context, node string, out *source[T]) error {
	question := s.begin()
	wait := loop.Backoff{Min: askAgain, Max: askSlowest}
	for {
		began := time.Now()
		// Anew each time: a node that comes back may be elsewhere.
		p, err := s.mesh.named(ctx, node)
		if err == nil {
			err = attend(ctx, p, func(ctx context.Context, heard func()) error {
				return question(ctx, p, func(v T) error {
					heard()
					return out.put(ctx, v)
				})
			})
		}
		if ctx.Err() != nil {
			return nil // nobody asks any more, or the node is gone
		}
		if !s.follow || errors.Is(err, api.ErrInvalid) {
			return err
		}
		if time.Since(began) > askSlowest {
			wait.Reset()
		}
		retry := wait.Next()
		s.mesh.logger.Debug("cannot read a node's stream, trying again", "node", node, "retry_in", retry, "error", err)
		_ = loop.Sleep(ctx, retry)
	}
}

// note notes how a node has answered; "" is this node.
func (s *survey[T]) note(node string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.known = true
	case errors.Is(err, api.ErrNotFound):
		if node == "" {
			s.unknown = err
		}
	case node != "":
		s.failed[node] = err
	}
}

// verdict says what is missing, if anything is.
func (s *survey[T]) verdict() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failed) == 0 {
		if s.known {
			return nil
		}
		return s.unknown
	}
	var parts []string
	for _, node := range slices.Sorted(maps.Keys(s.failed)) {
		parts = append(parts, node+": "+s.failed[node].Error())
	}
	return api.Errorf(api.ErrPartial, "%s of some nodes is missing: %s", s.what, strings.Join(parts, "; "))
}
