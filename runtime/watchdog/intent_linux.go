package watchdog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// intent is the pump's note, in a file that outlives it, of the chunk that it
// is about to log and then to take out of its pipe. A successor of a killed
// watchdog finds in the log how much of it is there, and takes that much out
// instead of logging it twice. The pump moves one chunk at a time, so that one
// note is enough.
type intent struct {
	file *os.File
	crc  *crc32.Table
	left chunkNote // what a predecessor noted
}

// chunkNote names a chunk. All lines of a chunk are logged with its time.
type chunkNote struct {
	stream uint64 // hash of the instance and the stream's name; 0 for none
	at     int64  // nanoseconds since 1970
	size   uint32
	sum    uint32
}

const (
	chunkNoteSize = 24
	// logTail is how far back a log is searched for a chunk: what the shortest
	// lines of a chunk become.
	logTail = 4 << 20
)

// openIntent opens the note and reads what a predecessor left in it.
func openIntent(path string) (*intent, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open note of the output pump: %w", err)
	}
	n := &intent{file: f, crc: crc32.MakeTable(crc32.Castagnoli)}
	var b [chunkNoteSize]byte
	if got, _ := f.ReadAt(b[:], 0); got == chunkNoteSize {
		n.left = chunkNote{stream: binary.LittleEndian.Uint64(b[:]), at: int64(binary.LittleEndian.Uint64(b[8:])),
			size: binary.LittleEndian.Uint32(b[16:]), sum: binary.LittleEndian.Uint32(b[20:])}
	}
	return n, nil
}

// begin notes a chunk that is about to be logged.
func (n *intent) begin(st *stream, chunk []byte, now time.Time) {
	n.write(chunkNote{stream: st.key(), at: now.UnixNano(), size: uint32(len(chunk)), sum: crc32.Checksum(chunk, n.crc)})
}

// end notes that nothing is under way.
func (n *intent) end() { n.write(chunkNote{}) }

// write replaces the note. Failing costs at most a chunk that is there twice
// after a crash.
func (n *intent) write(c chunkNote) {
	var b [chunkNoteSize]byte
	binary.LittleEndian.PutUint64(b[:], c.stream)
	binary.LittleEndian.PutUint64(b[8:], uint64(c.at))
	binary.LittleEndian.PutUint32(b[16:], c.size)
	binary.LittleEndian.PutUint32(b[20:], c.sum)
	n.file.WriteAt(b[:], 0)
}

// logged returns how many bytes at the beginning of a chunk a predecessor has
// logged already. It answers once.
func (n *intent) logged(st *stream, chunk []byte, dir string) int {
	left := n.left
	if left.stream == 0 || left.stream != st.key() {
		return 0
	}
	n.left = chunkNote{}
	size := int(left.size)
	if len(chunk) < size || crc32.Checksum(chunk[:size], n.crc) != left.sum {
		return 0 // it was taken out as well
	}
	return min(loggedAt(dir, st.name, time.Unix(0, left.at)), size)
}

// loggedAt counts the bytes of a stream that a log holds for one time: in the
// current file, and in the one before if it was rotated in between.
func loggedAt(dir, stream string, at time.Time) (n int) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log")) // current.log sorts last
	if err != nil {
		return 0
	}
	prefix := []byte(at.UTC().Format("2006-01-02T15:04:05.000000000Z") + " " + stream + " ")
	for _, name := range names[max(len(names)-2, 0):] {
		for l := range bytes.Lines(tailOf(name)) {
			text, ok := bytes.CutPrefix(l, prefix)
			if !ok || len(text) < 2 {
				continue
			}
			n += len(bytes.TrimSuffix(text[2:], []byte("\n")))
			if text[0] == 'F' {
				n++
			}
		}
	}
	return n
}

func tailOf(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, logTail))
	if err != nil {
		return nil
	}
	return slices.Clip(b)
}

// key names a stream for good; never 0.
func (st *stream) key() uint64 {
	if st.hash == 0 {
		h := fnv.New64a()
		h.Write([]byte(st.src.id.String() + " " + st.name))
		st.hash = h.Sum64() | 1
	}
	return st.hash
}
