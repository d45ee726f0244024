package control

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func TestASessionIsEndedForAnotherOnlyByWhoWasAMemberAllTheWhile(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	ctx := t.Context()
	session, err := store.CreateSession(ctx, state.SessionConfig{Name: "agent", Node: "a", Behavior: state.BehaviorDelete})
	if err != nil {
		t.Fatal(err)
	}
	held := state.Op{Kind: state.OpLock, Key: state.NodeKey("a"), Session: session, Value: state.Encode(spec.Node{Name: "a"})}
	if _, err := store.Txn(ctx, held); err != nil {
		t.Fatal(err)
	}
	const fence = 5 * time.Second
	var unbroken time.Duration
	b := &Node{cfg: Config{
		Store: store, Logger: hclog.NewNullLogger(), Unbroken: func() time.Duration { return unbroken },
	}}
	end := func(node, session string) error {
		return b.EndSession(ctx, api.SessionEnd{Node: node, Session: session, Silent: spec.Duration(fence)})
	}
	lives := func() bool { _, err := store.Session(ctx, session); return err == nil }

	if err := end("a", session); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("by one that is no member: %v", err)
	}
	unbroken = fence
	if err := end("a", session); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("by one that came when the other went: %v", err)
	}
	unbroken += time.Second
	if err := errors.Join(end("a", "another"), end("b", session)); err != nil {
		t.Errorf("a session that is not the node's: %v", err)
	}
	if !lives() {
		t.Fatal("the session has ended")
	}
	if err := end("a", session); err != nil || lives() {
		t.Errorf("by one that was a member all the while: %v, the session lives: %t", err, lives())
	}
}
