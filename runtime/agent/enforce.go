package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// enforceAfter is how long after the end of a lease the watchdog has to have
	// ended what lived under it. It lies well within fenceSlack.
	enforceAfter = 250 * time.Millisecond
	// enforceTries is how often the agent tries to end what is left, every
	// enforceAfter.
	enforceTries = 20
)

// enforcer is the second who holds the deadline of the exclusive shards. The
// watchdog ends them at it; one that is stopped or hangs does not, and takes
// longer to be replaced than others may wait for the shards. What has outlived
// its lease the agent kills by itself, as far as it was told of it.
type enforcer struct {
	// renew tells the watchdog of a lease.
	renew func(ctx context.Context, l spec.Lease) error
	// instances returns what runs on this node, as it was told last.
	instances func() []spec.Instance
	// kill kills an instance's processes and reports whether there were any.
	kill func(in *spec.Instance) (bool, error)
	// clock reads CLOCK_BOOTTIME in nanoseconds.
	clock  func() int64
	emit   func(spec.Event)
	logger hclog.Logger
	wake   chan struct{}

	mu     sync.Mutex // guards leases
	leases map[string]*deadline
}

// deadline is when a lease is over, in boot time, and how often what lived
// under it was looked for since.
type deadline struct {
	until int64
	tries int
}

// newEnforcer completes an enforcer.
func newEnforcer(e *enforcer) *enforcer {
	e.wake, e.leases = make(chan struct{}, 1), map[string]*deadline{}
	return e
}

// grant tells the watchdog of a lease, and remembers it.
func (e *enforcer) grant(ctx context.Context, l spec.Lease) error {
	until := l.Until
	if until == 0 { // it is revoked
		until = e.clock()
	}
	e.mu.Lock()
	was := e.leases[l.Session]
	e.leases[l.Session] = &deadline{until: until}
	e.mu.Unlock()
	if was == nil || until < was.until { // else run looks in time
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
	return e.renew(ctx, l)
}

// run enforces until the context ends.
func (e *enforcer) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		over, next := e.due()
		for _, session := range over {
			e.enforce(session)
		}
		if next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-timer.C:
		}
	}
}

// due returns the leases whose end is to be enforced now, and how long it is
// to the next; 0 if there is none.
func (e *enforcer) due() (over []string, next time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock()
	for session, d := range e.leases {
		left := time.Duration(d.until-now) + time.Duration(d.tries+1)*enforceAfter
		if left <= 0 {
			over = append(over, session)
			d.tries++
			left = enforceAfter
		}
		if next == 0 || left < next {
			next = left
		}
	}
	slices.Sort(over)
	return over, next
}

// enforce ends what has outlived a lease. Once nothing is left, or cannot be
// ended, the lease is forgotten.
func (e *enforcer) enforce(session string) {
	left := 0
	for _, in := range e.instances() {
		if in.Lease != session || in.PID == 0 {
			continue
		}
		killed, err := e.kill(&in)
		if err != nil {
			e.logger.Error("cannot kill an instance whose lease is over", "instance", in.ID.String(), "pid", in.PID, "error", err)
		}
		if !killed {
			continue
		}
		left++
		e.logger.Error("the watchdog has not ended an instance whose lease is over: killed it", "instance", in.ID.String(), "pid", in.PID)
		e.emit(spec.Event{
			Type: spec.EventFenced, Severity: spec.Critical, Job: in.ID.Job, Who: "agent",
			Message: fmt.Sprintf("the lease of %s was over, and the watchdog did not end it: the agent killed it", in.ID), Instance: &in,
		})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.leases[session]; d != nil && d.tries > 0 && (left == 0 || d.tries >= enforceTries) {
		delete(e.leases, session)
	}
}
