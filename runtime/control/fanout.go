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

// A peer whose stream has broken off is called again, after firstRetry at first
// and doubled up to lastRetry.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// reader reads from one agent, and resumes where it broke off when it is called
// again.
type reader[T any] func(ctx context.Context, b api.Backend, each func(T) error) error

// query is one that every node answers with a part.
type query[T any] struct {
	what   string // for people: what is missing where a node does not answer
	at     func(*T) time.Time
	follow bool
	begin  func(node string) reader[T] // makes the reader of one agent; "" is this node's
}

// fanout is a query while it runs.
type fanout[T any] struct {
	query[T]
	mesh  *Mesh
	mux   *mux[T]
	ctx   context.Context // of all asking
	end   context.CancelCauseFunc
	tasks sync.WaitGroup

	mu      sync.Mutex       // guards all below
	failed  map[string]error // by node
	unknown error            // this node's, that nothing of the name is known
	known   bool             // some node knows the name
	queried map[string]context.CancelFunc
}

// fanOut reads from all nodes and passes on what they answer in order of time. It
// returns ErrPartial after the last one if some nodes could not be asked.
func fanOut[T any](ctx context.Context, m *Mesh, q query[T], each func(T) error) error {
	s := &fanout[T]{query: q, mesh: m, mux: newMux(q.at, q.follow), failed: map[string]error{}, queried: map[string]context.CancelFunc{}}
	s.ctx, s.end = context.WithCancelCause(ctx)
	defer s.tasks.Wait()
	defer s.end(nil)
	s.queryOwn()
	if err := s.queryOthers(); err != nil {
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

// queryOwn reads from this node. If that fails, everything ends.
func (s *fanout[T]) queryOwn() {
	out, read := s.mux.add(), s.begin("")
	// Not Local: the decisions, which are the same on every node, are read from
	// this node alone.
	s.tasks.Go(func() {
		defer out.end()
		err := read(s.ctx, s.mesh.Backend, func(v T) error { return out.put(s.ctx, v) })
		s.note("", err)
		if err != nil && !errors.Is(err, api.ErrNotFound) {
			s.end(err)
		}
	})
}

// queryOthers reads from all other nodes, and where the query follows also from
// those that come later.
func (s *fanout[T]) queryOthers() error {
	nodes, changed, whole, err := s.mesh.view.nodes(s.ctx)
	if err != nil {
		return err
	}
	if !whole {
		s.note("the other nodes", fmt.Errorf("the store does not tell which there are: %w", api.ErrUnavailable))
	}
	s.queryNodes(nodes)
	if !s.follow {
		s.mux.closeSources()
		return nil
	}
	s.tasks.Go(func() {
		// A caller keeps the view up to date.
		defer s.mesh.view.call()()
		for s.ctx.Err() == nil {
			select {
			case <-s.ctx.Done():
				return
			case <-changed:
			case <-wakeIf(!whole):
			}
			if nodes, changed, whole, err = s.mesh.view.nodes(s.ctx); err != nil {
				return
			}
			if whole {
				s.queryNodes(nodes)
			}
		}
	})
	return nil
}

// wakeIf returns a channel that is ready at once if the store has to be asked
// again; the view's own patience is the pause.
func wakeIf(again bool) <-chan struct{} {
	if !again {
		return nil
	}
	ready := make(chan struct{})
	close(ready)
	return ready
}

// queryNodes starts to read from the nodes that are new, and stops for those that
// are gone.
func (s *fanout[T]) queryNodes(nodes []spec.Node) {
	s.mesh.peers.keep(nodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[string]bool{}
	for _, node := range nodes {
		there[node.Name] = true
		if node.Name == s.mesh.node || s.queried[node.Name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(passOn(s.ctx))
		s.queried[node.Name] = cancel
		out := s.mux.add()
		s.tasks.Go(func() {
			defer cancel()
			defer out.end()
			s.note(node.Name, s.queryPeer(ctx, node.Name, out))
		})
	}
	for name, cancel := range s.queried {
		if !there[name] {
			cancel()
			delete(s.queried, name)
		}
	}
}

// queryPeer reads from one node; a stream that follows is read again when it
// breaks off.
func (s *fanout[T]) queryPeer(ctx context.Context, node string, out *source[T]) error {
	read := s.begin(node)
	wait := loop.Backoff{Min: firstRetry, Max: lastRetry}
	for {
		began := time.Now()
		// Anew each time: a node that comes back may be elsewhere.
		p, err := s.mesh.named(ctx, node)
		if err == nil {
			err = attend(ctx, p, func(ctx context.Context, heard func()) error {
				return read(ctx, p, func(v T) error {
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
		if time.Since(began) > lastRetry {
			wait.Reset()
		}
		retry := wait.Next()
		s.mesh.logger.Debug("cannot read a node's stream, trying again", "node", node, "retry_in", retry, "error", err)
		_ = loop.Sleep(ctx, retry)
	}
}

// note notes how a node has answered; "" is this node.
func (s *fanout[T]) note(node string, err error) {
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
func (s *fanout[T]) verdict() error {
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
