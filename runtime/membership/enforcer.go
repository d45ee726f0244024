package membership

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// enforceAfter is how long after the end of a lease the watchdog has to have
	// ended what lived under it. It lies well within FenceSlack.
	enforceAfter = 250 * time.Millisecond
	// enforceTries is how often the agent tries to end what is left, every
	// enforceAfter.
	enforceTries = 20
)

// EnforcerConfig is what an Enforcer is made of.
type EnforcerConfig struct {
	// Renew tells the watchdog of a lease.
	Renew func(ctx context.Context, l spec.Lease) error
	// Instances returns what runs on this node, as it was told last.
	Instances func() []spec.Instance
	// Kill kills an instance's processes and reports whether there were any.
	Kill func(in *spec.Instance) (bool, error)
	// Clock reads CLOCK_BOOTTIME in nanoseconds.
	Clock  func() int64
	Emit   func(spec.Event)
	Logger hclog.Logger
}

// Enforcer is the second who holds the deadline of the exclusive shards. The
// watchdog ends them at it; one that is stopped or hangs does not, and takes
// longer to be replaced than others may wait for the shards. What has outlived
// its lease the agent kills by itself, as far as it was told of it.
type Enforcer struct {
	cfg  EnforcerConfig
	wake loop.Signal

	mu     sync.Mutex // guards leases
	leases map[string]*deadline
}

// deadline is when a lease is over, in boot time, and how often what lived
// under it was looked for since.
type deadline struct {
	until int64
	tries int
}

// NewEnforcer returns an enforcer that knows of no lease.
func NewEnforcer(cfg EnforcerConfig) *Enforcer {
	return &Enforcer{cfg: cfg, wake: loop.NewSignal(), leases: map[string]*deadline{}}
}

// Grant tells the watchdog of a lease, and remembers it. It is the Lease of a
// Member.
func (e *Enforcer) Grant(ctx context.Context, l spec.Lease) error {
	until := l.Until
	if until == 0 { // it is revoked
		until = e.cfg.Clock()
	}
	e.mu.Lock()
	was := e.leases[l.Session]
	e.leases[l.Session] = &deadline{until: until}
	e.mu.Unlock()
	if was == nil || until < was.until { // else run looks in time
		e.wake.Set()
	}
	return e.cfg.Renew(ctx, l)
}

// Run enforces until the context ends.
func (e *Enforcer) Run(ctx context.Context) error {
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
func (e *Enforcer) due() (over []string, next time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.cfg.Clock()
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
func (e *Enforcer) enforce(session string) {
	left := 0
	for _, in := range e.cfg.Instances() {
		if in.Lease != session || in.PID == 0 {
			continue
		}
		killed, err := e.cfg.Kill(&in)
		if err != nil {
			e.cfg.Logger.Error("cannot kill an instance whose lease is over", "instance", in.ID.String(), "pid", in.PID, "error", err)
		}
		if !killed {
			continue
		}
		left++
		e.cfg.Logger.Error("the watchdog has not ended an instance whose lease is over: killed it", "instance", in.ID.String(), "pid", in.PID)
		e.cfg.Emit(spec.Event{
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
