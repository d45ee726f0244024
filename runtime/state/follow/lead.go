package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Timed retries for a lock: nothing wakes a waiter when a lock delay ends.
const (
	lockRetry     = time.Second
	unlockTimeout = 2 * time.Second
)

// Sentinels: why a role ended.
var (
	// ErrDeposed: a lock that gave the right to the role was lost.
	ErrDeposed = errors.New("the lock was lost")
	// errNoSession: there is no session to hold a lock with at the moment.
	errNoSession = errors.New("no session")
)

// Role is work that only the holder of some locks may do.
type Role struct {
	Store state.Store
	// Locks are taken together, in one transaction.
	Locks []string
	// Session returns the session to hold the locks with, "" if there is none now.
	Session func() string
	Logger  hclog.Logger
}

// Run takes the locks and runs work under a context that ends when one of them
// is lost (with the cause ErrDeposed); then it waits for the locks again. It
// ends, releasing the locks, when ctx does, or with an error once the store is
// closed. An error of work other than ErrDeposed is logged, and the role is
// given back before it is tried again.
func (r *Role) Run(ctx context.Context, work func(ctx context.Context, session string) error) error {
	waiting := false
	for ctx.Err() == nil {
		session, err := r.acquire(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, state.ErrClosed):
			return err
		case err != nil:
			if !waiting {
				r.Logger.Info("waiting for the lock", "lock", r.Locks[0], "because", err)
			}
			waiting = true
			sleep(ctx, lockRetry)
			continue
		}
		waiting = false
		r.Logger.Debug("took the lock", "lock", r.Locks[0])
		err = r.hold(ctx, session, work)
		r.release(session)
		switch {
		case errors.Is(err, state.ErrClosed):
			return err
		case errors.Is(err, ErrDeposed):
			r.Logger.Warn("stepped down", "lock", r.Locks[0])
			sleep(ctx, lockRetry)
		case err != nil:
			r.Logger.Error("stepped down after an error, trying again", "retry_in", lockRetry, "error", err)
			sleep(ctx, lockRetry)
		}
	}
	return nil
}

// acquire takes all locks in one transaction.
func (r *Role) acquire(ctx context.Context) (string, error) {
	session := r.Session()
	if session == "" {
		return "", errNoSession
	}
	ops := make([]state.Op, len(r.Locks))
	for i, key := range r.Locks {
		ops[i] = state.Op{Kind: state.OpLock, Key: key, Session: session, Value: r.value(session)}
	}
	if _, err := r.Store.Txn(ctx, ops...); err != nil {
		return "", fmt.Errorf("take lock: %w", err)
	}
	return session, nil
}

// value is what the locks hold, for people.
func (r *Role) value(session string) []byte {
	return state.Encode(map[string]string{"session": session})
}

// hold runs work while the locks are held.
func (r *Role) hold(ctx context.Context, session string, work func(context.Context, string) error) error {
	role, cancel := context.WithCancelCause(ctx)
	var guard sync.WaitGroup
	for _, prefix := range commonPrefixes(r.Locks) {
		guard.Go(func() { r.guard(role, prefix, session, cancel) })
	}
	err := work(role, session)
	cause := context.Cause(role)
	cancel(nil)
	guard.Wait()
	if errors.Is(cause, ErrDeposed) || errors.Is(cause, state.ErrClosed) {
		return cause
	}
	return err
}

// guard ends the role as soon as one of its locks is seen to be lost.
func (r *Role) guard(ctx context.Context, prefix, session string, end context.CancelCauseFunc) {
	updates := make(chan Update)
	var watch sync.WaitGroup
	watch.Go(func() {
		if err := Watch(ctx, r.Store, prefix, updates, r.Logger); err != nil {
			end(err)
		}
	})
	defer watch.Wait()
	mine := make(map[string]bool, len(r.Locks))
	for _, key := range r.Locks {
		mine[key] = true
	}
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-updates:
			for _, e := range u.Changed {
				if mine[e.Key] && e.Session != session {
					end(ErrDeposed)
				}
			}
			for _, key := range u.Removed {
				if mine[key] {
					end(ErrDeposed)
				}
			}
		}
	}
}

// release gives the locks back, so that the next one needn't wait for a lock
// delay. It may fail: then the session's end does it.
func (r *Role) release(session string) {
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	ops := make([]state.Op, len(r.Locks))
	for i, key := range r.Locks {
		ops[i] = state.Op{Kind: state.OpUnlock, Key: key, Session: session, Value: r.value(session)}
	}
	if _, err := r.Store.Txn(ctx, ops...); err != nil {
		r.Logger.Debug("could not release the lock", "lock", r.Locks[0], "error", err)
	}
}

// commonPrefixes returns what to watch to see all locks: their directory if
// they are several, so that it takes one watch.
func commonPrefixes(locks []string) []string {
	if len(locks) == 1 {
		return locks
	}
	prefix := locks[0]
	for _, key := range locks[1:] {
		n := 0
		for n < len(prefix) && n < len(key) && prefix[n] == key[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return []string{prefix}
}

// Lost reports whether a transaction failed because a check of a lock did: the
// role is over.
func Lost(err error) bool {
	if errors.Is(err, state.ErrSessionNotFound) {
		return true
	}
	var txn *state.TxnError
	if !errors.As(err, &txn) {
		return false
	}
	for _, f := range txn.Failures {
		if f.Op.Kind == state.OpCheckSession {
			return true
		}
	}
	return false
}
