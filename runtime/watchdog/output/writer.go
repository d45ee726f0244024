package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// defaultMaxSize bounds a file if the limits do not.
	defaultMaxSize = 10 << 20

	// minMaxSize is the smallest file that is worth a rotation.
	minMaxSize = 4 << 10
	// maxPiece is the longest text of one line of a file.
	maxPiece = 16 << 10
	// batch is how much is formatted before it is written.
	batch = 256 << 10
)

// buffers lends formatting buffers to writers, so that a thousand silent ones
// own none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 128<<10); return &b }}

// Writer appends the output of one instance to its directory. It opens nothing
// before the first output, blocks only on the disk, and never fails: it counts
// what it cannot keep. Its methods may be called from several goroutines.
type Writer struct {
	dir string

	mu     sync.Mutex // guards all below
	limits spec.Logs
	file   *os.File
	size   int64 // of file
	base   int64 // bytes written to the directory before file
	// rotated are the files beside the current one, oldest first.
	rotated []segment
	lastAt  time.Time // time in the newest rotated name
	// open says by stream whether the last piece on disk needs a continuation.
	open [len(streams)]bool
	// lost says by stream whether output was dropped after that piece.
	lost [len(streams)]bool
	torn bool // file does not end with a newline
	err  error
}

// segment is one rotated file as its writer remembers it.
type segment struct {
	name string
	size int64
}

// NewWriter returns a writer for an instance's directory. A MaxSize of zero is
// defaultMaxSize. It continues the files that exist.
func NewWriter(dir string, limits spec.Logs) *Writer {
	return &Writer{dir: dir, limits: normalize(limits)}
}

func normalize(l spec.Logs) spec.Logs {
	if l.MaxSize <= 0 {
		l.MaxSize = defaultMaxSize
	}
	l.MaxSize = max(l.MaxSize, minMaxSize)
	l.Keep = max(l.Keep, 0)
	return l
}

// SetLimits replaces the limits. Files beyond them are removed at once; a
// current file that is too large is rotated at the next output.
func (w *Writer) SetLimits(limits spec.Logs) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits = normalize(limits)
	if w.file != nil {
		w.prune()
	}
}

// Write keeps a chunk of one stream's output, which may begin and end anywhere.
// All lines of the chunk have the time now. It returns how many bytes of the
// chunk could not be kept (disk full, directory not writable); the next Write
// tries again, and Err says what was wrong.
func (w *Writer) Write(now time.Time, stream string, chunk []byte) (dropped int) {
	s := streamIndex(stream)
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	var stamp [headerLen]byte
	header := appendHeader(stamp[:0], now, s)

	w.mu.Lock()
	defer w.mu.Unlock()
	limit := int(min(maxPiece, int64(w.limits.MaxSize)/2))
	b := (*bp)[:0]
	for len(chunk) > 0 {
		end, tag, next := bytes.IndexByte(chunk, '\n'), byte(full), 1
		if end < 0 {
			end, tag, next = len(chunk), partial, 0
		}
		if end > limit {
			end, tag, next = limit, partial, 0
		}
		b = append(b, header...)
		b[len(b)-2] = tag
		b = append(b, chunk[:end]...)
		b = append(b, '\n')
		chunk = chunk[end+next:]
		if len(b) >= batch {
			dropped += w.put(now, s, b)
			b = b[:0]
		}
	}
	dropped += w.put(now, s, b)
	*bp = b[:0]
	return dropped
}

// Flush ends the lines that have no newline yet. Call it after the process has
// exited and its output is drained, so that the next process begins a line of
// its own.
func (w *Writer) Flush(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		if _, err := os.Stat(filepath.Join(w.dir, currentName)); err != nil || w.openFile() != nil {
			return
		}
	}
	for s := range streams {
		w.endLine(now, s)
	}
}

// Err returns why output was last lost; nil after output was kept again.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close closes the file and leaves unfinished lines open, so that a successor
// can continue in their middle; see Flush. A Write after Close opens it again.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", filepath.Join(w.dir, currentName), err)
	}
	return nil
}

// put writes formatted pieces of one stream, rotating between them as needed,
// and returns how many bytes of output were dropped. The caller holds w.mu.
func (w *Writer) put(now time.Time, s int, b []byte) (dropped int) {
	if len(b) == 0 {
		return 0
	}
	if w.file == nil {
		if err := w.openFile(); err != nil {
			return w.drop(s, b, err)
		}
	}
	if w.lost[s] && !w.endLine(now, s) {
		return w.drop(s, b, w.err)
	}
	return w.append(now, s, b)
}

// endLine ends the unfinished line of a stream and reports whether none is left.
func (w *Writer) endLine(now time.Time, s int) bool {
	if w.open[s] {
		var stamp [headerLen + 1]byte
		w.append(now, s, append(appendHeader(stamp[:0], now, s), '\n'))
	}
	if w.open[s] {
		return false
	}
	w.lost[s] = false
	return true
}

// append writes pieces to the file, and to the next one where it is full.
func (w *Writer) append(now time.Time, s int, b []byte) (dropped int) {
	for len(b) > 0 {
		room := int64(w.limits.MaxSize) - w.size
		cut := len(b)
		if int64(cut) > room {
			cut = bytes.LastIndexByte(b[:max(room, 0)], '\n') + 1
		}
		if cut == 0 {
			if err := w.rotate(now); err != nil {
				return dropped + w.drop(s, b, err)
			}
			continue
		}
		n, err := w.writeFile(b[:cut])
		if n > 0 {
			last := bytes.LastIndexByte(b[:n-1], '\n') + 1
			w.open[s] = b[last+tagAt] == partial
		}
		if err != nil {
			return dropped + w.drop(s, b[n:], err)
		}
		w.err = nil
		b = b[cut:]
	}
	return dropped
}

// writeFile appends whole lines to the file and returns how many bytes of
// them, in whole lines, are there.
func (w *Writer) writeFile(b []byte) (int, error) {
	if w.torn {
		n, err := w.file.Write([]byte{'\n'})
		w.size += int64(n)
		if err != nil {
			return 0, fmt.Errorf("write output: %w", err)
		}
		w.torn = false
	}
	n, err := w.file.Write(b)
	if err == nil {
		w.size += int64(n)
		return n, nil
	}
	kept := bytes.LastIndexByte(b[:n], '\n') + 1
	if kept < n {
		if w.file.Truncate(w.size+int64(kept)) != nil {
			w.torn = true
			w.size += int64(n)
			return kept, fmt.Errorf("write output: %w", err)
		}
	}
	w.size += int64(kept)
	return kept, fmt.Errorf("write output: %w", err)
}

// drop counts pieces that could not be written.
func (w *Writer) drop(s int, b []byte, err error) int {
	w.lost[s], w.err = true, err
	return fed(b)
}

// rotate renames the current file, removes files beyond the limits, and starts
// a new one.
func (w *Writer) rotate(now time.Time) error {
	now = now.UTC()
	if !now.After(w.lastAt) {
		now = w.lastAt.Add(1) // the clock went back: names still sort
	}
	end := w.base + w.size
	name := rotatedName(now, end)
	err := os.Rename(filepath.Join(w.dir, currentName), filepath.Join(w.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotate output: %w", err)
	}
	if err == nil {
		w.rotated = append(w.rotated, segment{name: name, size: w.size})
	}
	w.file.Close()
	w.file, w.size, w.base, w.lastAt, w.torn = nil, 0, end, now, false
	w.prune()
	f, err := w.create()
	if err != nil {
		return err
	}
	w.file = f
	return nil
}

// prune removes the oldest rotated files that are beyond the limits.
func (w *Writer) prune() {
	var total int64
	for _, r := range w.rotated {
		total += r.size
	}
	for len(w.rotated) > w.limits.Keep || total > int64(w.limits.MaxSize)*int64(w.limits.Keep) {
		err := os.Remove(filepath.Join(w.dir, w.rotated[0].name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.err = fmt.Errorf("remove rotated output: %w", err)
			return
		}
		total -= w.rotated[0].size
		w.rotated = w.rotated[1:]
	}
}
