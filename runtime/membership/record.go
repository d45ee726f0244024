package membership

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

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// errNameTaken: the node's name belongs to another session.
var errNameTaken = errors.New("another agent has this node's name")

// register makes the session hold the node's record, as it is now.
func (m *Member) register(ctx context.Context) error {
	key := state.NodeKey(m.cfg.Node.Name)
	entry, err := m.cfg.Store.Get(ctx, key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("read node %s: %w", m.cfg.Node.Name, err)
	}
	if entry.Session != "" && entry.Session != m.id {
		return m.taken(entry.Session)
	}
	m.foreign = time.Time{}
	if entry.Session == m.id {
		// What an operator said of the node is in its record.
		if was, err := state.Decode[spec.Node](entry); err == nil {
			m.drain(was.Draining)
			m.cfg.Node.Since = was.Since
			if reflect.DeepEqual(was, m.Record()) {
				return nil
			}
		}
	}
	// As it was read: an operator may drain the node in this moment.
	same := state.Op{Kind: state.OpCheckMissing, Key: key}
	if entry.ModifyIndex != 0 {
		same = state.Op{Kind: state.OpCheckIndex, Key: key, Index: entry.ModifyIndex}
	}
	op := state.Op{Kind: state.OpLock, Key: key, Session: m.id, Value: state.Encode(m.Record())}
	if _, err := m.cfg.Store.Txn(ctx, same, op); err != nil {
		return fmt.Errorf("register node %s: %w", m.cfg.Node.Name, err)
	}
	return nil
}

// taken tells who has the node's name: for as long as a dead session may live,
// it is taken for this node's own from before a reboot.
func (m *Member) taken(session string) error {
	if m.foreign.IsZero() {
		m.foreign = time.Now()
	}
	if time.Since(m.foreign) < 2*sessionTTL+m.cfg.Fence {
		return fmt.Errorf("register node %s: session %s, perhaps of this node before it was restarted, has not ended yet: waiting for that", m.cfg.Node.Name, session)
	}
	return fmt.Errorf("register node %s: %w (session %s): choose another name with -node", m.cfg.Node.Name, errNameTaken, session)
}

// Record returns the node as others see it: what its key in the store holds.
func (m *Member) Record() spec.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.cfg.Node
	node.Draining = m.draining
	return node
}

// drain notes whether an operator drains the node, beyond the agent's life
// and the machine's.
func (m *Member) drain(on bool) {
	m.mu.Lock()
	moved := m.draining != on
	m.draining = on
	m.mu.Unlock()
	if !moved {
		return
	}
	if err := m.noted.keep(m.isDraining); err != nil {
		m.cfg.Logger.Warn("the drain is not remembered", "draining", on, "error", err)
	}
}

func (m *Member) isDraining() bool {
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
func (m *Member) followRecord(ctx context.Context) {
	key := state.NodeKey(m.cfg.Node.Name)
	var index uint64
	others := ""
	for ctx.Err() == nil {
		entries, next, err := m.cfg.Store.Watch(ctx, state.NodesPrefix, index)
		if err != nil {
			_ = loop.Sleep(ctx, renewEvery)
			continue
		}
		index = next
		if now := keys(entries); now != others {
			others = now
			m.cfg.Moved()
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
			m.checkRecord()
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

// writeFile replaces a small file in one step, private to its owner. It does
// not sync: the file is of use to a later agent of this boot alone, and a disk
// that hangs must hold up no renewal.
func writeFile(path, text string) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
