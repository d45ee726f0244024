package cgroup

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// period is the time in which a quota of processor time is used up, in
// microseconds; minQuota is the shortest that the kernel takes.
const (
	period   = 100_000
	minQuota = 1_000
)

// errInUse: a limit is below what is used, and to set it would kill.
var errInUse = errors.New("more is in use: the limit holds from the next start on")

// Limit sets the limits of the group; nil for none. It sets each that it can,
// whatever the error says; that wraps ErrUnavailable for a limit that no
// instance on this machine can have. No process ends by it: a memory limit
// below what is used is not applied.
func (g *Group) Limit(r *spec.Resources) error {
	if r == nil {
		r = &spec.Resources{}
	}
	g.pids = r.PIDs
	var errs []error
	for _, l := range [...]struct {
		controller string
		wanted     bool
		set        func(dir string, v2 bool) error
	}{
		{"memory", r.Memory > 0, func(dir string, v2 bool) error { return setMemory(dir, v2, r.Memory) }},
		{"cpu", r.CPU > 0, func(dir string, v2 bool) error { return setCPU(dir, v2, r.CPU) }},
		{"pids", r.PIDs > 0, func(dir string, _ bool) error { return setPIDs(dir, r.PIDs) }},
	} {
		dir, v2, ok := g.with(l.controller)
		if !ok {
			if l.wanted {
				errs = append(errs, g.tree.lacks(l.controller))
			}
			continue
		}
		if err := l.set(dir, v2); err != nil {
			errs = append(errs, fmt.Errorf("limit %s: %w", l.controller, err))
		}
	}
	return errors.Join(errs...)
}

// lacks says why a kind of limit is missing.
func (t *Tree) lacks(controller string) error {
	why := t.missing[controller]
	if why == nil {
		why = errors.New("the watchdog's cgroup has no such controller")
	}
	return fmt.Errorf("%w for %s: %w; %s", ErrUnavailable, controller, why, advice)
}

func setPIDs(dir string, n int) error {
	return write(filepath.Join(dir, "pids.max"), orMax(int64(n)))
}

// orMax formats a limit of version 2, where 0 is none.
func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// setCPU sets a quota, and a weight for when processors are short: one core is
// the usual weight.
func setCPU(dir string, v2 bool, cores float64) error {
	quota := int64(math.Max(cores*period, minQuota))
	weight := clamp(cores*100, 1, 10_000)
	shares := clamp(cores*1024, 2, 262_144)
	if cores <= 0 {
		quota, weight, shares = -1, 100, 1024
	}
	if v2 {
		return errors.Join(write(filepath.Join(dir, "cpu.max"), orMax(quota)+" "+strconv.Itoa(period)),
			write(filepath.Join(dir, "cpu.weight"), strconv.FormatInt(weight, 10)))
	}
	var err error
	if path := filepath.Join(dir, "cpu.cfs_quota_us"); exists(path) || quota > 0 {
		err = errors.Join(write(filepath.Join(dir, "cpu.cfs_period_us"), strconv.Itoa(period)), write(path, strconv.FormatInt(quota, 10)))
	}
	return errors.Join(err, write(filepath.Join(dir, "cpu.shares"), strconv.FormatInt(shares, 10)))
}

func clamp(x float64, low, high int64) int64 {
	return max(low, min(high, int64(math.Round(x))))
}

// setMemory bounds memory and swap together, where the kernel counts swap.
func setMemory(dir string, v2 bool, size spec.Size) error {
	if v2 {
		return setMemory2(dir, size)
	}
	value := "-1"
	if size > 0 {
		value = strconv.FormatInt(int64(size), 10)
	}
	memory, both := filepath.Join(dir, "memory.limit_in_bytes"), filepath.Join(dir, "memory.memsw.limit_in_bytes")
	err := write(memory, value)
	if exists(both) {
		// That of both may at no time be less than that of memory alone.
		if berr := write(both, value); berr != nil {
			err = errors.Join(berr, err)
		} else if errors.Is(err, unix.EINVAL) {
			err = write(memory, value)
		}
	}
	if errors.Is(err, unix.EBUSY) { // it did not come down to it
		return errInUse
	}
	return err
}

func setMemory2(dir string, size spec.Size) error {
	if size > 0 && firmlyUsed(dir) > uint64(size) {
		return errInUse
	}
	err := write(filepath.Join(dir, "memory.max"), orMax(int64(size)))
	if path := filepath.Join(dir, "memory.swap.max"); exists(path) {
		swap := "max"
		if size > 0 {
			swap = "0"
		}
		err = errors.Join(err, write(path, swap))
	}
	return err
}

// firmlyUsed is how much of a cgroup's memory the kernel cannot take back
// without killing: all but the contents of files.
func firmlyUsed(dir string) uint64 {
	used, _ := readNumber(filepath.Join(dir, "memory.current"))
	stat := filepath.Join(dir, "memory.stat")
	for _, name := range [...]string{"active_file", "inactive_file", "slab_reclaimable"} {
		n, _ := readFlat(stat, name)
		used -= min(n, used)
	}
	return used
}
