package follow_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
)

func TestASharedWatchTellsThatTheStoreWasPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := state.Entry{Key: prefix + "a", ModifyIndex: 40}
		store := &scripted{answers: []answer{
			{entries: []state.Entry{a, {Key: prefix + "b", ModifyIndex: 50}}, index: 50},
			{entries: []state.Entry{a}, index: 40}, // a backup was restored
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		updates := make(chan follow.Update)
		go follow.Watch(ctx, follow.Share(store, nil), prefix, updates, hclog.NewNullLogger())
		<-updates
		select {
		case u := <-updates:
			if !u.Restored {
				t.Errorf("got %+v", u)
			}
		case <-time.After(time.Hour):
			t.Errorf("nobody is told; the store was asked after %d", store.asked)
		}
		cancel()
	})
}
