package consul

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/synergymesh/meshrun/runtime/state"
)

// earlyPause is the wait after a query that ended early, lest a server that
// always does so be asked without end.
const earlyPause = 200 * time.Millisecond

// Watch blocks until something under the prefix changed after the index.
//
// A blocking query may return without that: when its time is over, when
// something beside an empty prefix changed, when Consul forgets a deletion
// (15 minutes later). So what is found is compared with what was returned at the
// index. It may also return with a lower index, and then goes on from that one,
// as Consul demands: after a deletion was forgotten, where nothing else is to be
// said; or after a restored backup, which the caller is told. A query that was
// under way when a backup was restored returns at once with what was there
// before, so one that returns early without progress is followed by a plain read.
// So is one that goes back: a leader that has just been started answers before it
// has caught up, unless it is asked to make sure.
func (s *Store) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	if err := state.CheckPrefix(prefix); err != nil {
		return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
	}
	known, remembered := s.recent.get(prefix, after)
	for index := after; ; {
		// Consul adds up to a sixteenth to the wait, lest all come back at once.
		limit := s.opts.Wait + s.opts.Wait/16 + s.opts.Timeout
		began := time.Now()
		q := &api.QueryOptions{WaitIndex: index, WaitTime: s.opts.Wait, RequireConsistent: index == 0}
		entries, next, err := s.list(ctx, prefix, limit, q)
		if err != nil {
			return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
		}
		if next < q.WaitIndex {
			index = 0
			continue
		}
		found := digest(entries)
		changed := next != after
		if remembered {
			changed = found != known
		}
		if after == 0 || changed {
			s.recent.put(prefix, next, found)
			return entries, next, nil
		}
		index = next
		if next == q.WaitIndex && time.Since(began) < s.opts.Wait {
			if err := s.pause(ctx, earlyPause); err != nil {
				return nil, 0, fmt.Errorf("watch %s: %w", prefix, err)
			}
			index = 0
		}
	}
}

// pause waits, unless the context or the store ends first.
func (s *Store) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return state.ErrClosed
	}
}

var seed = maphash.MakeSeed()

// digest stands for entries, to see whether they are still the same.
func digest(entries []state.Entry) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	var number [8]byte
	for _, e := range entries {
		for _, n := range []uint64{uint64(len(e.Key)), uint64(len(e.Value)), e.ModifyIndex} {
			binary.LittleEndian.PutUint64(number[:], n)
			h.Write(number[:])
		}
		h.WriteString(e.Key)
		h.Write(e.Value)
	}
	return h.Sum64()
}

// maxRecent is how many answers are remembered: many times the watches of one
// agent, each of which needs its last.
const maxRecent = 256

// point is when something was asked about.
type point struct {
	prefix string
	index  uint64
}

// recent remembers the digests of the last answers.
type recent struct {
	mu      sync.Mutex // guards all below
	digests map[point]uint64
	order   [maxRecent]point // a ring, the oldest at next
	next    int
}

func (r *recent) put(prefix string, index, digest uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := point{prefix, index}
	if r.digests == nil {
		r.digests = map[point]uint64{}
	}
	if _, ok := r.digests[p]; !ok {
		delete(r.digests, r.order[r.next])
		r.order[r.next] = p
		r.next = (r.next + 1) % maxRecent
	}
	r.digests[p] = digest
}

func (r *recent) get(prefix string, index uint64) (digest uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest, ok = r.digests[point{prefix, index}]
	return digest, ok
}
