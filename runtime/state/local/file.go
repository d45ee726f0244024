package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait is how long Open waits for another process to let go.
	lockWait  = time.Second
	lockRetry = 20 * time.Millisecond

	// repairGap is added to the index of a repaired store: the last commits
	// may be lost, and an index, which may be a fencing token, never comes twice.
	repairGap = 1 << 20
)

// openFile opens the file at path, or creates or repairs it.
func openFile(ctx context.Context, path string, opts Options) (_ disk, _ *memory, report Report, err error) {
	guard, err := lockFile(ctx, path+".lock")
	if err != nil {
		return nil, nil, report, fmt.Errorf("open state %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open state %s: %w", path, err)
			guard.Close()
		}
	}()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		m := newMemory()
		b, err := createFile(path, &m, guard, opts)
		return b, &m, report, err
	}
	if err != nil {
		return nil, nil, report, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, report, errors.Join(fmt.Errorf("%w: a program other than meshrun has locked it (%w)", ErrInUse, err), f.Close())
	}
	got, err := inspectFile(f)
	if err == nil && got.damage == nil {
		m, err := got.memory(opts.Now())
		if err != nil {
			return nil, nil, report, errors.Join(err, f.Close())
		}
		b, err := openBolt(f, path, guard, opts)
		return b, m, report, err
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, report, err
	}
	return repair(path, got, guard, opts)
}

// inspectFile inspects an open file, and refuses one of a newer format.
func inspectFile(f *os.File) (findings, error) {
	info, err := f.Stat()
	if err != nil {
		return findings{}, err
	}
	if !info.Mode().IsRegular() {
		return findings{}, errors.New("it is not a regular file")
	}
	got := inspect(pageFile{r: f, size: info.Size()})
	if got.meta.format > Format {
		return got, fmt.Errorf("%w: its format is %d, and this one knows up to %d; start the newer meshrun again, or use another data directory",
			ErrNewerFormat, got.meta.format, Format)
	}
	return got, nil
}

// lockFile takes the lock that makes the store's process unique. It is a file
// of its own, because the store's file may be replaced.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return nil, errors.Join(inUse(f), f.Close())
		}
	}
	// Who holds it is only for people to read: failing to say so is no harm.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// inUse says who holds the lock, as far as it is known.
func inUse(f *os.File) error {
	pid := make([]byte, 16)
	n, _ := f.ReadAt(pid, 0)
	if who := strings.TrimSpace(string(pid[:n])); who != "" {
		return fmt.Errorf("%w (process %s); stop that meshrun first, or use another data directory", ErrInUse, who)
	}
	return fmt.Errorf("%w; stop that meshrun first, or use another data directory", ErrInUse)
}

// createFile makes a file that holds the memory. It takes its name only when
// it is whole on disk.
func createFile(path string, m *memory, guard *os.File, opts Options) (*bolt, error) {
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	b, err := openBolt(f, path, guard, opts)
	if err != nil {
		return nil, errors.Join(err, os.Remove(fresh))
	}
	e := newEdit(m, opts.Now())
	e.allDirty()
	err = b.write(e)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil && !opts.NoSync {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, b.db.Close(), ignoreMissing(os.Remove(fresh)))
	}
	return b, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// allDirty makes every record one to write.
func (e *edit) allDirty() {
	e.dirty[recordID{kindMeta, metaKey}] = struct{}{}
	entries := e.entries.Root().Iterator()
	for key, _, ok := entries.Next(); ok; key, _, ok = entries.Next() {
		e.dirty[recordID{kindEntry, string(key)}] = struct{}{}
	}
	sessions := e.sessions.Root().Iterator()
	for key, _, ok := sessions.Next(); ok; key, _, ok = sessions.Next() {
		e.dirty[recordID{kindSession, string(key)}] = struct{}{}
	}
	delays := e.delays.Root().Iterator()
	for key, _, ok := delays.Next(); ok; key, _, ok = delays.Next() {
		e.dirty[recordID{kindDelay, string(key)}] = struct{}{}
	}
}

// Report tells what Open found. The zero value is a healthy or a new file.
type Report struct {
	// Damage says what was wrong; empty if nothing was.
	Damage string
	// Copy is where the damaged file is kept.
	Copy string
	// Found is the number of keys that could be read; Expected is how many
	// there were, or -1 if that cannot be known.
	Found    int
	Expected int
	// Sessions is the number of sessions that could be read.
	Sessions int
	// Revived says that keys which had been deleted may be among those found.
	Revived bool
}

// Damaged reports whether the file had to be repaired.
func (r Report) Damaged() bool { return r.Damage != "" }

// String says what was found, for people.
func (r Report) String() string {
	if !r.Damaged() {
		return "the state is whole"
	}
	of := "an unknown number of"
	if r.Expected >= 0 {
		of = fmt.Sprint(r.Expected)
	}
	also := ""
	if r.Revived {
		also = ", among which may be some that had been deleted"
	}
	return fmt.Sprintf("the state was damaged (%s): found %d of %s keys%s; the damaged file is kept as %s", r.Damage, r.Found, of, also, r.Copy)
}

// repair puts a new file with what was found in the place of a damaged one,
// which is kept.
func repair(path string, got findings, guard *os.File, opts Options) (*bolt, *memory, Report, error) {
	m, err := got.memory(opts.Now())
	if err != nil {
		return nil, nil, Report{}, err
	}
	m.freeOrphans(opts.Now())
	m.index += repairGap
	m.forgotten = m.index
	report := Report{Damage: got.damage.Error(), Found: m.entries.Len(), Expected: -1, Sessions: m.sessions.Len(), Revived: got.revived}
	if got.meta.format != 0 {
		report.Expected = int(got.meta.entries)
	}
	if report.Copy, err = keepDamaged(path, opts.Now()); err != nil {
		return nil, nil, report, fmt.Errorf("keep the damaged file: %w", err)
	}
	b, err := createFile(path, m, guard, opts)
	if err != nil {
		return nil, nil, report, fmt.Errorf("repair: %w", err)
	}
	opts.Logger.Error("state was damaged and has been repaired", "damage", report.Damage, "found", report.Found,
		"expected", report.Expected, "kept", report.Copy)
	return b, m, report, nil
}

// keepDamaged gives the damaged file a second name, so that it outlives the
// renaming of its successor; until then path stays what it was.
func keepDamaged(path string, now time.Time) (string, error) {
	base := path + ".damaged-" + now.UTC().Format("20060102T150405Z")
	name := base
	for n := 2; ; n++ {
		err := os.Link(path, name)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			err = copyFile(path, name) // not every file system has links
		}
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
}

// copyFile copies a file to one that must not exist.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// freeOrphans frees the locks whose sessions were lost, without a delay: the
// file's lock says that whoever held them through this file is dead.
func (m *memory) freeOrphans(now time.Time) {
	e := newEdit(m, now)
	c := e.begin()
	it := e.entries.Root().Iterator()
	for _, n, ok := it.Next(); ok; _, n, ok = it.Next() {
		if _, alive := e.sessions.Get([]byte(n.Session)); n.Session != "" && !alive {
			free := *n
			free.Session = ""
			c.put(free)
		}
	}
	c.adopt()
	*m = e.memory
}
