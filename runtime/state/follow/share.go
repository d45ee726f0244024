package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/synergymesh/meshrun/runtime/state"
)

// maxAnswers bounds how many prefixes' last answers are remembered, and of how
// many it would be noticed that they were put back.
const maxAnswers = 16

// errSuperseded: a query was replaced by one that asks from further back.
var errSuperseded = errors.New("superseded")

// Share returns the store with a Watch that asks it but once for each prefix,
// however many wait: a blocking query costs a connection and a goroutine on
// both sides, and its answer is all that is under the prefix. A query lives
// while somebody waits for it; it ends with the context of none of them in
// particular, and carries none of their values. Everything else is the store's
// own, Close too, which also ends the queries.
//
// PutBack, if it isn't nil, is called when an answer shows that the store was
// put back to an earlier state, before anybody has that answer. It must not
// block, and may be called several times for one restoration.
func Share(store state.Store, putBack func()) state.Store {
	if putBack == nil {
		putBack = func() {}
	}
	return &shared{Store: store, putBack: putBack, queries: map[string]*query{}, answers: map[string]*answer{}, past: past{}}
}

type shared struct {
	state.Store
	putBack func()
	running sync.WaitGroup // queries

	mu      sync.Mutex // guards all below, and the waiters of each query
	queries map[string]*query
	answers map[string]*answer // the last of each prefix, for who was busy when it came
	past    past
	closed  bool
}

// query is one blocking query of the store and who waits for it.
type query struct {
	prefix  string
	after   uint64
	waiters int
	cancel  context.CancelCauseFunc

	done chan struct{} // closed once answer and err are set
	answer
	err error
}

// answer is what a query returned: something has changed between after and index.
type answer struct {
	after   uint64
	entries []state.Entry
	index   uint64
}

// Watch is as the contract says. The entries are shared by all who waited:
// neither they nor their values may be changed.
func (s *shared) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	if after == 0 { // it doesn't block, so there is nothing to share
		before := s.before(prefix)
		entries, index, err := s.Store.Watch(ctx, prefix, 0)
		if err == nil {
			s.forget(prefix, index)
			s.judge(prefix, before, answer{entries: entries, index: index})
		}
		return entries, index, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
		}
		q, known, err := s.join(prefix, after)
		if err != nil {
			return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
		}
		if known != nil {
			return known.entries, known.index, nil
		}
		select {
		case <-q.done:
		case <-ctx.Done():
			s.leave(q)
			continue
		}
		switch {
		case errors.Is(q.err, errSuperseded):
		case q.err != nil:
			return nil, 0, q.err
		case q.index > after, q.index < q.after: // the latter: the store was put back
			return q.entries, q.index, nil
		}
		// Otherwise the query was somebody's who was further behind.
	}
}

// join returns the query to wait for, or an answer that says enough already.
func (s *shared) join(prefix string, after uint64) (*query, *answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, state.ErrClosed
	}
	// What changed after a.after has changed after anything before it.
	if a := s.answers[prefix]; a != nil && after <= a.after && a.index > after {
		return nil, a, nil
	}
	q := s.queries[prefix]
	if q == nil || after < q.after {
		if q != nil {
			q.cancel(errSuperseded)
		}
		q = s.start(prefix, after)
	}
	q.waiters++
	return q, nil, nil
}

// start asks the store; mu is held.
func (s *shared) start(prefix string, after uint64) *query {
	ctx, cancel := context.WithCancelCause(context.Background())
	q := &query{prefix: prefix, after: after, cancel: cancel, done: make(chan struct{})}
	s.queries[prefix] = q
	before := s.past[prefix]
	s.running.Go(func() {
		defer cancel(nil)
		entries, index, err := s.Store.Watch(ctx, prefix, after)
		if err == nil {
			s.judge(prefix, before, answer{after: after, entries: entries, index: index})
		}
		// Somebody has seen more meanwhile: whether that was before the store was put
		// back, another look tells.
		if last := s.before(prefix); err == nil && last.index > index {
			if entries, index, err = s.Store.Watch(ctx, prefix, 0); err == nil {
				s.judge(prefix, last, answer{entries: entries, index: index})
			}
		}
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause // superseded, or closed
		}
		s.finish(q, answer{after: after, entries: entries, index: index}, err)
	})
	return q
}

// finish hands a query's answer to all who wait.
func (s *shared) finish(q *query, a answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.answer, q.err = a, err
	close(q.done)
	if s.queries[q.prefix] == q {
		delete(s.queries, q.prefix)
	}
	if err != nil {
		return
	}
	if a.index < a.after { // the store was put back: what was answered before is no answer
		delete(s.answers, q.prefix)
		return
	}
	if last := s.answers[q.prefix]; last != nil && last.index >= a.index {
		return
	}
	for prefix := range s.answers {
		if len(s.answers) < maxAnswers {
			break
		}
		delete(s.answers, prefix)
	}
	s.answers[q.prefix] = &a
}

// forget drops an answer from after an index at which the store is: it was put
// back, or the answer is newer and will be asked for again.
func (s *shared) forget(prefix string, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.answers[prefix]; a != nil && a.index > index {
		delete(s.answers, prefix)
	}
}

// leave gives a query up, and ends it if nobody waits for it any more.
func (s *shared) leave(q *query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.waiters--; q.waiters > 0 {
		return
	}
	q.cancel(nil)
	if s.queries[q.prefix] == q {
		delete(s.queries, q.prefix)
		delete(s.answers, q.prefix)
	}
}

// Close ends the queries and closes the store.
func (s *shared) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.Store.Close()
	s.mu.Lock()
	for _, q := range s.queries {
		q.cancel(fmt.Errorf("watch %s: %w", q.prefix, state.ErrClosed))
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}
