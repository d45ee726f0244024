package follow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// callTimeout ends a call of the store that isn't a watch.
	callTimeout = 10 * time.Second
	// lockRetry is the wait before a lock is tried again that could not be taken,
	// and how long each node waits for the one before it to take it. After
	// lockPatience slowRetry goes on, for whatever it is.
	lockRetry    = time.Second
	lockPatience = 30 * time.Second
	slowRetry    = time.Minute
	// unlockTimeout bounds the giving back of locks at the end.
	unlockTimeout = 2 * time.Second
)

// Candidates says of each lock of a role which of the nodes that are there may
// hold it. It is the same function on every node.
type Candidates func(nodes []spec.Node) map[string][]string

// Holder is the value of a role's lock: the node that has it, and the session
// by which that one is a member, which holds its record. What agents of before
// have left names no member: a session of theirs held the lock itself.
type Holder struct {
	Node    string `json:"node"`
	Session string `json:"member"`
}

// HolderOf returns who holds a lock: one of a role only if the session still
// holds the node's record. It is the zero value if nobody does.
func HolderOf(e state.Entry) Holder {
	h, err := state.Decode[Holder](e)
	if err != nil { // what can't be read is nobody's
		h = Holder{}
	}
	if e.Session != "" {
		h.Session = e.Session
	}
	return h
}

// claims takes and gives the locks of a role. Such a lock is a key that names
// its holder. It is taken and given by compare-and-set, and every write of a
// decision checks that the key is as its holder wrote it: so there is but one
// who can decide, whatever the others believe. That is why no lock delay is
// needed, and no session holds the key: the next one takes it in the moment in
// which the holder's session ends, not seconds after.
//
//	held    the key names a node, and the session by which that one is a member
//	free    there is no key, or that session does not hold the node's record
//
// A lock is written to only if it was seen to be free: in Consul, a failed attempt
// costs every server as much as a change. It is looked at when it could have
// become free, and only then:
//
//   - when nodes/ changes, as its holder's record goes when its session does;
//   - when it is written, while it is held by a node that shall not have it any
//     more and is about to give it up (one more watch, until then);
//   - each second, while it is free and can't be taken.
//
// Only the role's goroutine touches it.
type claims struct {
	cfg  *RoleConfig
	poke func()

	session string
	may     map[string][]string // whose each lock may be
	held    map[string]uint64   // with the index of the taking
	unsure  bool                // look at the locks
	retry   time.Time           // when to look again though nothing changes
	free    time.Time           // since when a wanted lock has been free
	handed  *handover
}

// handover waits for a change of the locks.
type handover struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// term returns what may be done now.
func (c *claims) term() *Term {
	t := &Term{Session: c.session, Locks: map[string]uint64{}}
	for lock, at := range c.held {
		if c.wants(lock) {
			t.Locks[lock] = at
		}
	}
	return t
}

func (c *claims) wants(lock string) bool { return slices.Contains(c.may[lock], c.cfg.Node) }

// wanted returns the locks that this node shall have, sorted.
func (c *claims) wanted() []string {
	var locks []string
	for lock := range c.may {
		if c.wants(lock) {
			locks = append(locks, lock)
		}
	}
	slices.Sort(locks)
	return locks
}

// forget makes sure of nothing that was known of the locks.
func (c *claims) forget() {
	clear(c.held)
	c.retry = time.Now().Add(lockRetry)
}

// settle brings what is held to what is wanted, as far as it can be now, and
// returns when to call it again though nothing has changed.
func (c *claims) settle(ctx context.Context, nodes []spec.Node, now time.Time) time.Time {
	if session := c.cfg.Session(); session != c.session {
		c.session, c.held, c.retry, c.free, c.unsure = session, map[string]uint64{}, time.Time{}, time.Time{}, true
	}
	if c.session == "" {
		c.may = nil
		c.endHandover()
		return time.Time{} // Refresh will tell
	}
	if c.handed != nil && closed(c.handed.done) || !c.retry.IsZero() && !c.retry.After(now) {
		c.unsure = true
	}
	if !c.unsure {
		return c.retry
	}
	c.may = c.cfg.May(nodes)
	c.retry = time.Time{}
	if n := len(c.wanted()); n != len(c.held) || n != len(c.term().Locks) {
		c.retry = c.look(ctx, now)
	} else {
		c.free = time.Time{}
		c.endHandover()
	}
	c.unsure = false
	return c.retry
}

// look reads the locks, gives up what others shall have, takes what is free,
// and returns when to look again.
func (c *claims) look(ctx context.Context, now time.Time) time.Time {
	c.endHandover()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entries, index, err := c.cfg.Store.List(ctx, c.cfg.Locks)
	var members map[string]string
	if err == nil {
		members, err = c.members(ctx) // after the locks: who holds one had its record before
	}
	if err != nil {
		c.cfg.Logger.Warn("cannot look at the locks, trying again", "locks", c.cfg.Locks, "retry_in", lockRetry, "error", err)
		return now.Add(lockRetry)
	}
	clear(c.held)
	give, take := map[string]uint64{}, map[string]uint64{}
	for _, lock := range c.wanted() {
		take[lock] = 0
	}
	contested := false
	for _, e := range entries {
		holder, shall := HolderOf(e), c.wants(e.Key)
		lives := e.Session != "" || holder.Session != "" && members[holder.Node] == holder.Session
		switch {
		case holder.Session == c.session && shall:
			c.held[e.Key] = e.ModifyIndex
			delete(take, e.Key)
		case holder.Session == c.session:
			give[e.Key] = e.ModifyIndex
		case shall && lives:
			delete(take, e.Key)
			contested = contested || !slices.Contains(c.may[e.Key], holder.Node)
		case shall:
			take[e.Key] = e.ModifyIndex
		}
	}
	retry := earlier(c.unlock(ctx, give, now), c.take(ctx, take, now))
	if contested {
		c.awaitHandover(index)
	}
	return retry
}

// members returns the session that holds each node's record.
func (c *claims) members(ctx context.Context) (map[string]string, error) {
	entries, _, err := c.cfg.Store.List(ctx, state.NodesPrefix)
	members := make(map[string]string, len(entries))
	for _, e := range entries {
		members[Name(state.NodesPrefix, e.Key)] = e.Session
	}
	return members, err
}

// unlock gives locks up in one transaction, and returns when to try again.
func (c *claims) unlock(ctx context.Context, locks map[string]uint64, now time.Time) time.Time {
	if len(locks) == 0 {
		return time.Time{}
	}
	names := slices.Sorted(maps.Keys(locks))
	if _, err := c.txn(ctx, state.OpDeleteCAS, names, locks); err != nil {
		maps.Copy(c.held, locks) // still
		c.cfg.Logger.Warn("cannot hand over, trying again", "locks", names, "retry_in", lockRetry, "error", err)
		return now.Add(lockRetry)
	}
	c.cfg.Logger.Info("handed over", "locks", names)
	return time.Time{}
}

// take takes free locks in one transaction, and returns when to try again.
// Where several nodes may have them, one after the other tries.
func (c *claims) take(ctx context.Context, free map[string]uint64, now time.Time) time.Time {
	if len(free) == 0 {
		c.free = time.Time{}
		return time.Time{}
	}
	locks := slices.Sorted(maps.Keys(free))
	if c.free.IsZero() {
		c.free = now
	}
	rank := slices.Index(Rank(locks[0], c.may[locks[0]]), c.cfg.Node)
	turn := time.Duration(rank) * lockRetry
	if at := c.free.Add(turn); at.After(now) {
		return at
	}
	var again time.Time
	for len(locks) > 0 {
		index, err := c.txn(ctx, state.OpCAS, locks, free)
		if err == nil {
			for _, lock := range locks {
				c.held[lock] = index
			}
			c.cfg.Logger.Info("took over", "prefix", c.cfg.Locks, "locks", len(locks))
			break
		}
		again = c.later(locks, err, turn, now)
		left := without(locks, err)
		if len(left) == len(locks) {
			break
		}
		locks = left
	}
	if again.IsZero() {
		c.free = time.Time{}
	}
	return again
}

// later returns when to try locks again that could not be taken.
func (c *claims) later(locks []string, err error, turn time.Duration, now time.Time) time.Time {
	if now.Sub(c.free) > lockPatience {
		c.cfg.Logger.Error("cannot take a lock that nobody holds", "locks", locks, "retry_in", slowRetry, "error", err)
		return now.Add(slowRetry)
	}
	c.cfg.Logger.Debug("cannot take a lock yet", "locks", locks, "because", err)
	return now.Add(turn + lockRetry)
}

// without returns the locks whose operation isn't among those that failed.
func without(locks []string, err error) []string {
	var conflict *state.TxnError
	if !errors.As(err, &conflict) {
		return locks
	}
	var left []string
	for _, lock := range locks {
		if !slices.ContainsFunc(conflict.Failures, func(f state.OpFailure) bool { return f.Op.Key == lock }) {
			left = append(left, lock)
		}
	}
	return left
}

// txn does the same to each lock, if it is as it was at its index.
func (c *claims) txn(ctx context.Context, kind state.OpKind, locks []string, at map[string]uint64) (uint64, error) {
	value := state.Encode(Holder{Node: c.cfg.Node, Session: c.session})
	ops := make([]state.Op, len(locks))
	for i, lock := range locks {
		ops[i] = state.Op{Kind: kind, Key: lock, Index: at[lock]}
		if kind == state.OpCAS {
			ops[i].Value = value
		}
	}
	return c.cfg.Store.Txn(ctx, ops...)
}

// awaitHandover looks at the locks again once they have changed.
func (c *claims) awaitHandover(after uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	h := &handover{cancel: cancel, done: make(chan struct{})}
	c.handed = h
	go func() {
		if _, _, err := c.cfg.Store.Watch(ctx, c.cfg.Locks, after); err != nil {
			sleep(ctx, retryDelay)
		}
		close(h.done)
		c.poke()
	}()
}

func (c *claims) endHandover() {
	if c.handed == nil {
		return
	}
	c.handed.cancel()
	<-c.handed.done
	c.handed = nil
}

// end gives all locks back, so that the next one needn't wait for the session's
// end. It may fail: then that does it.
func (c *claims) end() {
	c.endHandover()
	if len(c.held) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if _, err := c.txn(ctx, state.OpDeleteCAS, slices.Sorted(maps.Keys(c.held)), c.held); err != nil {
		c.cfg.Logger.Debug("could not give the locks back", "locks", c.cfg.Locks, "error", err)
	}
	clear(c.held)
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
