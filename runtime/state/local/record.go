package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// The log is a header and then records. A commit is the records of its
// changes, each of which says what one key holds from then on, and a record of
// kindCommit at its end. All numbers are big-endian.
//
//	header   "MRSTATE\n" | format (4) | CRC-32C of both (4)
//	record   0xFF 0xF5 | kind (1) | deleted (1) | length of key (2) | length of body (4)
//	         | CRC-32C of kind to lengths and key (4) | key | body | CRC-32C of the one before and body (4)
//
// A record starts with two bytes that no UTF-8 text contains, so that behind a
// damaged length the next record is found again, and no value is taken for a
// record. The head has a sum of its own: a record with a damaged body still
// says which key it was for.
//
//	entry    create index (8) | modify index (8) | lock index (8) | length (1) and text of the session | value
//	session  create index (8) | JSON of state.SessionConfig
//	delay    when it is over, in Unix nanoseconds (8)
//	commit   index (8) | records in this commit (4) | number of entries (8) | number of sessions (8)
type recordKind byte

const (
	kindEntry   recordKind = 'e'
	kindSession recordKind = 's'
	kindDelay   recordKind = 'd'
	kindCommit  recordKind = 'c'
)

// recordID names what a record is about; the key of a commit is empty.
type recordID struct {
	kind recordKind
	key  string
}

const (
	headerMagic = "MRSTATE\n"
	headerSize  = len(headerMagic) + 8

	recordMagic = "\xff\xf5"
	recordHead  = 14 // up to the key
	recordTail  = 4
)

var errBadRecord = errors.New("record is damaged")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func encodeHeader(format uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte(headerMagic), format)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// decodeHeader returns the format of a log, or false if the header is damaged.
func decodeHeader(b []byte) (format uint32, ok bool) {
	const sum = len(headerMagic) + 4
	if len(b) < headerSize || string(b[:len(headerMagic)]) != headerMagic ||
		crc32.Checksum(b[:sum], castagnoli()) != binary.BigEndian.Uint32(b[sum:]) {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[len(headerMagic):]), true
}

// appendRecord appends a record; a nil body is a deletion.
func appendRecord(b []byte, id recordID, body []byte) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	deleted := byte(0)
	if body == nil {
		deleted = 1
	}
	b = append(b, byte(id.kind), deleted)
	b = binary.BigEndian.AppendUint16(b, uint16(len(id.key)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	sum := headSum(b[start:], id.key)
	b = binary.BigEndian.AppendUint32(b, sum)
	b = append(b, id.key...)
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.Update(sum, castagnoli(), body))
}

// headSum sums kind to lengths, and the key.
func headSum(head []byte, key string) uint32 {
	return crc32.Update(crc32.Checksum(head[len(recordMagic):10], castagnoli()), castagnoli(), []byte(key))
}

// record is one that was read.
type record struct {
	recordID
	deleted bool
	body    []byte // part of what was read; nil of a deletion
	size    int    // in the log
}

// readRecord reads the record that b starts with. An errBadRecord with a size
// means that its head is whole and its body is not.
func readRecord(b []byte) (r record, err error) {
	if len(b) < recordHead || string(b[:len(recordMagic)]) != recordMagic {
		return r, errBadRecord
	}
	end := recordHead + int(binary.BigEndian.Uint16(b[4:]))
	length := int(binary.BigEndian.Uint32(b[6:]))
	if len(b) < end {
		return r, errBadRecord
	}
	r.recordID = recordID{recordKind(b[2]), string(b[recordHead:end])}
	sum := headSum(b, r.key)
	if sum != binary.BigEndian.Uint32(b[10:]) || len(b) < end+length+recordTail {
		return record{}, errBadRecord
	}
	r.size = end + length + recordTail
	r.deleted = b[3] == 1
	if !r.deleted {
		r.body = b[end : end+length]
	}
	if crc32.Update(sum, castagnoli(), b[end:end+length]) != binary.BigEndian.Uint32(b[end+length:]) {
		return r, errBadRecord
	}
	return r, nil
}

func encodeEntry(e *state.Entry) []byte {
	b := make([]byte, 0, 25+len(e.Session)+len(e.Value))
	b = binary.BigEndian.AppendUint64(b, e.CreateIndex)
	b = binary.BigEndian.AppendUint64(b, e.ModifyIndex)
	b = binary.BigEndian.AppendUint64(b, e.LockIndex)
	b = append(b, byte(len(e.Session)))
	b = append(b, e.Session...)
	return append(b, e.Value...)
}

func decodeEntry(key string, b []byte) (*state.Entry, error) {
	if len(b) < 25 || len(b) < 25+int(b[24]) {
		return nil, errBadRecord
	}
	n := 25 + int(b[24])
	return &state.Entry{
		Key:         key,
		CreateIndex: binary.BigEndian.Uint64(b),
		ModifyIndex: binary.BigEndian.Uint64(b[8:]),
		LockIndex:   binary.BigEndian.Uint64(b[16:]),
		Session:     string(b[25:n]),
		Value:       append([]byte(nil), b[n:]...),
	}, nil
}

func encodeSession(s state.Session) ([]byte, error) {
	cfg, err := json.Marshal(s.SessionConfig)
	if err != nil {
		return nil, fmt.Errorf("encode session: %w", err)
	}
	return append(binary.BigEndian.AppendUint64(nil, s.CreateIndex), cfg...), nil
}

func decodeSession(id string, b []byte) (state.Session, error) {
	s := state.Session{ID: id}
	if len(b) < 8 {
		return s, errBadRecord
	}
	s.CreateIndex = binary.BigEndian.Uint64(b)
	if err := json.Unmarshal(b[8:], &s.SessionConfig); err != nil {
		return s, fmt.Errorf("decode session: %w", err)
	}
	return s, nil
}

func encodeDelay(until time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano()))
}

func decodeDelay(b []byte) (time.Time, error) {
	if len(b) != 8 {
		return time.Time{}, errBadRecord
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))), nil
}

// commit ends the records of one commit and says what the store holds then.
type commit struct {
	index    uint64
	records  uint32
	entries  uint64
	sessions uint64
}

func (c commit) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.index)
	b = binary.BigEndian.AppendUint32(b, c.records)
	b = binary.BigEndian.AppendUint64(b, c.entries)
	return binary.BigEndian.AppendUint64(b, c.sessions)
}

func decodeCommit(b []byte) (commit, error) {
	if len(b) != 28 {
		return commit{}, errBadRecord
	}
	return commit{
		index: binary.BigEndian.Uint64(b), records: binary.BigEndian.Uint32(b[8:]),
		entries: binary.BigEndian.Uint64(b[12:]), sessions: binary.BigEndian.Uint64(b[20:]),
	}, nil
}

// appendCommit appends the commit of some records of the memory.
func (m *memory) appendCommit(b []byte, ids map[recordID]struct{}) ([]byte, error) {
	size := 64
	for id := range ids {
		size += recordHead + len(id.key) + recordTail + 64
		if e, ok := m.entries.Get([]byte(id.key)); ok && id.kind == kindEntry {
			size += len(e.Value)
		}
	}
	b = slices.Grow(b, size)
	for id := range ids {
		body, err := m.body(id)
		if err != nil {
			return nil, err
		}
		b = appendRecord(b, id, body)
	}
	end := commit{m.index, uint32(len(ids)), uint64(m.entries.Len()), uint64(m.sessions.Len())}
	return appendRecord(b, recordID{kind: kindCommit}, end.encode()), nil
}

// body returns what the log shall hold of a key: nil for nothing.
func (m *memory) body(id recordID) ([]byte, error) {
	key := []byte(id.key)
	switch id.kind {
	case kindEntry:
		if e, ok := m.entries.Get(key); ok {
			return encodeEntry(e), nil
		}
	case kindSession:
		if s, ok := m.sessions.Get(key); ok {
			return encodeSession(s)
		}
	case kindDelay:
		if until, ok := m.delays.Get(key); ok {
			return encodeDelay(until), nil
		}
	}
	return nil, nil
}

// all names every record of the memory.
func (m *memory) all() map[recordID]struct{} {
	ids := make(map[recordID]struct{}, m.entries.Len()+m.sessions.Len()+m.delays.Len())
	entries := m.entries.Root().Iterator()
	for key, _, ok := entries.Next(); ok; key, _, ok = entries.Next() {
		ids[recordID{kindEntry, string(key)}] = struct{}{}
	}
	sessions := m.sessions.Root().Iterator()
	for key, _, ok := sessions.Next(); ok; key, _, ok = sessions.Next() {
		ids[recordID{kindSession, string(key)}] = struct{}{}
	}
	delays := m.delays.Root().Iterator()
	for key, _, ok := delays.Next(); ok; key, _, ok = delays.Next() {
		ids[recordID{kindDelay, string(key)}] = struct{}{}
	}
	return ids
}
