package membership

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// sessionTTL ends the session of an agent that renews no more; Consul
	// enforces it at twice this time.
	sessionTTL = 10 * time.Second
	// renewEvery is how often the session, and with it the lease, is renewed. A
	// renewal that takes longer than renewTimeout has failed and is repeated at
	// once: one that is lost must leave more of the lease than the stop margin.
	renewEvery   = time.Second
	renewTimeout = time.Second
	turnTimeout  = 2 * time.Second
	leaseTimeout = time.Second
	// FenceSlack is how much longer than the fence nobody else gets a lock.
	// Consul's delay runs from the session's end, before which the last renewal
	// was sent, so that the slack is for all that can make a shard end later than
	// the fence. The kill itself is 20 ms late on a busy machine. Where the
	// watchdog is stopped the agent kills, enforceAfter later; where it was killed
	// its successor does, which takes 0.2 to 0.9 s to come up at a load of ten for
	// each processor; and a hypervisor stops a machine for a moment to move it.
	FenceSlack = time.Second
	// partAfter is how long a session is kept that was given up because the store
	// was restored; see part.
	partAfter = 3 * time.Second
	// leaveTimeout bounds giving the node's locks back.
	leaveTimeout = 5 * time.Second
	// stuckAfter is after which time without a turn the membership hangs: each
	// ends by itself, whatever the store and the watchdog do.
	stuckAfter = 30 * time.Second
)

// Config is what a Member is made of. All fields are required but Fence.
type Config struct {
	Store state.Store
	// Node is this node's record, without Draining.
	Node spec.Node
	// Dir is the data directory, which remembers the session and the drain.
	Dir string
	// Fence is how long exclusive shards may live after the last renewal that
	// the store confirmed; 0 on the embedded store, whose sessions have no TTL.
	Fence time.Duration
	// Lease tells the watchdog until when (CLOCK_BOOTTIME, in nanoseconds) what
	// lives under a session may live.
	Lease func(ctx context.Context, l spec.Lease) error
	// Changed is called after every change of what Session returns, and Moved when
	// a node has come or gone: its locks may be free.
	Changed, Moved func()
	// Problem receives what is wrong, and "" when that is over.
	Problem func(text string)
	// BootID names the running boot (random(4)).
	BootID string
	// Clock reads CLOCK_BOOTTIME in nanoseconds.
	Clock  func() int64
	Logger hclog.Logger
}

// Member is this node's place among the nodes: the session that holds its
// record and all its locks. It is renewed every second, and the lease of the
// exclusive shards with it: a renewal sent at t lets them live until t + fence.
//
// Losing the session is not an error of the agent: the lease is taken back, so
// that the watchdog ends what lived under it, and a new session is made. What
// needs no lock goes on all the while.
type Member struct {
	cfg    Config
	wake   loop.Signal  // the record is to be looked at
	noted  flag         // that an operator drains the node
	turned atomic.Int64 // boot time of the last turn's end

	// What follows belongs to run's goroutine.
	id         string // of the session, confirmed or not
	registered bool   // the node's record is held by it
	renewed    int64  // boot time at which the last renewal that succeeded was sent
	rest       int64  // boot time before which no lock is taken
	foreign    time.Time
	// parting is a session that the store had from before it was restored, and
	// that is destroyed at boot time partAt.
	parting string
	partAt  int64

	mu       sync.Mutex // guards all below
	session  string     // what Session returns
	reverted bool       // the store was put back, and the session is to be given up
	draining bool       // an operator drains the node
	uptime   uptime     // of the session
}

func New(cfg Config) *Member {
	m := &Member{cfg: cfg, wake: loop.NewSignal(), noted: flag{path: filepath.Join(cfg.Dir, "draining")}}
	_, err := os.Stat(m.noted.path)
	m.draining = err == nil
	m.turned.Store(cfg.Clock())
	return m
}

// Session returns the session that holds this node's locks; "" while there is
// none, or while the store has not confirmed it for longer than the fence.
func (m *Member) Session() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

// Run keeps the node a member until the context ends. It leaves the session
// alone then: the next agent of this node goes on with it.
func (m *Member) Run(ctx context.Context) error {
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch.Go(func() { m.followRecord(ctx) })
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if m.cfg.Fence == 0 && m.registered {
			tick.Stop() // a session without a TTL needs no renewal
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			m.registered = false
		case <-tick.C:
		}
		if err := m.Renew(ctx); err != nil && m.cfg.Fence == 0 {
			tick.Reset(renewEvery) // it may have been stopped
		}
	}
}

// Renew renews the session once, and makes one if there is none. Run does so
// every second; an agent that starts calls it before, to have a session at once
// where the store is there.
func (m *Member) Renew(ctx context.Context) error {
	defer func() { m.turned.Store(m.cfg.Clock()) }()
	err := m.tryRenew(ctx)
	if err == nil {
		m.cfg.Problem("")
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	if m.cfg.Fence > 0 && m.cfg.Clock()-m.renewed > int64(m.cfg.Fence) {
		m.publish("")
	}
	m.cfg.Logger.Warn("the node is not a member now; what needs no lock goes on", "error", err)
	m.cfg.Problem("this node is not a member of the cluster now: " + err.Error())
	return err
}

// Healthy returns an error if the session is not looked after any more, as
// when a file of the data directory can't be written and never fails. That the
// store is away is no such thing.
func (m *Member) Healthy() error {
	if still := time.Duration(m.cfg.Clock() - m.turned.Load()); still > stuckAfter {
		return fmt.Errorf("the node's session has not been looked after for %v", still.Round(time.Second))
	}
	return nil
}

// tryRenew renews the session, makes one if there is none, and sees to the
// node's record.
func (m *Member) tryRenew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	if m.id == "" {
		m.id = m.recall(ctx)
	}
	m.revert(ctx)
	m.part(ctx)
	if m.id == "" {
		if err := m.create(ctx); err != nil {
			return err
		}
	}
	sent := m.cfg.Clock()
	renewal, end := context.WithTimeout(ctx, renewTimeout)
	err := m.cfg.Store.RenewSession(renewal, m.id)
	end()
	if errors.Is(err, state.ErrSessionNotFound) && m.isGone(ctx) {
		m.lost(ctx, "the store does not know it any more")
	}
	if err != nil {
		return err // it says what was tried
	}
	m.renewed = sent
	m.note(m.id, sent)
	if m.cfg.Fence > 0 {
		m.grant(ctx, spec.Lease{Session: m.id, Until: sent + int64(m.cfg.Fence)})
	}
	if !m.registered {
		if wait := time.Duration(m.rest - m.cfg.Clock()); wait > 0 {
			return fmt.Errorf("%w: no lock is taken for another %v", errResting, wait.Round(time.Second))
		}
		if err := m.register(ctx); err != nil {
			return err
		}
		m.registered = true
	}
	m.publish(m.id)
	return nil
}

// isGone makes sure that the session is gone: a store that has just been
// started may say so of one that it has not read yet.
func (m *Member) isGone(ctx context.Context) bool {
	_, err := m.cfg.Store.Session(ctx, m.id)
	return errors.Is(err, state.ErrSessionNotFound)
}

// grant tells the watchdog; if it is away, it goes by what it was told before.
func (m *Member) grant(ctx context.Context, l spec.Lease) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	if err := m.cfg.Lease(ctx, l); err != nil && ctx.Err() == nil {
		m.cfg.Logger.Warn("the watchdog was not told of the lease", "error", err)
	}
}

// errResting: the session was lost a moment ago.
var errResting = errors.New("the session was lost, and what others ran when it was may live until the end of its lease")

// lost takes back what the session gave. The lease goes first, so that nothing
// lives under it when others may have the locks. Nor is anything taken before
// what others run must have ended, too: where the store was put back, they may
// have to give up what it says is free.
func (m *Member) lost(ctx context.Context, why string) {
	m.cfg.Logger.Error("the session is lost: exclusive shards end, and a new session is made", "session", m.id, "because", why)
	if m.cfg.Fence > 0 {
		m.grant(ctx, spec.Lease{Session: m.id})
		if m.renewed > 0 {
			m.rest = m.cfg.Clock() + int64(m.cfg.Fence+FenceSlack)
		}
	}
	m.id, m.registered = "", false
	m.note("", 0)
	m.publish("")
	if err := os.Remove(m.path("session")); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.cfg.Logger.Warn("forget session", "error", err)
	}
}

// StoreRestored tells that the store was put back to an earlier state: the session
// may hold locks there that have long been others'. From now on there is none;
// the next turn gives it up. It does not block.
func (m *Member) StoreRestored() {
	if m.cfg.Fence == 0 {
		return
	}
	m.mu.Lock()
	m.reverted = true
	m.mu.Unlock()
	m.publish("")
	m.checkRecord()
}

// revert gives the session up if the store was put back.
func (m *Member) revert(ctx context.Context) {
	m.mu.Lock()
	reverted := m.reverted
	m.mu.Unlock()
	if !reverted {
		return
	}
	if id := m.id; id != "" {
		m.lost(ctx, "the store was put back to an earlier state")
		m.parting, m.partAt = id, m.cfg.Clock()+int64(partAfter)
	}
	m.mu.Lock()
	m.reverted = false
	m.mu.Unlock()
}

// part destroys a session that was given up because the store was restored. It
// holds its locks until then, so that the other nodes have a while to see the
// store as it was restored: what is destroyed at once looks to them as if the
// node had left. If it fails, the session ends by its TTL.
func (m *Member) part(ctx context.Context) {
	if m.parting == "" || m.cfg.Clock() < m.partAt {
		return
	}
	if err := m.cfg.Store.DestroySession(ctx, m.parting); err != nil {
		m.cfg.Logger.Warn("the locks of the lost session stay until it ends by itself", "error", err)
	}
	m.parting = ""
}

// checkRecord makes Run look at the node's record.
func (m *Member) checkRecord() {
	m.wake.Set()
}

// publish sets what Session returns.
func (m *Member) publish(session string) {
	m.mu.Lock()
	if m.reverted {
		session = ""
	}
	moved := m.session != session
	m.session = session
	m.mu.Unlock()
	if moved {
		m.cfg.Changed()
	}
}

func (m *Member) create(ctx context.Context) error {
	cfg := state.SessionConfig{Name: "meshrun agent", Node: m.cfg.Node.Name, Behavior: state.BehaviorDelete}
	if m.cfg.Fence > 0 {
		cfg.TTL, cfg.LockDelay = sessionTTL, m.cfg.Fence+FenceSlack
	}
	id, err := m.cfg.Store.CreateSession(ctx, cfg)
	if err != nil {
		return err
	}
	m.id, m.cfg.Node.Since = id, time.Now().UTC().Truncate(time.Second)
	if m.cfg.Fence == 0 {
		return nil // the record in the store tells it
	}
	// Before any lock is taken: an agent that comes back must find it.
	m.remember()
	return nil
}

func (m *Member) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

// Leave gives every lock back and ends the session, so that others needn't
// wait for a lock delay. Nothing that needs a lock may live any more, and run
// must have returned. On the embedded store there is nothing to leave.
func (m *Member) Leave() error {
	if m.id == "" || m.cfg.Fence == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	m.grant(ctx, spec.Lease{Session: m.id})
	m.note("", 0)
	entries, _, err := m.cfg.Store.List(ctx, state.Root)
	if err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	var ops []state.Op
	for _, e := range entries {
		if e.Session == m.id {
			ops = append(ops, state.Op{Kind: state.OpUnlock, Key: e.Key, Session: m.id, Value: e.Value}, state.Op{Kind: state.OpDelete, Key: e.Key})
		}
	}
	for _, batch := range state.Batches(ops) {
		if _, err := m.cfg.Store.Txn(ctx, batch...); err != nil {
			return fmt.Errorf("leave the cluster: give locks back: %w", err)
		}
	}
	if err := m.cfg.Store.DestroySession(ctx, m.id); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	m.id = ""
	if err := os.Remove(m.path("session")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("leave the cluster: forget session: %w", err)
	}
	return nil
}
