package control

import (
	"context"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func TestWhatPeopleAskForIsDoneWithTheirRights(t *testing.T) {
	own, theirs := local.OpenMemory(local.Options{}), local.OpenMemory(local.Options{})
	defer own.Close()
	defer theirs.Close()
	b := &Node{cfg: Config{Store: own, Scoped: func(ctx context.Context) state.Store {
		if api.CallOf(ctx).Token == "theirs" {
			return theirs
		}
		return own
	}}}
	job := state.Encode(spec.JobVersion{Job: spec.Job{Name: "web"}, Version: 1})
	if _, err := theirs.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: state.JobKey("web"), Value: job}); err != nil {
		t.Fatal(err)
	}
	if jobs, err := b.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("the agent itself sees %v, %v", jobs, err)
	}
	if jobs, err := b.Jobs(api.WithCall(t.Context(), api.Call{Token: "theirs"})); err != nil || len(jobs) != 1 {
		t.Errorf("they see %v, %v", jobs, err)
	}
}
