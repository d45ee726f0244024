package watchdog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

func init() { programs["hold-on"] = holdOn }

// late is how long after its deadline a group may give a sign of life; without
// load it is about a millisecond.
const late = 250 * time.Millisecond

// lateness watches how long the machine holds up whoever wants to run. What it
// returns tells how late that lets others be: what is no fault of the watchdog.
func lateness(t *testing.T) (allowed func() time.Duration) {
	var worst atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for last := Boottime(); ; {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			now := Boottime()
			worst.Store(max(worst.Load(), int64(now-last)))
			last = now
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	// The watchdog, the process and who looks may each be held up.
	return func() time.Duration { return late + 3*time.Duration(worst.Load()) }
}

// pulseFile holds the times of the last signs of life of a holdOn and its child.
const pulseFile = "PULSE"

// pulse keeps writing the time into a word of the file.
func pulse(word int64) {
	f, err := os.OpenFile(os.Getenv(pulseFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	for {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], uint64(Boottime()))
		f.WriteAt(b[:], 8*word)
		time.Sleep(time.Millisecond)
	}
}

// awaitPulses waits until both processes of a launch give signs of life.
func (d *daemon) awaitPulses(l *spec.Launch) {
	d.t.Helper()
	d.await("both give signs of life", func() bool {
		b, err := os.ReadFile(strings.TrimPrefix(l.Env[len(l.Env)-1], pulseFile+"="))
		return err == nil && len(b) == 16 && binary.NativeEndian.Uint64(b) != 0
	})
}

// lastPulses reads the last signs of life of a launch's processes.
func lastPulses(t *testing.T, l *spec.Launch) (leader, child time.Duration) {
	t.Helper()
	b, err := os.ReadFile(strings.TrimPrefix(l.Env[len(l.Env)-1], pulseFile+"="))
	if err != nil || len(b) != 16 {
		t.Fatalf("pulses: %d bytes, %v", len(b), err)
	}
	return time.Duration(binary.NativeEndian.Uint64(b)), time.Duration(binary.NativeEndian.Uint64(b[8:]))
}

// holdOn ends by nothing but SIGKILL, as does its child, and says when it was
// asked to. With "away" its main process is in a group of its own.
func holdOn(args []string) int {
	if len(args) == 0 {
		go pulse(0)
	} else {
		go pulse(1)
	}
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, syscall.SIGTERM)
	if len(args) == 0 || args[0] != "child" {
		child := exec.Command(os.Args[0], "hold-on", "child")
		if err := child.Start(); err != nil {
			return 1
		}
		if len(args) > 0 {
			away := exec.Command(os.Args[0], "hold-on", "child")
			away.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := away.Start(); err != nil {
				return 1
			}
			if out, err := notifyRaw("MAINPID=" + strconv.Itoa(away.Process.Pid)); err != nil {
				fmt.Println(out, err)
			}
		}
		fmt.Println("up")
	}
	for range asked {
		fmt.Printf("asked at %d.\n", Boottime())
	}
	return 0
}

// notifyRaw sends a message to NOTIFY_SOCKET.
func notifyRaw(text string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return len(text), unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")})
}

// leasedProgram is a launch of holdOn under a lease.
func leasedProgram(process string, args ...string) spec.Launch {
	l := program(process, append([]string{"hold-on"}, args...)...)
	l.Exclusive, l.Lease, l.Stop.Timeout = true, "s1", spec.Duration(time.Hour)
	return l
}

// withPulse makes a launch leave signs of life.
func withPulse(t *testing.T, l spec.Launch) spec.Launch {
	l.Env = append(l.Env, pulseFile+"="+filepath.Join(t.TempDir(), "pulse"))
	return l
}

// endsAt fails the test unless both processes lived until a deadline and not
// longer. To see them gone may take a busy machine some time more.
func endsAt(t *testing.T, l *spec.Launch, group int, deadline time.Duration, allowed func() time.Duration) {
	t.Helper()
	gone := groupGone(t, group, deadline)
	leader, child := lastPulses(t, l)
	late := allowed()
	t.Logf("last signs of life %s and %s after the deadline, seen gone %s after it; %s are allowed", leader-deadline, child-deadline, gone-deadline, late)
	for _, last := range [...]time.Duration{leader, child} {
		if last > deadline+late || last < deadline-late {
			t.Errorf("the last sign of life came %s after the deadline", last-deadline)
		}
	}
	if gone < deadline {
		t.Errorf("gone %s before the deadline", deadline-gone)
	}
}

// renew makes the lease s1 hold for a time from now, and returns its end.
func (d *daemon) renew(left time.Duration) time.Duration {
	d.t.Helper()
	return d.renewSession("s1", left)
}

func (d *daemon) renewSession(session string, left time.Duration) time.Duration {
	d.t.Helper()
	until := Boottime() + left
	if err := d.client.Renew(d.t.Context(), spec.Lease{Session: session, Until: int64(until)}); err != nil {
		d.t.Fatal(err)
	}
	return until
}

// members counts the live processes of a group.
func members(group int) (n int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.group == group && st.state != 'Z' && st.state != 'X' {
			n++
		}
	}
	return n
}

// groupGone waits until nothing of a group lives and returns when that was
// certain.
func groupGone(t *testing.T, group int, deadline time.Duration) time.Duration {
	t.Helper()
	for {
		alive := members(group)
		now := Boottime()
		if alive == 0 {
			return now
		}
		if now > deadline+patience {
			t.Fatalf("group %d outlives its lease by %s", group, now-deadline)
		}
		time.Sleep(time.Millisecond)
	}
}

func sleepUntil(at time.Duration) { time.Sleep(at - Boottime()) }

// Renewals stop, in the middle of a long queue of starts.
func TestEndOfALeaseEndsAWholeGroupOnTime(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := withPulse(t, leasedProgram("a"))
	d.renew(maxLease)
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitOutput(l.ID, "up")
	d.awaitPulses(&l)
	allowed := lateness(t)
	deadline := d.renew(StopMargin + time.Second)
	sleepUntil(deadline - 20*time.Millisecond)
	var crowd []spec.Launch
	for i := range 100 {
		s := shell("crowd", "exec sleep 1000")
		s.ID.Shard = i
		crowd = append(crowd, s)
	}
	declared := make(chan error, 1)
	go func() { declared <- d.client.Declare(t.Context(), crowd, nil) }()
	endsAt(t, &l, in.PID, deadline, allowed)
	if err := <-declared; err != nil {
		t.Error(err)
	}
	v := d.awaitPhase(l.ID, spec.PhasePending)
	if !strings.Contains(v.Reason, "waits for its lease") {
		t.Errorf("it is %+v", v)
	}
	if late := allowed(); late < StopMargin { // or it may not have had the time to say so
		asked := time.Duration(number64(t, d.awaitOutput(l.ID, "asked at"), "asked at "))
		if early := deadline - asked; early > StopMargin || early < StopMargin-2*late {
			t.Errorf("it was asked %s before the deadline", early)
		}
	}
	d.renew(maxLease)
	if v := d.awaitPhase(l.ID, spec.PhaseRunning); v.Generation != 2 {
		t.Errorf("renewed, it is %+v", v)
	}
}

func number64(t *testing.T, text, after string) int64 {
	t.Helper()
	_, rest, _ := strings.Cut(text, after)
	digits, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The watchdog is killed and its lease ends while there is none. The gap is
// what is logged and the time until somebody starts a successor.
func TestSuccessorFencesWhatItAdopts(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	over, holds := leasedProgram("over"), leasedProgram("holds")
	holds.Lease = "s2"
	d.renew(maxLease)
	d.renewSession("s2", maxLease)
	d.declare(over, holds)
	victim, before := d.awaitPhase(over.ID, spec.PhaseRunning), d.awaitPhase(holds.ID, spec.PhaseRunning)
	d.awaitOutput(over.ID, "up")
	d.renewSession("s2", maxLease)
	deadline := d.renew(4 * time.Second)
	d.kill()
	allowed := lateness(t)
	sleepUntil(deadline + 10*time.Millisecond)
	if n := members(victim.PID); n != 2 {
		t.Fatalf("%d processes are alive without a watchdog, want 2", n)
	}
	begun := Boottime()
	started := make(chan *daemon, 1)
	go func() { started <- startDaemon(t, dir) }()
	gone := groupGone(t, victim.PID, deadline)
	d = <-started
	t.Logf("gone %s after the successor was executed", gone-begun)
	if gone-begun > 20*allowed() { // it says more of the machine than of the successor
		t.Errorf("the successor took %s", gone-begun)
	}
	d.awaitPhase(over.ID, spec.PhasePending)
	if after := d.awaitPhase(holds.ID, spec.PhaseRunning); after.PID != before.PID {
		t.Errorf("process %d whose lease holds became %d", before.PID, after.PID)
	}
}

func TestUpgradeKeepsTheLeases(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := withPulse(t, leasedProgram("a"))
	d.renew(maxLease)
	d.declare(l)
	before := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.awaitPulses(&l)
	allowed := lateness(t)
	deadline := d.renew(StopMargin + 6*time.Second)
	d.upgrade()
	// On a machine that is slow enough, its end has begun by now.
	if after, _ := d.instance(l.ID); after.PID != before.PID && Boottime() < deadline {
		t.Errorf("process %d became %d", before.PID, after.PID)
	}
	endsAt(t, &l, before.PID, deadline, allowed)
}

// What it calls its main process is not followed out of the group that the
// fence can reach.
func TestLeasedInstanceCannotLeaveItsGroup(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	l := leasedProgram("a", "away")
	l.Watchdog = &spec.Watchdog{Timeout: spec.Duration(time.Hour)} // for its socket
	d.renew(maxLease)
	d.declare(l)
	in := d.awaitPhase(l.ID, spec.PhaseRunning)
	d.await("it is told", func() bool { return strings.Contains(d.log.String(), "where a lease does not reach it") })
	if after := d.awaitPhase(l.ID, spec.PhaseRunning); after.PID != in.PID {
		t.Errorf("process %d is followed to %d", in.PID, after.PID)
	}
	groupGone(t, in.PID, d.renew(time.Second))
}

func TestBadRenewalsAreRefusedOverTheAPI(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	now := int64(Boottime())
	for _, l := range []spec.Lease{
		{Until: now}, {Session: "s1", Until: -1}, {Session: "s1", Until: now + int64(2*maxLease)},
	} {
		if err := d.client.Renew(t.Context(), l); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, body := range []string{"", "{", `{"session":"s1","until":"soon"}`, `{"session":"s1","ttl":1}`, `{"session":"s1","until":1e30}`} {
		resp, err := d.client.send(t.Context(), http.MethodPut, "/v1/lease", []byte(body))
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", body, err)
		}
	}
	if err := d.client.Renew(t.Context(), spec.Lease{Session: "s1"}); err != nil {
		t.Errorf("revoking what is unknown: %v", err)
	}
}
