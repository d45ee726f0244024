package local

import (
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// txn does all operations within the edit, or none, and returns the index.
func (e *edit) txn(ops []state.Op) (uint64, error) {
	c := e.begin()
	var failures []state.OpFailure
	for _, op := range ops {
		if reason := c.do(op); reason != "" {
			op.Value = nil // an error is printed and logged; values may be secret
			failures = append(failures, state.OpFailure{Op: op, Reason: reason})
		}
	}
	if len(failures) > 0 {
		return 0, &state.TxnError{Failures: failures}
	}
	if len(c.touched) > 0 {
		c.adopt()
	}
	return e.memory.index, nil
}

// do applies one operation and returns why it failed, or "".
func (c *change) do(op state.Op) string {
	old, exists := c.entries.Get([]byte(op.Key))
	if !exists {
		old = &state.Entry{Key: op.Key}
	}
	n := *old
	n.Value = op.Value
	switch op.Kind {
	case state.OpSet:
		c.put(n)
	case state.OpCAS:
		if old.ModifyIndex != op.Index {
			return indexReason(old, op.Index)
		}
		c.put(n)
	case state.OpDelete:
		c.remove(op.Key)
	case state.OpDeleteCAS:
		if exists && old.ModifyIndex != op.Index {
			return indexReason(old, op.Index)
		}
		c.remove(op.Key)
	case state.OpCheckIndex:
		if !exists || old.ModifyIndex != op.Index {
			return indexReason(old, op.Index)
		}
	case state.OpCheckMissing:
		if exists {
			return indexReason(old, 0)
		}
	case state.OpCheckSession:
		if !exists || old.Session != op.Session {
			return holderReason(old, op.Session)
		}
	case state.OpLock:
		return c.lock(n, op.Session)
	case state.OpUnlock:
		if !exists || old.Session != op.Session {
			return holderReason(old, op.Session)
		}
		n.Session = ""
		c.put(n)
	}
	return ""
}

// lock takes the entry's lock for the session.
func (c *change) lock(n state.Entry, session string) string {
	if _, ok := c.sessions.Get([]byte(session)); !ok {
		return "session " + session + " does not exist"
	}
	if n.Session != "" && n.Session != session {
		return holderReason(&n, session)
	}
	if until, ok := c.delays.Get([]byte(n.Key)); ok && n.Session == "" {
		if wait := until.Sub(c.now); wait > 0 {
			return fmt.Sprintf("lock delay: it can be taken in %v", wait.Round(time.Millisecond))
		}
		c.opened = append(c.opened, n.Key)
	}
	if n.Session == "" {
		n.Session = session
		n.LockIndex++
	}
	c.put(n)
	return ""
}

func indexReason(e *state.Entry, want uint64) string {
	switch {
	case e.ModifyIndex == 0:
		return fmt.Sprintf("the key does not exist; its index was to be %d", want)
	case want == 0:
		return fmt.Sprintf("the key exists, at index %d", e.ModifyIndex)
	}
	return fmt.Sprintf("the key is at index %d, not %d", e.ModifyIndex, want)
}

func holderReason(e *state.Entry, want string) string {
	switch {
	case e.ModifyIndex == 0:
		return "the key does not exist"
	case e.Session == "":
		return "nobody holds the lock; session " + want + " was to hold it"
	}
	return "session " + e.Session + " holds the lock, not " + want
}
