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

// openFile opens the log at path, or creates or repairs it.
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
		l, m, err := newLog(path, guard, opts)
		return l, m, report, err
	}
	if err != nil {
		return nil, nil, report, err
	}
	if err := lockLog(f); err != nil {
		return nil, nil, report, errors.Join(err, f.Close())
	}
	setAside(boltPath(path), opts)
	got, err := replayFile(f)
	if err == nil && got.damage() == "" && got.cut == 0 {
		m, err := got.memory(opts.Now())
		if err != nil {
			return nil, nil, report, errors.Join(err, f.Close())
		}
		live := int64(0)
		for id, body := range got.bodies {
			live += int64(recordHead + len(id.key) + len(body) + recordTail)
		}
		return &logFile{f: f, path: path, guard: guard, opts: opts, size: int64(got.size), rewritten: live}, m, report, nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, report, err
	}
	return repair(path, got, guard, opts)
}

// lockLog locks the log itself, against programs that know nothing of the lock
// beside it.
func lockLog(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: a program other than meshrun has locked it (%w)", ErrInUse, err)
	}
	return nil
}

// newLog makes a log of what an older meshrun left, or of nothing.
func newLog(path string, guard *os.File, opts Options) (*logFile, *memory, error) {
	old := boltPath(path)
	m, err := takeOver(old, opts.Now())
	if err != nil {
		return nil, nil, err
	}
	found := m != nil
	if !found {
		fresh := newMemory()
		m = &fresh
	}
	l, err := createLog(path, m, guard, opts)
	if err == nil && found {
		opts.Logger.Info("took over the state of an older meshrun", "from", old, "keys", m.entries.Len(), "kept_as", old+".old")
		setAside(old, opts)
	}
	return l, m, err
}

// setAside renames the state of an older meshrun, which was taken over: a log
// that is moved away later must not bring it back.
func setAside(old string, opts Options) {
	err := os.Rename(old, old+".old")
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = syncDir(filepath.Dir(old))
	}
	if err != nil {
		opts.Logger.Warn("cannot rename the state of the older meshrun, which is not used any more", "error", err)
	}
}

// replayFile replays an open file, and refuses one of a newer format.
func replayFile(f *os.File) (replayed, error) {
	info, err := f.Stat()
	if err != nil {
		return replayed{}, err
	}
	if !info.Mode().IsRegular() {
		return replayed{}, errors.New("it is not a regular file")
	}
	log := make([]byte, info.Size())
	if _, err := io.ReadFull(f, log); err != nil {
		return replayed{}, err
	}
	got := replay(log)
	if got.format > Format {
		return got, fmt.Errorf("%w: its format is %d, and this one knows up to %d; start the newer meshrun again, or use another data directory",
			ErrNewerFormat, got.format, Format)
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

// Report tells what Open found. The zero value is a healthy or a new file.
type Report struct {
	// Cut is how many bytes of an incomplete commit were cut off the end: the
	// machine or the process ended while it was written. If the file was cut
	// short by something else, the last commits are lost, too.
	Cut int
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
	switch {
	case !r.Damaged() && r.Cut == 0:
		return "the state is whole"
	case !r.Damaged():
		return fmt.Sprintf("the last write of the state was incomplete: %d bytes were cut off, %d keys are there", r.Cut, r.Found)
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

// repair puts a new log with what was found in the place of one that is
// damaged, which is kept, or incomplete.
func repair(path string, got replayed, guard *os.File, opts Options) (*logFile, *memory, Report, error) {
	m, err := got.memory(opts.Now())
	if err != nil {
		return nil, nil, Report{}, err
	}
	m.freeOrphans(opts.Now())
	m.index += repairGap
	m.forgotten = m.index
	report := Report{
		Damage: got.damage(), Cut: got.cut, Found: m.entries.Len(), Expected: -1,
		Sessions: m.sessions.Len(), Revived: got.revived,
	}
	if got.last.index != 0 {
		report.Expected = int(got.last.entries)
	}
	if report.Damaged() {
		if report.Copy, err = keepDamaged(path, opts.Now()); err != nil {
			return nil, nil, report, fmt.Errorf("keep the damaged file: %w", err)
		}
	}
	l, err := createLog(path, m, guard, opts)
	if err != nil {
		return nil, nil, report, fmt.Errorf("repair: %w", err)
	}
	opts.Logger.Error("repaired the state", "report", report.String())
	return l, m, report, nil
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
