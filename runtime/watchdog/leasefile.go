package watchdog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// leaseFile keeps the leases for a successor. It is in the run directory, which
// is in memory for root, so that a renewal each second does not wear out a
// disk.
type leaseFile struct {
	path string
	boot string // the running boot: times of another boot are invalid

	mu        sync.Mutex    // guards all below; never held during a write
	asked     uint64        // number of requested writes
	done      uint64        // the last of them that is done
	shortened bool          // a lease was shortened, and that is not written yet
	began     time.Time     // of the write that is under way; zero if none is
	wrote     chan struct{} // closed after each write; nil before the first is asked for
	retired   bool
	err       error // of the last write
}

// diskPatience is how long to wait for a write: a disk that hangs must not hold
// up renewals, nor make them pile up.
const diskPatience = 500 * time.Millisecond

// leasesKept is the content of the file.
type leasesKept struct {
	BootID string                   `json:"boot_id"`
	Until  map[string]time.Duration `json:"until"`
}

// read returns what a predecessor wrote in this boot.
func (f *leaseFile) read() (map[string]time.Duration, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	var kept leasesKept
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("read leases: %s: %w", f.path, err)
	}
	if kept.BootID != f.boot {
		return nil, nil
	}
	return kept.Until, nil
}

// write replaces the file by what now returns, and waits for that, but not for
// long: one goroutine at a time writes, and writes again if it was asked to
// meanwhile.
//
// If it fails, the old file stays, and leases expire earlier for a successor,
// which is safe. Only after one was shortened the old file must not stay.
func (f *leaseFile) write(now func() map[string]time.Duration, shortened bool) {
	f.mu.Lock()
	if f.retired {
		f.mu.Unlock()
		return
	}
	f.asked++
	mine := f.asked
	f.shortened = f.shortened || shortened
	if f.began.IsZero() {
		f.began, f.wrote = time.Now(), make(chan struct{})
		go f.writeAll(now)
	}
	f.mu.Unlock()
	f.await(mine)
}

// writeAll writes until all requested writes are done. It holds f.mu only
// between two writes.
func (f *leaseFile) writeAll(now func() map[string]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.done < f.asked && !f.retired {
		turn, shortened := f.asked, f.shortened
		f.shortened, f.began = false, time.Now()
		f.mu.Unlock()
		// now is called after the number is read, so that its result is as new.
		err := f.replace(leasesKept{BootID: f.boot, Until: now()})
		if err != nil && shortened {
			os.Remove(f.path)
		}
		f.mu.Lock()
		f.done, f.err = turn, err
		close(f.wrote)
		f.wrote = make(chan struct{})
	}
	f.began = time.Time{}
	if f.retired {
		os.Remove(f.path)
	}
}

// await waits until a write has been done or has taken too long.
func (f *leaseFile) await(turn uint64) {
	late := time.NewTimer(diskPatience)
	defer late.Stop()
	for {
		f.mu.Lock()
		done, wrote := f.done >= turn || f.began.IsZero(), f.wrote
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-wrote:
		case <-late.C:
			return
		}
	}
}

// replace writes the file.
func (f *leaseFile) replace(kept leasesKept) error {
	b, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	file, err := replaceFile(f.path, b)
	if errors.Is(err, os.ErrNotExist) { // somebody has removed the directory
		if err = ownDir(filepath.Dir(f.path)); err == nil {
			file, err = replaceFile(f.path, b)
		}
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	return nil
}

// retire removes the file for good, so that a successor starts nothing under
// the leases of this run. A write in progress removes what it has written.
func (f *leaseFile) retire() {
	f.mu.Lock()
	f.retired = true
	f.mu.Unlock()
	os.Remove(f.path)
}

// settle waits for requested writes, but not for long.
func (f *leaseFile) settle() {
	f.mu.Lock()
	asked := f.asked
	f.mu.Unlock()
	f.await(asked)
}

// problem says why the leases are not written; empty if they are.
func (f *leaseFile) problem() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	const so = ": if the watchdog died now, its successor would stop every instance under a lease: "
	switch {
	case !f.began.IsZero() && time.Since(f.began) > diskPatience:
		return "write leases: the disk does not respond" + so + "check " + filepath.Dir(f.path)
	case f.err != nil:
		return f.err.Error() + so + "free space in " + filepath.Dir(f.path)
	}
	return ""
}
