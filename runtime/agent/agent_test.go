package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneAgentADirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(dir); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "pid") {
		t.Errorf("a second one: %v, want ErrInUse with the pid", err)
	}
	first.Close()
	again, err := lockDataDir(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.Close()
}

func TestTheLifecycleUndoesInReverseAndBoundsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lifecycle
		var mu sync.Mutex // guards undone: once time is up, nobody waits for the loop
		var undone []string
		undo := func(name string) {
			mu.Lock()
			defer mu.Unlock()
			undone = append(undone, name)
		}
		failed := make(chan error, 1)
		l.onStop("first", func(context.Context) error { undo("first"); return nil })
		l.start(t.Context(), "loop", func(ctx context.Context) error {
			<-ctx.Done()
			undo("loop")
			return nil
		}, failed)
		l.onStop("stuck", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		began := time.Now()
		if err := l.stop(3 * time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a cleanup that hangs: %v", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("stopping took %v, its bound is 3s", took)
		}
		synctest.Wait()
		if !slices.Equal(undone, []string{"first", "loop"}) && !slices.Equal(undone, []string{"loop", "first"}) {
			t.Errorf("undone: %v", undone)
		}
		if err := l.stop(time.Second); err != nil {
			t.Errorf("a second stop: %v", err)
		}
	})
}

func TestALoopThatEndsByItselfIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lifecycle
		failed := make(chan error, 1)
		broken := errors.New("broken")
		l.start(t.Context(), "engine", func(context.Context) error { return broken }, failed)
		if err := <-failed; !errors.Is(err, broken) || !strings.Contains(err.Error(), "engine") {
			t.Errorf("failed with %v", err)
		}
		if err := l.stop(time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestAWatchdogOfTheAgentIsNotTakenForAnInstance(t *testing.T) {
	env := cleanEnv([]string{
		"PATH=/bin", "MESHRUN_DATA_DIR=/d", "MESHRUN_VAR_x=1", "MESHRUN_INSTANCE=meshrun/agent/0",
		"MESHRUN_GENERATION=n", "NOTIFY_SOCKET=/s", "WATCHDOG_USEC=1",
	})
	if want := []string{"PATH=/bin", "MESHRUN_DATA_DIR=/d", "MESHRUN_VAR_x=1"}; !slices.Equal(env, want) {
		t.Errorf("environment %v, want %v", env, want)
	}
}

func TestANodeWithANameThatCannotBeOneIsRefusedAtOnce(t *testing.T) {
	for _, name := range []string{"rack 1", "a/b", ".", "-a", "knötchen", strings.Repeat("a", 64)} {
		dir := filepath.Join(t.TempDir(), "data")
		err := Run(t.Context(), Config{Node: name, DataDir: dir})
		if err == nil || !strings.Contains(err.Error(), "-node") {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q: the data directory was made", name)
		}
	}
	for _, name := range []string{"node-a", "DB_1", "rack1.example.com", "7"} {
		if !isNodeName(name) {
			t.Errorf("%q is refused", name)
		}
	}
}
