package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a directory that looks like a machine's cgroup file systems.
type machine struct {
	t         *testing.T
	root      string
	mountinfo []string
	own       []string
	delegated map[string]bool
	// writable are the cgroups that this user may write, seen from root; nil for all.
	writable map[string]bool
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir(), delegated: map[string]bool{}}
	m.write("proc/self/mountinfo", "")
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// The files that the kernel puts into a new cgroup.
var kernelFiles = map[bool]string{
	false: "tasks cgroup.procs memory.limit_in_bytes memory.memsw.limit_in_bytes memory.oom_control cpu.cfs_quota_us cpu.cfs_period_us cpu.shares pids.max",
	true: "cgroup.procs cgroup.kill cgroup.controllers cgroup.subtree_control memory.max memory.swap.max memory.current memory.stat " +
		"memory.events cpu.max cpu.weight pids.max",
}

func (m *machine) fill(dir string, v2 bool) {
	for _, name := range strings.Fields(kernelFiles[v2]) {
		text := ""
		if name == "cgroup.controllers" {
			text = "cpuset cpu io memory pids"
		}
		m.write(filepath.Join(dir, name), text)
	}
}

// v1 mounts a hierarchy of version 1, in which this process is in a cgroup.
func (m *machine) v1(controllers, own string) {
	m.mount("cgroup", "cg/"+controllers, "rw,"+controllers)
	m.own = append(m.own, fmt.Sprintf("%d:%s:%s", len(m.own)+1, controllers, own))
	m.fill("cg/"+controllers+own, false)
}

// v2 mounts the hierarchy of version 2.
func (m *machine) v2(own string) {
	m.mount("cgroup2", "cg/unified", "rw,nsdelegate")
	m.own = append(m.own, "0::"+own)
	for dir := own; ; dir = filepath.Dir(dir) {
		m.fill("cg/unified"+dir, true)
		if dir == "/" {
			return
		}
	}
}

func (m *machine) mount(kind, point, options string) {
	m.mountinfo = append(m.mountinfo, fmt.Sprintf("%d 1 0:30 / %s rw,relatime shared:9 - %s cgroup %s",
		30+len(m.mountinfo), filepath.Join(m.root, point), kind, options))
}

// tree returns the tree of a watchdog of the machine.
func (m *machine) tree() *Tree {
	m.write("proc/self/mountinfo", strings.Join(m.mountinfo, "\n")+"\n")
	m.write("proc/self/cgroup", strings.Join(m.own, "\n")+"\n")
	t := NewTree("0123456789abcdef0123", filepath.Join(m.root, "remembered"))
	t.proc, t.rmdir = filepath.Join(m.root, "proc"), os.RemoveAll
	t.mkdir = func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		rel, err := filepath.Rel(m.root, path)
		m.fill(rel, strings.HasPrefix(rel, "cg/unified"))
		return err
	}
	t.delegated = func(dir string) bool {
		rel, err := filepath.Rel(m.root, dir)
		return err == nil && m.delegated[rel]
	}
	t.writable = func(dir string) error {
		rel, err := filepath.Rel(m.root, dir)
		if err == nil && m.writable != nil && !m.writable[rel] {
			return os.ErrPermission
		}
		return err
	}
	return t
}
