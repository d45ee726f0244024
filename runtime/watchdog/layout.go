package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// layoutVersion is the version of the data directory's layout that this
// program writes. It reads all that came before:
//
//	1  the agent's state is state.db, a bbolt file
//	2  the agent's state is state.log
const layoutVersion = 2

// maxDataDir keeps the sockets below the directory within the 107 bytes that
// unix(7) allows for a path; the longest is watchdog/run/<16 hex>.notify.
const maxDataDir = 70

// ErrNewerLayout: the data directory was written by a newer meshrun.
var ErrNewerLayout = errors.New("the data directory belongs to a newer meshrun")

// PrepareDataDir makes the data directory if it is missing, private to its
// owner, and checks that its layout is one that this version knows. It returns
// ErrNewerLayout otherwise. Agent and watchdog both call it before they open
// anything else.
//
// A VERSION file that holds no number was torn by a full disk or a power loss,
// and is written again: to refuse would leave everything on the node without a
// watchdog, and the state and the journal have versions of their own.
func PrepareDataDir(dir string) error {
	if len(dir) > maxDataDir {
		return fmt.Errorf("use data directory %s: the path has %d bytes, and the sockets in it allow %d: choose a shorter one with -data-dir",
			dir, len(dir), maxDataDir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w (choose another one with -data-dir)", err)
	}
	path := filepath.Join(dir, "VERSION")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read layout version: %w (run as the directory's owner, or choose another -data-dir)", err)
	}
	found, err := strconv.Atoi(strings.TrimSpace(string(text)))
	switch {
	case err != nil: // missing or torn
		return MarkDataDir(dir)
	case found > layoutVersion:
		return fmt.Errorf("%w: %s has layout version %d, this program knows up to %d: run the newer meshrun, or another -data-dir",
			ErrNewerLayout, dir, found, layoutVersion)
	}
	return nil
}

// MarkDataDir marks the data directory as one of this version's layout, so that
// older versions refuse it. An agent calls it once its state is in that layout.
func MarkDataDir(dir string) error {
	path := filepath.Join(dir, "VERSION")
	want := strconv.Itoa(layoutVersion) + "\n"
	if text, err := os.ReadFile(path); err == nil && string(text) == want {
		return nil
	}
	f, err := replaceFile(path, []byte(want))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("write layout version: %w", err)
	}
	return nil
}

// replaceFile writes a file beside path and renames it over path. It returns the
// new file, open for appending.
//
// It does not sync, which is why it is not google/renameio: a killed process
// loses nothing that it has written, and a machine that loses power has lost
// what the files of the watchdog describe as well. A disk that is slow to sync
// would hold up the loop, and once a second a lease.
func replaceFile(path string, b []byte) (*os.File, error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(tmp))
	}
	return f, nil
}
