package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tailScan is how far back to search for a predecessor's unfinished lines.
const tailScan = 1 << 20

func (w *Writer) create() (*os.File, error) {
	path := filepath.Join(w.dir, currentName)
	flags := os.O_CREATE | os.O_APPEND | os.O_RDWR
	f, err := os.OpenFile(path, flags, 0o640)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(w.dir, 0o750); err == nil {
			f, err = os.OpenFile(path, flags, 0o640)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	return f, nil
}

// openFile opens the current file and reads from the directory where a
// predecessor stopped. The caller holds w.mu.
func (w *Writer) openFile() error {
	f, err := w.create()
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = w.loadRotated()
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open output: %w", err)
	}
	w.file, w.size = f, info.Size()
	w.resume()
	w.prune()
	return nil
}

// loadRotated lists the rotated files.
func (w *Writer) loadRotated() error {
	files, err := listFiles(w.dir)
	if err != nil {
		return err
	}
	w.rotated = nil
	for _, f := range files {
		if f.current {
			continue
		}
		size := f.info.Size()
		w.rotated = append(w.rotated, segment{name: filepath.Base(f.path), size: size})
		if f.rotated.After(w.lastAt) {
			w.lastAt = f.rotated
		}
		w.base = max(w.base, f.start+size)
	}
	return nil
}

// resume finds out whether the file lacks its last newline, and which streams'
// last pieces are unfinished.
func (w *Writer) resume() {
	w.open, w.torn = [len(streams)]bool{}, false
	var seen [len(streams)]bool
	budget := w.scan(w.file, w.size, tailScan, &seen)
	if w.size > 0 {
		last := make([]byte, 1)
		n, _ := w.file.ReadAt(last, w.size-1)
		w.torn = n == 1 && last[0] != '\n'
	}
	for i := len(w.rotated) - 1; i >= 0 && budget > 0; i-- {
		f, err := os.Open(filepath.Join(w.dir, w.rotated[i].name))
		if err != nil {
			return
		}
		budget = w.scan(f, w.rotated[i].size, budget, &seen)
		f.Close()
	}
}

// scan finds the last pieces in a file, for the streams that were not seen in a
// later one, and returns how much of the budget is left to go further back.
func (w *Writer) scan(f *os.File, size, budget int64, seen *[len(streams)]bool) int64 {
	for pos := size; pos > 0 && budget > 0; {
		// Blocks overlap by a line, so that one across their border is seen whole.
		from := max(0, pos-tailBlock)
		b := make([]byte, min(size, pos+maxLine)-from)
		n, _ := f.ReadAt(b, from)
		budget -= pos - from
		pos = from
		var here [len(streams)]bool
		for line := range bytes.SplitSeq(b[:n], []byte{'\n'}) {
			if p, ok := parsePiece(line); ok && !seen[p.stream] {
				w.open[p.stream], here[p.stream] = p.tag == partial, true
			}
		}
		for s := range here {
			seen[s] = seen[s] || here[s]
		}
		if *seen == [len(streams)]bool{true, true} {
			return 0
		}
	}
	return budget
}
