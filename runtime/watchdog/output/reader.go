package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Notice is the stream of meshrun's own lines between those of an instance:
// output was removed before it could be read.
const Notice = "meshrun"

const (
	// maxJoined bounds a line that is joined from its pieces; a longer one is
	// yielded in Partial lines.
	maxJoined = 1 << 20
	// maxTail bounds the text that is kept to find the last lines.
	maxTail = 64 << 20
)

// reader reads one instance's directory: first the lines that exist, then those
// to come.
type reader struct {
	cursor
	id    spec.InstanceID
	since time.Time
	last  int
	grep  *regexp.Regexp

	// joined holds by stream the pieces of the unfinished line.
	joined [len(streams)][]byte
	begun  [len(streams)]bool
	// stamp and at are the last header's time, which many lines share.
	stamp [stampLen]byte
	at    time.Time
}

func newReader(source Source, q spec.LogQuery, grep *regexp.Regexp) *reader {
	return &reader{
		cursor: cursor{dir: source.Dir, limit: -1},
		id:     source.ID, since: q.Since, last: q.Last, grep: grep,
	}
}

func compileGrep(q spec.LogQuery) (*regexp.Regexp, error) {
	if q.Grep == "" {
		return nil, nil
	}
	re, err := regexp.Compile(q.Grep)
	if err != nil {
		return nil, fmt.Errorf("read logs: grep: %w", err)
	}
	return re, nil
}

// history yields the lines that existed when it was called.
func (r *reader) history(ctx context.Context, yield func(spec.LogLine) error) error {
	if r.last <= 0 {
		if err := r.begin(); err != nil {
			return err
		}
		return r.readOut(ctx, yield)
	}
	// With a filter, the last matching lines may be far back: read more and
	// more until there are enough.
	for n := r.last; ; n *= 8 {
		all, err := r.beginLast(n)
		if err != nil {
			return err
		}
		tail := newTail(r.last)
		if err := r.readOut(ctx, tail.add); err != nil {
			return err
		}
		if all || tail.full() || (r.grep == nil && r.since.IsZero()) {
			return tail.each(yield)
		}
	}
}

// begin opens the first file that holds lines since q.Since.
func (r *reader) begin() error {
	for {
		files, err := listFiles(r.dir)
		if err != nil || len(files) == 0 {
			return err
		}
		i := 0
		for i < len(files)-1 && files[i].rotated.Before(r.since) {
			i++
		}
		f, err := os.Open(files[i].path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
		var off int64
		if !r.since.IsZero() {
			if off, err = sinceOffset(f, files[i].info.Size(), r.since); err != nil {
				f.Close()
				return err
			}
		}
		r.use(f, files[i].start, off)
		r.limit = -1
		return r.bound()
	}
}

// beginLast positions the reader so that at least n lines follow, and reports
// whether that is everything.
func (r *reader) beginLast(n int) (all bool, err error) {
	files, err := listFiles(r.dir)
	if err != nil || len(files) == 0 {
		return true, err
	}
	open := make([]*os.File, 0, len(files))
	starts := make([]int64, 0, len(files))
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	for _, f := range files {
		file, err := os.Open(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("read output: %w", err)
		}
		open, starts = append(open, file), append(starts, f.start)
	}
	if len(open) == 0 {
		return true, nil
	}
	i, off, err := lastLines(open, n)
	if err != nil {
		return false, err
	}
	r.use(open[i], starts[i], off)
	open = slices.Delete(open, i, i+1)
	r.dropPieces()
	r.limit = -1
	return i == 0 && off == 0, r.bound()
}

// dropPieces drops the pieces of unfinished lines.
func (r *reader) dropPieces() {
	for s := range streams {
		r.joined[s], r.begun[s] = r.joined[s][:0], false
	}
}

// bound ends the history at the present end of the file, if that is the current
// one, so that a process that writes without end does not make it endless.
func (r *reader) bound() error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	if cur, err := os.Stat(filepath.Join(r.dir, currentName)); err == nil && os.SameFile(cur, info) {
		r.limit = info.Size()
	}
	return nil
}

// readOut yields everything up to the limit.
func (r *reader) readOut(ctx context.Context, yield func(spec.LogLine) error) error {
	for r.file != nil {
		if err := r.drain(ctx, r.line(yield)); err != nil {
			return err
		}
		if r.limit >= 0 {
			return nil
		}
		s, ok, err := r.next()
		if err != nil || !ok {
			return err
		}
		if err := r.move(ctx, s, yield); err != nil {
			return err
		}
		if s.current {
			r.limit = s.size
		}
	}
	return nil
}

// live yields what has been written since the last call.
func (r *reader) live(ctx context.Context, yield func(spec.LogLine) error) error {
	r.limit = -1
	for {
		if r.file != nil {
			if err := r.drain(ctx, r.line(yield)); err != nil {
				return err
			}
		}
		s, ok, err := r.next()
		if err != nil || !ok {
			return err
		}
		if err := r.move(ctx, s, yield); err != nil {
			return err
		}
	}
}

// move finishes the cursor's file and continues with the next.
func (r *reader) move(ctx context.Context, s step, yield func(spec.LogLine) error) error {
	if r.file != nil {
		if err := r.drain(ctx, r.line(yield)); err != nil {
			s.file.Close()
			return err
		}
	}
	r.use(s.file, s.start, 0)
	if s.removed == 0 {
		return nil
	}
	r.dropPieces()
	return yield(spec.LogLine{
		ID: r.id, Time: r.at, Stream: Notice,
		Text: fmt.Sprintf("[%d bytes of output were removed by rotation before they were read; raise logs.max_size or logs.keep]", s.removed),
	})
}

// unfinished yields the lines that have no end yet, as Partial.
func (r *reader) unfinished(yield func(spec.LogLine) error) error {
	rest := r.rest()
	if len(rest) > tagAt && rest[tagAt] == full {
		rest[tagAt] = partial // it is torn, or being written now
	}
	if err := r.line(yield)(rest); err != nil {
		return err
	}
	for s := range streams {
		if !r.begun[s] {
			continue
		}
		if err := r.emit(s, nil, true, yield); err != nil {
			return err
		}
	}
	return nil
}

// line returns a function that accepts a file's lines and yields the process's
// lines.
func (r *reader) line(yield func(spec.LogLine) error) func([]byte) error {
	return func(b []byte) error {
		p, ok := parsePiece(b)
		if !ok {
			return nil // torn by a crash, or not ours
		}
		if string(p.stamp) != string(r.stamp[:]) {
			at, ok := parseStamp(p.stamp)
			if !ok {
				return nil
			}
			copy(r.stamp[:], p.stamp)
			r.at = at
		}
		if p.tag == partial {
			r.begun[p.stream] = true
			r.joined[p.stream] = append(r.joined[p.stream], p.text...)
			if len(r.joined[p.stream]) < maxJoined {
				return nil
			}
			err := r.emit(p.stream, nil, true, yield)
			r.begun[p.stream] = true
			return err
		}
		return r.emit(p.stream, p.text, false, yield)
	}
}

// emit yields a stream's joined line with its last text, unless the query
// excludes it.
func (r *reader) emit(s int, text []byte, more bool, yield func(spec.LogLine) error) error {
	if r.begun[s] {
		text = append(r.joined[s], text...)
		r.joined[s], r.begun[s] = text[:0], false
	}
	if r.at.Before(r.since) || (r.grep != nil && !r.grep.Match(text)) {
		return nil
	}
	return yield(spec.LogLine{ID: r.id, Time: r.at, Stream: streams[s], Text: string(text), Partial: more})
}
