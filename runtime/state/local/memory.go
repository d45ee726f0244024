package local

import (
	"bytes"
	"strings"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/synergymesh/meshrun/runtime/state"
)

// maxGraves bounds how many deletions are remembered.
const maxGraves = 8192

// memory is one version of all that the store knows. It is never changed:
// readers hold on to it without a lock, and the writer makes a new one.
type memory struct {
	index    uint64
	entries  *iradix.Tree[*state.Entry]
	sessions *iradix.Tree[state.Session]
	delays   *iradix.Tree[time.Time] // when a lock may be taken again
	// graves are the newest deletions, oldest first: a prefix has changed too
	// when a key of it has gone. Those up to forgotten are no longer known.
	graves    []grave
	forgotten uint64
}

// grave remembers the deletion of a key.
type grave struct {
	key   string
	index uint64
}

// newMemory is the memory of a new store. Its index is 1, because watching
// from 0 does not block.
func newMemory() memory {
	return memory{
		index:    1,
		entries:  iradix.New[*state.Entry](),
		sessions: iradix.New[state.Session](),
		delays:   iradix.New[time.Time](),
	}
}

// list returns the entries under a prefix in key order.
func (m *memory) list(prefix string) []state.Entry {
	var out []state.Entry
	it := m.entries.Root().Iterator()
	it.SeekPrefix([]byte(prefix))
	for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
		out = append(out, *e)
	}
	return out
}

// changedSince reports whether anything under the prefix was written or
// deleted after the index. It may say so without need when the index is
// older than the remembered deletions.
func (m *memory) changedSince(prefix string, after uint64) bool {
	if after >= m.index {
		return false
	}
	if after < m.forgotten {
		return true
	}
	for i := len(m.graves) - 1; i >= 0 && m.graves[i].index > after; i-- {
		if strings.HasPrefix(m.graves[i].key, prefix) {
			return true
		}
	}
	it := m.entries.Root().Iterator()
	it.SeekPrefix([]byte(prefix))
	for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
		if e.ModifyIndex > after {
			return true
		}
	}
	return false
}

// edit is a memory in the making: the changes of one commit, one after the
// other. dirty names the records that the disk must follow.
type edit struct {
	memory
	now   time.Time
	dirty map[recordID]struct{}
	woken []*iradix.Txn[*state.Entry] // to notify once the edit is published
	born  []state.Session             // created sessions, to be timed
	ended []string                    // destroyed sessions
}

func newEdit(base *memory, now time.Time) *edit {
	return &edit{memory: *base, now: now, dirty: map[recordID]struct{}{}}
}

// wake wakes the watchers of what has changed. The edit's memory must be
// visible before, so that a woken watcher finds the change.
func (e *edit) wake() {
	for _, t := range e.woken {
		t.Notify()
	}
}

// change is one transaction within an edit: its effects show in the edit only
// after adopt.
type change struct {
	*edit
	index   uint64
	entries *iradix.Txn[*state.Entry]
	touched map[string]bool // key → deleted
	opened  []string        // keys whose lock delay is over because the lock was taken
}

func (e *edit) begin() *change {
	t := e.entries.Txn()
	t.TrackMutate(true)
	return &change{edit: e, index: e.memory.index + 1, entries: t, touched: map[string]bool{}}
}

// adopt makes the change part of its edit.
func (c *change) adopt() {
	e := c.edit
	e.memory.index = c.index
	e.memory.entries = c.entries.CommitOnly()
	e.woken = append(e.woken, c.entries)
	for key, deleted := range c.touched {
		e.dirty[recordID{kindEntry, key}] = struct{}{}
		if deleted {
			e.graves = append(e.graves, grave{key, c.index})
		}
	}
	if n := len(e.graves) - maxGraves; n > 0 {
		e.forgotten = e.graves[n-1].index
		e.graves = append([]grave(nil), e.graves[n:]...)
	}
	for _, key := range c.opened {
		e.setDelay(key, time.Time{})
	}
}

// setDelay keeps a key's lock from being taken until then; the zero time
// allows it.
func (e *edit) setDelay(key string, until time.Time) {
	if until.IsZero() {
		e.delays, _, _ = e.delays.Delete([]byte(key))
	} else {
		e.delays, _, _ = e.delays.Insert([]byte(key), until)
	}
	e.dirty[recordID{kindDelay, key}] = struct{}{}
}

// put writes an entry. Writing what is there already is no change, as in
// Consul: the key keeps its ModifyIndex and nobody is woken.
func (c *change) put(n state.Entry) {
	old, ok := c.entries.Get([]byte(n.Key))
	if ok && old.LockIndex == n.LockIndex && old.Session == n.Session && bytes.Equal(old.Value, n.Value) {
		return
	}
	n.CreateIndex = c.index
	if ok {
		n.CreateIndex = old.CreateIndex
	}
	n.ModifyIndex = c.index
	c.entries.Insert([]byte(n.Key), &n)
	c.touched[n.Key] = false
}

func (c *change) remove(key string) {
	if _, ok := c.entries.Delete([]byte(key)); ok {
		c.touched[key] = true
	}
}
