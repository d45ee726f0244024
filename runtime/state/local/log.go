package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is where edits become durable. logFile implements it, and noDisk.
type disk interface {
	// write makes all changed records of the edit durable in one commit. After
	// an error the disk holds what it held before.
	write(e *edit) error
	close() error
}

// noDisk keeps nothing.
type noDisk struct{}

func (noDisk) write(*edit) error { return nil }
func (noDisk) close() error      { return nil }

const (
	// rewriteAbove is how large a log grows, beside twice what was live when it
	// was written last, before it is written anew without what is obsolete.
	rewriteAbove = 4 << 20
	// allocateAhead is how much of the disk is claimed at a time, beyond the
	// end of the log; the last reserve bytes are kept for small commits, so that
	// a full disk leaves room to delete something.
	allocateAhead = 256 << 10
	reserve       = 64 << 10
	smallCommit   = 16 << 10
)

// logFile appends commits to a file, one write and one fdatasync for each, and
// writes the file anew when most of it is obsolete.
type logFile struct {
	f     *os.File
	path  string
	guard *os.File // holds the lock until it is closed
	opts  Options

	size      int64 // where the last commit ends
	rewritten int64 // the size when the file was written last
	allocated int64 // up to where the disk has room for the file; -1 where it can't tell
	// unknown is set when a failed commit could not be cut off: the file is
	// written anew before anything follows it.
	unknown bool
}

// createLog writes the memory to a new file, which takes the name only when it
// is whole on disk. An error leaves what had the name before.
func createLog(path string, m *memory, guard *os.File, opts Options) (*logFile, error) {
	text, err := m.appendCommit(encodeHeader(Format), m.all())
	if err != nil {
		return nil, err
	}
	if len(text) > opts.MaxBytes {
		return nil, fmt.Errorf("write %s: the state takes %d bytes, of at most %d", path, len(text), opts.MaxBytes)
	}
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	l := &logFile{f: f, path: path, guard: guard, opts: opts, size: int64(len(text)), rewritten: int64(len(text))}
	err = lockLog(f)
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = l.sync()
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(fresh))
	}
	if !opts.NoSync {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		// The name may still be the old file's after a crash of the machine.
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *logFile) sync() error {
	if l.opts.NoSync {
		return nil
	}
	return unix.Fdatasync(int(l.f.Fd()))
}

func (l *logFile) write(e *edit) error {
	text, err := e.appendCommit(nil, e.dirty)
	if err != nil {
		return err
	}
	full := l.size+int64(len(text)) > int64(l.opts.MaxBytes)
	if l.unknown || full || l.size > rewriteAbove+2*l.rewritten {
		err := l.rewrite(&e.memory)
		if err == nil || l.unknown || full {
			return l.failed(err)
		}
		l.opts.Logger.Warn("cannot write the state's log anew, appending to it", "path", l.path, "error", err)
		l.rewritten = max(l.rewritten, l.size/2) // the next attempt is worth it once the log has grown
	}
	return l.failed(l.append(text))
}

func (l *logFile) failed(err error) error {
	if err != nil {
		return fmt.Errorf("commit to %s: %w; make room on its disk, and try again", l.path, err)
	}
	return nil
}

// append writes a commit behind the last one, or cuts off what it wrote of it.
func (l *logFile) append(text []byte) error {
	err := l.allocate(int64(len(text)))
	if err == nil {
		_, err = l.f.WriteAt(text, l.size)
	}
	if err == nil {
		err = l.sync()
	}
	if err != nil {
		l.cutBack()
		return err
	}
	l.size += int64(len(text))
	return nil
}

// cutBack ends the file behind the last commit.
func (l *logFile) cutBack() {
	l.allocated = min(l.allocated, l.size)
	if info, err := l.f.Stat(); err == nil && info.Size() == l.size {
		return
	}
	if err := l.f.Truncate(l.size); err != nil {
		l.unknown = true
		l.opts.Logger.Error("a commit that failed cannot be cut off the state's log", "path", l.path, "error", err)
	}
}

// allocate claims room for n bytes and the reserve. A small commit may use the
// reserve of a full disk.
func (l *logFile) allocate(n int64) error {
	if l.allocated < 0 || l.size+n+reserve <= l.allocated {
		return nil
	}
	for _, ahead := range []int64{allocateAhead, reserve} {
		err := unix.Fallocate(int(l.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, l.size, n+ahead)
		switch {
		case err == nil:
			l.allocated = l.size + n + ahead
			return nil
		case !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EFBIG):
			l.allocated = -1 // the file system has no such call: the write tells
			return nil
		case ahead == reserve && (n > smallCommit || l.size+n > l.allocated):
			return err
		}
	}
	return nil
}

// rewrite puts a new file with the memory alone in the log's place.
func (l *logFile) rewrite(m *memory) error {
	fresh, err := createLog(l.path, m, l.guard, l.opts)
	if err != nil {
		// It may have taken the name and not be durable.
		if info, statErr := os.Stat(l.path); statErr == nil {
			if own, ownErr := l.f.Stat(); ownErr == nil && !os.SameFile(info, own) {
				l.unknown = true
			}
		}
		return err
	}
	old := l.f
	*l = *fresh
	return old.Close()
}

func (l *logFile) close() error {
	if err := errors.Join(l.f.Close(), l.guard.Close()); err != nil {
		return fmt.Errorf("close %s: %w", l.path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
