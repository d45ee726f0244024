package watchdog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
)

// intent is the pump's note, in a file that outlives it, of the chunk that is
// in the log already and still in its pipe. A successor of a killed watchdog
// takes that chunk out of the pipe instead of logging it twice. The pump moves
// one chunk at a time, so that one note is enough.
type intent struct {
	file *os.File
	crc  *crc32.Table
	left written // what a predecessor noted
}

// written names a chunk of a stream.
type written struct {
	stream uint64 // hash of the instance and the stream's name; 0 for none
	size   uint32
	sum    uint32
}

const writtenSize = 16

// openIntent opens the note and reads what a predecessor left in it.
func openIntent(path string) (*intent, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open note of the output pump: %w", err)
	}
	n := &intent{file: f, crc: crc32.MakeTable(crc32.Castagnoli)}
	var b [writtenSize]byte
	if got, _ := f.ReadAt(b[:], 0); got == writtenSize {
		n.left = written{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
	}
	return n, nil
}

// of names a chunk.
func (n *intent) of(st *stream, chunk []byte) written {
	return written{stream: st.key(), size: uint32(len(chunk)), sum: crc32.Checksum(chunk, n.crc)}
}

// note says that a chunk is in the log; the zero one that none is to be taken.
// Failing costs at most a chunk that is there twice after a crash.
func (n *intent) note(w written) {
	var b [writtenSize]byte
	binary.LittleEndian.PutUint64(b[:], w.stream)
	binary.LittleEndian.PutUint32(b[8:], w.size)
	binary.LittleEndian.PutUint32(b[12:], w.sum)
	n.file.WriteAt(b[:], 0)
}

// known reports whether a predecessor logged the beginning of what a stream
// holds now, and how much of it. It says so once.
func (n *intent) known(st *stream, chunk []byte) (size int, ok bool) {
	if n.left.stream == 0 || n.left.stream != st.key() {
		return 0, false
	}
	left := n.left
	n.left = written{}
	if len(chunk) < int(left.size) || n.of(st, chunk[:left.size]) != left {
		return 0, false
	}
	return int(left.size), true
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
