// Package local is the embedded store: state.Store for one machine. All of it
// is in memory as an immutable radix tree, so that readers take no lock and
// watchers wait on the tree's own channels; every change is in one file on disk
// before it is acknowledged.
//
//	Txn, CreateSession … ─▶ requests ─▶ writer ─▶ edit ─▶ file ─▶ view ─▶ watchers
//	Get, List, Watch ◀─────────────────────────────────────────── view
//
// The writer is the only goroutine. It takes whatever requests wait, applies
// them one after the other to an edit of the memory, appends the edit to the
// log in one commit (one write, one fdatasync), and only then shows it. It also
// ends the sessions whose TTL is over.
//
// The log (see record.go) is ours and no library's. Those that there are
// (tidwall/wal, hashicorp/raft-wal) keep a sequence of opaque entries in
// segments and refuse a damaged one; here each key's record has to survive the
// damage of its neighbours, and there is no second file: the log is written
// anew, as one commit of all that is live, when most of it is obsolete.
//
// On disk there are, beside the log itself:
//
//	<log>.lock                 locked by the process that has the store open, whose ID is in it
//	<log>.new                  a log that is being made; it is renamed when it is whole
//	<log>.damaged-<UTC time>   a log that had to be repaired, as it was
//	state.db.old               the state of a meshrun before format 2, which was taken over
package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Format is the version of the log's layout that this package writes.
const Format = 2

// DefaultMaxBytes is how large the file may grow unless Options say more.
const DefaultMaxBytes = 1 << 30

// Sentinels of Open.
var (
	// ErrNewerFormat: the file was written by a newer meshrun.
	ErrNewerFormat = errors.New("state was written by a newer version of meshrun")
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("state is in use by another process")
)

// Options tune a store. The zero value is good.
type Options struct {
	Logger hclog.Logger
	// Now is the clock for TTLs and lock delays; nil means time.Now.
	Now func() time.Time
	// NoSync leaves out fsync: a crash of the machine may lose the file. For
	// tests.
	NoSync bool
	// MaxBytes is how large the file may grow; 0 means DefaultMaxBytes. Beyond
	// it a Txn returns state.ErrUnavailable.
	MaxBytes int
}

// Store is the embedded store.
type Store struct {
	logger hclog.Logger
	now    func() time.Time
	disk   disk
	report Report

	view     atomic.Pointer[memory] // written by the writer only
	requests chan *request
	timers   timers

	stop      chan struct{} // closed by Close
	stopped   chan struct{} // closed by the writer when it has ended
	closeOnce sync.Once
	closeErr  error
}

var _ state.Store = (*Store)(nil)

// Open opens the store in the file at path, creating it if there is none. A
// damaged file is kept under another name and what can be read of it is taken
// over: see Report. It returns ErrInUse if another process has the file open,
// and ErrNewerFormat if it must not be touched.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	d, m, report, err := openFile(ctx, path, opts)
	if err != nil {
		return nil, err
	}
	return start(d, m, report, opts), nil
}

// OpenMemory returns a store that keeps nothing on disk. For tests; it works
// in a synctest bubble.
func OpenMemory(opts Options) *Store {
	m := newMemory()
	return start(noDisk{}, &m, Report{}, opts.withDefaults())
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	return o
}

func start(d disk, m *memory, report Report, opts Options) *Store {
	s := &Store{
		logger:   opts.Logger.Named("state"),
		now:      opts.Now,
		disk:     d,
		report:   report,
		requests: make(chan *request, maxBatch),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	s.view.Store(m)
	// A session that was alive when the store was closed gets its whole TTL
	// again: nobody could renew it in between.
	s.timers.init(m, s.now())
	go s.write()
	return s
}

// Report tells what Open found.
func (s *Store) Report() Report { return s.report }

// Get returns the entry of a key, or state.ErrNotFound.
func (s *Store) Get(ctx context.Context, key string) (state.Entry, error) {
	if err := state.CheckKey(key); err != nil {
		return state.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if err := s.ready(ctx); err != nil {
		return state.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	e, ok := s.view.Load().entries.Get([]byte(key))
	if !ok {
		return state.Entry{}, fmt.Errorf("get %s: %w", key, state.ErrNotFound)
	}
	return *e, nil
}

// List returns the entries under a prefix and the store's index.
func (s *Store) List(ctx context.Context, prefix string) ([]state.Entry, uint64, error) {
	if err := state.CheckPrefix(prefix); err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	if err := s.ready(ctx); err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	m := s.view.Load()
	return m.list(prefix), m.index, nil
}

// Watch blocks until something under the prefix changed after the index.
func (s *Store) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	if err := state.CheckPrefix(prefix); err != nil {
		return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
	}
	for {
		if err := s.ready(ctx); err != nil {
			return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
		}
		m := s.view.Load()
		it := m.entries.Root().Iterator()
		touched := it.SeekPrefixWatch([]byte(prefix))
		if after == 0 || m.changedSince(prefix, after) {
			return m.list(prefix), m.index, nil
		}
		select {
		case <-touched:
		case <-ctx.Done():
		case <-s.stop:
		}
	}
}

// Txn does all operations or none. Operations that change nothing (checks
// alone, or writing what is there) take no index of their own: the store's
// present one is returned.
func (s *Store) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	if err := state.CheckOps(ops); err != nil {
		return 0, err
	}
	var index uint64
	err := s.submit(ctx, func(e *edit) (err error) {
		index, err = e.txn(ops)
		return err
	})
	if err != nil {
		return 0, err
	}
	return index, nil
}

// Close ends the writer after the commit that it is at, and closes the file.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.stop)
		<-s.stopped
		s.closeErr = s.disk.close()
	})
	return s.closeErr
}

// ready returns why the store can't be asked now.
func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.stop:
		return state.ErrClosed
	default:
		return ctx.Err()
	}
}
