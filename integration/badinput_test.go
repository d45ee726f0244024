package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestAProcessThatCannotStartSaysWhy(t *testing.T) {
	n := newNode(t)
	plain := n.write("plain.txt", "no program\n")
	n.start()
	cases := map[string]struct{ block, want string }{
		"missing":  {`command = ["no-such-program"]`, `no-such-program`},
		"notexec":  {fmt.Sprintf(`command = [%q]`, plain), `not executable`},
		"nouser":   {"command = [\"true\"]\n user = \"no-such-user\"", `no-such-user`},
		"nodir":    {"command = [\"true\"]\n dir = \"/no/such/dir\"", `/no/such/dir`},
		"isadir":   {`command = ["/tmp"]`, `/tmp`},
		"healthy1": {`command = ["sleep", "1000"]`, ``},
	}
	var job strings.Builder
	job.WriteString("job \"bad\" {\n")
	for name, c := range cases {
		fmt.Fprintf(&job, "process %q {\n %s\n restart {\n delay = \"10ms\"\n max_delay = \"20ms\"\n attempts = 2\n }\n }\n", name, c.block)
	}
	job.WriteString("}\n")
	n.apply(job.String())
	n.waitPhase("bad/healthy1/0", spec.PhaseRunning)
	for name, c := range cases {
		if c.want == "" {
			continue
		}
		i := n.waitPhase("bad/"+name+"/0", spec.PhaseFailed)
		said := i.Reason
		if i.LastExit != nil {
			said += " " + i.LastExit.String()
		}
		if !strings.Contains(said, c.want) {
			t.Errorf("%s: says %q, want %q in it", name, said, c.want)
		}
	}
}

func TestASecondAgentIsRefused(t *testing.T) {
	n := newNode(t)
	n.start()
	r := n.run("agent", "-data-dir", n.data)
	if r.code == 0 || !strings.Contains(r.stderr, strconv.Itoa(n.status().Agent.WatchdogPID)) {
		t.Errorf("exit %d, %q: want a refusal that names the process", r.code, r.stderr)
	}
	if _, err := n.tryStatus(); err != nil {
		t.Errorf("the first agent is disturbed: %v", err)
	}
}

func TestADataDirectoryOfANewerVersionIsRefused(t *testing.T) {
	n := newNode(t)
	n.write("d/VERSION", "99\n")
	r := n.run("agent", "-data-dir", n.data)
	if r.code == 0 || !strings.Contains(r.stderr, "newer") {
		t.Errorf("exit %d, %q: want a refusal that says newer", r.code, r.stderr)
	}
}

func TestWithoutAnAgentCommandsSayWhatToDo(t *testing.T) {
	n := newNode(t)
	for _, args := range [][]string{{"status"}, {"logs", "x"}, {"stop", "x"}, {"events"}} {
		r := n.run(args...)
		if r.code != 1 || !strings.Contains(r.stderr, "meshrun agent") {
			t.Errorf("%v: exit %d, %q", args, r.code, r.stderr)
		}
	}
}

func TestADamagedStateIsKeptAndWhatCanBeReadGoesOn(t *testing.T) {
	for name, damage := range map[string]struct {
		do     func(t *testing.T, path string, size int64)
		copies int
		said   string
	}{
		"its assignments are overwritten": {func(t *testing.T, path string, _ int64) {
			state, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			const prefix = "meshrun/v1/assignments/"
			for at := bytes.Index(state, []byte(prefix)); at >= 0; {
				value := at + len(prefix) + 50 // behind the key, and what stands before the value
				copy(state[value:value+20], bytes.Repeat([]byte{7}, 20))
				next := bytes.Index(state[value:], []byte(prefix))
				if at = -1; next >= 0 {
					at = value + next
				}
			}
			if err := os.WriteFile(path, state, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 1, "damaged"},
		"cut in half": {func(t *testing.T, path string, size int64) {
			if err := os.Truncate(path, size/2); err != nil {
				t.Fatal(err)
			}
		}, 0, "incomplete"},
	} {
		t.Run(name, func(t *testing.T) { damagedState(t, damage.do, damage.copies, damage.said) })
	}
}

func damagedState(t *testing.T, damage func(t *testing.T, path string, size int64), wantCopies int, said string) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 2"))
	pid := n.waitPhase("web/app/1", spec.PhaseRunning).PID
	n.crash()
	state := filepath.Join(n.data, "state.log")
	info, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, state, info.Size())
	n.start()
	copies, _ := filepath.Glob(state + ".damaged*")
	if len(copies) != wantCopies {
		t.Errorf("%d copies of the damaged file, want %d", len(copies), wantCopies)
	}
	if !alive(pid) {
		t.Error("the instance was stopped by the damage")
	}
	eventually(t, patience, "it is said what was wrong with the state", func() error {
		if text := n.must("status") + n.must("events"); !strings.Contains(text, said) {
			return errors.New(text)
		}
		return nil
	})
	// Applying the same file again is all that it takes, and touches nothing.
	n.apply(sleeper("shards = 2"))
	n.waitPhase("web/app/1", spec.PhaseRunning)
	eventually(t, patience, "the instance is known again", func() error {
		i, err := n.instance("web/app/1")
		if err != nil || i.PID != pid {
			return fmt.Errorf("pid %d, want %d (%v)", i.PID, pid, err)
		}
		return nil
	})
}

func TestAGarbledJournalLosesNoProcess(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(sleeper("shards = 2"))
	n.waitPhase("web/app/0", spec.PhaseRunning)
	n.waitPhase("web/app/1", spec.PhaseRunning)
	n.crash()
	segments, _ := filepath.Glob(filepath.Join(n.data, "watchdog", "journal", "*"))
	if len(segments) == 0 {
		t.Fatal("no journal")
	}
	for _, path := range segments {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("{\"seq\": \x00garbage"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	n.start()
	n.waitPhase("web/app/0", spec.PhaseRunning)
	n.waitPhase("web/app/1", spec.PhaseRunning)
	if running := n.processes("sleep 1000"); len(running) != 2 {
		t.Errorf("%d processes run, want 2: %v", len(running), running)
	}
}

// crash kills watchdog and agent at once and leaves the instances.
func (n *node) crash() {
	n.t.Helper()
	s := n.status()
	// Stopped first, so that neither can bring the other back.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range []int{s.Agent.PID, s.Agent.WatchdogPID} {
			if err := syscall.Kill(pid, sig); err != nil {
				n.t.Fatalf("%v to %d: %v", sig, pid, err)
			}
		}
	}
	eventually(n.t, patience, "both are dead", func() error {
		if alive(s.Agent.PID) || alive(s.Agent.WatchdogPID) {
			return fmt.Errorf("still alive")
		}
		return nil
	})
}

func TestAFullDiskStopsNothingAndIsSurvived(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	n := newNode(t)
	if err := os.MkdirAll(n.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", n.data, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		n.destroy()
		_ = syscall.Unmount(n.data, syscall.MNT_DETACH)
	})
	n.start()
	n.apply(sleeper("shards = 2"))
	pid := n.waitPhase("web/app/0", spec.PhaseRunning).PID
	ballast := filepath.Join(n.data, "ballast")
	fillDisk(t, ballast)

	// A little room is kept for small changes; larger ones are refused.
	var done []string
	for i := 0; ; i++ {
		name := fmt.Sprintf("large%d", i)
		job := fmt.Sprintf("job %q {\n  process \"p\" {\n    command = [\"sleep\", \"1000\"]\n    shards = 0\n    env = { X = %q }\n  }\n}\n", name, strings.Repeat("x", 100<<10))
		r := n.run("apply", "-yes", n.write(name+".hcl", job))
		if r.code != 0 {
			if !strings.Contains(r.stderr, "space") {
				t.Errorf("the refusal does not say why: %q", r.stderr)
			}
			break
		}
		if done = append(done, name); i == 10 {
			t.Fatal("a full disk took a megabyte")
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the instance is restarted on a full disk", func() error {
		i, err := n.instance("web/app/0")
		if err != nil || i.PID == pid || i.Phase != spec.PhaseRunning {
			return fmt.Errorf("%s pid %d (%v)", i.Phase, i.PID, err)
		}
		return nil
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.must("apply", "-yes", n.write("job.hcl", sleeper("shards = 3")))
	n.waitPhase("web/app/2", spec.PhaseRunning)
	n.killAgent()
	for _, name := range done {
		n.must("history", name)
	}
}

func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

func TestValidateShowsAllFaultsOfAllFilesAtOnce(t *testing.T) {
	n := newNode(t)
	n.write("jobs/a.hcl", "job \"a\" {\n  process \"p\" {\n    comand = [\"true\"]\n    shards = \"many\"\n  }\n}\n")
	n.write("jobs/b.hcl", "job \"b\" {\n  process \"p\" {\n    command = [\"true\"]\n    restart {\n      delay = 5\n    }\n  }\n}\n")
	r := n.run("validate", filepath.Join(n.dir, "jobs"))
	if r.code != 1 {
		t.Errorf("exit %d", r.code)
	}
	for _, want := range []string{"a.hcl", "line 3", "comand", "command", "line 4", "b.hcl", "line 5", `"5s"`} {
		if !strings.Contains(r.stderr+r.stdout, want) {
			t.Errorf("no %q in:\n%s%s", want, r.stdout, r.stderr)
		}
	}
}
