package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// layoutVersion is the version of the data directory's layout that this
// program reads and writes.
const layoutVersion = 1

// maxDataDir keeps the sockets below the directory within the 107 bytes that
// unix(7) allows for a path; the longest is watchdog/run/<16 hex>.notify.
const maxDataDir = 70

var (
	// ErrNewerLayout: the data directory was written by a newer meshrun.
	ErrNewerLayout = errors.New("the data directory belongs to a newer meshrun")
	// ErrInUse: another agent runs on the data directory.
	ErrInUse = errors.New("another agent uses the data directory")
)

// prepareDataDir makes the data directory if it is missing, private to its
// owner, and checks that its layout is one that this version understands.
// It returns ErrNewerLayout otherwise.
func prepareDataDir(dir string) error {
	if len(dir) > maxDataDir {
		return fmt.Errorf("use data directory %s: the path has %d bytes, and the sockets in it allow %d: choose a shorter one with -data-dir",
			dir, len(dir), maxDataDir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w (choose another one with -data-dir)", err)
	}
	path := filepath.Join(dir, "VERSION")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writeFile(path, strconv.Itoa(layoutVersion)+"\n")
	}
	if err != nil {
		return fmt.Errorf("read layout version: %w (run as the directory's owner, or choose another -data-dir)", err)
	}
	found, err := strconv.Atoi(strings.TrimSpace(string(text)))
	switch {
	case err != nil:
		// Every release so far wrote the same layout, so a torn file costs nothing.
		return writeFile(path, strconv.Itoa(layoutVersion)+"\n")
	case found > layoutVersion:
		return fmt.Errorf("%w: %s has layout %d, this program knows up to %d: run the newer meshrun, or another -data-dir",
			ErrNewerLayout, dir, found, layoutVersion)
	}
	return nil
}

// writeFile replaces a small file in one step, private to its owner.
func writeFile(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// lockDataDir makes this process the only agent on the directory until the
// file is closed or the process ends. It returns ErrInUse with the pid of the
// other one.
func lockDataDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "agent.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open agent lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		holder, _ := os.ReadFile(path)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: pid %s runs on %s: use its commands (`meshrun status`), or another -data-dir",
				ErrInUse, strings.TrimSpace(string(holder)), dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write agent lock: %w", err)
	}
	return f, nil
}
