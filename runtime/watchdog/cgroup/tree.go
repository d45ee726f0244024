package cgroup

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// ErrUnavailable: limits, or some kinds of them, cannot be set on this machine.
// The error applies to every instance, and ends with what to do.
var ErrUnavailable = errors.New("cgroups cannot be used here")

// Tree is where the groups of one watchdog are. Only one goroutine may use it;
// the methods of Group say who may call them.
type Tree struct {
	name string // of its directory in each hierarchy
	file string // records where that is

	hierarchies []hierarchy
	opened      bool
	missing     map[string]error // why controllers are missing

	// What a test may replace.
	proc         string
	mkdir, rmdir func(path string) error
	delegated    func(dir string) bool
	writable     func(dir string) error
}

// NewTree returns the tree of the watchdog with that ID, whose place is
// recorded in a file. It does no I/O.
func NewTree(id, file string) *Tree {
	return &Tree{name: "meshrun-" + id[:min(len(id), 16)], file: file, proc: "/proc", delegated: isDelegated, writable: mayMove,
		mkdir: func(path string) error { return os.Mkdir(path, 0o755) }, rmdir: removeDir}
}

func removeDir(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// remove removes a cgroup and those in it: a process that runs as root can make
// some, and the kernel then calls an empty cgroup busy.
func (t *Tree) remove(dir string) error {
	err := t.rmdir(dir)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := t.remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return t.rmdir(dir)
}

// Resume uses the groups that a predecessor left, if there are any.
func (t *Tree) Resume() error {
	b, err := os.ReadFile(t.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find leftover cgroups: %w", err)
	}
	var left []hierarchy
	if err := json.Unmarshal(b, &left); err != nil {
		return fmt.Errorf("find leftover cgroups: read %s: %w: remove it", t.file, err)
	}
	for _, h := range left {
		if !exists(h.Dir) {
			return nil // of another boot, for example: make them anew
		}
	}
	return t.resume(left)
}

// resume uses existing hierarchies, and finds out where this process is in
// them.
func (t *Tree) resume(hs []hierarchy) error {
	mounts, err := t.mounts()
	if err != nil {
		return err
	}
	for i := range hs {
		for _, m := range mounts {
			if !hs[i].V2 && !m.v2 && strings.HasPrefix(hs[i].Dir, m.point+"/") {
				hs[i].home = m.own
			}
		}
		if !hs[i].V2 && hs[i].home == "" {
			return fmt.Errorf("find leftover cgroups: %s is in no mounted hierarchy", hs[i].Dir)
		}
	}
	t.hierarchies, t.opened = hs, true
	return nil
}

func (t *Tree) mounts() ([]mount, error) {
	var text [2]string
	for i, name := range [...]string{"mountinfo", "cgroup"} {
		b, err := os.ReadFile(filepath.Join(t.proc, "self", name))
		if err != nil {
			return nil, fmt.Errorf("find cgroups: %w", err)
		}
		text[i] = string(b)
	}
	return findMounts(text[0], text[1]), nil
}

// begin makes the tree, once.
func (t *Tree) begin() error {
	if t.opened {
		return nil
	}
	mounts, err := t.mounts()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	found, err := t.place(mounts)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(found, "", "  ")
	if err == nil {
		err = os.WriteFile(t.file, append(b, '\n'), 0o600)
	}
	if err != nil {
		// Without the file a successor would not find the groups.
		t.abandon(found)
		return fmt.Errorf("%w: record where the cgroups are: %w", ErrUnavailable, err)
	}
	t.hierarchies, t.opened = found, true
	return nil
}

// Name returns the name of the group of one generation of an instance.
func Name(id spec.InstanceID, generation uint64) string {
	name := fmt.Sprintf("%s.%s.%d.%d", id.Job, id.Process, id.Shard, generation)
	if plain.MatchString(name) && len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(id.String()))
	return fmt.Sprintf("%x.%d", sum[:16], generation)
}

// plain matches the names that are used as they are, such that no two instances
// have one name. The usual names of jobs and processes have no dots.
var plain = regexp.MustCompile(`^[a-zA-Z0-9_-]+\.[a-zA-Z0-9_-]+\.[0-9]+\.[0-9]+$`)

const maxName = 200

// Make makes a group, and the tree if need be. Its error wraps ErrUnavailable
// if groups cannot be made on this machine.
func (t *Tree) Make(name string) (*Group, error) {
	if err := t.begin(); err != nil {
		return nil, err
	}
	g := t.group(name)
	for _, h := range t.hierarchies {
		g.reused = g.reused || (h.V2 && exists(filepath.Join(h.Dir, name)))
		err := t.makeDir(filepath.Join(h.Dir, name))
		if errors.Is(err, os.ErrNotExist) { // somebody has removed the tree
			if err = t.makeDir(h.Dir); err == nil && h.V2 {
				err = t.enable(h.Dir, h.Controllers)
			}
			if err == nil {
				err = t.makeDir(filepath.Join(h.Dir, name))
			}
		}
		if err != nil {
			return nil, errors.Join(err, g.Remove())
		}
	}
	return g, nil
}

// Find returns a group that exists in at least one hierarchy; else nil.
func (t *Tree) Find(name string) *Group {
	for _, h := range t.hierarchies {
		if exists(filepath.Join(h.Dir, name)) {
			return t.group(name)
		}
	}
	return nil
}

// Of returns the group of the tree that a process is in; else nil.
func (t *Tree) Of(pid int) *Group {
	if len(t.hierarchies) == 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(t.proc, fmt.Sprint(pid), "cgroup"))
	if err != nil {
		return nil
	}
	for l := range strings.Lines(string(b)) {
		dir, name := filepath.Split(strings.TrimSuffix(l, "\n"))
		if strings.HasSuffix(dir, "/"+t.name+"/") {
			return t.Find(name)
		}
	}
	return nil
}

// Groups returns all groups that exist.
func (t *Tree) Groups() ([]*Group, error) {
	names := map[string]bool{}
	for _, h := range t.hierarchies {
		entries, err := os.ReadDir(h.Dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != mainGroup {
				names[e.Name()] = true
			}
		}
	}
	groups := make([]*Group, 0, len(names))
	for name := range names {
		groups = append(groups, t.group(name))
	}
	slices.SortFunc(groups, func(a, b *Group) int { return strings.Compare(a.name, b.name) })
	return groups, nil
}

// Close removes empty groups. Groups with processes stay for a successor.
func (t *Tree) Close() { t.abandon(t.hierarchies) }

func (t *Tree) group(name string) *Group {
	return &Group{tree: t, name: name, hierarchies: t.hierarchies}
}
