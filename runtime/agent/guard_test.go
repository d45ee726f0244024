package agent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/spec"
)

func TestAWatchdogThatHangsBeforeItsFirstAnswerIsKilled(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("needs flock(1)")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "watchdog"), 0o700); err != nil {
		t.Fatal(err)
	}
	// It holds the lock of a watchdog, and does nothing.
	hung := exec.Command("sh", "-c", "exec 9<>watchdog.lock; flock 9; echo $$ >&9; exec sleep 1000")
	hung.Dir = filepath.Join(dir, "watchdog")
	if err := hung.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = hung.Wait()
	}()
	t.Cleanup(func() {
		_ = hung.Process.Kill()
		<-ended
	})
	waitFor(t, "it to hold the lock", func() bool {
		owner, err := watchdog.OpenOwner(dir)
		if err == nil {
			owner.Close()
		}
		return err == nil
	})
	told := make(chan spec.Event, 1)
	g := &guard{dataDir: dir, client: watchdog.NewClient(dir), logger: hclog.NewNullLogger(), leave: true,
		mute: 100 * time.Millisecond, emit: func(ev spec.Event) { told <- ev }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it is left alone")
	}
	if ev := <-told; ev.Type != spec.EventWatchdogHung {
		t.Errorf("told is %+v", ev)
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20s", what)
		}
	}
}
