package spec

import (
	"encoding/json"
	"testing"
)

func TestARolloutOfAnOlderAgentIsRead(t *testing.T) {
	for text, want := range map[string]Rollout{
		`{"job":"j","version":2,"state":"failed","reason":"web: shard 0 has failed: exit 1"}`: {
			Job: "j", Version: 2, State: RolloutFailed, Process: "web", Waits: "shard 0 has failed: exit 1",
		},
		`{"job":"j","version":2,"state":"failed","reason":"` + rolloutTooLarge + `"}`: {
			Job: "j", Version: 2, State: RolloutFailed, TooLarge: true,
		},
		`{"job":"j","version":2,"state":"done"}`: {Job: "j", Version: 2, State: RolloutDone},
	} {
		var got Rollout
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if got.Process != want.Process || got.Waits != want.Waits || got.TooLarge != want.TooLarge || got.State != want.State {
			t.Errorf("%s is read as %+v", text, got)
		}
		reason := got.Reason
		if got.SetReason(); got.Reason != reason {
			t.Errorf("its reason is rendered as %q", got.Reason)
		}
	}
}

func TestARevertOfAnOlderAgentIsKnown(t *testing.T) {
	for text, want := range map[string]bool{
		`{"why":"revert"}`: true, `{"why":"revert","reverts":3}`: true, `{"why":"rollback"}`: false, `{"why":"apply"}`: false,
	} {
		var v JobVersion
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.IsRevert() != want {
			t.Errorf("%s: %t, %v", text, v.IsRevert(), err)
		}
	}
}
