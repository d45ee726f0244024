package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

func benchOpen(b *testing.B) *Store {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "state.log"), Options{})
	check(b, err)
	b.Cleanup(func() { check(b, s.Close()) })
	return s
}

// BenchmarkTxn writes values of 1 KiB, with fsync.
func BenchmarkTxn(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("ops=%d", n), func(b *testing.B) {
			s := benchOpen(b)
			ops := make([]state.Op, n)
			for i := 0; b.Loop(); i++ {
				for j := range ops {
					ops[j] = setOp(fmt.Sprintf("k/%d", j), fmt.Sprintf("%d%1024s", i, ""))
				}
				_, err := s.Txn(b.Context(), ops...)
				check(b, err)
			}
		})
	}
}

// BenchmarkTxnParallel writes from many goroutines, which share commits.
func BenchmarkTxnParallel(b *testing.B) {
	s := benchOpen(b)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, err := s.Txn(b.Context(), setOp(fmt.Sprintf("k/%p", pb), fmt.Sprint(i)))
			check(b, err)
		}
	})
}

// BenchmarkTxnMemory shows what a transaction costs without a disk.
func BenchmarkTxnMemory(b *testing.B) {
	s := OpenMemory(Options{})
	defer s.Close()
	for i := 0; b.Loop(); i++ {
		_, err := s.Txn(b.Context(), setOp("k", fmt.Sprint(i)))
		check(b, err)
	}
}

func BenchmarkList1000(b *testing.B) {
	s := fill(b, 1000)
	for b.Loop() {
		entries, _, err := s.List(b.Context(), "k/")
		if err != nil || len(entries) != 1000 {
			b.Fatal(len(entries), err)
		}
	}
}

func fill(b *testing.B, n int) *Store {
	s := OpenMemory(Options{})
	b.Cleanup(func() { check(b, s.Close()) })
	for i := range n {
		_, err := s.Txn(b.Context(), setOp(fmt.Sprintf("k/%04d", i), strings.Repeat("v", 500)))
		check(b, err)
	}
	return s
}

// BenchmarkWatch is from the return of a transaction to that of a watch beside
// 1,000 other keys.
func BenchmarkWatch(b *testing.B) {
	s := fill(b, 1000)
	_, index, err := s.List(b.Context(), "w/")
	check(b, err)
	woken := make(chan time.Time)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			_, next, err := s.Watch(ctx, "w/", index)
			if err != nil {
				close(woken)
				return
			}
			index = next
			woken <- time.Now()
		}
	}()
	var total time.Duration
	for i := 0; b.Loop(); i++ {
		before := time.Now()
		_, err := s.Txn(b.Context(), setOp("w/a", fmt.Sprint(i)))
		check(b, err)
		at := <-woken
		total += at.Sub(before)
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/wakeup")
}

// BenchmarkOpen reads and inspects a file of 1,000 keys.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.log")
	s, err := Open(b.Context(), path, Options{})
	check(b, err)
	for i := range 10 {
		var ops []state.Op
		for j := range 100 {
			ops = append(ops, setOp(fmt.Sprintf("k/%d/%d", i, j), strings.Repeat("v", 1000)))
		}
		_, err := s.Txn(b.Context(), ops...)
		check(b, err)
	}
	check(b, s.Close())
	for b.Loop() {
		s, err := Open(b.Context(), path, Options{})
		check(b, err)
		check(b, s.Close())
	}
}

// BenchmarkOpen10000 opens a store of 10,000 keys that was written 20,000 times.
func BenchmarkOpen10000(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.log")
	s, err := Open(b.Context(), path, Options{NoSync: true})
	check(b, err)
	value := fmt.Sprintf("%0500d", 0)
	for i := range 200 {
		var ops []state.Op
		for j := range 100 {
			ops = append(ops, setOp(fmt.Sprintf("k/%05d", (i*100+j)%10000), fmt.Sprint(i, value)))
		}
		_, err := s.Txn(b.Context(), ops...)
		check(b, err)
	}
	check(b, s.Close())
	info, err := os.Stat(path)
	check(b, err)
	for b.Loop() {
		s, err = Open(b.Context(), path, Options{NoSync: true})
		check(b, err)
		check(b, s.Close())
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB-on-disk")
}
