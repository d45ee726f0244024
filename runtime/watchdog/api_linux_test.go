package watchdog

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

func TestShutdownCanLeaveInstancesToASuccessor(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("a", "exec sleep 1000")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	if err := d.client.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := d.client.Table(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody is there, and the error is %v", err)
	}
	d = startDaemon(t, dir)
	if after := d.awaitPhase(l.ID, spec.PhaseRunning); after.PID != before.PID {
		t.Errorf("process %d became %d", before.PID, after.PID)
	}
}

// Who asked for the end must be answered, with others connected who ask nothing
// or follow the events. That these hold nobody up, drain_test shows.
func TestShutdownIsAnswered(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	silent, err := net.Dial("unix", filepath.Join(dir, "watchdog", socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	following := make(chan error, 1)
	told := make(chan struct{}, 16)
	go func() {
		following <- d.client.Events(t.Context(), 0, func(spec.Event) error { told <- struct{}{}; return nil })
	}()
	<-told
	if err := d.client.Shutdown(t.Context(), true); err != nil {
		t.Fatalf("the answer did not get out: %v", err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	<-following
}

func TestEventsThatAreNoLongerKeptAreToldAsAGap(t *testing.T) {
	dir := t.TempDir()
	j := &journal{dir: dir, log: hclog.NewNullLogger(), ring: newRing(0), table: func() []entry { return nil },
		segmentSize: 20_000, segments: 2}
	const last = ringSize + 3000
	for range last {
		j.append(record{Event: spec.Event{Time: epoch, Type: spec.EventWatchdogUp, Severity: spec.Info, Message: "x"}})
		j.flush(false)
	}
	defer j.close()
	for _, after := range []uint64{0, 2999, 3000, 5000, last, last + 10} {
		var out strings.Builder
		f := eventStream{ctx: t.Context(), w: &out, control: noControl(), ring: j.ring, dir: dir, after: after}
		if err := f.run(false, nil); err != nil {
			t.Fatal(err)
		}
		seq, gaps := after, 0
		for l := range strings.Lines(out.String()) {
			r, words := parseLine([]byte(`{"event":` + strings.TrimSpace(l) + "}\n"))
			if words != "" {
				t.Fatalf("%s %s", l, words)
			}
			if r.Event.Type == spec.EventJournalGap {
				gaps++
			} else if r.Event.Seq != seq+1 {
				t.Fatalf("after %d: event %d follows %d", after, r.Event.Seq, seq)
			}
			seq = r.Event.Seq
		}
		// The files hold less than the ring: it goes back to 3000.
		want := 0
		if after < 3000 || after > last {
			want = 1
		}
		if seq != last || gaps != want {
			t.Errorf("after %d: ends at %d with %d gaps, want %d with %d", after, seq, gaps, last, want)
		}
	}
}

func TestEventsAreReadFromDiskAndThenFollowed(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("a", "exit 0")
	l.Restart.Policy = spec.RestartNever
	d.declare(l)
	d.awaitPhase(l.ID, spec.PhaseCompleted)
	d.kill()
	d = startDaemon(t, dir) // its memory is empty: what was is on the disk
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan spec.Event, 100)
	go d.client.Events(ctx, 0, func(e spec.Event) error { got <- e; return nil })
	next := func() spec.Event {
		select {
		case e := <-got:
			return e
		case <-ctx.Done():
			t.Fatal("no more events")
			return spec.Event{}
		}
	}
	for want := uint64(1); ; want++ {
		e := next()
		if e.Seq != want {
			t.Fatalf("event %d, want %d", e.Seq, want)
		}
		if e.Type == spec.EventWatchdogUp && e.Seq > 1 {
			break
		}
	}
	l.Epoch++
	d.declare(l)
	if e := next(); e.Type != spec.EventDeclared {
		t.Errorf("live, %s is told", e.Type)
	}
}

func TestSecretsAreNotTold(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("a", "exit 1")
	l.Env = append(l.Env, "TOKEN=hunter2")
	l.Restart.Attempts = 1
	d.declare(l)
	d.awaitPhase(l.ID, spec.PhaseFailed)
	var told strings.Builder
	for _, e := range d.events(0) {
		told.WriteString(e.Message)
	}
	if strings.Contains(told.String()+d.log.String(), "hunter2") {
		t.Error("a secret is told")
	}
}

func TestDamagedJournalIsToldCopiedAndSurvived(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	a, b := shell("a", "exec sleep 1000"), shell("b", "exec sleep 1000")
	d.declare(a)
	before := d.awaitPhase(a.ID, spec.PhaseRunning)
	d.declare(b)
	lost := d.awaitPhase(b.ID, spec.PhaseRunning)
	d.kill()
	files, _ := filepath.Glob(filepath.Join(dir, "watchdog", "journal", "*"+segmentSuffix))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	// All that was ever written of b is lost.
	at := strings.Index(string(text), `"test/b/0"`)
	if err := os.WriteFile(files[0], text[:at], 0o600); err != nil {
		t.Fatal(err)
	}
	d = startDaemon(t, dir)
	if after := d.awaitPhase(a.ID, spec.PhaseRunning); after.PID != before.PID {
		t.Errorf("what could be read was not adopted: %+v", after)
	}
	d.await("the forgotten process is ended", func() bool { return hasEnded(lost.PID) })
	var repaired, stray bool
	for _, e := range d.events(0) {
		repaired = repaired || e.Type == spec.EventStateRepaired && strings.Contains(e.Message, "is cut off")
		stray = stray || e.Type == spec.EventStray && strings.Contains(e.Message, "test/b/0")
	}
	if !repaired || !stray {
		t.Errorf("told of the damage: %v, of the stray: %v", repaired, stray)
	}
	if copies, _ := filepath.Glob(filepath.Join(dir, "watchdog", "journal", "broken-*", "*")); len(copies) != 1 {
		t.Errorf("copies of the damaged journal: %v", copies)
	}
}

func TestSystemdIsToldOnceTheAgentIsReady(t *testing.T) {
	dir := t.TempDir()
	fd, err := listenNotify(filepath.Join(dir, "systemd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "systemd"))
	t.Setenv("WATCHDOG_USEC", "50000")
	d := startDaemon(t, filepath.Join(dir, "data"), os.Args[0], "notifier", "wait", "READY=1")
	d.awaitPhase(AgentID, spec.PhaseStarting)
	said := func() string { return readAll(fd) }
	if text := said(); text != "" {
		t.Errorf("before the agent is ready it says %q", text)
	}
	d.awaitOutput(AgentID, "usec")
	d.signal(AgentID, "SIGUSR1")
	d.await("systemd is told", func() bool { return strings.Contains(said(), "READY=1") })
	d.await("it says that it is well", func() bool { return strings.Contains(said(), "WATCHDOG=1") })
}
