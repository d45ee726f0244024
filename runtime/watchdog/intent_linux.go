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

// intent records, in a file that outlives the watchdog, the chunk that the pump
// is about to log and then to remove from its pipe. A successor of a killed
// watchdog looks up how much of the chunk is in the log, and removes that much
// from the pipe instead of logging it twice. The pump moves one chunk at a
// time, so that one record is enough.
type intent struct {
	file *os.File
	crc  *crc32.Table
	left chunkNote // the record of a predecessor
}

// chunkNote identifies a chunk. All its lines are logged with its time.
type chunkNote struct {
	stream uint64 // hash of the instance and the stream's name; 0 for none
	at     int64  // nanoseconds since 1970
	size   uint32
	sum    uint32
}

const chunkNoteSize = 24

// openIntent opens the file and reads the record of a predecessor.
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

// begin records a chunk that is about to be logged.
func (n *intent) begin(st *stream, chunk []byte, now time.Time) {
	n.write(chunkNote{stream: st.key(), at: now.UnixNano(), size: uint32(len(chunk)), sum: crc32.Checksum(chunk, n.crc)})
}

// end records that no chunk is being logged.
func (n *intent) end() { n.write(chunkNote{}) }

// write writes the record. If that fails, a chunk may be logged twice after a
// crash.
func (n *intent) write(c chunkNote) {
	var b [chunkNoteSize]byte
	binary.LittleEndian.PutUint64(b[:], c.stream)
	binary.LittleEndian.PutUint64(b[8:], uint64(c.at))
	binary.LittleEndian.PutUint32(b[16:], c.size)
	binary.LittleEndian.PutUint32(b[20:], c.sum)
	n.file.WriteAt(b[:], 0)
}

// logged returns how many bytes at the beginning of a chunk a predecessor has
// logged already. It returns more than 0 once.
func (n *intent) logged(st *stream, chunk []byte, dir string) int {
	left := n.left
	if left.stream == 0 || left.stream != st.key() {
		return 0
	}
	n.left = chunkNote{}
	size := int(left.size)
	if len(chunk) < size || crc32.Checksum(chunk[:size], n.crc) != left.sum {
		return 0 // it was removed from the pipe as well
	}
	return min(output.KeptAt(dir, st.name, time.Unix(0, left.at)), size)
}

// key identifies a stream permanently; it is never 0.
func (st *stream) key() uint64 {
	if st.hash == 0 {
		h := fnv.New64a()
		h.Write([]byte(st.src.id.String() + " " + st.name))
		st.hash = h.Sum64() | 1
	}
	return st.hash
}
