package watchdog

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// needGroups skips a test where this user may make no cgroups with all limits.
func needGroups(t *testing.T) {
	t.Helper()
	tree := cgroup.NewTree(newNonce(), filepath.Join(t.TempDir(), "cgroups"))
	defer tree.Close()
	g, err := tree.Make("probe")
	if errors.Is(err, cgroup.ErrUnavailable) {
		t.Skipf("no cgroups here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	if err := g.Limit(&spec.Resources{CPU: 1, Memory: 64 << 20, PIDs: 10}); errors.Is(err, cgroup.ErrUnavailable) {
		t.Skipf("no cgroups here: %v", err)
	}
}

// groupDirs are where a watchdog's groups are.
func groupDirs(dir string) (dirs []string) {
	b, err := os.ReadFile(filepath.Join(dir, "watchdog", "cgroups"))
	if err != nil {
		return nil
	}
	var hs []struct{ Dir string }
	if json.Unmarshal(b, &hs) != nil {
		return nil
	}
	for _, h := range hs {
		dirs = append(dirs, h.Dir)
	}
	return dirs
}

// removeGroups removes what killed watchdogs left of their cgroups.
func removeGroups(dir string) {
	deadline := time.Now().Add(5 * time.Second)
	for _, d := range groupDirs(dir) {
		names, _ := filepath.Glob(filepath.Join(d, "*", "cgroup.procs"))
		for _, name := range names {
			for os.Remove(filepath.Dir(name)) != nil && time.Now().Before(deadline) {
				b, _ := os.ReadFile(name)
				for _, f := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(f); err == nil {
						unix.Kill(pid, unix.SIGKILL)
					}
				}
				time.Sleep(time.Millisecond)
			}
		}
		os.Remove(d)
	}
}

// groupFile reads a file of an instance's cgroup by the first of its names, in
// either version, that is there.
func (d *daemon) groupFile(in spec.Instance, names ...string) string {
	for _, dir := range groupDirs(d.dir) {
		for _, name := range names {
			if b, err := os.ReadFile(filepath.Join(dir, cgroup.Name(in.ID, in.Generation), name)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
	}
	return ""
}

// groupsLeft lists the groups that are there.
func (d *daemon) groupsLeft() (names []string) {
	for _, dir := range groupDirs(d.dir) {
		found, _ := filepath.Glob(filepath.Join(dir, "*.*"))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.IsDir() {
				names = append(names, f)
			}
		}
	}
	return names
}

func limited(process, script string, r spec.Resources) spec.Launch {
	l := shell(process, script)
	l.Resources = &r
	return l
}

func alive(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.state != 'Z' && st.state != 'X'
}

// printedPID reads a number that a script printed behind a word.
func (d *daemon) printedPID(id spec.InstanceID, word string) int {
	d.t.Helper()
	_, rest, _ := strings.Cut(d.awaitOutput(id, word+" "), word+" ")
	number, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(number)
	if err != nil {
		d.t.Fatal(err)
	}
	return pid
}

const escapee = `setsid sh -c 'echo free $$; exec sleep 1000' & `

func TestWantOfMemoryIsToldFromOtherKills(t *testing.T) {
	needGroups(t)
	d := startDaemon(t, t.TempDir())
	greedy := limited("greedy", "exec tail /dev/zero", spec.Resources{Memory: 8 << 20})
	shelled := limited("shelled", "tail /dev/zero; exit $?", spec.Resources{Memory: 8 << 20})
	killed := limited("killed", "kill -KILL $$", spec.Resources{Memory: 8 << 20})
	for _, l := range []*spec.Launch{&greedy, &shelled, &killed} {
		l.Restart.Policy = spec.RestartNever
	}
	d.declare(greedy, shelled, killed)
	for id, want := range map[spec.InstanceID]string{
		greedy.ID: "SIGKILL, out of memory", shelled.ID: "exit 137, out of memory", killed.ID: "SIGKILL",
	} {
		if in := d.awaitPhase(id, spec.PhaseFailed); in.LastExit.String() != want {
			t.Errorf("%s ended with %s, want %s", id, in.LastExit, want)
		}
	}
	found := slices.ContainsFunc(d.events(0), func(e spec.Event) bool {
		return e.Type == spec.EventExited && strings.Contains(e.Message, "SIGKILL, out of memory")
	})
	if !found {
		t.Error("no event tells of it")
	}
	d.await("their cgroups are gone", func() bool { return len(d.groupsLeft()) == 0 })
}

func TestLimitsHold(t *testing.T) {
	needGroups(t)
	d := startDaemon(t, t.TempDir())
	// Until the thread that forked it has left its cgroup (version 1), there is
	// room for one more.
	alone := limited("alone", "while (true); do :; done", spec.Resources{PIDs: 1})
	alone.Restart.Policy = spec.RestartNever
	busy := limited("busy", "while :; do :; done", spec.Resources{CPU: 0.05})
	free := shell("free", "exec sleep 1000")
	d.declare(alone, busy, free)
	d.awaitOutput(alone.ID, "Cannot fork")
	in := d.awaitPhase(busy.ID, spec.PhaseRunning)
	d.await("it is held back", func() bool {
		_, n, _ := strings.Cut(d.groupFile(in, "cpu.stat"), "nr_throttled ")
		n, _, _ = strings.Cut(n, "\n")
		return n != "" && n != "0"
	})
	other := d.awaitPhase(free.ID, spec.PhaseRunning)
	b, err := os.ReadFile("/proc/" + strconv.Itoa(other.PID) + "/cgroup")
	if err != nil || strings.Contains(string(b), "/meshrun-") && !strings.Contains(string(b), "/meshrun-main") {
		t.Errorf("who has no limits is in %s, %v", b, err)
	}
	b, err = os.ReadFile("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/cgroup")
	if err != nil || strings.Contains(string(b), "test.") {
		t.Errorf("the watchdog is in %s, %v", b, err)
	}
}

// A change of limits is written where the process is, and touches no process.
func TestLimitsChangeWithoutTouchingTheProcess(t *testing.T) {
	needGroups(t)
	d := startDaemon(t, t.TempDir())
	l := shell("p", escapee+"wait")
	memory := func(in spec.Instance) string { return d.groupFile(in, "memory.max", "memory.limit_in_bytes") }
	pids := func(in spec.Instance) string { return d.groupFile(in, "pids.max") }
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	free := d.printedPID(l.ID, "free")
	if got := memory(in); got != "" {
		t.Errorf("without limits it has a cgroup with %s", got)
	}
	l.Resources = &spec.Resources{Memory: 64 << 20}
	d.declare(l)
	if memory(in) != "67108864" || pids(in) != "max" {
		t.Errorf("limits are %s, %s", memory(in), pids(in))
	}
	members := strings.Fields(d.groupFile(in, "cgroup.procs"))
	for _, pid := range []int{in.PID, free} {
		if !slices.Contains(members, strconv.Itoa(pid)) {
			t.Errorf("process %d is not among %v", pid, members)
		}
	}
	l.Resources = &spec.Resources{Memory: 128 << 20, PIDs: 20}
	d.declare(l)
	if memory(in) != "134217728" || pids(in) != "20" {
		t.Errorf("limits are %s, %s", memory(in), pids(in))
	}
	l.Resources = nil
	d.declare(l)
	if pids(in) != "max" {
		t.Errorf("without limits it has %s", pids(in))
	}
	now, _ := d.instance(l.ID)
	if now.PID != in.PID || now.Generation != 1 || !alive(free) {
		t.Errorf("it is %+v now, was %+v", now, in)
	}
}

// A limit that is below what is in use would kill: it waits for the next start.
func TestLoweredLimitKillsNobody(t *testing.T) {
	needGroups(t)
	d := startDaemon(t, t.TempDir())
	l := limited("p", "x=$(head -c 6000000 /dev/zero | tr '\\0' a); echo full; sleep 1000", spec.Resources{Memory: 128 << 20})
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitOutput(l.ID, "full")
	l.Resources = &spec.Resources{Memory: 4 << 20}
	d.declare(l)
	told := slices.ContainsFunc(d.events(0), func(e spec.Event) bool {
		return e.Type == spec.EventUnlimited && e.Instance != nil && strings.Contains(e.Message, "the next start")
	})
	if now, _ := d.instance(l.ID); !told || now.PID != in.PID || !alive(in.PID) {
		t.Errorf("told: %v; it is %+v now", told, now)
	}
}

func TestNobodyEscapesAtTheEnd(t *testing.T) {
	needGroups(t)
	d := startDaemon(t, t.TempDir())
	l := limited("p", escapee+"wait", spec.Resources{PIDs: 100})
	d.declare(l)
	d.awaitPhase(l.ID, spec.PhaseRunning)
	free := d.printedPID(l.ID, "free")
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{l.ID}); err != nil {
		t.Fatal(err)
	}
	d.await("it is gone", func() bool { _, ok := d.instance(l.ID); return !ok })
	d.await("nobody is left", func() bool { return !alive(free) && len(d.groupsLeft()) == 0 })
}

func TestSuccessorFindsTheCgroups(t *testing.T) {
	needGroups(t)
	dir := t.TempDir()
	d := startDaemon(t, dir)
	stays := limited("stays", escapee+"wait", spec.Resources{Memory: 64 << 20})
	dies := limited("dies", escapee+"wait", spec.Resources{Memory: 64 << 20})
	dies.Restart.Policy = spec.RestartNever
	d.declare(stays, dies)
	before, victim := d.awaitPhase(stays.ID, spec.PhaseRunning), d.awaitPhase(dies.ID, spec.PhaseRunning)
	kept, lost := d.printedPID(stays.ID, "free"), d.printedPID(dies.ID, "free")
	d.kill()
	unix.Kill(victim.PID, unix.SIGKILL)
	d = startDaemon(t, dir)
	d.await("what was left is ended", func() bool { return !alive(lost) })
	after := d.awaitPhase(stays.ID, spec.PhaseRunning)
	if after.PID != before.PID || !alive(kept) {
		t.Errorf("an untouched instance is %+v, was %+v", after, before)
	}
	stays.Resources = &spec.Resources{Memory: 96 << 20}
	d.declare(stays)
	if got := d.groupFile(after, "memory.max", "memory.limit_in_bytes"); got != "100663296" {
		t.Errorf("its limit is %s", got)
	}
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{stays.ID}); err != nil {
		t.Fatal(err)
	}
	d.await("nobody is left", func() bool { return !alive(kept) && len(d.groupsLeft()) == 0 })
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	for _, left := range groupDirs(dir) {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left", left)
		}
	}
}

func TestWithoutPermissionItRunsAndThatIsTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir, err := os.MkdirTemp("", "meshrun-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if out, err := exec.Command("cp", self, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const nobody = 65534
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(data, 0o700), os.Chown(data, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "watchdog-main", data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	d := launchDaemon(t, data, cmd)
	d.declare(limited("a", "exec sleep 1000", spec.Resources{Memory: 64 << 20}),
		limited("b", "exec sleep 1000", spec.Resources{Memory: 64 << 20}))
	for _, name := range []string{"a", "b"} {
		d.awaitPhase(spec.InstanceID{Job: "test", Process: name}, spec.PhaseRunning)
	}
	told := 0
	for _, e := range d.events(0) {
		if e.Type == spec.EventUnlimited {
			told++
			if e.Severity != spec.Warning || !strings.Contains(e.Message, "Delegate=yes") {
				t.Errorf("told as %s: %s", e.Severity, e.Message)
			}
		}
	}
	table, err := d.client.Table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if told != 1 || table.Unlimited == "" {
		t.Errorf("told %d times; the table says %q", told, table.Unlimited)
	}
}

func TestWhatAHookLeftInTheCgroupIsNoReasonToKillTheProgram(t *testing.T) {
	needGroups(t)
	tree := cgroup.NewTree(newNonce(), filepath.Join(t.TempDir(), "cgroups"))
	gs := groups{tree: tree, prepared: map[spec.InstanceID]*cgroup.Group{}, live: map[string]bool{}}
	k := &linuxKernel{groups: gs, log: hclog.NewNullLogger()}
	l := limited("p", "", spec.Resources{PIDs: 100})
	hook, program := &process{}, &process{}
	if err := k.prepareGroup(&l, "p.1"); err != nil {
		t.Fatal(err)
	}
	k.settleGroup(start{launch: &l}, hook, true)
	k.leaveGroup(hook, spec.Exit{}) // and nobody could tidy up yet
	if err := k.prepareGroup(&l, "p.1"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		k.leaveGroup(program, spec.Exit{})
		k.closeGroups()
	}()
	if err := k.groups.prepared[l.ID].Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// Who is in a group that is to be tidied up is killed, and has its turn again.
	if !k.Tidy() {
		t.Error("the program is in a group to be tidied up before it is known")
	}
	k.settleGroup(start{launch: &l}, program, true)
	if !k.Tidy() {
		t.Error("the program is in a group to be tidied up")
	}
}
