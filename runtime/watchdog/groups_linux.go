package watchdog

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// groups are the cgroups of instances with limits, and of exclusive ones, none of
// whose processes may outlive the instance. Others have none: a thousand cgroups
// cost the kernel more than a thousand processes do.
type groups struct {
	tree     *cgroup.Tree
	prepared map[spec.InstanceID]*cgroup.Group // for starts that are under way
	live     map[string]bool                   // names of those of live processes
	left     []*cgroup.Group                   // to be removed once they are empty
}

func newGroups(id, file string) groups {
	return groups{tree: cgroup.NewTree(id, file), prepared: map[spec.InstanceID]*cgroup.Group{}, live: map[string]bool{}}
}

// Limit makes a launch's limits hold.
func (k *linuxKernel) Limit(l *spec.Launch, p *process, m marks) error {
	name := cgroup.Name(l.ID, m.generation)
	if p == nil {
		return k.prepareGroup(l, name)
	}
	g := p.group.Load()
	if g == nil { // where the process is counts, not where it should be
		if g = k.groups.tree.Of(p.pid); g == nil {
			g = k.groups.tree.Find(name)
		}
	}
	if g != nil {
		k.groups.hold(p, g)
		return g.Limit(l.Resources)
	}
	if l.Exclusive {
		p.marked = markGeneration(m)
	}
	if l.Resources == nil {
		return nil
	}
	g, err := k.groups.tree.Make(name)
	if err != nil {
		return err
	}
	k.groups.hold(p, g)
	return errors.Join(g.Limit(l.Resources), k.moveIn(g, p, m))
}

// prepareGroup makes the cgroup that the next process is born in.
func (k *linuxKernel) prepareGroup(l *spec.Launch, name string) error {
	if l.Resources == nil && !l.Exclusive {
		return nil
	}
	g, err := k.groups.tree.Make(name)
	if l.Resources == nil && err != nil { // see killMarked
		k.log.Debug("no cgroup for an exclusive instance: processes that leave its process group are found by their environment", "instance", l.ID.String(), "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	k.groups.prepared[l.ID] = g
	return g.Limit(l.Resources)
}

func (gs *groups) hold(p *process, g *cgroup.Group) {
	p.group.Store(g)
	gs.live[g.Name()] = true
}

// settleGroup gives a new process the cgroup that was prepared for it; without
// a process the cgroup is removed.
func (k *linuxKernel) settleGroup(st start, p *process, joined bool) {
	g := k.groups.prepared[st.launch.ID]
	if g == nil {
		if p != nil && st.launch.Exclusive {
			p.marked = markGeneration(st.marks)
		}
		return
	}
	delete(k.groups.prepared, st.launch.ID)
	if p == nil {
		k.groups.left = append(k.groups.left, g)
		return
	}
	k.groups.hold(p, g)
	if !joined {
		if err := k.moveIn(g, p, st.marks); err != nil {
			k.log.Warn("cannot apply limits to all processes of an instance", "instance", st.launch.ID.String(), "error", err)
		}
	}
}

// moveRounds bounds how often to look for processes that were forked while
// others were moved.
const moveRounds = 16

// moveIn moves a live process and all that it has started into a cgroup. Memory
// that they have already stays accounted to their previous cgroup.
func (k *linuxKernel) moveIn(g *cgroup.Group, p *process, m marks) error {
	moved := map[int]bool{}
	for range moveRounds {
		fresh := false
		for _, pid := range k.membersOf(p, m) {
			if moved[pid] {
				continue
			}
			moved[pid], fresh = true, true
			if err := g.Add(pid); err != nil {
				return err
			}
		}
		if !fresh {
			break
		}
	}
	return nil
}

// membersOf returns a process and those of its session or with its marks.
func (k *linuxKernel) membersOf(p *process, m marks) []int {
	pids := []int{p.pid}
	others, err := otherProcesses()
	if err != nil {
		k.log.Error("cannot list processes: limits apply to the main process only", "pid", p.pid, "error", err)
		return pids
	}
	for _, pid := range others {
		if pid == p.pid {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.state == 'Z' || st.state == 'X' {
			continue
		}
		if st.session == p.session || k.marked(pid, markGeneration(m)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// marked reports whether a process carries the marks of a generation.
func (k *linuxKernel) marked(pid int, generation string) bool {
	m := readMarks(pid)
	return m[envWatchdog] == k.id && m[envGeneration] == generation
}

// killMarked kills the processes that a dead exclusive process without a cgroup
// has started outside its process group, as far as their environment identifies
// them.
func (k *linuxKernel) killMarked(p *process) {
	if p.marked == "" || p.group.Load() != nil {
		return
	}
	for range moveRounds {
		others, err := otherProcesses()
		if err != nil {
			k.log.Error("cannot list processes: those that an exclusive instance left behind are not killed", "pid", p.pid, "error", err)
			return
		}
		found := false
		for _, pid := range others {
			if !k.marked(pid, p.marked) {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if k.marked(pid, p.marked) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				found = true
			}
			unix.Close(fd)
		}
		if !found {
			return
		}
	}
}

// Signal signals the whole group of a process. SIGKILL also ends its cgroup, so
// that no process escapes by a process group of its own. The fence calls it
// too, from its own goroutine, until it has released p.
func (k *linuxKernel) Signal(p *process, sig syscall.Signal) error {
	err := signalGroup(p, sig)
	if g := p.group.Load(); g != nil && sig == unix.SIGKILL {
		err = errors.Join(err, g.Kill())
	}
	return err
}

// concluded closes a process that has ended.
func (k *linuxKernel) concluded(p *process, exit spec.Exit) spec.Exit {
	exit.OOM = k.leaveGroup(p, exit)
	k.drop(p)
	return exit
}

// shellKilled is the exit code of a shell whose child was killed by SIGKILL.
const shellKilled = 128 + int(unix.SIGKILL)

// leaveGroup releases the cgroup of a process that has ended; all processes in
// it were killed. It reports whether the cause was lack of memory.
func (k *linuxKernel) leaveGroup(p *process, exit spec.Exit) bool {
	g := p.group.Load()
	if g == nil {
		return false
	}
	killed := exit.Signal == "SIGKILL" || exit.Code == shellKilled
	oom := killed && g.OOMKills() > 0
	delete(k.groups.live, g.Name())
	k.groups.left = append(k.groups.left, g)
	return oom
}

// awaited reports whether a cgroup is prepared for a process that is not forked
// yet.
func (gs *groups) awaited(name string) bool {
	for _, g := range gs.prepared {
		if g.Name() == name {
			return true
		}
	}
	return false
}

// Reclaim kills what is left in cgroups that belong to no instance.
func (k *linuxKernel) Reclaim() map[string]int {
	all, err := k.groups.tree.Groups()
	if err != nil {
		k.log.Warn("cannot list leftover cgroups", "error", err)
	}
	killed := map[string]int{}
	for _, g := range all {
		if k.groups.live[g.Name()] {
			continue
		}
		killed[g.Name()] = len(g.PIDs())
		if err := g.Kill(); err != nil {
			k.log.Warn("cannot kill the processes left in a cgroup", "error", err)
		}
		k.groups.left = append(k.groups.left, g)
	}
	return killed
}

// Tidy removes the cgroups of ended processes. A killed process may take a
// moment to disappear.
func (k *linuxKernel) Tidy() bool {
	var busy []*cgroup.Group
	for _, g := range k.groups.left {
		if k.groups.live[g.Name()] || k.groups.awaited(g.Name()) {
			continue // the next process of the generation uses it
		}
		err := g.Remove()
		if errors.Is(err, unix.EBUSY) {
			busy = append(busy, g)
			err = g.Kill()
		}
		if err != nil {
			k.log.Warn("cannot remove the cgroup of an instance that has ended", "error", err)
		}
	}
	k.groups.left = busy
	return len(busy) == 0
}

// How long, and how often, to wait for killed processes at the end.
const (
	tidyGrace = time.Second
	tidyPoll  = 5 * time.Millisecond
)

// closeGroups removes what can be removed.
func (k *linuxKernel) closeGroups() {
	for deadline := time.Now().Add(tidyGrace); !k.Tidy() && time.Now().Before(deadline); {
		time.Sleep(tidyPoll)
	}
	k.groups.tree.Close()
}

// within runs fork on the thread such that the new process is born in a cgroup;
// nil for none. It reports whether it was: an old kernel, or a filter of system
// calls, may not allow that.
func (s *spawner) within(g *cgroup.Group, into func(fd int), fork func() error) (joined bool, err error) {
	if s.stuck != nil { // otherwise the next process would be born there
		if err := s.stuck.Leave(); err != nil {
			return false, err
		}
		s.stuck = nil
	}
	if g == nil {
		return false, fork()
	}
	defer func() {
		if g.Leave() != nil {
			s.stuck = g
		}
	}()
	if err := g.Enter(); err != nil {
		return false, err
	}
	dir := g.Unified()
	if dir == "" || g.Reused() { // a reused group's process is moved in after its birth
		return dir == "", fork()
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	defer unix.Close(fd)
	into(fd)
	if err = fork(); errors.Is(err, unix.ENOSYS) {
		into(-1)
		return false, fork()
	}
	return err == nil, err
}
