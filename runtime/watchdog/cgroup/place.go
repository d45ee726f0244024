package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is a directory in which groups are made.
type hierarchy struct {
	// Dir holds the groups.
	Dir string `json:"dir"`
	V2  bool   `json:"v2,omitempty"`
	// Controllers are those whose limits can be set in the groups.
	Controllers []string `json:"controllers,omitempty"`
	// home is where this process lives, in version 1.
	home string
}

// mainGroup is, in version 2, for processes that may not be where groups are.
const mainGroup = "meshrun-main"

// advice says how to get the missing controllers.
const advice = "run meshrun as root, or in a systemd unit with Delegate=yes"

// place finds where groups can be made, and makes the directories.
//
// In version 1 that is below the watchdog's own cgroup in each hierarchy.
//
// In version 2 a cgroup with processes of its own cannot have limited ones below
// it. So it is the nearest cgroup above the watchdog's own that was delegated:
// by systemd, or by being the root of a container. If there is none, it is the
// machine's root if this process may write there, as for other container managers.
// A delegated cgroup in which the watchdog itself lives is the last choice, and
// only then does what is in it move to a child: a service manager could not
// start its service there again while limited instances live.
func (t *Tree) place(mounts []mount) ([]hierarchy, error) {
	var found []hierarchy
	var why []error
	missing := slices.Clone(controllers)
	for _, m := range mounts {
		h, err := t.open(m)
		if err != nil {
			if !m.v2 || len(h.Controllers) > 0 || len(mounts) == 1 {
				why = append(why, err)
			}
			continue
		}
		found = append(found, h)
		missing = slices.DeleteFunc(missing, func(c string) bool { return slices.Contains(h.Controllers, c) })
	}
	if len(mounts) == 0 {
		why = append(why, errors.New("no cgroup file system is mounted"))
	}
	if len(missing) == len(controllers) {
		t.abandon(found)
		if len(why) == 0 {
			why = append(why, errors.New("this machine has no cgroup controllers"))
		}
		return nil, fmt.Errorf("%w: %w; %s", ErrUnavailable, first(why), advice)
	}
	t.missing = map[string]error{}
	for _, c := range missing {
		t.missing[c] = first(why)
	}
	return found, nil
}

// first returns the first of several errors, which are usually alike: one for
// each hierarchy.
func first(why []error) error {
	switch len(why) {
	case 0:
		return nil
	case 1:
		return why[0]
	}
	return fmt.Errorf("%w (and %d more)", why[0], len(why)-1)
}

// open makes the directory of the groups in one hierarchy.
func (t *Tree) open(m mount) (hierarchy, error) {
	if !m.v2 {
		h := hierarchy{Dir: filepath.Join(m.own, t.name), Controllers: m.controllers, home: m.own}
		return h, t.makeDir(h.Dir)
	}
	has, err := readWords(filepath.Join(m.point, "cgroup.controllers"))
	if err != nil {
		return hierarchy{}, err
	}
	h := hierarchy{V2: true, Controllers: common(has)}
	if m.readOnly {
		return h, fmt.Errorf("%s is mounted read-only", m.point)
	}
	base, err := t.base(m)
	if err != nil {
		return h, err
	}
	if has, err = readWords(filepath.Join(base, "cgroup.controllers")); err != nil {
		return h, err
	}
	h.Controllers = common(has)
	h.Dir = filepath.Join(base, t.name)
	if err := t.makeDir(h.Dir); err != nil {
		return h, err
	}
	if len(h.Controllers) == 0 {
		return h, nil
	}
	if err := t.enable(base, h.Controllers); err != nil {
		return h, err
	}
	return h, t.enable(h.Dir, h.Controllers)
}

// base chooses the cgroup of version 2 below which groups are made.
func (t *Tree) base(m mount) (string, error) {
	dir := m.own
	for dir != m.point {
		if dir = filepath.Dir(dir); dir != m.point && t.delegated(dir) && t.writable(dir) == nil {
			return dir, nil
		}
	}
	err := t.writable(dir)
	if err != nil && t.writable(m.own) == nil {
		return m.own, nil
	}
	return dir, err
}

// mayMove reports whether processes may be moved within a cgroup.
func mayMove(dir string) error {
	path := filepath.Join(dir, "cgroup.procs")
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// isDelegated reports whether systemd has delegated a cgroup.
func isDelegated(dir string) bool {
	var b [8]byte
	for _, name := range [...]string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// enable makes controllers available to the children of a cgroup. Processes in
// the cgroup, which would prevent that, move to a child.
func (t *Tree) enable(dir string, names []string) error {
	path := filepath.Join(dir, "cgroup.subtree_control")
	has, err := readWords(path)
	if err != nil {
		return err
	}
	var want []string
	for _, c := range names {
		if !slices.Contains(has, c) {
			want = append(want, "+"+c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	text := strings.Join(want, " ")
	// A process may have forked in between.
	for range 10 {
		if err = write(path, text); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := t.clear(dir); err != nil {
			return err
		}
	}
	return err
}

// clear moves all processes of a cgroup to a child of it.
func (t *Tree) clear(dir string) error {
	child := filepath.Join(dir, mainGroup)
	if err := t.makeDir(child); err != nil {
		return err
	}
	pids, err := readPIDs(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := moveTo(child, pid); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes a directory, unless it is there.
func (t *Tree) makeDir(dir string) error {
	if err := t.mkdir(dir); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// abandon removes empty directories.
func (t *Tree) abandon(hs []hierarchy) {
	for _, h := range hs {
		_ = t.rmdir(h.Dir) // fails if there are groups in it
	}
}

func common(has []string) (out []string) {
	for _, c := range controllers {
		if slices.Contains(has, c) {
			out = append(out, c)
		}
	}
	return out
}
