package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// openRunDir makes the directory of the pipes, sockets and locks, and returns
// its real path. Its content is meaningless after a reboot, and to make a
// thousand inodes on a disk can take longer than to start a thousand processes:
// so for root it is in memory, and DATA/watchdog/run is a link to it. Other
// users' directories in memory are removed when they log out; theirs is on disk.
func openRunDir(dir string, fresh func() string) (string, error) {
	path := filepath.Join(dir, "run")
	if target, err := os.Readlink(path); err == nil {
		if err := ownDir(target); err == nil {
			return target, nil
		}
		if err := os.Remove(path); err != nil {
			return "", fmt.Errorf("make run directory: %w", err)
		}
	}
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) && os.Geteuid() == 0 {
		for _, base := range [...]string{"/run", "/dev/shm"} {
			target := filepath.Join(base, "meshrun-"+fresh()[:16])
			if !inMemory(base) || ownDir(target) != nil {
				continue
			}
			if err := os.Symlink(target, path); err != nil {
				return "", errors.Join(fmt.Errorf("make run directory: %w", err), os.Remove(target))
			}
			return target, nil
		}
	}
	if err := os.MkdirAll(path, 0o711); err != nil {
		return "", fmt.Errorf("make run directory: %w", err)
	}
	// Processes of other users reach their notify sockets through these; the
	// files in them have modes of their own.
	for _, d := range [...]string{filepath.Dir(dir), dir, path} {
		if err := allowTraversal(d); err != nil {
			return "", fmt.Errorf("make run directory: %w", err)
		}
	}
	return path, nil
}

// recreate closes an instance's pipes if their files were removed, and makes
// the run directory again, so that the next start finds what it needs.
func (k *linuxKernel) recreate(id spec.InstanceID) {
	path := k.runDir
	if k.held[id] != nil {
		path = k.path(id, ".out")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return
	}
	k.log.Warn("recreating the removed pipes of an instance", "instance", id.String(), "missing", path)
	k.Release(id)
	if err := ownDir(k.runDir); err != nil {
		k.log.Error("cannot recreate the run directory", "error", err)
	}
}

// ownDir makes a directory, or checks that an existing one is a directory of
// this user in which nobody else may write.
func ownDir(path string) error {
	if err := os.Mkdir(path, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not this user's own directory", path)
	}
	return os.Chmod(path, 0o711)
}

func inMemory(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// allowTraversal lets other users pass a directory without listing it.
func allowTraversal(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return os.Chmod(dir, info.Mode().Perm()|0o011)
}

// openFIFO opens a FIFO for reading and writing, so that neither end is ever
// missing. It makes the FIFO if there is none.
func openFIFO(path string) (int, error) {
	const flags = unix.O_RDWR | unix.O_NONBLOCK | unix.O_CLOEXEC
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("make output pipe %s: %w", path, err)
	}
	fd, err := unix.Open(path, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open output pipe %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return -1, fmt.Errorf("open output pipe %s: not a pipe: remove it", path)
	}
	return fd, nil
}

// Release drains, closes and removes what Hold opened.
func (k *linuxKernel) Release(id spec.InstanceID) {
	h := k.held[id]
	if h == nil {
		return
	}
	delete(k.held, id)
	k.pump.remove(id)
	if h.notify >= 0 {
		unix.Close(h.notify)
	}
	removeLock(k.path(id, ".lock"))
	for _, suffix := range [...]string{".out", ".err", ".notify"} {
		if err := unix.Unlink(k.path(id, suffix)); err != nil && !errors.Is(err, unix.ENOENT) {
			k.log.Warn("cannot remove a file of a removed instance", "instance", id.String(), "error", err)
		}
	}
}

// removeLock removes the lock of an exclusive instance unless a process still
// holds it: then the next copy must find it locked.
func removeLock(path string) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // it was never exclusive
	}
	defer unix.Close(fd)
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = unix.Unlink(path) // one that stays is used again
	}
}
