package main

import (
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func TestARestartIsToldWithWhatLedToIt(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for want, in := range map[string]spec.Instance{
		"restarted 4s ago after SIGKILL":           {Restarts: 1, LastExit: &spec.Exit{Signal: "SIGKILL"}},
		`restarted 4s ago: its check "http" fails`: {Restarts: 1, LastExit: &spec.Exit{Signal: "SIGTERM", Cause: `its check "http" fails`}},
		"restarted 4s ago: store/redis was started anew": { // which is no restart of its own
			LastExit: &spec.Exit{Signal: "SIGTERM", Cause: "store/redis was started anew"}},
		"": {LastExit: &spec.Exit{}},
	} {
		in.Phase = spec.PhaseRunning
		in.LastExit.At = now.Add(-4 * time.Second)
		if got := what(&in, now); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
