package local

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// disk is where edits become durable. bolt implements it, and noDisk.
type disk interface {
	// write makes all dirty records of the edit durable, or none.
	write(e *edit) error
	// index returns the index of what the disk holds now.
	index() (uint64, error)
	close() error
}

// noDisk keeps nothing.
type noDisk struct{}

func (noDisk) write(*edit) error      { return nil }
func (noDisk) index() (uint64, error) { return 0, nil }
func (noDisk) close() error           { return nil }

// bolt is a bbolt file with one bucket per kind of record.
type bolt struct {
	db    *bbolt.DB
	path  string
	guard *os.File // holds the lock until it is closed
}

// openBolt opens a file that is new, or locked and inspected, and closes it with
// the bolt, or if that fails. The guard is closed with the bolt only.
func openBolt(f *os.File, path string, guard *os.File, opts Options) (*bolt, error) {
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		Timeout:      time.Second,
		NoSync:       opts.NoSync,
		NoGrowSync:   opts.NoSync,
		FreelistType: bbolt.FreelistMapType,
		MaxSize:      opts.MaxBytes,
		NoStatistics: true,
		OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		return nil, err
	}
	return &bolt{db, path, guard}, nil
}

func (b *bolt) write(e *edit) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		for id := range e.dirty {
			bucket, err := tx.CreateBucketIfNotExists(id.kind.bucket())
			if err != nil {
				return err
			}
			rec, err := e.record(id)
			if err != nil {
				return err
			}
			if rec == nil {
				err = bucket.Delete([]byte(id.key))
			} else {
				err = bucket.Put([]byte(id.key), rec)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("commit to %s: %w; make room on its disk, and try again", b.path, err)
	}
	return nil
}

func (b *bolt) index() (uint64, error) {
	var m meta
	err := b.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(kindMeta.bucket())
		if bucket == nil {
			return nil
		}
		_, body, err := openRecord(metaKey, bucket.Get([]byte(metaKey)))
		if err != nil {
			return err
		}
		m, err = decodeMeta(body)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read index of %s: %w", b.path, err)
	}
	return m.index, nil
}

func (b *bolt) close() error {
	if err := errors.Join(b.db.Close(), b.guard.Close()); err != nil {
		return fmt.Errorf("close %s: %w", b.path, err)
	}
	return nil
}
