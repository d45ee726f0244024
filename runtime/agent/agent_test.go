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

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func openTestCipher(t *testing.T, dir string) *planCipher {
	t.Helper()
	s, err := openPlanCipher(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func secretPlan() spec.JobPlan {
	process := spec.DefaultProcess("app")
	process.Env = map[string]spec.Template{"TOKEN": "hunter2"}
	process.Sensitive = []string{"env.TOKEN"}
	return spec.JobPlan{Job: "vault", Action: spec.JobCreate, To: 1, Wanted: &spec.JobVersion{
		Version: 1, Job: spec.Job{Name: "vault", Processes: []spec.Process{process}},
	}}
}

func TestASealedPlanHidesItsSecretsAndComesBackWhole(t *testing.T) {
	dir := t.TempDir()
	p := secretPlan()
	if err := openTestCipher(t, dir).encrypt(&p); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(state.Encode(p)), "hunter2") {
		t.Error("the encrypted plan shows its secret")
	}
	// Another run of the agent on the same directory has the same key.
	if err := openTestCipher(t, dir).decrypt(&p); err != nil {
		t.Fatal(err)
	}
	if got := p.Wanted.Job.Processes[0].Env["TOKEN"]; got != "hunter2" {
		t.Errorf("TOKEN is %q after opening", got)
	}
}

func TestAnAppliedPlanHoldsNoSecrets(t *testing.T) {
	p := secretPlan()
	whole := p.Wanted
	leaveNames(&p)
	shown := state.Encode(p)
	if strings.Contains(string(shown), "hunter2") {
		t.Errorf("what is shown is %s", shown)
	}
	if p.Wanted.Version != whole.Version || p.Wanted.Source != whole.Source || p.Wanted.Job.Name != whole.Job.Name {
		t.Errorf("the version is no longer named: %+v", p.Wanted)
	}
	if len(whole.Job.Processes) == 0 {
		t.Error("the version that is written has lost its job")
	}
}

func TestAnAlteredOrForeignPlanIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, alter := range map[string]func(*spec.JobPlan){
		"another job":     func(p *spec.JobPlan) { p.Job = "evil" },
		"another action":  func(p *spec.JobPlan) { p.Action = spec.JobRemove },
		"another base":    func(p *spec.JobPlan) { p.Base = 7 },
		"another version": func(p *spec.JobPlan) { p.To = 9 },
		"other contents":  func(p *spec.JobPlan) { p.Sealed[len(p.Sealed)-1] ^= 1 },
		"no seal":         func(p *spec.JobPlan) { p.Sealed = nil },
	} {
		p := secretPlan()
		s := openTestCipher(t, dir)
		if err := s.encrypt(&p); err != nil {
			t.Fatal(err)
		}
		alter(&p)
		if err := s.decrypt(&p); !errors.Is(err, errForeignPlan) {
			t.Errorf("%s: %v, want errForeignPlan", name, err)
		}
	}
	p := secretPlan()
	if err := openTestCipher(t, dir).encrypt(&p); err != nil {
		t.Fatal(err)
	}
	if err := openTestCipher(t, t.TempDir()).decrypt(&p); !errors.Is(err, errForeignPlan) {
		t.Errorf("another agent's key: %v, want errForeignPlan", err)
	}
}

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

func TestWhatPeopleAskForIsDoneWithTheirRights(t *testing.T) {
	own, theirs := local.OpenMemory(local.Options{}), local.OpenMemory(local.Options{})
	defer own.Close()
	defer theirs.Close()
	b := &backend{store: own, scoped: func(ctx context.Context) state.Store {
		if api.CallOf(ctx).Token == "theirs" {
			return theirs
		}
		return own
	}}
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
