package guard

import (
	"bufio"
	"fmt"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

func TestSumTakesTheGroupTheSessionAndAllDescendants(t *testing.T) {
	all := []Process{
		{PID: 1, Memory: 1 << 20, CPU: time.Hour},
		{PID: 10, Parent: 1, Group: 10, Session: 10, StartTicks: 5, CPU: time.Second, Memory: 1},
		{PID: 11, Parent: 10, Group: 10, Session: 10, CPU: time.Second, Memory: 2},
		{PID: 12, Parent: 11, Group: 12, Session: 12, Memory: 4},               // a session of its own
		{PID: 13, Parent: 1, Group: 13, Session: 10, Memory: 8},                // its parent has ended
		{PID: 14, Parent: 12, Group: 12, Session: 12, Zombie: true, Memory: 0}, // not waited for
		{PID: 20, Parent: 1, Group: 20, Session: 20, Memory: 1 << 10},
	}
	got, there := NewTable(all).Sum(10, 5)
	if want := (Usage{CPU: 2 * time.Second, Memory: 15, Zombies: 1}); !there || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, other := range [][2]int{{10, 6}, {99, 5}} {
		if got, there := NewTable(all).Sum(other[0], uint64(other[1])); there {
			t.Errorf("process %v is not there, and uses %+v", other, got)
		}
	}
}

// TestTally looks every 10 s and writes down when a guard is over its bound.
func TestTally(t *testing.T) {
	began := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	memory := func(mib ...uint64) (looks []Look) {
		for _, n := range mib {
			looks = append(looks, Look{Usage: Usage{Memory: n << 20}, Measured: true})
		}
		return looks
	}
	cpu := func(seconds ...float64) (looks []Look) {
		for _, s := range seconds {
			looks = append(looks, Look{Usage: Usage{CPU: time.Duration(s * float64(time.Second))}, Measured: true})
		}
		return looks
	}
	down := func(is ...bool) (looks []Look) {
		for _, d := range is {
			looks = append(looks, Look{Down: d})
		}
		return looks
	}
	g := func(kind spec.GuardKind, above string, lasts time.Duration) spec.Guard {
		return spec.Guard{Name: kind, Above: above, For: spec.Duration(lasts)}
	}
	tests := map[string]struct {
		guard spec.Guard
		looks []Look
		over  string
	}{
		"memory at once":           {g(spec.GuardMemory, "100MiB", 0), memory(100, 101, 100), "-!-"},
		"memory for a time":        {g(spec.GuardMemory, "100MiB", 20*time.Second), memory(101, 101, 99, 101, 101, 101, 101, 1), "-----!!-"},
		"what is unknown stays":    {g(spec.GuardMemory, "100MiB", 0), append(memory(101), Look{}), "!!"},
		"cpu over its interval":    {g(spec.GuardCPU, "95%", 0), cpu(1000, 1009, 1019, 1020), "--!-"},
		"cpu of ended children":    {g(spec.GuardCPU, "95%", 0), cpu(1000, 10, 25), "--!"},
		"zombies":                  {g(spec.GuardZombie, "", 0), []Look{{Measured: true}, {Measured: true, Usage: Usage{Zombies: 1}}}, "-!"},
		"a few zombies":            {g(spec.GuardZombie, "1", 0), []Look{{Measured: true, Usage: Usage{Zombies: 1}}, {Measured: true, Usage: Usage{Zombies: 2}}}, "-!"},
		"absent for a time":        {g(spec.GuardAbsent, "", 15*time.Second), down(true, true, true, false, true), "--!--"},
		"nonsense never is passed": {g(spec.GuardMemory, "nonsense", 0), memory(1000), "-"},
	}
	for name, test := range tests {
		var tally Tally
		got := ""
		for i, look := range test.looks {
			tally = tally.Next(&test.guard, look, began.Add(time.Duration(i)*10*time.Second))
			got += map[bool]string{true: "!", false: "-"}[tally.Over]
		}
		if got != test.over {
			t.Errorf("%s: it was %s, want %s", name, got, test.over)
		}
	}
}

// looking runs a test with a runner in virtual time, and counts its looks.
func looking(t *testing.T, all func() []Process, test func(r *Runner, looks *int, alarms *[]string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		looks, alarms := 0, []string{}
		r := New(Config{
			Alarm: func(a Alarm) {
				alarms = append(alarms, fmt.Sprintf("%s %s %t: %s", a.Target.ID, a.Guard.Name, a.Over, a.Found()))
			},
			Logger:    hclog.NewNullLogger(),
			Processes: func() ([]Process, error) { looks++; return all(), nil },
		})
		ctx := t.Context()
		done := make(chan struct{})
		go func() { r.Run(ctx); close(done) }()
		t.Cleanup(func() { <-done })
		test(r, &looks, &alarms)
		synctest.Wait()
	})
}

func target(shard int, guards ...spec.Guard) *Target {
	return &Target{ID: spec.InstanceID{Job: "shop", Process: "web", Shard: shard}, PID: 10 + shard, Guards: guards}
}

func TestNothingIsLookedAtWithoutGuards(t *testing.T) {
	looking(t, func() []Process { return nil }, func(r *Runner, looks *int, _ *[]string) {
		r.Set(nil, time.Now())
		time.Sleep(time.Hour)
		synctest.Wait()
		if *looks != 0 {
			t.Errorf("processes were looked at %d times", *looks)
		}
	})
}

func TestOneLookDoesForAll(t *testing.T) {
	var memory uint64 = 1 << 30
	all := func() []Process { return []Process{{PID: 10, Memory: memory}, {PID: 11, Memory: 5}} }
	looking(t, all, func(r *Runner, looks *int, alarms *[]string) {
		g := spec.DefaultGuard(spec.GuardMemory)
		g.Above = "512MiB"
		absent := spec.DefaultGuard(spec.GuardAbsent)
		absent.Interval = spec.Duration(time.Second)
		r.Set([]*Target{target(0, g), target(1, g, absent)}, time.Now())
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		r.mu.Lock()
		if *looks != 12 || !reflect.DeepEqual(*alarms, []string{"shop/web/0 memory true: memory is 1024 MiB"}) {
			t.Errorf("after %d looks: %q", *looks, *alarms)
		}
		memory = 0
		r.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(*alarms) != 2 || (*alarms)[1] != "shop/web/0 memory false: memory is 0 MiB" {
			t.Errorf("told was %q", *alarms)
		}
	})
}

// TestProcesses measures a real process: a shell that spins, with a child in a
// session of its own and a zombie.
func TestProcesses(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "setsid sleep 1000 & sleep 0.01 & echo $!; exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	var children []int
	defer func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		for _, child := range children {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := Processes()
		if err != nil {
			t.Fatal(err)
		}
		var ticks uint64
		children = children[:0]
		for _, p := range all {
			if p.PID == pid {
				ticks = p.StartTicks
			}
			if p.Parent == pid && !p.Zombie {
				children = append(children, p.PID)
			}
		}
		u, there := NewTable(all).Sum(pid, ticks)
		if there && u.Zombies == 1 && u.Memory > 0 && len(children) == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is there: %t, with %d children, and uses %+v", there, len(children), u)
		}
	}
}

func TestGuardsGoOnWhenTheClockIsSetBack(t *testing.T) {
	looks := 0
	r := New(Config{Alarm: func(Alarm) {}, Logger: hclog.NewNullLogger(), Processes: func() ([]Process, error) { looks++; return nil, nil }})
	g := spec.DefaultGuard(spec.GuardMemory)
	g.Above = "1MiB"
	now := time.Now()
	r.Set([]*Target{target(0, g)}, now)
	for _, w := range r.watches {
		if !strings.Contains(w.next[0].String(), "m=") {
			t.Error("the time of a look goes by the wall clock alone")
		}
	}
	back := now.Add(-time.Hour).Round(0) // without its monotonic reading
	if wait := r.step(back); wait > g.Interval.Std() {
		t.Errorf("a guard that looks every %s does not look for %s", g.Interval, wait)
	}
	if r.step(back.Add(g.Interval.Std())); looks != 1 {
		t.Errorf("after its interval a guard has looked %d times", looks)
	}
}
