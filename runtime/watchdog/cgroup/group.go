package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Group is the cgroup of one generation of an instance, in every hierarchy.
type Group struct {
	tree        *Tree
	name        string
	hierarchies []hierarchy
	pids        int // its limit of processes; 0 for none
	reused      bool
}

// Name returns its name in the tree.
func (g *Group) Name() string { return g.name }

func (g *Group) dir(h *hierarchy) string { return filepath.Join(h.Dir, g.name) }

// with returns the directory that has a controller.
func (g *Group) with(controller string) (dir string, v2, ok bool) {
	for i := range g.hierarchies {
		if h := &g.hierarchies[i]; slices.Contains(h.Controllers, controller) {
			return g.dir(h), h.V2, true
		}
	}
	return "", false, false
}

// Unified returns the directory in version 2, which a process can be forked
// into; empty if there is none.
func (g *Group) Unified() string {
	for i := range g.hierarchies {
		if g.hierarchies[i].V2 {
			return g.dir(&g.hierarchies[i])
		}
	}
	return ""
}

// Reused reports whether Make found the group in version 2. It may have been
// killed for an earlier process of the generation, and Linux 6.14 and later kill
// every process that is forked into a group after that (kill_seq of cgroup.c).
func (g *Group) Reused() bool { return g.reused }

// Enter moves the calling thread, and nothing else of its process, into the
// group's hierarchies of version 1, so that what it forks begins there. Leave
// must follow, also after an error.
func (g *Group) Enter() error {
	if err := g.widen(1); err != nil {
		return err
	}
	for i := range g.hierarchies {
		if h := &g.hierarchies[i]; !h.V2 {
			if err := write(filepath.Join(g.dir(h), "tasks"), "0"); err != nil {
				return fmt.Errorf("enter cgroup %s: %w", g.dir(h), err)
			}
		}
	}
	return nil
}

// Leave moves the calling thread back to the groups of its process. Until it
// succeeds, the thread must fork for no other instance.
func (g *Group) Leave() error {
	var errs []error
	for i := range g.hierarchies {
		if h := &g.hierarchies[i]; !h.V2 {
			if err := write(filepath.Join(h.home, "tasks"), "0"); err != nil {
				errs = append(errs, fmt.Errorf("leave cgroup %s: %w", g.dir(h), err))
			}
		}
	}
	return errors.Join(append(errs, g.widen(0))...)
}

// widen raises the limit of processes in version 1 while the forking thread,
// which counts, is in the group.
func (g *Group) widen(by int) error {
	dir, v2, ok := g.with("pids")
	if !ok || v2 || g.pids == 0 {
		return nil
	}
	return setPIDs(dir, g.pids+by)
}

// Add moves a process, not its children, into the group.
func (g *Group) Add(pid int) error {
	for i := range g.hierarchies {
		if err := moveTo(g.dir(&g.hierarchies[i]), pid); err != nil {
			return err
		}
	}
	return nil
}

// PIDs returns the processes in the group, in any hierarchy.
func (g *Group) PIDs() []int {
	var pids []int
	for i := range g.hierarchies {
		// In a hierarchy where the group is missing it has no process.
		if in, err := readPIDs(g.dir(&g.hierarchies[i])); err == nil {
			pids = append(pids, in...)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// killRounds is how often to look in version 1 for processes that were forked
// while others were killed.
const killRounds = 8

// Kill sends SIGKILL to all processes in the group. Any goroutine may call it.
// It does not wait for their end.
func (g *Group) Kill() error {
	if dir := g.Unified(); dir != "" {
		switch err := write(filepath.Join(dir, "cgroup.kill"), "1"); {
		case err == nil, errors.Is(err, os.ErrNotExist): // Linux before 5.14, or it is gone
		default:
			return fmt.Errorf("kill cgroup %s: %w", dir, err)
		}
	}
	// Those that are left, or are in some hierarchies only.
	told := map[int]bool{}
	for range killRounds {
		fresh := false
		for _, pid := range g.PIDs() {
			if told[pid] {
				continue
			}
			told[pid], fresh = true, true
			if err := g.killOne(pid); err != nil {
				return err
			}
		}
		if !fresh {
			return nil
		}
	}
	return nil
}

// killOne kills a process if it is still in the group once its PID cannot be
// reused.
func (g *Group) killOne(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.name, err)
	}
	defer unix.Close(fd)
	if !slices.Contains(g.PIDs(), pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.name, err)
	}
	return nil
}

// OOMKills returns how many of the group's processes the kernel has killed for
// lack of memory.
func (g *Group) OOMKills() uint64 {
	dir, v2, ok := g.with("memory")
	if !ok {
		return 0
	}
	file := "memory.oom_control"
	if v2 {
		file = "memory.events"
	}
	n, _ := readFlat(filepath.Join(dir, file), "oom_kill")
	return n
}

// Remove removes the group, and the groups that its processes made in it; the
// error wraps EBUSY if a process is in it.
func (g *Group) Remove() error {
	var errs []error
	for i := range g.hierarchies {
		if err := g.tree.remove(g.dir(&g.hierarchies[i])); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}
