package output

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

// Source is an instance and the directory of its output.
type Source struct {
	ID  spec.InstanceID
	Dir string
}

// Dir returns the directory of an instance's output under the logs root.
func Dir(root string, id spec.InstanceID) string {
	return filepath.Join(root, id.Job, id.Process, strconv.Itoa(id.Shard))
}

// Select returns the instances under the logs root that have output and that
// the query's Job, Process and Shard select, sorted by ID.
func Select(root string, q spec.LogQuery) ([]Source, error) {
	if !fs.ValidPath(q.Job) || (q.Process != "" && !fs.ValidPath(q.Process)) {
		return nil, fmt.Errorf("select logs: %q is not a job or process name", q.Job+"/"+q.Process)
	}
	processes := []string{q.Process}
	if q.Process == "" {
		var err error
		if processes, err = subdirs(filepath.Join(root, q.Job)); err != nil {
			return nil, err
		}
	}
	var out []Source
	for _, process := range processes {
		shards, err := subdirs(filepath.Join(root, q.Job, process))
		if err != nil {
			return nil, err
		}
		for _, name := range shards {
			shard, err := strconv.Atoi(name)
			if err != nil || shard < 0 || (q.Shard >= 0 && shard != q.Shard) {
				continue
			}
			id := spec.InstanceID{Job: q.Job, Process: process, Shard: shard}
			out = append(out, Source{ID: id, Dir: Dir(root, id)})
		}
	}
	slices.SortFunc(out, func(a, b Source) int { return a.ID.Compare(b.ID) })
	return out, nil
}

func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("select logs: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Stream yields the lines of the instances that the query selects under the logs
// root, merged by time, each instance's in the order they were written, as the
// query's Since, Last, Grep and Follow say. A line's time is that of its end.
// Lines that have no end yet come last, marked Partial; when following, they
// come once they are whole. Output that rotation removed in front of the
// reader is reported in a line of the stream Notice, with its size (unless no
// rotated files are kept at all: then it cannot be known).
//
// When following, it includes instances that appear later, and lines wait a
// moment for earlier ones of other instances.
//
// Stream returns what yield returns, and ctx's error once ctx is done.
func Stream(ctx context.Context, root string, q spec.LogQuery, yield func(spec.LogLine) error) error {
	grep, err := compileGrep(q)
	if err != nil {
		return err
	}
	m := &merger{root: root, query: q, grep: grep, yield: yield, byDir: map[string]int{}}
	defer m.close()
	if err := m.addSelected(); err != nil {
		return err
	}
	if q.Follow {
		return m.follow(ctx)
	}
	return m.history(ctx, true)
}

// queued is a line that waits to be yielded.
type queued struct {
	line spec.LogLine
	from int // index of its reader
	seq  uint64
}

// byTime is a heap of lines; equal times keep the order of arrival.
type byTime []queued

func (h byTime) Len() int      { return len(h) }
func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byTime) Push(x any)   { *h = append(*h, x.(queued)) }
func (h *byTime) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = queued{}
	*h = old[:len(old)-1]
	return last
}
func (h byTime) Less(i, j int) bool {
	if c := h[i].line.Time.Compare(h[j].line.Time); c != 0 {
		return c < 0
	}
	return cmp.Compare(h[i].seq, h[j].seq) < 0
}

// history merges the lines that exist; whole also yields the unfinished ones.
func (m *merger) history(ctx context.Context, whole bool) error {
	all := func(r *reader, yield func(spec.LogLine) error) error {
		if err := r.history(ctx, yield); err != nil || !whole {
			return err
		}
		return r.unfinished(yield)
	}
	for _, r := range m.readers {
		r.buf = make([]byte, max(minBuffer, readBuffer/len(m.readers)))
	}
	if len(m.readers) == 1 {
		return all(m.readers[0], m.yield)
	}
	var h byTime
	pulls := make([]func() (spec.LogLine, error, bool), len(m.readers))
	for i, r := range m.readers {
		next, stop := iter.Pull2(sequence(r, all))
		defer stop()
		pulls[i] = next
		if err := refill(&h, i, next); err != nil {
			return err
		}
	}
	for len(h) > 0 {
		q := h[0]
		if err := m.yield(q.line); err != nil {
			return err
		}
		heap.Pop(&h)
		if err := refill(&h, q.from, pulls[q.from]); err != nil {
			return err
		}
	}
	return nil
}

// sequence turns a reader's callbacks into a sequence to pull from.
func sequence(r *reader, all func(*reader, func(spec.LogLine) error) error) iter.Seq2[spec.LogLine, error] {
	return func(yield func(spec.LogLine, error) bool) {
		stopped := errors.New("stopped")
		err := all(r, func(l spec.LogLine) error {
			if !yield(l, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && err != stopped {
			yield(spec.LogLine{}, err)
		}
	}
}

// refill puts the next line of a source into the heap.
func refill(h *byTime, from int, next func() (spec.LogLine, error, bool)) error {
	line, err, ok := next()
	if err != nil || !ok {
		return err
	}
	heap.Push(h, queued{line: line, from: from, seq: uint64(from)})
	return nil
}
