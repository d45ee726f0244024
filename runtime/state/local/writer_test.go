package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/state"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeDisk fails while err is set, and holds a write until gate lets it go.
type fakeDisk struct {
	gate chan struct{}

	mu      sync.Mutex // guards what follows
	err     error
	commits int
}

func (d *fakeDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *fakeDisk) write(*edit) error {
	if d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commits++
	return d.err
}

func (d *fakeDisk) close() error { return nil }

func openFake(t *testing.T, d disk) *Store {
	m := newMemory()
	s := start(d, &m, Report{}, Options{}.withDefaults())
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

func setOp(key, value string) state.Op {
	return state.Op{Kind: state.OpSet, Key: key, Value: []byte(value)}
}

func TestAFailedCommitChangesNothingAndTheNextOneWorks(t *testing.T) {
	d := &fakeDisk{}
	s := openFake(t, d)
	first, err := s.Txn(t.Context(), setOp("k", "before"))
	check(t, err)

	d.fail(syscall.ENOSPC)
	_, err = s.Txn(t.Context(), setOp("k", "lost"), setOp("other", "lost"))
	if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got error %v", err)
	}
	if e, err := s.Get(t.Context(), "k"); err != nil || string(e.Value) != "before" || e.ModifyIndex != first {
		t.Errorf("k is %+v, error %v", e, err)
	}
	if _, err := s.Get(t.Context(), "other"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("other: got error %v", err)
	}

	d.fail(nil)
	second, err := s.Txn(t.Context(), setOp("k", "after"))
	check(t, err)
	if second <= first {
		t.Errorf("index %d after %d", second, first)
	}
}

func TestAFailedCommitThatCannotBeCutOffIsOvertakenByANewLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	_, err := s.Txn(t.Context(), setOp("k", "before"))
	check(t, err)
	log := s.disk.(*logFile)
	broken, err := os.Open(path) // can be neither written nor cut
	check(t, err)
	_, err = log.f.WriteAt([]byte("half a commit"), log.size)
	check(t, err)
	check(t, log.f.Close())
	log.f, log.allocated = broken, -1
	if _, err := s.Txn(t.Context(), setOp("k", "lost")); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("got error %v", err)
	}
	if _, err := s.Txn(t.Context(), setOp("other", "v")); err != nil {
		t.Errorf("after a failure: %v", err)
	}
	check(t, s.Close())
	s = mustOpen(t, path)
	defer s.Close()
	if e, err := s.Get(t.Context(), "k"); err != nil || string(e.Value) != "before" || s.Report() != (Report{}) {
		t.Errorf("k is %q, error %v, %v", e.Value, err, s.Report())
	}
}

func TestALogIsWrittenAnewWhenMostOfItIsObsolete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	value := strings.Repeat("x", 100<<10)
	largest := int64(0)
	for i := range 300 { // 30 MB
		_, err := s.Txn(t.Context(), setOp("k", fmt.Sprint(i, value)), setOp(fmt.Sprint("n", i%10), "v"))
		check(t, err)
		info, err := os.Stat(path)
		check(t, err)
		largest = max(largest, info.Size())
	}
	if largest < rewriteAbove || largest > 2*rewriteAbove {
		t.Errorf("the log grew to %d bytes", largest)
	}
	_, index, err := s.List(t.Context(), "")
	check(t, err)
	check(t, s.Close())
	s = mustOpen(t, path)
	defer s.Close()
	entries, again, err := s.List(t.Context(), "")
	if err != nil || len(entries) != 11 || again != index || !strings.HasPrefix(string(entries[0].Value), "299x") {
		t.Errorf("%d keys at %d, want 11 at %d; %v", len(entries), again, index, err)
	}
}

func TestAWatcherSleepsThroughAFailedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{err: syscall.ENOSPC}
		s := openFake(t, d)
		_, index, err := s.List(t.Context(), "")
		check(t, err)
		woken := make(chan error, 1)
		go func() {
			_, _, err := s.Watch(t.Context(), "", index)
			woken <- err
		}()
		synctest.Wait()
		if _, err := s.Txn(t.Context(), setOp("k", "v")); err == nil {
			t.Fatal("the commit did not fail")
		}
		synctest.Wait()
		if len(woken) > 0 {
			t.Error("it was woken")
		}
		d.fail(nil)
		_, err = s.Txn(t.Context(), setOp("k", "v"))
		check(t, err)
		check(t, <-woken)
	})
}

func TestAnExpiryThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{}
		s := openFake(t, d)
		id, err := s.CreateSession(t.Context(), state.SessionConfig{TTL: state.MinSessionTTL})
		check(t, err)
		d.fail(syscall.ENOSPC)
		time.Sleep(2 * state.MinSessionTTL)
		if _, err := s.Session(t.Context(), id); err != nil {
			t.Fatalf("memory and disk differ: %v", err)
		}
		d.fail(nil)
		time.Sleep(2 * expireRetry)
		if _, err := s.Session(t.Context(), id); !errors.Is(err, state.ErrSessionNotFound) {
			t.Errorf("got error %v", err)
		}
	})
}

func TestConcurrentTransactionsShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{gate: make(chan struct{})}
		s := openFake(t, d)
		const n = 50
		done := make(chan error, n)
		for i := range n {
			go func() {
				_, err := s.Txn(t.Context(), setOp(fmt.Sprint("k", i), "v"))
				done <- err
			}()
		}
		synctest.Wait()
		close(d.gate)
		for range n {
			check(t, <-done)
		}
		if d.commits > 2 {
			t.Errorf("%d commits for %d transactions", d.commits, n)
		}
	})
}

func TestATransactionWhoseContextEndsInTheQueueDoesNotHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{gate: make(chan struct{})}
		s := openFake(t, d)
		done := make(chan error, 2)
		submit := func(ctx context.Context, key string) {
			_, err := s.Txn(ctx, setOp(key, "v"))
			done <- err
		}
		go submit(t.Context(), "first")
		synctest.Wait() // the writer is at the disk
		ctx, cancel := context.WithCancel(t.Context())
		go submit(ctx, "second")
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		close(d.gate)
		check(t, <-done)
		_, err := s.Txn(t.Context(), setOp("third", "v"))
		check(t, err)
		if _, err := s.Get(t.Context(), "second"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("it happened: error %v", err)
		}
	})
}

// A batch is a chain of trees, whose watchers are told only in the end; and of
// a transaction with very many changes the tree tells them in another way.
func TestWatchersOfAHugeChangeAreToldOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openFake(t, &fakeDisk{})
		for i := range 100 {
			var ops []state.Op
			for j := range state.MaxTxnOps {
				ops = append(ops, setOp(fmt.Sprintf("p/%d/%d", i, j), "v"))
			}
			_, err := s.Txn(t.Context(), ops...)
			check(t, err)
		}
		prefixes := []string{"", "p/", "p/50/", "p/50/7", "p/99/7", "q"}
		_, index, err := s.List(t.Context(), "")
		check(t, err)
		woken := make(chan error)
		for _, prefix := range prefixes {
			go func() {
				_, _, err := s.Watch(t.Context(), prefix, index)
				woken <- err
			}()
		}
		synctest.Wait()
		ops := []state.Op{setOp("p/50/7", "changed")}
		for i := range 100 {
			for j := range state.MaxTxnOps {
				ops = append(ops, state.Op{Kind: state.OpDelete, Key: fmt.Sprintf("p/%d/%d", i, j)})
			}
		}
		ops = append(ops, setOp("p/50/7", "back"), setOp("q", "new"), state.Op{Kind: state.OpDelete, Key: "q"}, setOp("p/50/8", "back"))
		e := newEdit(s.view.Load(), testNow)
		for _, op := range ops {
			_, err := e.txn([]state.Op{op})
			check(t, err)
		}
		s.publish(e)
		for range prefixes {
			check(t, <-woken)
		}
	})
}

func TestAStoreAtItsLimitSaysSoAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s, err := Open(t.Context(), path, Options{NoSync: true, MaxBytes: 2 << 20})
	check(t, err)
	defer s.Close()
	fillsUp(t, s)
}

func TestAFullDiskSaysSoAndTheStoreGoesOnWhenThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("meshrun-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small tmpfs needs root: %v; the other tests of failed writes simulate it", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	path := filepath.Join(dir, "state.log")
	s, err := Open(t.Context(), path, Options{})
	check(t, err)
	fillsUp(t, s)
	want, _, err := s.List(t.Context(), "")
	check(t, err)
	check(t, s.Close())
	s, err = Open(t.Context(), path, Options{})
	check(t, err)
	defer s.Close()
	if s.Report().Damaged() {
		t.Errorf("after a full disk: %v", s.Report())
	}
	if got, _, err := s.List(t.Context(), ""); err != nil || len(got) != len(want) {
		t.Errorf("%d keys, want %d, error %v", len(got), len(want), err)
	}
}

// fillsUp writes until there is no room, demands that nothing is lost, makes
// room, and demands that writing works again.
func fillsUp(t *testing.T, s *Store) {
	t.Helper()
	value := strings.Repeat("x", 100<<10)
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		_, err = s.Txn(t.Context(), setOp(fmt.Sprintf("fill/%02d", n), value))
	}
	n--
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "state.log") {
		t.Fatalf("full after %d: got error %v", n, err)
	}
	entries, index, err := s.List(t.Context(), "fill/")
	check(t, err)
	if len(entries) != n {
		t.Fatalf("%d keys after %d acknowledged", len(entries), n)
	}
	_, err = s.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: "fill/00"})
	for i := 1; err != nil && i < 5; i++ { // a deletion may need a page too
		_, err = s.Txn(t.Context(), state.Op{Kind: state.OpDelete, Key: fmt.Sprintf("fill/%02d", i)})
	}
	check(t, err)
	after, err := s.Txn(t.Context(), setOp("small", "fits"))
	check(t, err)
	if after <= index {
		t.Errorf("index %d after %d", after, index)
	}
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := OpenMemory(Options{})
	id, err := s.CreateSession(t.Context(), state.SessionConfig{})
	check(t, err)
	_, index, err := s.List(t.Context(), "")
	check(t, err)
	woken := make(chan error, 1)
	go func() {
		_, _, err := s.Watch(t.Context(), "", index)
		woken <- err
	}()
	check(t, s.Close())
	check(t, s.Close())
	_, getErr := s.Get(t.Context(), "k")
	_, txnErr := s.Txn(t.Context(), setOp("k", "v"))
	_, _, listErr := s.List(t.Context(), "")
	for name, err := range map[string]error{
		"get": getErr, "txn": txnErr, "list": listErr, "watch": <-woken,
		"renew": s.RenewSession(t.Context(), id), "destroy": s.DestroySession(t.Context(), id),
	} {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestMemoryRemembersABoundedNumberOfDeletions(t *testing.T) {
	s := OpenMemory(Options{})
	defer s.Close()
	_, start, err := s.List(t.Context(), "p/")
	check(t, err)
	for i := range maxGraves + 10 {
		_, err := s.Txn(t.Context(), setOp("k", fmt.Sprint(i)), state.Op{Kind: state.OpDelete, Key: "k"})
		check(t, err)
	}
	if n := len(s.view.Load().graves); n > maxGraves {
		t.Errorf("%d deletions are remembered", n)
	}
	// Too old to know: it returns rather than to miss a deletion.
	if _, _, err := s.Watch(t.Context(), "p/", start); err != nil {
		t.Error(err)
	}
}

func TestTheErrorOfATransactionHoldsNoValue(t *testing.T) {
	s := OpenMemory(Options{})
	defer s.Close()
	_, err := s.Txn(t.Context(), setOp("k", "hunter2"))
	check(t, err)
	_, err = s.Txn(t.Context(), state.Op{Kind: state.OpCAS, Key: "k", Value: []byte("hunter2")})
	var txnErr *state.TxnError
	if !errors.As(err, &txnErr) || strings.Contains(fmt.Sprintf("%v %+v", err, txnErr.Failures), "hunter2") || txnErr.Failures[0].Op.Value != nil {
		t.Errorf("got %v", err)
	}
}
