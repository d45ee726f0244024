package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// errNameTaken: the node's name belongs to another session.
var errNameTaken = errors.New("another agent has this node's name")

// register makes the session hold the node's record, as it is now.
func (m *membership) register(ctx context.Context) error {
	key := state.NodeKey(m.cfg.node.Name)
	entry, err := m.cfg.store.Get(ctx, key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("read node %s: %w", m.cfg.node.Name, err)
	}
	if entry.Session != "" && entry.Session != m.id {
		return m.taken(entry.Session)
	}
	m.foreign = time.Time{}
	if entry.Session == m.id {
		// What an operator said of the node is in its record.
		if was, err := state.Decode[spec.Node](entry); err == nil {
			m.drain(was.Draining)
			m.cfg.node.Since = was.Since
			if reflect.DeepEqual(was, m.record()) {
				return nil
			}
		}
	}
	// As it was read: an operator may drain the node in this moment.
	same := state.Op{Kind: state.OpCheckMissing, Key: key}
	if entry.ModifyIndex != 0 {
		same = state.Op{Kind: state.OpCheckIndex, Key: key, Index: entry.ModifyIndex}
	}
	op := state.Op{Kind: state.OpLock, Key: key, Session: m.id, Value: state.Encode(m.record())}
	if _, err := m.cfg.store.Txn(ctx, same, op); err != nil {
		return fmt.Errorf("register node %s: %w", m.cfg.node.Name, err)
	}
	return nil
}

// taken tells who has the node's name: for as long as a dead session may live,
// it is taken for this node's own from before a reboot.
func (m *membership) taken(session string) error {
	if m.foreign.IsZero() {
		m.foreign = time.Now()
	}
	if time.Since(m.foreign) < 2*sessionTTL+m.cfg.fence {
		return fmt.Errorf("register node %s: session %s, perhaps of this node before it was restarted, has not ended yet: waiting for that", m.cfg.node.Name, session)
	}
	return fmt.Errorf("register node %s: %w (session %s): choose another name with -node", m.cfg.node.Name, errNameTaken, session)
}

// record is the node as the others shall see it.
func (m *membership) record() spec.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.cfg.node
	node.Draining = m.draining
	return node
}

// drain notes whether an operator drains the node, beyond the agent's life
// and the machine's.
func (m *membership) drain(on bool) {
	m.mu.Lock()
	moved := m.draining != on
	m.draining = on
	m.mu.Unlock()
	if !moved {
		return
	}
	if err := m.noted.keep(m.isDraining); err != nil {
		m.cfg.logger.Warn("the drain is not remembered", "draining", on, "error", err)
	}
}

func (m *membership) isDraining() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draining
}

// flag is a file whose being there says something, beyond the agent's life.
type flag struct {
	path string
	mu   sync.Mutex // held while the file is made what it shall be: a disk may hang
}

// keep makes the file be there if on says so, and not otherwise. Of several
// who do so the last one asks last.
func (f *flag) keep(on func() bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on() {
		return writeFile(f.path, "")
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", filepath.Base(f.path), err)
	}
	return nil
}

// followRecord looks at the node's record: it is written again if somebody
// removed it, and tells whether the node is drained.
func (m *membership) followRecord(ctx context.Context) {
	key := state.NodeKey(m.cfg.node.Name)
	var index uint64
	others := ""
	for ctx.Err() == nil {
		entries, next, err := m.cfg.store.Watch(ctx, state.NodesPrefix, index)
		if err != nil {
			pause(ctx, renewEvery)
			continue
		}
		index = next
		if now := keys(entries); now != others {
			others = now
			m.cfg.moved()
		}
		session, held := m.Session(), false
		for _, e := range entries {
			if e.Key != key || e.Session != session {
				continue
			}
			held = true
			if node, err := state.Decode[spec.Node](e); err == nil {
				m.drain(node.Draining)
			}
		}
		if session != "" && !held {
			m.look()
		}
	}
}

// keys joins the keys of entries.
func keys(entries []state.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Key + "\n")
	}
	return b.String()
}
