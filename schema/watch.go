package schema

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

// The defaults of WatchOptions.
const (
	DefaultQuiet = 20 * time.Millisecond
	DefaultLimit = 200 * time.Millisecond

	DefaultAbsence = time.Second
)

// WatchOptions say how files are watched.
type WatchOptions struct {
	// Quiet is how long nothing must change before the files are read again;
	// 0 means DefaultQuiet.
	Quiet time.Duration
	// Limit is how long reading can be put off by changes that go on;
	// 0 means DefaultLimit.
	Limit time.Duration
	// Absence is how long a file that was read must be gone before that is
	// believed: some programs save by deleting and writing anew, and a checkout
	// or a mount takes a moment. 0 means DefaultAbsence.
	Absence time.Duration
	// Logger may be nil.
	Logger hclog.Logger
}

// Watch loads the paths, gives the result to fn, and does so again whenever a
// file that counts has changed, appeared or gone, also one that file() reads,
// until the context ends. If nothing that was read differs, fn is not called.
// Broken files are given to fn as diagnostics with errors.
//
// Fn is called by the goroutine that called Watch, so one call ends before the
// next begins; changes during a call are seen after it. Watch returns nil once
// the context has ended, and an error if watching is not possible.
func Watch(ctx context.Context, paths []string, opts Options, w WatchOptions, fn func(*Config, Diagnostics)) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch job files: %w%s", err, limitHint(err))
	}
	defer notify.Close()
	if w.Quiet <= 0 {
		w.Quiet = DefaultQuiet
	}
	if w.Limit <= 0 {
		w.Limit = DefaultLimit
	}
	if w.Absence <= 0 {
		w.Absence = DefaultAbsence
	}
	if w.Logger == nil {
		w.Logger = hclog.NewNullLogger()
	}
	return (&watch{
		notify: notify, paths: paths, loader: NewLoader(opts), opts: w, fn: fn,
		logger: w.Logger.Named("watch"),
	}).run(ctx)
}

// limitHint says how to raise the kernel's limits on watching.
func limitHint(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "; raise fs.inotify.max_user_instances with sysctl"
	case errors.Is(err, syscall.ENOSPC):
		return "; raise fs.inotify.max_user_watches with sysctl"
	}
	return ""
}

// watch is one call of Watch. It belongs to one goroutine.
type watch struct {
	notify *fsnotify.Watcher
	paths  []string
	loader *Loader
	opts   WatchOptions
	fn     func(*Config, Diagnostics)
	logger hclog.Logger

	loaded bool
	digest digest
	// told are the files that there were when they last had no errors.
	told []string
	// goneSince is when some of them were first missed; zero if none is.
	goneSince time.Time
	// files are the absolute paths that count, dirs the directories that
	// hold them, whether they exist or not.
	files map[string]bool
	dirs  map[string]bool
	// watched are the directories that the kernel tells about.
	watched map[string]bool
}

func (w *watch) run(ctx context.Context) error {
	if err := w.load(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var latest time.Time // when a pending load is due at the latest; zero if none is
	pend := func() {
		now := time.Now()
		if latest.IsZero() {
			latest = now.Add(w.opts.Limit)
		}
		timer.Reset(min(w.opts.Quiet, latest.Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.notify.Events:
			if !ok {
				return errors.New("watch job files: the watcher was closed")
			}
			if w.counts(ev) {
				pend()
			}
		case err, ok := <-w.notify.Errors:
			if !ok {
				return errors.New("watch job files: the watcher was closed")
			}
			// Mostly fsnotify.ErrEventOverflow: what was missed is not known,
			// so everything is read again.
			w.logger.Warn("watching missed changes, reading all files again", "error", err)
			pend()
		case <-timer.C:
			latest = time.Time{}
			if err := w.load(); err != nil {
				return err
			}
			if !w.goneSince.IsZero() {
				timer.Reset(max(w.opts.Absence-time.Since(w.goneSince), time.Millisecond))
			}
		}
	}
}

// counts reports whether an event can mean that something else would be read.
func (w *watch) counts(ev fsnotify.Event) bool {
	if ev.Op == fsnotify.Chmod {
		return false
	}
	path := filepath.Clean(ev.Name)
	if w.files[path] || w.dirs[path] {
		return true
	}
	if base := filepath.Base(path); w.dirs[filepath.Dir(path)] && (isJobFile(base) || strings.HasPrefix(base, "..")) {
		return true // a new file, or the swap of a mounted directory's link
	}
	for dir := range w.dirs {
		if strings.HasPrefix(dir, path+string(filepath.Separator)) {
			return true // a directory above one that counts
		}
	}
	return false
}

// maxSettle bounds how often files are read again because reading them showed
// new files to watch.
const maxSettle = 5

// load reads the files and tells fn if anything differs. What changes after a
// file was read and before its directory was watched would be missed, so it
// reads until all directories were watched before.
func (w *watch) load() error {
	if w.files == nil {
		w.want(nil)
		if _, err := w.subscribe(); err != nil {
			return err
		}
	}
	for range maxSettle {
		cfg, diags := w.loader.Load(w.paths)
		w.want(cfg.Files)
		added, err := w.subscribe()
		if err != nil {
			return err
		}
		if awaits := w.awaits(time.Now()); !awaits && (!w.loaded || cfg.digest != w.digest) {
			w.loaded, w.digest = true, cfg.digest
			if !diags.HasErrors() {
				w.told = slices.DeleteFunc(slices.Clone(cfg.Files), isGone)
			}
			w.fn(cfg, diags)
		}
		if !added {
			return nil
		}
	}
	return nil
}

// awaits reports whether files are missing that may be about to come back.
func (w *watch) awaits(now time.Time) bool {
	if !slices.ContainsFunc(w.told, isGone) {
		w.goneSince = time.Time{}
		return false
	}
	if w.goneSince.IsZero() {
		w.goneSince = now
	}
	if now.Sub(w.goneSince) < w.opts.Absence {
		return true
	}
	w.goneSince = time.Time{}
	return false
}

func isGone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// want notes which files and directories count.
func (w *watch) want(files []string) {
	w.files, w.dirs = map[string]bool{}, map[string]bool{}
	for _, p := range w.paths {
		abs := absolute(p)
		if info, err := os.Stat(abs); err == nil && info.IsDir() {
			w.wantDir(abs)
		} else if err != nil && filepath.Ext(abs) != ".hcl" {
			w.wantDir(abs) // gone; it may come back as a directory
			w.wantFile(abs)
		} else {
			w.wantFile(abs)
		}
	}
	for _, f := range files {
		w.wantFile(f)
	}
}

func (w *watch) wantFile(path string) {
	w.files[path] = true
	w.dirs[filepath.Dir(path)] = true
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		w.files[real] = true
		w.dirs[filepath.Dir(real)] = true
	}
}

func (w *watch) wantDir(path string) {
	w.dirs[path] = true
	if real, err := filepath.EvalSymlinks(path); err == nil {
		w.dirs[real] = true
	}
}

// subscribe makes the kernel tell about all directories that count, and about
// those above them, where these would be made again. Added reports whether
// there are new ones.
func (w *watch) subscribe() (added bool, err error) {
	wanted := map[string]bool{}
	for dir := range w.dirs {
		wanted[dir] = true
		wanted[existingParent(dir)] = true
	}
	for dir := range w.watched {
		if !wanted[dir] {
			_ = w.notify.Remove(dir) // gone already, or of no interest
		}
	}
	now := map[string]bool{}
	for dir := range wanted {
		switch err := w.notify.Add(dir); {
		case err == nil:
			now[dir] = true
			added = added || !w.watched[dir]
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrPermission):
		default:
			return false, fmt.Errorf("watch directory %s: %w%s", dir, err, limitHint(err))
		}
	}
	w.watched = now
	return added, nil
}

// existingParent returns the nearest directory above dir that exists.
func existingParent(dir string) string {
	for {
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		if info, err := os.Stat(up); err == nil && info.IsDir() {
			return up
		}
		dir = up
	}
}
