package output

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	tailBlock = 64 << 10
	// headScan is how far beyond the wanted lines their first pieces are
	// looked for.
	headScan = 256 << 10
)

// lastLines returns the index of the file, and the offset in it, from which
// the files hold at least n whole lines; the start of the first file if they
// hold fewer. It reads no more than it needs, from the end.
func lastLines(files []*os.File, n int) (file int, off int64, err error) {
	t := tailer{want: n}
	for i := len(files) - 1; i >= 0; i-- {
		info, err := files[i].Stat()
		if err != nil {
			return 0, 0, fmt.Errorf("read output: %w", err)
		}
		off, done, err := t.scan(files[i], info.Size())
		if err != nil {
			return 0, 0, err
		}
		if done {
			return i, off, nil
		}
	}
	return 0, 0, nil
}

// tailer counts lines from the end towards the start.
type tailer struct {
	want, have int
	// headless says by stream whether the start of a counted line has not
	// been seen yet.
	headless [len(streams)]bool
	beyond   int64 // bytes looked at since all wanted lines are counted
}

// scan reads one file backwards; done is true if off is far enough.
func (t *tailer) scan(f *os.File, size int64) (off int64, done bool, err error) {
	var carry []byte // the part of a line that begins in an earlier block
	for pos := size; pos > 0; {
		from := max(0, pos-tailBlock)
		block := make([]byte, pos-from, pos-from+int64(len(carry)))
		if _, err := f.ReadAt(block, from); err != nil && err != io.EOF {
			return 0, false, fmt.Errorf("read output: %w", err)
		}
		block = append(block, carry...)
		for {
			nl := bytes.LastIndexByte(block[:max(0, len(block)-1)], '\n')
			if nl < 0 {
				break
			}
			if t.see(block[nl+1:]) {
				return from + int64(len(block)), true, nil
			}
			block = block[:nl+1]
		}
		carry, pos = block, from
		if len(carry) > maxLine {
			carry = nil // no writer's line
		}
	}
	if len(carry) > 0 && t.see(carry) {
		return int64(len(carry)), true, nil
	}
	return 0, false, nil
}

// see counts the next line towards the start, and reports whether reading can
// begin after it.
func (t *tailer) see(line []byte) bool {
	if t.have >= t.want {
		t.beyond += int64(len(line))
	}
	if p, ok := parsePiece(bytes.TrimSuffix(line, []byte{'\n'})); ok && p.tag == full {
		if t.have < t.want {
			t.have++
			t.headless[p.stream] = true
			return false
		}
		t.headless[p.stream] = false
	}
	return t.have >= t.want && (t.headless == [len(streams)]bool{} || t.beyond > headScan)
}

// sinceOffset returns an offset at the start of a line, before which the file
// holds only lines older than since.
func sinceOffset(f *os.File, size int64, since time.Time) (int64, error) {
	low, high := int64(0), size
	buf := make([]byte, 2*maxLine)
	for high-low > headScan {
		mid := low + (high-low)/2
		n, err := f.ReadAt(buf, mid)
		if err != nil && err != io.EOF {
			return 0, fmt.Errorf("read output: %w", err)
		}
		if at, ok := firstStamp(buf[:n]); ok && at.Before(since) {
			low = mid
		} else {
			high = mid
		}
	}
	low = max(0, low-headScan) // where lines may begin that end later
	if low == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(buf, low)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("read output: %w", err)
	}
	return low + int64(bytes.IndexByte(buf[:n], '\n')+1), nil
}

// firstStamp returns the time of the first whole line in b.
func firstStamp(b []byte) (time.Time, bool) {
	_, b, _ = bytes.Cut(b, []byte{'\n'})
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte{'\n'})
		if p, ok := parsePiece(line); ok {
			return parseStamp(p.stamp)
		}
	}
	return time.Time{}, false
}
