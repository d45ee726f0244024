package watchdog

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Whoever opens the file to be written waits, as on a disk that hangs.
func TestADiskThatHangsHoldsUpNoRenewal(t *testing.T) {
	dir := t.TempDir()
	f := &leaseFile{path: filepath.Join(dir, "leases"), boot: "boot"}
	f.write(func() map[string]time.Duration { return map[string]time.Duration{"s1": 1} }, false)
	pipe := f.path + ".tmp"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards both below
	until, asked := time.Duration(1), 0
	now := func() map[string]time.Duration {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return map[string]time.Duration{"s1": until}
	}
	var renewals sync.WaitGroup
	for range 50 {
		renewals.Go(func() {
			mu.Lock()
			until++
			mu.Unlock()
			f.write(now, false)
		})
	}
	renewals.Wait() // or the test hangs with them
	mu.Lock()
	if asked != 1 {
		t.Errorf("%d writes wait for the disk", asked)
	}
	mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); f.problem() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody is told")
		}
	}
	mu.Lock()
	until++
	mu.Unlock()
	f.write(now, false)     // what hangs may have had the word of all fifty: this one it cannot have
	r, err := os.Open(pipe) // the disk answers again: the file is the pipe now, and the next write replaces it
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Lstat(f.path); err == nil && info.Mode().IsRegular() {
			if kept, err := f.read(); err == nil && kept["s1"] == until {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last word is not written: %q", f.problem())
		}
	}
	if f.problem() != "" {
		t.Errorf("all is well, and it says %q", f.problem())
	}
}

func TestARetiredFileStaysAway(t *testing.T) {
	f := &leaseFile{path: filepath.Join(t.TempDir(), "leases"), boot: "boot"}
	now := func() map[string]time.Duration { return map[string]time.Duration{"s1": 1} }
	f.write(now, false)
	f.retire()
	f.write(now, true)
	if kept, err := f.read(); len(kept) != 0 || err != nil {
		t.Errorf("kept are %v, %v", kept, err)
	}
}
