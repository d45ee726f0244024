package watchdog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"time"

	"github.com/synergymesh/meshrun/runtime/watchdog/output"
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

const chunkNoteSize = 24

// openIntent opens the note and reads what a predecessor left in it.
func openIntent(path string) (*intent, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the chunk record of the output pump: %w", err)
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
	return min(output.KeptAt(dir, st.name, time.Unix(0, left.at)), size)
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
