package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// Until format 2 the state was a bbolt file, state.db beside today's state.log.
// Open takes it over when there is no log yet, and renames it to state.db.old.

// boltFormat is the format of such a file.
const boltFormat = 1

func boltPath(path string) string { return strings.TrimSuffix(path, ".log") + ".db" }

// takeOver returns the memory that the bbolt file of an older meshrun holds;
// nil if there is none. It does not change the file.
func takeOver(path string, now time.Time) (m *memory, err error) {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("take over %s: it is not a regular file", path)
	}
	// bbolt maps the file, and panics on a damaged or a truncated one.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
		if err != nil {
			m, err = nil, fmt.Errorf("take over %s: %w; start the meshrun that wrote it once more, which repairs it, or move the file away and apply the jobs again", path, err)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) (err error) {
		m, err = loadBolt(tx, now)
		return err
	})
	return m, err
}

// boltMeta is the bucket and the key of the record that says what the file holds.
const (
	boltMetaBucket = "m"
	boltMetaKey    = "state"
)

func loadBolt(tx *bbolt.Tx, now time.Time) (*memory, error) {
	bucket := tx.Bucket([]byte(boltMetaBucket))
	if bucket == nil {
		return nil, errBadRecord
	}
	meta, err := openBoltRecord(boltMetaBucket[0], boltMetaKey, bucket.Get([]byte(boltMetaKey)))
	if err != nil || len(meta) != 32 || binary.BigEndian.Uint64(meta) != boltFormat {
		return nil, errBadRecord
	}
	l := newLoader(binary.BigEndian.Uint64(meta[8:]), now)
	for _, kind := range []recordKind{kindEntry, kindSession, kindDelay} {
		bucket := tx.Bucket([]byte{byte(kind)})
		if bucket == nil {
			continue
		}
		err := bucket.ForEach(func(key, rec []byte) error {
			body, err := openBoltRecord(byte(kind), string(key), rec)
			if err != nil {
				return fmt.Errorf("read %q: %w", key, err)
			}
			return l.add(recordID{kind, string(key)}, body)
		})
		if err != nil {
			return nil, err
		}
	}
	m := l.done()
	entries, sessions := binary.BigEndian.Uint64(meta[16:]), binary.BigEndian.Uint64(meta[24:])
	if uint64(m.entries.Len()) != entries || uint64(m.sessions.Len()) != sessions {
		return nil, fmt.Errorf("it holds %d of %d keys and %d of %d sessions", m.entries.Len(), entries, m.sessions.Len(), sessions)
	}
	return m, nil
}

// openBoltRecord returns the body of a record: kind (1) | CRC-32C of kind, key
// and body (4) | body.
func openBoltRecord(kind byte, key string, rec []byte) ([]byte, error) {
	const header = 5
	if len(rec) < header || rec[0] != kind {
		return nil, errBadRecord
	}
	sum := crc32.Update(uint32(kind), castagnoli(), []byte(key))
	sum = crc32.Update(sum, castagnoli(), binary.BigEndian.AppendUint32(nil, uint32(len(key))))
	if crc32.Update(sum, castagnoli(), rec[header:]) != binary.BigEndian.Uint32(rec[1:]) {
		return nil, errBadRecord
	}
	return rec[header:], nil
}
