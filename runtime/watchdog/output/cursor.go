package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	readBuffer = 64 << 10
	minBuffer  = 4 << 10
	// maxLine is the longest line of a file that is read; a writer's
	// longest is maxPiece and a header.
	maxLine = maxPiece + 1<<10
)

// cursor reads the files of a directory one after the other, across rotations.
type cursor struct {
	dir  string
	file *os.File // nil until there is one
	off  int64    // of the first byte that was not passed to fn
	// start is the file's place in all that was written.
	start int64
	// limit ends reading at this offset of the current file; -1: at its end.
	limit int64
	buf   []byte
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// use continues with another file.
func (c *cursor) use(f *os.File, start, off int64) {
	c.close()
	c.file, c.start, c.off = f, start, off
}

// drain passes every whole line from the cursor's position to the file's end
// (or to the limit) to fn. What follows the last newline is read again next
// time.
func (c *cursor) drain(ctx context.Context, fn func(line []byte) error) error {
	held := 0 // bytes of c.buf that are read and not passed to fn
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.makeRoom(&held)
		room := c.buf[held:]
		if c.limit >= 0 {
			room = room[:min(int64(len(room)), max(0, c.limit-c.off-int64(held)))]
		}
		n, err := c.file.ReadAt(room, c.off+int64(held))
		held += n
		done := 0
		for {
			end := bytes.IndexByte(c.buf[done:held], '\n')
			if end < 0 {
				break
			}
			if err := fn(c.buf[done : done+end]); err != nil {
				c.off += int64(done + end + 1)
				return err
			}
			done += end + 1
		}
		copy(c.buf, c.buf[done:held])
		held -= done
		c.off += int64(done)
		if err == io.EOF || len(room) == 0 {
			return c.checkTruncated()
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// makeRoom makes space in the buffer: it grows up to maxLine, then skips what
// cannot be a line.
func (c *cursor) makeRoom(held *int) {
	if *held < len(c.buf) {
		return
	}
	if len(c.buf) < maxLine {
		c.buf = append(c.buf, make([]byte, max(minBuffer, len(c.buf)))...)
		return
	}
	c.off += int64(*held)
	*held = 0
}

// checkTruncated starts at the beginning of a file that was truncated.
func (c *cursor) checkTruncated() error {
	info, err := c.file.Stat()
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	if info.Size() < c.off {
		c.off = 0
	}
	return nil
}

// rest returns what follows the last newline.
func (c *cursor) rest() []byte {
	if c.file == nil {
		return nil
	}
	b := make([]byte, maxLine)
	if c.limit >= 0 {
		b = b[:min(int64(len(b)), max(0, c.limit-c.off))]
	}
	n, _ := c.file.ReadAt(b, c.off)
	b, _, _ = bytes.Cut(b[:n], []byte{'\n'})
	return b
}

// step is the file after a drained one.
type step struct {
	file  *os.File
	start int64
	// removed counts bytes that rotation removed before they were read.
	removed int64
	current bool
	size    int64
}

// next opens the file after the cursor's one; ok is false if the cursor's is
// the last. The cursor's file is complete once next has returned true, but
// may have grown since it was drained.
func (c *cursor) next() (s step, ok bool, err error) {
	const tries = 16
	for range tries {
		files, err := listFiles(c.dir)
		if err != nil {
			return step{}, false, err
		}
		i, removed, err := c.after(files)
		if err != nil || i >= len(files) {
			return step{}, false, err
		}
		f, err := os.Open(files[i].path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return step{}, false, fmt.Errorf("read output: %w", err)
		}
		info, err := f.Stat()
		if err != nil || !os.SameFile(info, files[i].info) {
			f.Close() // rotated since it was listed
			continue
		}
		return step{file: f, start: files[i].start, removed: removed, current: files[i].current, size: info.Size()}, true, nil
	}
	return step{}, false, fmt.Errorf("read output in %s: it is rotated faster than it can be read; raise logs.max_size", c.dir)
}

// after returns the index of the file that follows the cursor's, and how much
// is missing between them.
func (c *cursor) after(files []logFile) (next int, removed int64, err error) {
	if c.file == nil {
		return 0, 0, nil
	}
	info, err := c.file.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read output: %w", err)
	}
	for i, f := range files {
		if os.SameFile(f.info, info) {
			return i + 1, 0, nil
		}
	}
	end := c.start + info.Size()
	for i, f := range files {
		if f.start >= end {
			return i, f.start - end, nil
		}
	}
	return 0, 0, nil
}
