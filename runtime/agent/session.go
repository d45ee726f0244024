package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// openSession returns the session with which this node holds its record and
// all its locks: the one that it had before, so that an agent's restart moves
// nothing, or a new one. The record in the store is brought up to date.
//
// On the embedded store the session needs no TTL: the data directory's lock
// file already makes sure that there is one agent.
func openSession(ctx context.Context, store state.Store, node spec.Node) (string, error) {
	key := state.NodeKey(node.Name)
	entry, err := store.Get(ctx, key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", fmt.Errorf("read node %s: %w", node.Name, err)
	}
	session := entry.Session
	if session != "" {
		if _, err := store.Session(ctx, session); errors.Is(err, state.ErrSessionNotFound) {
			session = ""
		} else if err != nil {
			return "", fmt.Errorf("read session of node %s: %w", node.Name, err)
		}
	}
	if session != "" {
		if was, err := state.Decode[spec.Node](entry); err == nil && reflect.DeepEqual(was, node) {
			return session, nil
		}
	} else {
		session, err = store.CreateSession(ctx, state.SessionConfig{
			Name: "meshrun agent", Node: node.Name, Behavior: state.BehaviorDelete,
		})
		if err != nil {
			return "", fmt.Errorf("create session: %w", err)
		}
	}
	_, err = store.Txn(ctx, state.Op{Kind: state.OpLock, Key: key, Session: session, Value: state.Encode(node)})
	if err != nil {
		return "", fmt.Errorf("register node %s: %w", node.Name, err)
	}
	return session, nil
}
