package local

import (
	"context"
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// maxBatch bounds how many requests share one commit, and how many wait.
const maxBatch = 256

// request is a change that somebody waits for.
type request struct {
	ctx    context.Context
	change func(*edit) error
	done   chan error // buffered; the writer answers exactly once
}

// submit hands a change to the writer and waits until it is on disk.
func (s *Store) submit(ctx context.Context, change func(*edit) error) error {
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	r := &request{ctx: ctx, change: change, done: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return fmt.Errorf("write state: %w", ctx.Err())
	case <-s.stop:
		return fmt.Errorf("write state: %w", state.ErrClosed)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write state: %w (the change may still happen)", ctx.Err())
	case <-s.stopped:
		// The writer may have answered this request last of all.
		select {
		case err := <-r.done:
			return err
		default:
			return fmt.Errorf("write state: %w", state.ErrClosed)
		}
	}
}

// write is the writer's loop.
func (s *Store) write() {
	defer close(s.stopped)
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	for {
		var wake <-chan time.Time
		if next, ok := s.timers.next(); ok {
			timer.Reset(next.Sub(s.now()))
			wake = timer.C
		}
		select {
		case <-s.stop:
			return
		case <-wake:
			s.expire()
		case r := <-s.requests:
			s.commit(s.gather(r))
		}
	}
}

// gather returns the request and those that wait behind it.
func (s *Store) gather(r *request) []*request {
	batch := []*request{r}
	for len(batch) < maxBatch {
		select {
		case r := <-s.requests:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit does the requests one after the other, makes their effects durable
// in one write, shows them, and answers.
func (s *Store) commit(batch []*request) {
	base := s.view.Load()
	e := newEdit(base, s.now())
	errs := make([]error, len(batch))
	for i, r := range batch {
		if errs[i] = r.ctx.Err(); errs[i] == nil {
			errs[i] = r.change(e)
		}
	}
	if e.memory.index != base.index {
		if err := s.persist(e); err != nil {
			for i := range errs {
				errs[i] = err
			}
		}
	}
	for i, r := range batch {
		r.done <- errs[i]
	}
}

// persist writes the edit and shows it. If writing fails, nothing has changed.
func (s *Store) persist(e *edit) error {
	if err := s.disk.write(e); err != nil {
		err = fmt.Errorf("write state: %w: %w", state.ErrUnavailable, err)
		s.logger.Error("state could not be written; nothing was changed", "error", err)
		return err
	}
	s.publish(e)
	return nil
}

// publish shows the edit to readers and watchers, and times its sessions.
func (s *Store) publish(e *edit) {
	m := e.memory
	s.view.Store(&m)
	for _, session := range e.born {
		s.timers.set(session.ID, session.TTL, e.now)
	}
	for _, id := range e.ended {
		s.timers.drop(id)
	}
	e.wake()
}
