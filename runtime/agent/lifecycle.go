package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// lifecycle is a stack of what has to be undone, in reverse, when the agent
// stops or fails to start: each thing is registered the moment that it exists.
type lifecycle struct {
	mu    sync.Mutex // guards stack
	stack []cleanup
}

type cleanup struct {
	name string
	run  func(context.Context) error
}

// onStop registers the undoing of something that exists now.
func (l *lifecycle) onStop(name string, run func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stack = append(l.stack, cleanup{name, run})
}

// start runs a loop in a goroutine and registers its end: its context is
// cancelled and its return is waited for. A loop that ends by itself reports
// to failed.
func (l *lifecycle) start(ctx context.Context, name string, loop func(context.Context) error, failed chan<- error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := loop(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case failed <- fmt.Errorf("%s ended: %w", name, errors.Join(err, errEnded)):
		default: // one failure is enough to stop the agent
		}
	}()
	l.onStop(name, func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

var errEnded = errors.New("a part of the agent stopped")

// stop undoes everything in reverse order within the timeout. It may be
// called more than once.
func (l *lifecycle) stop(timeout time.Duration) error {
	l.mu.Lock()
	stack := l.stack
	l.stack = nil
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var errs []error
	for i := len(stack) - 1; i >= 0; i-- {
		if err := stack[i].run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", stack[i].name, err))
		}
	}
	return errors.Join(errs...)
}
