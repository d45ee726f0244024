package watchdog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

func init() {
	programs["stubborn"] = stubborn
	programs["notifier"] = notifier
	programs["crash-after-fork"] = crashAfterFork
}

// stubborn ignores SIGTERM, as does its child.
func stubborn(args []string) int {
	signal.Ignore(syscall.SIGTERM)
	if len(args) == 0 {
		child := exec.Command(os.Args[0], "stubborn", "child")
		if err := child.Start(); err != nil {
			return 1
		}
		fmt.Println("child is", child.Process.Pid)
	}
	select {}
}

// notifier sends its arguments to NOTIFY_SOCKET, one after the other; "wait"
// waits for SIGUSR1 in between, "self" stands for its own pid.
func notifier(args []string) int {
	next := make(chan os.Signal, 8)
	signal.Notify(next, syscall.SIGUSR1)
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("usec", os.Getenv("WATCHDOG_USEC"))
	for _, a := range args {
		switch {
		case a == "wait":
			<-next
		case a == "mainpid":
			child := exec.Command("/bin/sleep", "1000")
			if err := child.Start(); err != nil {
				return 1
			}
			fmt.Fprintf(conn, "MAINPID=%d", child.Process.Pid)
			fmt.Println("main is", child.Process.Pid)
		default:
			fmt.Fprint(conn, a)
		}
	}
	select {}
}

// program is a launch of one of the test binary's programs.
func program(process string, argv ...string) spec.Launch {
	l := shell(process, strings.Join(argv, " "))
	l.Argv = append([]string{os.Args[0]}, argv...)
	return l
}

func hasEnded(pid int) bool {
	st, err := readStat(pid)
	return err != nil || st.state == 'Z'
}

func number(t *testing.T, text, after string) int {
	t.Helper()
	_, rest, _ := strings.Cut(text, after)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStopEndsAWholeGroupThatIgnoresSIGTERM(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := program("stubborn", "stubborn")
	l.Stop.Timeout = spec.Duration(200 * time.Millisecond)
	d.declare(l)
	child := number(t, d.awaitOutput(l.ID, "child is "), "child is ")
	leader, _ := d.instance(l.ID)
	begin := time.Now()
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{l.ID}); err != nil {
		t.Fatal(err)
	}
	d.await("the group is gone", func() bool { return hasEnded(leader.PID) && hasEnded(child) })
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("killed after %s, before its timeout", took)
	}
}

func TestRestOfAGroupEndsWithItsLeader(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("group", "sleep 1000 & echo child is $!; exit 5")
	l.Restart.Policy = spec.RestartNever
	d.declare(l)
	end := d.awaitPhase(l.ID, spec.PhaseFailed)
	if end.LastExit.Code != 5 {
		t.Errorf("ended with %v", end.LastExit)
	}
	child := number(t, d.awaitOutput(l.ID, "child is "), "child is ")
	d.await("its child is reaped", func() bool { _, err := readStat(child); return err != nil })
}

func TestStartFailuresSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for words, change := range map[string]func(l *spec.Launch){
		`program "no-such" not found in PATH (2 directories)`: func(l *spec.Launch) { l.Argv = []string{"no-such"} },
		"/no/such does not exist":                             func(l *spec.Launch) { l.Argv = []string{"/no/such"} },
		"plain is not executable: chmod +x it":                func(l *spec.Launch) { l.Argv, l.Dir = []string{"./plain"}, dir },
		"directory /no/dir does not exist":                    func(l *spec.Launch) { l.Dir = "/no/dir" },
		`unknown user "nobody-such"`:                          func(l *spec.Launch) { l.User = "nobody-such" },
		"interpreter (first line)":                            func(l *spec.Launch) { l.Argv = []string{bad} },
	} {
		l := shell("x", "true")
		change(&l)
		p, err := prepare(&l, l.Argv)
		if err == nil {
			_, err = syscall.ForkExec(p.path, l.Argv, &syscall.ProcAttr{Dir: p.dir})
			err = explain(err, p, &l)
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("want %q, got %v", words, err)
		}
	}
}

func TestProcessNotifies(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := program("notifier", "notifier", "STATUS=warming up", "wait", "READY=1\nSTATUS=serving", "wait", "mainpid", "wait", "WATCHDOG=trigger")
	l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(time.Hour)}
	l.Watchdog = &spec.Watchdog{Timeout: spec.Duration(time.Hour)}
	d.declare(l)
	in := d.awaitInstance(l.ID, "tells its status", func(in spec.Instance) bool { return in.Status == "warming up" })
	if in.Phase != spec.PhaseStarting {
		t.Errorf("without READY=1 it is %s", in.Phase)
	}
	d.awaitOutput(l.ID, "usec 3600000000")
	if err := d.client.Signal(t.Context(), []spec.InstanceID{l.ID}, "SIGUSR1"); err != nil {
		t.Fatal(err)
	}
	ready := d.awaitPhase(l.ID, spec.PhaseRunning)
	if ready.Status != "serving" {
		t.Errorf("status is %q", ready.Status)
	}
	d.signal(l.ID, "SIGUSR1")
	main := number(t, d.awaitOutput(l.ID, "main is "), "main is ")
	d.awaitInstance(l.ID, "follows its main process", func(in spec.Instance) bool { return in.PID == main })
	// Its old leader ends; that is not the end of the instance.
	unix.Kill(ready.PID, unix.SIGKILL)
	d.await("the old leader is gone", func() bool { return hasEnded(ready.PID) })
	if in, _ := d.instance(l.ID); in.Phase != spec.PhaseRunning || in.PID != main {
		t.Errorf("it is %s as process %d", in.Phase, in.PID)
	}
	unix.Kill(main, unix.SIGKILL)
	d.awaitInstance(l.ID, "is started again", func(in spec.Instance) bool { return in.Generation == 2 })
}

func (d *daemon) signal(id spec.InstanceID, sig spec.Signal) {
	d.t.Helper()
	if err := d.client.Signal(d.t.Context(), []spec.InstanceID{id}, sig); err != nil {
		d.t.Fatal(err)
	}
}

func TestMissedHeartbeatIsKilled(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := program("mute", "notifier", "READY=1")
	l.Ready = &spec.Ready{Notify: true, Timeout: spec.Duration(30 * time.Second)}
	l.Watchdog = &spec.Watchdog{Timeout: spec.Duration(200 * time.Millisecond)}
	d.declare(l)
	in := d.awaitInstance(l.ID, "is started again", func(in spec.Instance) bool { return in.Generation >= 2 })
	if in.LastExit == nil || in.LastExit.Signal != "SIGKILL" {
		t.Errorf("ended with %v", in.LastExit)
	}
}

func TestExclusiveLockOutlivesItsLeader(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := shell("only", "exec sleep 1000")
	l.Exclusive = true
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	// Who has got out of its group and its cgroup, and lives on, still has the lock.
	var lock *os.File
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", in.PID, fd.Name()))
		if err == nil && strings.HasSuffix(path, ".lock") {
			pidfd, err := unix.PidfdOpen(in.PID, 0)
			if err != nil {
				t.Fatal(err)
			}
			number, _ := strconv.Atoi(fd.Name())
			same, err := unix.PidfdGetfd(pidfd, number, 0)
			unix.Close(pidfd)
			if err != nil {
				t.Fatal(err)
			}
			lock = os.NewFile(uintptr(same), path)
		}
	}
	if lock == nil {
		t.Fatal("it holds no lock")
	}
	defer lock.Close()
	unix.Kill(in.PID, unix.SIGKILL)
	d.awaitInstance(l.ID, "is refused", func(in spec.Instance) bool {
		return in.Phase == spec.PhaseBackoff && in.Reason == "another copy still holds the lock"
	})
	lock.Close()
	d.awaitInstance(l.ID, "runs again", func(in spec.Instance) bool { return in.Phase == spec.PhaseRunning })
}

func TestMismatchedIdentityKillsNothing(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("a", "exec sleep 1000")
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.kill()
	unix.Kill(before.PID, unix.SIGKILL)
	d.await("it has ended", func() bool { return hasEnded(before.PID) })
	stranger := startStranger(t, before.StartTicks)
	journals, _ := filepath.Glob(filepath.Join(dir, "watchdog", "journal", "*"+segmentSuffix))
	text, err := os.ReadFile(journals[0])
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.ReplaceAll(string(text), fmt.Sprintf(`"pid":%d`, before.PID), fmt.Sprintf(`"pid":%d`, stranger))
	if err := os.WriteFile(journals[0], []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	d = startDaemon(t, dir)
	after := d.awaitPhase(l.ID, spec.PhaseRunning)
	if after.PID == stranger || after.Generation != 2 {
		t.Errorf("took a stranger for its own: %+v", after)
	}
	if err := d.client.Declare(t.Context(), nil, []spec.InstanceID{l.ID}); err != nil {
		t.Fatal(err)
	}
	d.await("it is gone", func() bool { _, ok := d.instance(l.ID); return !ok })
	if hasEnded(stranger) {
		t.Error("a stranger was killed")
	}
}

// startStranger starts a process that no watchdog knows, at another tick of
// the kernel's clock.
func startStranger(t *testing.T, notAt uint64) (pid int) {
	t.Helper()
	for {
		c := exec.Command("/bin/sleep", "1000")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		st, err := readStat(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if st.startTicks != notAt {
			return c.Process.Pid
		}
	}
}

// dyingKernel kills its own watchdog between a fork and its record.
type dyingKernel struct{ *linuxKernel }

func (k dyingKernel) Start(starts []start, done func(int, *process, error)) {
	k.linuxKernel.Start(starts, func(i int, p *process, err error) {
		if err == nil {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
		done(i, p, err)
	})
}

// crashAfterFork is a watchdog that dies right after its first fork.
func crashAfterFork(args []string) int {
	w := &watchdog{cfg: Config{DataDir: args[0]}, log: hclog.NewNullLogger(), upgrade: make(chan struct{}, 1)}
	if err := w.open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w.super.life.kern = dyingKernel{w.kern}
	if err := w.serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}

func TestForkThatNobodyNotedIsAdopted(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "crash-after-fork", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := shell("a", "echo born; exec sleep 1000")
	c := NewClient(dir)
	dead := make(chan struct{})
	go func() { defer close(dead); cmd.Wait() }()
	for deadline := time.After(patience); ; {
		err := c.Declare(t.Context(), []spec.Launch{l}, nil) // its answer may be lost: it dies of what it was asked
		select {
		case <-dead:
		case <-deadline:
			cmd.Process.Kill()
			<-dead
			t.Fatalf("it does not die of its first fork: %v", err)
		case <-time.After(time.Millisecond):
			continue
		}
		break
	}
	d := startDaemon(t, dir)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	if in.Generation != 1 || in.PID == 0 {
		t.Errorf("it was started again: %+v", in)
	}
	log := d.awaitOutput(l.ID, "born")
	if strings.Count(log, "born") != 1 {
		t.Errorf("two copies ran:\n%s", log)
	}
}

func TestSecondWatchdogIsRefused(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	err := Run(t.Context(), Config{DataDir: dir})
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), strconv.Itoa(d.cmd.Process.Pid)) || !strings.Contains(err.Error(), dir) {
		t.Errorf("refused with: %v", err)
	}
}

func TestSIGTERMStopsAllAndASuccessorStartsThemAgain(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	l := shell("a", "exec sleep 1000")
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.cmd.Process.Signal(syscall.SIGHUP) // no reason to end
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if !hasEnded(in.PID) {
		t.Error("its instance outlived it")
	}
	d = startDaemon(t, dir)
	if again := d.awaitPhase(l.ID, spec.PhaseRunning); again.Generation != 2 {
		t.Errorf("started as %+v", again)
	}
}

func TestAgentIsKeptAliveAndCannotBeRemoved(t *testing.T) {
	d := startDaemon(t, t.TempDir(), os.Args[0], "notifier", "READY=1")
	first := d.awaitPhase(AgentID, spec.PhaseRunning)
	err := d.client.Declare(t.Context(), nil, []spec.InstanceID{AgentID})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("removing the agent: %v", err)
	}
	unix.Kill(first.PID, unix.SIGKILL)
	d.awaitInstance(AgentID, "runs again", func(in spec.Instance) bool {
		return in.Phase == spec.PhaseRunning && in.PID != first.PID
	})
}
