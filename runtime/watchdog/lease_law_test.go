package watchdog

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// leaseStep is one thing that happens in TestNothingOutlivesItsLease.
type leaseStep struct {
	what    int
	process string
	lease   string
	wait    time.Duration
}

// TestNothingOutlivesItsLease lets anything happen to a few instances under two
// leases, and then looks at when each process lived.
func TestNothingOutlivesItsLease(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) leaseStep {
			return leaseStep{
				what:    rapid.IntRange(0, 7).Draw(t, "what"),
				process: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "process"),
				lease:   rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "lease"),
				wait:    time.Duration(rapid.Int64Range(0, 6000).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, 30).Draw(rt, "steps")
		stubborn := rapid.Bool().Draw(rt, "stubborn")
		var wrong []string
		inWorld(t, func(w *world) { wrong = playLeases(w, steps, stubborn) })
		if len(wrong) > 0 {
			rt.Fatalf("%s", strings.Join(wrong, "\n"))
		}
	})
}

// playLeases does the steps and returns what should not have been.
func playLeases(w *world, steps []leaseStep, stubborn bool) (wrong []string) {
	until := map[string]time.Duration{}
	epoch := uint64(0)
	w.fake.onSignal = func(*fakeProcess, syscall.Signal) bool { return !stubborn }
	owner := map[uint64]string{} // which lease each process was started under
	w.fake.onStart = func(l *spec.Launch) {
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		if until[l.Lease]-w.fake.clock.Now() > startMargin {
			owner[w.fake.next+1] = l.Lease
		}
	}
	check := func(when string) {
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		now := w.fake.clock.Now()
		for token, p := range w.fake.live {
			lease, ok := owner[token]
			if !ok {
				wrong = append(wrong, fmt.Sprintf("%s: %s was started without a lease", when, p.id))
			} else if now >= until[lease] && p.over.IsZero() {
				wrong = append(wrong, fmt.Sprintf("%s: %s lives %s after its lease %s", when, p.id, now-until[lease], lease))
			}
		}
	}
	for i, st := range steps {
		l := leasedJob(st.process, st.lease)
		switch st.what {
		case 0, 1:
			until[st.lease] = w.fake.clock.Now() + st.wait
			w.renew(st.lease, st.wait)
		case 2:
			l.Epoch = epoch
			w.set(l)
		case 3:
			epoch++
			l.Epoch = epoch
			w.set(l)
		case 4:
			w.drop(l.ID)
		case 5:
			w.fake.mu.Lock()
			p := w.fake.byID[l.ID]
			lives := p != nil && w.fake.live[p.token] != nil
			w.fake.mu.Unlock()
			if lives {
				w.exits(l.ID, 1)
			}
		case 6:
			w.fake.clock.sleep(st.wait)
			w.pass(1)
		default:
			w.pass(st.wait)
		}
		check(fmt.Sprintf("step %d (%d)", i, st.what))
	}
	w.pass(time.Minute)
	check("at the end")
	return wrong
}
