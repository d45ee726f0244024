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

// leaseFile keeps the leases for a successor. It lies in the run directory,
// which is in memory for root: a renewal every second wears out no disk.
type leaseFile struct {
	path string
	boot string // the running boot: times of another one mean nothing

	mu      sync.Mutex // guards the file and what is below
	retired bool
	err     error // of the last write
}

// leasesKept is what the file holds.
type leasesKept struct {
	BootID string                   `json:"boot_id"`
	Until  map[string]time.Duration `json:"until"`
}

// read returns what a predecessor kept in this boot.
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

// write replaces the file by what now returns. An older one that stays because
// that failed ends leases earlier than they do, which harms nobody; where one
// was shortened it must not stay.
func (f *leaseFile) write(now func() map[string]time.Duration, shortened bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retired {
		return
	}
	// Asked for under the lock: of two writers the later one has the last word.
	f.err = f.replace(leasesKept{BootID: f.boot, Until: now()})
	if f.err != nil && shortened {
		os.Remove(f.path)
	}
}

// replace writes the file beside the old one, then over it. f.mu is held.
func (f *leaseFile) replace(kept leasesKept) error {
	b, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("keep leases: %w", err)
	}
	tmp := f.path + ".tmp"
	err = os.WriteFile(tmp, b, 0o600)
	if errors.Is(err, os.ErrNotExist) { // somebody has removed the directory
		if err = ownDir(filepath.Dir(f.path)); err == nil {
			err = os.WriteFile(tmp, b, 0o600)
		}
	}
	if err == nil {
		err = os.Rename(tmp, f.path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("keep leases: %w", err)
	}
	return nil
}

// retire removes the file for good: a successor shall start nothing under the
// leases of this run.
func (f *leaseFile) retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = true
	os.Remove(f.path)
}

// problem says why the leases are not kept, "" if they are.
func (f *leaseFile) problem() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return ""
	}
	return f.err.Error() + ": were the watchdog to die now, its successor would end what lives under a lease: make room in " + filepath.Dir(f.path)
}
