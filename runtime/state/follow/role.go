package follow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// ErrDeposed: a lock that gave the right to the work was lost, or the session
// that held it.
var ErrDeposed = errors.New("the lock was lost")

// Work is what a role does. Only the role's goroutine calls it.
type Work interface {
	// Take takes in what has changed. It is called without the locks too, so
	// that who takes them over knows everything already.
	Take(u Update)
	// Act does what is to be done under the locks that are held, and returns
	// when to be called again though nothing has changed (zero: never). Every
	// write checks its lock (Term.Check). The context ends with the term. After
	// an error for which Lost is true the locks are asked for again; any other
	// is logged, and Act is called again a second later.
	Act(ctx context.Context, term *Term) (wake time.Time, err error)
}

// Term is a time in which a node holds some of a role's locks.
type Term struct {
	// Session is that of the node.
	Session string
	// Locks are those that are held, with the index of each one's taking: a
	// lock that was lost in between has another.
	Locks map[string]uint64
}

// Check returns the operation that makes a transaction fail unless the lock is
// still held, and nobody has had it in between.
func (t *Term) Check(lock string) state.Op {
	return state.Op{Kind: state.OpCheckIndex, Key: lock, Index: t.Locks[lock]}
}

// RoleConfig says what a role is.
type RoleConfig struct {
	Store state.Store
	// Node is this node's name.
	Node string
	// Session returns the session that holds the node's record: "" while there
	// is none, and as soon as the agent can't know any more that it still lives.
	Session func() string
	// Locks is the prefix of all locks of the role, below state.LocksPrefix; May
	// says whose each may be.
	Locks string
	May   Candidates
	Work  Work
	// Prefixes are what Work follows.
	Prefixes []string
	Logger   hclog.Logger
}

// Role is work that only the holder of a lock may do, and the loop that does
// it. The loop follows the store all the time; it acts under those locks that
// its node may have and that it holds.
//
// The agent drives it by two things: Session, which must turn to "" in time
// (by the agent's own clock, a lease after the last renewal that went out), and
// Refresh, to be called whenever the answer of Session has changed. Then what is
// under way ends: it could only fail, as every write checks its lock.
type Role struct {
	cfg    RoleConfig
	nodes  *View[spec.Node] // the loop's
	claims claims           // the loop's
	poke   chan struct{}
	turned chan struct{} // term is another one

	mu      sync.Mutex // guards all below
	session string     // that Act is under way with; "" if it isn't
	end     context.CancelCauseFunc
	term    *Term // the last
}

// NewRole returns a role that does nothing until Run is called.
func NewRole(cfg RoleConfig) *Role {
	r := &Role{cfg: cfg, nodes: NewView[spec.Node](state.NodesPrefix), poke: make(chan struct{}, 1), turned: make(chan struct{}, 1), term: &Term{}}
	r.claims = claims{cfg: &r.cfg, poke: r.wake}
	return r
}

// Run works until ctx ends; then it gives the locks back, so that the next
// node has them at once. It returns an error only if the store was closed.
func (r *Role) Run(ctx context.Context) error {
	prefixes := slices.Clone(r.cfg.Prefixes)
	if !slices.Contains(prefixes, state.NodesPrefix) {
		prefixes = append(prefixes, state.NodesPrefix)
	}
	err := Loop(ctx, r.cfg.Store, prefixes, r.poke, r.cfg.Logger, r.step)
	r.claims.end()
	return err
}

// Holds reports whether this node holds a lock of the role, and may have it, as
// of the last step. It may be called by anybody, and proves nothing: every write
// checks its lock.
func (r *Role) Holds(lock string) bool {
	_, holds := r.Check(lock)
	return holds
}

// Check is Term.Check for who is not the role's work, and writes under its locks;
// false if this node does not hold the lock, as Holds tells.
func (r *Role) Check(lock string) (state.Op, bool) {
	now := r.cfg.Session()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term.Check(lock), now != "" && r.term.Session == now && r.term.Locks[lock] != 0
}

// Turned is ready when the answers of Holds may be others. It is for one
// receiver.
func (r *Role) Turned() <-chan struct{} { return r.turned }

// note makes a term what Holds goes by.
func (r *Role) note(term *Term) {
	r.mu.Lock()
	same := maps.Equal(r.term.Locks, term.Locks) && (r.term.Session == term.Session || len(term.Locks) == 0)
	r.term = term
	r.mu.Unlock()
	if same {
		return
	}
	select {
	case r.turned <- struct{}{}:
	default:
	}
}

// Refresh tells the role that Session may have changed. It doesn't block.
func (r *Role) Refresh() {
	now := r.cfg.Session()
	r.mu.Lock()
	if r.session != "" && r.session != now {
		r.end(ErrDeposed)
	}
	r.mu.Unlock()
	r.wake()
}

func (r *Role) wake() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

func (r *Role) step(ctx context.Context, updates []Update) (time.Time, error) {
	for _, u := range updates {
		if u.Prefix == state.NodesPrefix && len(r.nodes.Apply(u)) > 0 {
			r.claims.unsure = true
		}
		if slices.Contains(r.cfg.Prefixes, u.Prefix) {
			r.cfg.Work.Take(u)
		}
	}
	retry := r.claims.settle(ctx, r.allNodes(), time.Now())
	term := r.claims.term()
	r.note(term)
	if len(term.Locks) == 0 || ctx.Err() != nil {
		return retry, nil
	}
	wake, err := r.act(ctx, term)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, state.ErrClosed):
		return time.Time{}, err
	case err != nil:
		if Lost(err) {
			r.cfg.Logger.Warn("stepped down", "lock", r.cfg.Locks, "because", err)
			r.claims.forget()
		} else {
			r.cfg.Logger.Error("cannot do my work, trying again", "retry_in", retryDelay, "error", err)
		}
		wake = time.Now().Add(retryDelay)
	}
	return earlier(retry, wake), nil
}

// act lets the work act in a context that ends with the term.
func (r *Role) act(ctx context.Context, term *Term) (time.Time, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	r.mu.Lock()
	r.session, r.end = term.Session, end
	r.mu.Unlock()
	if r.cfg.Session() != term.Session { // it has changed before Refresh could know of us
		end(ErrDeposed)
	}
	wake, err := r.cfg.Work.Act(ctx, term)
	r.mu.Lock()
	r.session, r.end = "", nil
	r.mu.Unlock()
	if errors.Is(context.Cause(ctx), ErrDeposed) {
		return time.Time{}, ErrDeposed
	}
	return wake, err
}

// allNodes returns the nodes that are there. One whose record can't be read is
// there nevertheless.
func (r *Role) allNodes() []spec.Node {
	names := r.nodes.Names()
	nodes := make([]spec.Node, 0, len(names))
	for _, name := range names {
		node := spec.Node{Name: name}
		if n, _, err := r.nodes.Get(name); err == nil {
			node = *n
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// earlier returns the earlier of two times; a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// Lost reports whether an error means that a lock is lost: the check of one
// failed, or the node's session has gone.
func Lost(err error) bool {
	if errors.Is(err, ErrDeposed) {
		return true
	}
	var txn *state.TxnError
	if !errors.As(err, &txn) {
		return false
	}
	for _, f := range txn.Failures {
		if f.Op.Kind == state.OpCheckIndex && strings.HasPrefix(f.Op.Key, state.LocksPrefix) {
			return true
		}
	}
	return false
}
