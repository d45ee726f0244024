package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// storeTimeout ends every call of the store but a watch.
	storeTimeout = 10 * time.Second
	// lockBatch is how many locks are taken in a transaction, with room for
	// their values.
	lockBatch = state.MaxTxnOps / 2
)

// LockOwner is the value of an exclusive shard's lock. The token is the
// ModifyIndex of the lock's key, which nobody writes while it is held.
type LockOwner struct {
	Node    string `json:"node"`
	Session string `json:"session"`
}

// hold is a lock that is held: with its token, for the session.
type hold struct {
	token   uint64
	session string
}

// locks takes and releases the locks of exclusive shards. Its goroutine is the
// only one that talks to the store, so that a slow store delays exclusive
// shards only.
//
// A lock belongs to the session that took it: with another session, or none,
// no shard is held until its lock is taken again. What runs under the old one
// is left to the end of its lease. Where the session goes on and the store
// nevertheless says that a lock is gone or another's (somebody has deleted its
// key), the shard is lost: it is stopped here, and its lock is taken afresh,
// with a new token, once the watchdog no longer knows it. That is looked at
// when the engine is refreshed and after the store was away; nothing watches it.
type locks struct {
	store   state.Store
	session func() string
	node    string
	delay   time.Duration // as Config.LockDelay
	logger  hclog.Logger
	changed func()                  // told after every change of what token says
	freed   func([]spec.InstanceID) // told which locks are no longer held
	wake    loop.Signal

	mu       sync.Mutex               // guards all below
	wanted   map[spec.InstanceID]bool // true: take or keep; false: release
	held     map[spec.InstanceID]hold
	lost     map[spec.InstanceID]string // why; not taken again while it is in here
	attempts map[spec.InstanceID]attempt
	moved    time.Time // when a node has come or gone last
	holding  string    // the session that held is of
	look     bool      // compare held with the store before anything else
	doubt    bool      // ask the store whether held is still true
}

func newLocks(cfg *Config, changed func(), freed func([]spec.InstanceID)) *locks {
	return &locks{
		store: cfg.Store, session: cfg.Agent.Session, node: cfg.Host.Node, delay: cfg.LockDelay, logger: cfg.Logger.Named("locks"),
		changed: changed, freed: freed, wake: loop.NewSignal(),
		wanted: map[spec.InstanceID]bool{}, held: map[spec.InstanceID]hold{},
		lost: map[spec.InstanceID]string{}, attempts: map[spec.InstanceID]attempt{},
	}
}

// want says which locks to hold: all of take, and of the others only those
// that may not be released yet, since the watchdog knows their shards. What it
// no longer knows is no longer lost.
func (l *locks) want(take map[spec.InstanceID]bool, known func(spec.InstanceID) bool) {
	unknown := l.asked() // asked without l.mu: known takes locks of its own
	maps.DeleteFunc(unknown, func(id spec.InstanceID, _ bool) bool { return known(id) })
	if l.note(take, unknown) {
		l.changed()
	}
}

// note is want with l.mu held; it reports whether something is no longer lost.
func (l *locks) note(take, unknown map[spec.InstanceID]bool) (found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := false
	for id := range take {
		if !l.wanted[id] {
			l.wanted[id], moved = true, true
		}
	}
	for id := range unknown {
		if l.wanted[id] && !take[id] {
			l.wanted[id], moved = false, true
		}
		if l.lost[id] != "" {
			delete(l.lost, id)
			found = true
		}
	}
	if moved || found {
		l.wake.Set()
	}
	return found
}

// asked returns the shards of all locks that matter.
func (l *locks) asked() map[spec.InstanceID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(l.wanted)
	for id := range l.lost {
		out[id] = true
	}
	return out
}

// refresh makes the locks be compared with the store, and those that could not
// be had be tried again soon.
func (l *locks) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = true
	l.soon()
}

// token returns the lock of a shard, or why there is none.
func (l *locks) token(id spec.InstanceID) (hold, string) {
	session := l.session()
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.held[id]
	switch {
	case session == "":
		return hold{}, "waits for a session with the store"
	case ok && h.session == session:
		return h, ""
	case l.attempts[id].why != "":
		return hold{}, l.attempts[id].why
	}
	return hold{}, "waits for its shard's lock"
}

// lostWhy says why a shard that may run must be stopped, "" if it needn't.
func (l *locks) lostWhy(id spec.InstanceID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[id]
}

// holds reports whether the lock of a shard is held, or may be.
func (l *locks) holds(id spec.InstanceID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.held[id]
	return ok
}

// run takes and releases locks until ctx is done.
func (l *locks) run(ctx context.Context) {
	retry := loop.Backoff{Min: firstRetry, Max: lastRetry}
	loop.Run(ctx, l.wake, func(now time.Time) time.Duration {
		wait, err := l.step(ctx, now)
		if err == nil {
			retry.Recovered(l.logger, "shard locks can be had again")
		} else if ctx.Err() == nil {
			wait = retry.Failed(l.logger, "shard locks are delayed", err)
		}
		return wait
	})
}

// step does what is to be done now and returns when to do more; 0 means only
// when woken. Releasing comes first: others wait for it.
func (l *locks) step(ctx context.Context, now time.Time) (wait time.Duration, err error) {
	session := l.session()
	if session == "" {
		return 0, nil // Refresh tells of the next one
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := l.confirm(ctx, session); err != nil {
		return 0, l.failed(nil, err)
	}
	if l.mustLook(session) {
		if err := l.compare(ctx, session); err != nil {
			return 0, l.failed(l.toTake(now), err)
		}
	}
	for batch := range slices.Chunk(l.toRelease(), lockBatch) {
		if err := l.release(ctx, session, batch); err != nil {
			return 0, l.failed(nil, err)
		}
	}
	take, err := l.free(ctx, l.toTake(now), now)
	if err != nil {
		return 0, l.failed(take, err)
	}
	for batch := range slices.Chunk(take, lockBatch) {
		if err := l.take(ctx, session, batch, now); err != nil {
			return 0, l.failed(batch, err)
		}
	}
	return l.untilNext(time.Now()), nil
}

// failed notes that the store did not do what it was asked, or may have done
// it without saying so.
func (l *locks) failed(ids []spec.InstanceID, err error) error {
	l.mu.Lock()
	l.look = true
	moved := false
	for _, id := range ids {
		a := l.attempts[id]
		moved = moved || a.why == ""
		a.why = "waits for the store: " + err.Error()
		l.attempts[id] = a
	}
	l.mu.Unlock()
	if moved {
		l.changed()
	}
	return err
}

// mustLook reports whether held may not be what the store says.
func (l *locks) mustLook(session string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return session != l.holding || l.look
}

// toRelease returns the locks to be given up, and forgets what is done with.
func (l *locks) toRelease() (ids []spec.InstanceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, want := range l.wanted {
		if want {
			continue
		}
		if _, held := l.held[id]; held {
			ids = append(ids, id)
			continue
		}
		delete(l.wanted, id)
		delete(l.attempts, id)
	}
	slices.SortFunc(ids, spec.InstanceID.Compare)
	return ids
}

// toTake returns the locks to be tried now.
func (l *locks) toTake(now time.Time) (ids []spec.InstanceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.missing() {
		if !l.attempts[id].next.After(now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, spec.InstanceID.Compare)
	return ids
}

// missing returns the locks that are wanted, may be taken, and are not held.
// The caller holds l.mu.
func (l *locks) missing() map[spec.InstanceID]bool {
	out := maps.Clone(l.wanted)
	maps.DeleteFunc(out, func(id spec.InstanceID, want bool) bool {
		_, held := l.held[id]
		return !want || held || l.lost[id] != ""
	})
	return out
}

// untilNext is when the next lock is to be tried; 0 if none waits for that.
func (l *locks) untilNext(now time.Time) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.missing() {
		left := max(l.attempts[id].next.Sub(now), time.Millisecond)
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}
