package watchdog

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// fakeSystemd hears what a watchdog says.
type fakeSystemd struct {
	mu    sync.Mutex // guards heard
	heard []string
}

func (f *fakeSystemd) hear(state string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, state)
	return nil
}

// take returns what was heard since it was asked last.
func (f *fakeSystemd) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	heard := f.heard
	f.heard = nil
	return heard
}

// underSystemd lets the world report to a systemd that wants to hear from it
// every 30 seconds.
func (w *world) underSystemd() (*sdNotifier, *fakeSystemd) {
	f := &fakeSystemd{}
	n := &sdNotifier{log: hclog.NewNullLogger(), notify: f.hear, timeout: 30 * time.Second}
	go n.report(w.supervisor, w.journal.ring)
	return n, f
}

func TestAnAgentThatDoesNotComeUpIsNoReasonToReplaceTheWatchdog(t *testing.T) {
	inWorld(t, func(w *world) {
		agent := agentLaunch([]string{"meshrun", "agent"}, nil, "/", "/x.sock")
		agent.Ready.Timeout = spec.Duration(time.Hour)
		w.set(agent)
		_, systemd := w.underSystemd()
		w.pass(agentGrace - time.Second)
		if heard := systemd.take(); len(heard) > 0 {
			t.Errorf("the agent still has time, but systemd heard %q", heard)
		}
		w.pass(2 * time.Second)
		if heard := systemd.take(); !slices.Contains(heard, "READY=1\nSTATUS="+statusNoAgent) {
			t.Errorf("the agent has had its time: systemd heard %q", heard)
		}
		w.pass(time.Minute)
		if heard := systemd.take(); len(heard) != 4 || heard[0] != "WATCHDOG=1" {
			t.Errorf("in a minute without an agent systemd heard %q, want 4 keep-alives", heard)
		}
		w.says(AgentID, notification{ready: true})
		for range 3 {
			w.pass(5 * time.Second)
			w.says(AgentID, notification{alive: true})
		}
		if heard := systemd.take(); !slices.Equal(heard, []string{"WATCHDOG=1\nSTATUS=" + statusWell}) {
			t.Errorf("the agent came up, and systemd heard %q", heard)
		}
	})
}

func TestAWatchdogWhoseLoopHangsKeepsItsKeepAlivesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		_, systemd := w.underSystemd()
		w.pass(time.Second)
		if heard := systemd.take(); !slices.Equal(heard, []string{"READY=1\nSTATUS=" + statusWell, "WATCHDOG=1"}) {
			t.Errorf("systemd heard %q", heard)
		}
		w.onLoop(func() error { time.Sleep(5 * time.Minute); return nil })
		if heard := systemd.take(); len(heard) > 1 {
			t.Errorf("while the loop hung systemd heard %q", heard)
		}
	})
}

func TestSystemdGivesTheTimeThatStoppingTakes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.onSignal = ignores
		slow := job("slow")
		slow.Stop.Timeout = spec.Duration(10 * time.Minute)
		w.set(slow)
		n, systemd := w.underSystemd()
		w.pass(time.Second)
		go n.stopping(w.supervisor)
		w.onLoop(func() error { w.beginShutdown(false, time.Now()); return nil })
		systemd.take()
		for range 9 {
			w.pass(time.Minute)
			heard := strings.Join(systemd.take(), "\n")
			if !strings.Contains(heard, "EXTEND_TIMEOUT_USEC=60000000") || !strings.Contains(heard, "WATCHDOG=1") {
				t.Fatalf("in a minute of stopping systemd heard %q", heard)
			}
		}
		w.pass(2 * time.Minute)
		<-w.done
		systemd.take()
		w.pass(time.Hour)
		if heard := systemd.take(); len(heard) > 0 {
			t.Errorf("after the end systemd heard %q", heard)
		}
	})
}
