package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

const (
	// settle is how long files must be quiet before they are read again: an
	// editor writes a new file, then renames it over the old one.
	settle = 100 * time.Millisecond
	// settleAtMost ends the wait for files that are never quiet.
	settleAtMost = time.Second
	// MaxReloadFile is how large a reload file may be for its contents to
	// count; of a larger one, size and time do.
	MaxReloadFile = 1 << 20
)

// files knows what is in reload files, and tells when that may have changed.
// It watches their directories, from the first file that is asked for.
type files struct {
	logger  hclog.Logger
	changed func()
	started chan *fsnotify.Watcher // to run, once

	mu      sync.Mutex // guards all below
	watcher *fsnotify.Watcher
	failed  bool // there can be no watcher
	watched map[string]bool
	// digests are those of files that have not changed since.
	digests map[string]string
	// used are the directories that were asked for since begin.
	used map[string]bool
}

func newFiles(logger hclog.Logger, changed func()) *files {
	return &files{
		logger: logger.Named("files"), changed: changed, started: make(chan *fsnotify.Watcher, 1),
		watched: map[string]bool{}, digests: map[string]string{}, used: map[string]bool{},
	}
}

// begin starts a pass over all processes.
func (f *files) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.used)
}

// end stops watching what was not asked for since begin.
func (f *files) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir := range f.watched {
		if !f.used[dir] {
			// It fails if the directory is gone, and the watch with it.
			_ = f.watcher.Remove(dir)
			delete(f.watched, dir)
		}
	}
	for path := range f.digests {
		if !f.used[filepath.Dir(path)] {
			delete(f.digests, path)
		}
	}
}

// digest identifies the contents of the files; a missing one counts as such.
func (f *files) digest(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h := sha256.New()
	for _, path := range paths {
		d, ok := f.digests[path]
		if !ok {
			// Watched before it is read, so that no change falls in between.
			f.watch(filepath.Dir(path))
			d = digestFile(path)
			f.digests[path] = d
		}
		f.use(filepath.Dir(path))
		fmt.Fprintf(h, "%s\n%s\n", path, d)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// use marks a directory, and those above it that are watched in its place.
func (f *files) use(dir string) {
	for ; !f.used[dir]; dir = filepath.Dir(dir) {
		f.used[dir] = true
	}
}

// watch watches a directory, or the nearest above it that exists. The caller
// holds f.mu.
func (f *files) watch(dir string) {
	if f.watcher == nil && !f.failed {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			f.failed = true
			f.logger.Error("reload files cannot be watched; raise fs.inotify.max_user_instances and restart the agent", "error", err)
			return
		}
		f.watcher = w
		f.started <- w
	}
	if f.failed {
		return
	}
	for !f.watched[dir] {
		at, below := dir, ""
		for !f.watched[at] {
			err := f.watcher.Add(at)
			if err == nil {
				f.watched[at] = true
				break
			}
			if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(at) == at {
				f.logger.Warn("a directory of reload files cannot be watched", "dir", at, "error", err)
				return
			}
			at, below = filepath.Dir(at), at
		}
		if below == "" {
			return
		}
		// What was missing may have appeared before the watch above it began.
		if _, err := os.Stat(below); err != nil {
			return
		}
	}
}

// run waits for changes until ctx is done.
func (f *files) run(ctx context.Context) {
	var watcher *fsnotify.Watcher
	select {
	case <-ctx.Done():
		return
	case watcher = <-f.started:
	}
	defer watcher.Close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var since time.Time // of the first change that has not been told
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-watcher.Events:
			if ev.Op == fsnotify.Chmod {
				continue
			}
		case err := <-watcher.Errors:
			f.logger.Warn("changes of reload files were missed; all are read again", "error", err)
		case <-timer.C:
			since = time.Time{}
			f.forget()
			f.changed()
			continue
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		timer.Reset(min(settle, max(0, since.Add(settleAtMost).Sub(now))))
	}
}

// forget makes all files be read again, and all directories be watched anew
// where they have come or gone.
func (f *files) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.digests)
	clear(f.watched)
	for _, dir := range f.watcher.WatchList() {
		f.watched[dir] = true
	}
}

// digestFile identifies what is in a file.
func digestFile(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		return "unreadable"
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "not a file"
	}
	if info.Size() > MaxReloadFile {
		return fmt.Sprintf("large %d %d", info.Size(), info.ModTime().UnixNano())
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(file, MaxReloadFile)); err != nil {
		return "unreadable"
	}
	return hex.EncodeToString(h.Sum(nil))
}
