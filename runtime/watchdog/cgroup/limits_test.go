package cgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestLimitsAreWritten(t *testing.T) {
	files := map[bool]string{
		true:  "memory.max memory.swap.max cpu.max cpu.weight pids.max",
		false: "memory.limit_in_bytes memory.memsw.limit_in_bytes cpu.cfs_quota_us cpu.cfs_period_us cpu.shares pids.max",
	}
	tests := []struct {
		r      *spec.Resources
		v1, v2 string
	}{
		{&spec.Resources{CPU: 1.5, Memory: 64 << 20, PIDs: 9}, "67108864 67108864 150000 100000 1536 9", "67108864 0 150000 100000 150 9"},
		{&spec.Resources{CPU: 0.01}, "-1 -1 1000 100000 10 max", "max max 1000 100000 1 max"},
		{&spec.Resources{CPU: 4096}, "-1 -1 409600000 100000 262144 max", "max max 409600000 100000 10000 max"},
		{nil, "-1 -1 -1 100000 1024 max", "max max max 100000 100 max"},
	}
	for i, test := range tests {
		for _, v2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d v2=%v", i, v2), func(t *testing.T) {
				m := newMachine(t)
				want, dir := test.v1, "cg/memory,cpu,pids/"
				if v2 {
					want, dir = test.v2, "cg/unified/"
					m.v2("/")
				} else {
					m.v1("memory,cpu,pids", "/")
				}
				g, err := m.tree().Make("g")
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Limit(test.r); err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, name := range strings.Fields(files[v2]) {
					got = append(got, m.read(dir+mine+"/g/"+name))
				}
				if strings.Join(got, " ") != want {
					t.Errorf("written: %s, want %s", strings.Join(got, " "), want)
				}
			})
		}
	}
}

// In version 2 the kernel would kill for a limit below what is in use.
func TestMemoryInUseIsNotTakenAway(t *testing.T) {
	m := newMachine(t)
	m.v2("/")
	g, err := m.tree().Make("g")
	if err != nil {
		t.Fatal(err)
	}
	at := "cg/unified/" + mine + "/g/"
	m.write(at+"memory.current", "100000000\n")
	m.write(at+"memory.stat", "anon 60000000\nactive_file 10000000\ninactive_file 20000000\nslab_reclaimable 5000000\n")
	m.write(at+"memory.max", "max")
	if err := g.Limit(&spec.Resources{Memory: 64_000_000, PIDs: 3}); !errors.Is(err, errInUse) {
		t.Errorf("it says %v", err)
	}
	if m.read(at+"memory.max") != "max" || m.read(at+"pids.max") != "3" {
		t.Errorf("limits are %s and %s", m.read(at+"memory.max"), m.read(at+"pids.max"))
	}
	if err := g.Limit(&spec.Resources{Memory: 65_000_000}); err != nil { // files can go
		t.Error(err)
	}
}

// The thread that forks is in the group for a moment: it takes nobody's place.
func TestForkingThreadCountsForNobody(t *testing.T) {
	m := newMachine(t)
	m.v1("pids", "/home")
	g, err := m.tree().Make("g")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Limit(&spec.Resources{PIDs: 1}); err != nil {
		t.Fatal(err)
	}
	at := "cg/pids/home/" + mine + "/g/"
	if err := g.Enter(); err != nil || m.read(at+"pids.max") != "2" || m.read(at+"tasks") != "0" {
		t.Errorf("inside: limit %s, %v", m.read(at+"pids.max"), err)
	}
	if err := g.Leave(); err != nil || m.read(at+"pids.max") != "1" || m.read("cg/pids/home/tasks") != "0" {
		t.Errorf("outside: limit %s, %v", m.read(at+"pids.max"), err)
	}
}

func TestOOMKillsAreCounted(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		m := newMachine(t)
		file := "cg/memory/" + mine + "/g/memory.oom_control"
		if v2 {
			file = "cg/unified/" + mine + "/g/memory.events"
			m.v2("/")
		} else {
			m.v1("memory", "/")
		}
		g, err := m.tree().Make("g")
		if err != nil {
			t.Fatal(err)
		}
		m.write(file, "oom 3\noom_kill_disable 0\nunder_oom 0\noom_kill 2\noom_group_kill 0\n")
		if n := g.OOMKills(); n != 2 {
			t.Errorf("version 2 %v: counted %d", v2, n)
		}
	}
}
