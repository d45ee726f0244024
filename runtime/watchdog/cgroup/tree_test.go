package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

const mine = "meshrun-0123456789abcdef"

// dirs returns where a group is, seen from the machine's root.
func (m *machine) dirs(g *Group) string {
	var out []string
	for i := range g.hierarchies {
		rel, err := filepath.Rel(m.root, g.dir(&g.hierarchies[i]))
		if err != nil {
			m.t.Fatal(err)
		}
		out = append(out, rel)
	}
	return strings.Join(out, " ")
}

func TestWhereGroupsAre(t *testing.T) {
	tests := map[string]struct {
		build func(m *machine)
		want  string
	}{
		"version 1, below one's own": {func(m *machine) {
			m.v1("memory", "/box/1")
			m.v1("cpu,cpuacct", "/box/1")
			m.v1("pids", "/")
			m.v1("freezer", "/")
		}, "cg/memory/box/1/" + mine + "/g cg/cpu,cpuacct/box/1/" + mine + "/g cg/pids/" + mine + "/g"},
		"hybrid, with version 2 for who is in it": {func(m *machine) {
			m.v1("memory", "/")
			m.v2("/")
			m.write("cg/unified/cgroup.controllers", "")
		}, "cg/memory/" + mine + "/g cg/unified/" + mine + "/g"},
		"root of a machine": {func(m *machine) { m.v2("/") }, "cg/unified/" + mine + "/g"},
		"root in somebody's session": {func(m *machine) { m.v2("/user.slice/session-1.scope") },
			"cg/unified/" + mine + "/g"},
		"root in the leaf of a delegated unit": {func(m *machine) {
			m.v2("/system.slice/meshrun.service/main")
			m.delegated["cg/unified/system.slice/meshrun.service"] = true
		}, "cg/unified/system.slice/meshrun.service/" + mine + "/g"},
		"root straight in a delegated unit, where systemd must be able to start it again": {func(m *machine) {
			m.v2("/system.slice/meshrun.service")
			m.delegated["cg/unified/system.slice/meshrun.service"] = true
		}, "cg/unified/" + mine + "/g"},
		"a user in a unit of his own manager": {func(m *machine) {
			m.v2("/user.slice/user@1000.service/app.slice/m.service")
			m.delegated = map[string]bool{"cg/unified/user.slice/user@1000.service": true,
				"cg/unified/user.slice/user@1000.service/app.slice/m.service": true}
			m.writable = m.delegated
		}, "cg/unified/user.slice/user@1000.service/" + mine + "/g"},
		"a user straight in a delegated unit": {func(m *machine) {
			m.v2("/system.slice/m.service")
			m.delegated["cg/unified/system.slice/m.service"] = true
			m.writable = m.delegated
		}, "cg/unified/system.slice/m.service/" + mine + "/g"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			test.build(m)
			g, err := m.tree().Make("g")
			if err != nil {
				t.Fatal(err)
			}
			if got := m.dirs(g); got != test.want {
				t.Errorf("it is in\n%s, want\n%s", got, test.want)
			}
			if dir, v2, _ := g.with("memory"); v2 {
				rel, _ := filepath.Rel(m.root, filepath.Dir(filepath.Dir(dir)))
				if got := m.read(rel + "/cgroup.subtree_control"); got != "+memory +cpu +pids" {
					t.Errorf("children get %q", got)
				}
			}
		})
	}
}

func TestWhereNoGroupsAre(t *testing.T) {
	tests := map[string]struct {
		build func(m *machine)
		want  string
	}{
		"nothing mounted": {func(*machine) {}, "no cgroup file system is mounted"},
		"read-only": {func(m *machine) {
			m.v2("/")
			m.mountinfo[0] = strings.Replace(m.mountinfo[0], " rw,relatime", " ro,relatime", 1)
		}, "read-only"},
		"a user in a session": {func(m *machine) {
			m.v2("/user.slice/session-1.scope")
			m.writable = map[string]bool{}
		}, "permission denied"},
		"no controllers": {func(m *machine) {
			m.v2("/")
			m.write("cg/unified/cgroup.controllers", "cpuset io")
		}, "no cgroup controllers"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			test.build(m)
			_, err := m.tree().Make("g")
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "Delegate=yes") {
				t.Errorf("it says %v", err)
			}
			if _, err := os.Stat(filepath.Join(m.root, "remembered")); err == nil {
				t.Error("there is something to remember")
			}
		})
	}
}

func TestLimitThatNobodyCanHaveLeavesTheOthers(t *testing.T) {
	m := newMachine(t)
	m.v1("pids", "/")
	g, err := m.tree().Make("g")
	if err != nil {
		t.Fatal(err)
	}
	err = g.Limit(&spec.Resources{Memory: 1 << 30, PIDs: 7})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "for memory") || m.read("cg/pids/"+mine+"/g/pids.max") != "7" {
		t.Errorf("it says %v", err)
	}
}

func TestSuccessorFindsGroupsFromElsewhere(t *testing.T) {
	m := newMachine(t)
	m.v1("memory", "/a")
	if _, err := m.tree().Make("x.y.0.1"); err != nil {
		t.Fatal(err)
	}
	m.own = []string{"1:memory:/b"}
	m.fill("cg/memory/b", false)
	m.write("proc/42/cgroup", "1:memory:/a/"+mine+"/x.y.0.1\n")
	m.write("proc/43/cgroup", "1:memory:/a/meshrun-another/x.y.0.1\n")
	next := m.tree()
	if err := next.Resume(); err != nil {
		t.Fatal(err)
	}
	g := next.Of(42)
	if g == nil || m.dirs(g) != "cg/memory/a/"+mine+"/x.y.0.1" {
		t.Fatalf("process 42 is in %v", g)
	}
	if other := next.Of(43); other != nil {
		t.Errorf("process 43 is in %s", m.dirs(other))
	}
	if next.Find("x.y.0.2") != nil {
		t.Error("a group is found that is not there")
	}
	all, err := next.Groups()
	if err != nil || len(all) != 1 || all[0].Name() != "x.y.0.1" {
		t.Errorf("groups are %v, %v", all, err)
	}
	if err := g.Leave(); err != nil || m.read("cg/memory/b/tasks") != "0" {
		t.Errorf("the way home is lost: %v", err)
	}
}

func TestNoTwoInstancesHaveOneName(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []spec.InstanceID{
		{Job: "a", Process: "b"}, {Job: "a", Process: "b", Shard: 1}, {Job: "a.b", Process: "c"}, {Job: "a", Process: "b.c"},
		{Job: strings.Repeat("a", 150), Process: strings.Repeat("b", 150)}, {Job: "..", Process: "x"},
	} {
		for generation := range uint64(2) {
			name := Name(id, generation)
			if seen[name] || len(name) > 255 || strings.ContainsAny(name, "/") {
				t.Errorf("%s has the name %q", id, name)
			}
			seen[name] = true
		}
	}
	if got := Name(spec.InstanceID{Job: "shop", Process: "web", Shard: 3}, 12); got != "shop.web.3.12" {
		t.Errorf("the name is %q", got)
	}
}

func TestWhatAnInstanceMadeInItsGroupGoesWithIt(t *testing.T) {
	m := newMachine(t)
	m.v2("/")
	tree := m.tree()
	g, err := tree.Make("g")
	if err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(g.Unified(), "made", "inside")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	tree.rmdir = func(dir string) error { // as the kernel does
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				return &os.PathError{Op: "remove", Path: dir, Err: unix.EBUSY}
			}
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := g.Remove(); err != nil || exists(g.Unified()) {
		t.Errorf("it is left: %v", err)
	}
}
