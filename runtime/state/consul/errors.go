package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// explain returns why a request failed in the contract's words. ctx is the
// caller's, limited the request's own.
func (s *Store) explain(ctx, limited context.Context, limit time.Duration, err error) error {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return s.refused(ctx, r)
	case s.life.Err() != nil:
		return state.ErrClosed
	case over(ctx) != nil:
		return over(ctx)
	case over(limited) != nil:
		return fmt.Errorf("%w: Consul did not answer within %v", state.ErrUnavailable, limit)
	}
	return fmt.Errorf("%w: %v", state.ErrUnavailable, err)
}

// over returns why a context has ended. A connection notices the deadline by
// itself, perhaps before the context does.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// refused sorts what Consul has refused. What it answers with 5xx (no leader, a
// leader lost in mid-request) and 429 may go well later.
func (s *Store) refused(ctx context.Context, r *refusal) error {
	switch {
	case r.code == http.StatusForbidden && r.needs != "":
		return fmt.Errorf("%w: %s; the token's policy needs: %s", state.ErrDenied, r.text, r.needs)
	case r.code == http.StatusForbidden:
		return s.denied(ctx, r.text)
	case r.code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", state.ErrTooLarge, r)
	case r.code == http.StatusTooManyRequests || r.code >= 500:
		return fmt.Errorf("%w: %w", state.ErrUnavailable, r)
	}
	return r
}

// denied says what the token lacks and what would mend it: the store's own, or
// that of who uses it with another one (As).
func (s *Store) denied(ctx context.Context, why string) error {
	all := s.opts.Prefix + strings.SplitAfter(state.Root, "/")[0]
	if _, guest := ctx.Value(tokenKey{}).(string); guest {
		return fmt.Errorf("%w: %s; to look, your token's policy needs: key_prefix %q { policy = \"read\" }; to change jobs, also { policy = \"write\" } for key_prefix %q, %q and %q",
			state.ErrDenied, why, all, s.opts.Prefix+state.JobsPrefix, s.opts.Prefix+state.HistoryPrefix, s.opts.Prefix+state.EventsPrefix)
	}
	return fmt.Errorf("%w: %s; the token's policy needs: key_prefix %q { policy = \"write\" } and session_prefix \"\" { policy = \"write\" }",
		state.ErrDenied, why, all)
}
