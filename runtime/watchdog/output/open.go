package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// tailScan is how far before a file's end its unfinished lines are looked for.
const tailScan = 64 << 10

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

// openFile opens the current file and learns from the directory where a
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
	w.open = [len(streams)]bool{}
	if n := len(w.rotated); n > 0 {
		if old, err := os.Open(filepath.Join(w.dir, w.rotated[n-1].name)); err == nil {
			w.scanTail(old, w.rotated[n-1].size)
			old.Close()
		}
	}
	w.torn = w.scanTail(f, w.size)
	w.prune()
	return nil
}

// loadRotated lists the rotated files.
func (w *Writer) loadRotated() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	w.rotated = nil
	for _, e := range entries {
		at, end, ok := parseRotated(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		w.rotated = append(w.rotated, segment{name: e.Name(), size: info.Size()})
		if at.After(w.lastAt) {
			w.lastAt = at
		}
		w.base = max(w.base, end)
	}
	slices.SortFunc(w.rotated, func(a, b segment) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return nil
}

// scanTail notes which streams' last pieces in the file are unfinished, and
// reports whether the file lacks its last newline.
func (w *Writer) scanTail(f *os.File, size int64) (torn bool) {
	b := make([]byte, min(size, tailScan))
	n, _ := f.ReadAt(b, size-int64(len(b)))
	b = b[:n]
	torn = n > 0 && b[n-1] != '\n'
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		if p, ok := parsePiece(line); ok {
			w.open[p.stream] = p.tag == partial
		}
	}
	return torn
}
