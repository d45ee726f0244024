package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// A record is what the file holds under one key of one bucket. It carries
// its own kind and a checksum over kind, key and body, so that it can be
// trusted wherever it is found, even with the tree around it broken:
//
//	kind (1) | CRC-32C (4) | body
//
// All numbers are big-endian.
//
//	entry    create index (8) | modify index (8) | lock index (8) | length (1) and text of the session | value
//	session  create index (8) | JSON of state.SessionConfig
//	delay    when it is over, in Unix nanoseconds (8)
//	meta     format (8) | index (8) | number of entries (8) | number of sessions (8)
type recordKind byte

const (
	kindEntry   recordKind = 'e'
	kindSession recordKind = 's'
	kindDelay   recordKind = 'd'
	kindMeta    recordKind = 'm'
)

// metaKey is the key of the one record of kindMeta.
const metaKey = "state"

// recordID names a record.
type recordID struct {
	kind recordKind
	key  string
}

// recordHeader is the length of kind and checksum.
const recordHeader = 5

var errBadRecord = errors.New("record is damaged")

func (k recordKind) known() bool {
	return k == kindEntry || k == kindSession || k == kindDelay || k == kindMeta
}

// bucket is the name of the bucket that holds the records of a kind.
func (k recordKind) bucket() []byte { return []byte{byte(k)} }

func sealRecord(id recordID, body []byte) []byte {
	rec := make([]byte, recordHeader, recordHeader+len(body))
	rec[0] = byte(id.kind)
	rec = append(rec, body...)
	binary.BigEndian.PutUint32(rec[1:], recordSum(id, body))
	return rec
}

func recordSum(id recordID, body []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(uint32(id.kind), table, []byte(id.key))
	sum = crc32.Update(sum, table, binary.BigEndian.AppendUint32(nil, uint32(len(id.key))))
	return crc32.Update(sum, table, body)
}

// openRecord returns the kind and the body of a record found under key.
func openRecord(key string, rec []byte) (recordKind, []byte, error) {
	if len(rec) < recordHeader {
		return 0, nil, errBadRecord
	}
	id, body := recordID{recordKind(rec[0]), key}, rec[recordHeader:]
	if recordSum(id, body) != binary.BigEndian.Uint32(rec[1:]) {
		return 0, nil, errBadRecord
	}
	return id.kind, body, nil
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

// meta is the record that says what the file holds.
type meta struct {
	format   uint64
	index    uint64
	entries  uint64
	sessions uint64
}

func (m meta) encode() []byte {
	var b []byte
	for _, v := range []uint64{m.format, m.index, m.entries, m.sessions} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// decodeMeta reads the format alone if it is a newer one: the rest may have
// changed its meaning.
func decodeMeta(b []byte) (meta, error) {
	var m meta
	if len(b) < 8 {
		return m, errBadRecord
	}
	m.format = binary.BigEndian.Uint64(b)
	if m.format > Format {
		return m, nil
	}
	if len(b) != 32 {
		return m, errBadRecord
	}
	m.index = binary.BigEndian.Uint64(b[8:])
	m.entries = binary.BigEndian.Uint64(b[16:])
	m.sessions = binary.BigEndian.Uint64(b[24:])
	return m, nil
}

// record returns what the file shall hold for the record: nil for nothing.
func (m *memory) record(id recordID) ([]byte, error) {
	key := []byte(id.key)
	switch id.kind {
	case kindEntry:
		if e, ok := m.entries.Get(key); ok {
			return sealRecord(id, encodeEntry(e)), nil
		}
	case kindSession:
		if s, ok := m.sessions.Get(key); ok {
			body, err := encodeSession(s)
			if err != nil {
				return nil, err
			}
			return sealRecord(id, body), nil
		}
	case kindDelay:
		if until, ok := m.delays.Get(key); ok {
			return sealRecord(id, encodeDelay(until)), nil
		}
	case kindMeta:
		all := meta{Format, m.index, uint64(m.entries.Len()), uint64(m.sessions.Len())}
		return sealRecord(id, all.encode()), nil
	}
	return nil, nil
}
