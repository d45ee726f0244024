package output

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// logFile is one file of an instance's directory as a reader found it.
type logFile struct {
	path    string
	info    os.FileInfo
	current bool
	// rotated is when the file was rotated; zero for the current one.
	rotated time.Time
	// start is how many bytes were written to the directory before this
	// file. Where no rotated files are kept, each counts as the first.
	start int64
}

// listFiles returns the files of a directory in the order they were written.
// A missing directory has none.
func listFiles(dir string) ([]logFile, error) {
	const tries = 16
	for range tries {
		names, err := logNames(dir)
		if err != nil {
			return nil, err
		}
		files, err := statFiles(dir, names)
		if err == nil {
			var again []string
			// A rotation in between could hide a file: repeat until nothing changed.
			if again, err = logNames(dir); err == nil && slices.Equal(names, again) {
				return files, nil
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("list output in %s: it is rotated faster than it can be read; raise logs.max_size", dir)
}

// logNames returns the names of a directory's log files, the current one last.
func logNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list output: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, _, ok := parseRotated(e.Name()); ok || e.Name() == currentName {
			names = append(names, e.Name())
		}
	}
	// A digit sorts before the c of current.log.
	slices.Sort(names)
	return names, nil
}

func statFiles(dir string, names []string) ([]logFile, error) {
	files := make([]logFile, 0, len(names))
	before := int64(0)
	for _, name := range names {
		f := logFile{path: filepath.Join(dir, name), start: before}
		info, err := os.Stat(f.path)
		if err != nil {
			return nil, fmt.Errorf("list output: %w", err)
		}
		f.info = info
		at, end, ok := parseRotated(name)
		if ok {
			f.rotated, f.start, before = at, end-info.Size(), end
		} else {
			f.current = true
		}
		files = append(files, f)
	}
	return files, nil
}

// chunkTail is how far back KeptAt searches a file: what the shortest lines of
// a chunk become.
const chunkTail = 4 << 20

// KeptAt counts the bytes of a stream that a directory holds for one time: in the
// current file, and in the one before if it was rotated in between. All lines of
// a chunk have one time (see Writer.Write), so that this says how much of a
// chunk was kept.
func KeptAt(dir, stream string, at time.Time) (n int) {
	names, err := logNames(dir)
	if err != nil {
		return 0
	}
	header := appendHeader(nil, at, streamIndex(stream))[:tagAt]
	for _, name := range names[max(len(names)-2, 0):] {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil {
			b := make([]byte, min(info.Size(), chunkTail))
			got, _ := f.ReadAt(b, info.Size()-int64(len(b))) // what can be read counts
			for line := range bytes.Lines(b[:got]) {
				if bytes.HasPrefix(line, header) {
					n += fed(line)
				}
			}
		}
		f.Close()
	}
	return n
}
