package local

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// Report tells what Open found.
type Report struct{}

func openFile(ctx context.Context, path string, opts Options) (disk, *memory, Report, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, Report{}, err
	}
	b, err := openBolt(f, opts)
	if err != nil {
		return nil, nil, Report{}, err
	}
	m := newMemory()
	l := loader{memory: &m, now: opts.Now()}
	err = b.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bk *bbolt.Bucket) error {
			return bk.ForEach(func(k, v []byte) error { return l.take(string(k), v) })
		})
	})
	return b, &m, Report{}, err
}

type loader struct {
	memory *memory
	now    time.Time
}

func (l *loader) take(key string, rec []byte) error {
	kind, body, err := openRecord(key, rec)
	if err != nil {
		return err
	}
	m := l.memory
	switch kind {
	case kindEntry:
		e, err := decodeEntry(key, body)
		if err != nil {
			return err
		}
		m.entries, _, _ = m.entries.Insert([]byte(key), e)
	case kindSession:
		s, err := decodeSession(key, body)
		if err != nil {
			return err
		}
		m.sessions, _, _ = m.sessions.Insert([]byte(key), s)
	case kindDelay:
		d, err := decodeDelay(body)
		if err != nil {
			return err
		}
		m.delays, _, _ = m.delays.Insert([]byte(key), d)
	case kindMeta:
		mt, err := decodeMeta(body)
		if err != nil {
			return err
		}
		if mt.format > Format {
			return fmt.Errorf("%w", ErrNewerFormat)
		}
		m.index, m.forgotten = mt.index, mt.index
	}
	return nil
}
