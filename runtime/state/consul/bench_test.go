package consul_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
)

// BenchmarkTxn writes values of 1 KiB to one server that keeps all in memory.
func BenchmarkTxn(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("ops=%d", n), func(b *testing.B) {
			s := open(b, server, consul.Options{})
			root := rand.Text()
			ops := make([]state.Op, n)
			for i := 0; b.Loop(); i++ {
				for j := range ops {
					ops[j] = set(fmt.Sprintf("%s/%d", root, j), fmt.Sprintf("%d%1024s", i, ""))
				}
				put(b, s, ops...)
			}
		})
	}
}

// BenchmarkRenew is what a session costs while nothing happens.
func BenchmarkRenew(b *testing.B) {
	s := open(b, server, consul.Options{})
	id, err := s.CreateSession(b.Context(), state.SessionConfig{TTL: state.MinSessionTTL})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.RenewSession(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	s := open(b, server, consul.Options{})
	root := fill(b, s, 1000)
	for b.Loop() {
		if got, _ := values(b, s, root+"k/"); len(got) != 1000 {
			b.Fatal(len(got))
		}
	}
}

func fill(b *testing.B, s state.Store, n int) (root string) {
	root = rand.Text() + "/"
	var ops []state.Op
	for i := range n {
		ops = append(ops, set(fmt.Sprintf("%sk/%04d", root, i), strings.Repeat("v", 500)))
	}
	for _, batch := range state.Batches(ops) {
		put(b, s, batch...)
	}
	return root
}

// BenchmarkWatch is from the sending of a transaction to the return of a watch
// beside 1,000 other keys.
func BenchmarkWatch(b *testing.B) {
	s := open(b, server, consul.Options{})
	root := fill(b, s, 1000)
	put(b, s, set(root+"w/a", ""))
	_, index := values(b, s, root+"w/")
	woken := make(chan time.Time)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		defer close(woken)
		for {
			_, next, err := s.Watch(ctx, root+"w/", index)
			if err != nil {
				return
			}
			index = next
			woken <- time.Now()
		}
	}()
	var total time.Duration
	for i := 0; b.Loop(); i++ {
		before := time.Now()
		put(b, s, set(root+"w/a", fmt.Sprint(i)))
		total += (<-woken).Sub(before)
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/wakeup")
}
