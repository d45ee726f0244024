package output

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// window is how long a followed line waits for earlier ones of other instances.
	window = 50 * time.Millisecond
	// maxQueued bounds the lines that wait; beyond it the earliest goes out at once.
	maxQueued = 8192
	// maxEvents is how many events of the directories are taken at a time.
	maxEvents = 1024
)

// merger reads several instances. One goroutine owns it.
type merger struct {
	root    string
	query   spec.LogQuery
	grep    *regexp.Regexp
	yield   func(spec.LogLine) error
	readers []*reader
	byDir   map[string]int // index in readers

	watcher  *fsnotify.Watcher
	watched  map[string]bool
	dirty    map[int]bool
	queue    byTime
	arrivals []arrival // of the queued lines, in order
	seq      uint64
}

// arrival says that the lines up to seq were queued by at.
type arrival struct {
	at  time.Time
	seq uint64
}

// addSelected adds a reader for each instance that the query selects by now.
func (m *merger) addSelected() error {
	sources, err := Select(m.root, m.query)
	if err != nil {
		return err
	}
	for _, s := range sources {
		if _, ok := m.byDir[s.Dir]; !ok {
			m.byDir[s.Dir] = len(m.readers)
			m.readers = append(m.readers, newReader(s, m.query, m.grep))
		}
	}
	return nil
}

func (m *merger) close() {
	for _, r := range m.readers {
		r.close()
	}
	if m.watcher != nil {
		m.watcher.Close()
	}
}

// follow yields the lines that exist, then those to come, until ctx is done.
func (m *merger) follow(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow logs: %w (if inotify instances are used up, raise fs.inotify.max_user_instances)", err)
	}
	m.watcher, m.watched, m.dirty = watcher, map[string]bool{}, map[int]bool{}
	// Watching begins before reading, so that nothing falls in between.
	if err := m.rescan(); err != nil {
		return err
	}
	if err := m.history(ctx, false); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := m.collect(ctx); err != nil {
			return err
		}
		wait, err := m.release(time.Now())
		if err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case ev := <-watcher.Events:
			err = m.collectEvents(ev)
		case err = <-watcher.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				err = m.rescan()
			}
		}
		if err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
	}
}

// collectEvents marks the instances that an event, and those queued behind it,
// concern.
func (m *merger) collectEvents(ev fsnotify.Event) error {
	created := false
	for range maxEvents {
		dir := filepath.Dir(ev.Name)
		if i, ok := m.byDir[dir]; ok {
			m.dirty[i] = true
		} else {
			created = created || ev.Has(fsnotify.Create)
		}
		if ev.Has(fsnotify.Remove|fsnotify.Rename) && m.watched[ev.Name] {
			delete(m.watched, ev.Name)
			created = true
		}
		select {
		case ev = <-m.watcher.Events:
			continue
		default:
		}
		break
	}
	if created {
		return m.rescan()
	}
	return nil
}

// rescan adds instances that have appeared, watches the directories of all of
// them, or what comes before them where they do not exist yet, and marks every
// instance.
func (m *merger) rescan() error {
	job := filepath.Join(m.root, m.query.Job)
	if err := m.watch(job); err != nil {
		return err
	}
	processes, err := subdirs(job)
	if err != nil {
		return err
	}
	for _, p := range processes {
		if m.query.Process == "" || m.query.Process == p {
			if err := m.watch(filepath.Join(job, p)); err != nil {
				return err
			}
		}
	}
	if err := m.addSelected(); err != nil {
		return err
	}
	for i, r := range m.readers {
		if err := m.watchUp(r.dir); err != nil {
			return err
		}
		m.dirty[i] = true
	}
	return nil
}

// watchUp watches an instance's directory and those above it up to the logs
// root: while a reader holds a file open, the kernel does not report in the
// directory itself that it was removed.
func (m *merger) watchUp(dir string) error {
	for range 4 {
		if err := m.watch(dir); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	return nil
}

// watch watches a directory, or its nearest ancestor that exists.
func (m *merger) watch(dir string) error {
	for !m.watched[dir] {
		at, below := dir, ""
		for !m.watched[at] {
			err := m.watcher.Add(at)
			if err == nil {
				m.watched[at] = true
				break
			}
			if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(at) == at {
				return fmt.Errorf("watch %s: %w", at, err)
			}
			at, below = filepath.Dir(at), at
		}
		if below == "" {
			return nil
		}
		// The missing directory may have appeared before its parent was watched.
		if _, err := os.Stat(below); err != nil {
			return nil
		}
	}
	return nil
}

// collect queues the lines that the instances have written.
func (m *merger) collect(ctx context.Context) error {
	now := time.Now()
	for i := range m.dirty {
		delete(m.dirty, i)
		err := m.readers[i].live(ctx, func(l spec.LogLine) error {
			if len(m.readers) == 1 && len(m.queue) == 0 {
				return m.yield(l)
			}
			m.seq++
			heap.Push(&m.queue, queued{line: l, from: i, seq: m.seq})
			if len(m.queue) > maxQueued {
				return m.yield(heap.Pop(&m.queue).(queued).line)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	n := len(m.arrivals)
	switch {
	case len(m.queue) == 0 || (n > 0 && m.arrivals[n-1].seq == m.seq):
	case n > 0 && now.Sub(m.arrivals[n-1].at) < window/8:
		m.arrivals[n-1].seq = m.seq
	default:
		m.arrivals = append(m.arrivals, arrival{at: now, seq: m.seq})
	}
	return nil
}

// release yields the lines that have waited long enough, and returns how long
// the next one has to wait.
func (m *merger) release(now time.Time) (time.Duration, error) {
	for len(m.queue) > 0 && len(m.arrivals) > 0 {
		first := m.arrivals[0]
		if wait := first.at.Add(window).Sub(now); wait > 0 {
			return wait, nil
		}
		m.arrivals = m.arrivals[1:]
		if err := m.releaseUpTo(first.seq); err != nil {
			return 0, err
		}
	}
	m.arrivals = nil
	return time.Hour, nil
}

// releaseUpTo yields all lines that are not later than any that arrived up to
// seq.
func (m *merger) releaseUpTo(seq uint64) error {
	due := 0
	for _, q := range m.queue {
		if q.seq <= seq {
			due++
		}
	}
	for due > 0 {
		q := heap.Pop(&m.queue).(queued)
		if q.seq <= seq {
			due--
		}
		if err := m.yield(q.line); err != nil {
			return err
		}
	}
	return nil
}
