package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

const (
	// settle is how long a change waits for more: what starts is ready a moment
	// later, and a burst of changes is one.
	settle = 200 * time.Millisecond
	// firstRetry doubles up to lastRetry: nothing tells when a token gets a
	// right, or when Consul is back.
	firstRetry = time.Second
	lastRetry  = 5 * time.Second
)

// Config is what a keeper is made of.
type Config struct {
	Local Local
	// Mine tells which IDs are this node's.
	Mine func(id string) bool
	// Wanted returns what shall be listed now, and whether that is all: while
	// it is not, nothing is taken off the list. It must not block.
	Wanted func() (services []Service, all bool)
	// Problem is told what is wrong, or with an empty text that nothing is.
	Problem func(text string)
	Logger  hclog.Logger
}

// Keeper keeps a node's services listed. Make it with NewKeeper; Run does the
// work.
type Keeper struct {
	cfg  Config
	wake chan struct{}

	// What follows belongs to Run's goroutine.
	listed    map[string]Service // as far as it is known; nil if it must be read
	refreshed time.Time          // when every check was last reported
	retry     time.Duration
	notBefore time.Time // of the next try after a failure
	trouble   string    // what failed last
}

// NewKeeper returns a keeper. It does no I/O.
func NewKeeper(cfg Config) *Keeper {
	cfg.Logger = cfg.Logger.Named("catalog")
	return &Keeper{cfg: cfg, wake: make(chan struct{}, 1), retry: firstRetry}
}

// Wake makes the keeper ask for what is wanted: call it when that has changed.
// It does not block.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run keeps the list until ctx is done, and returns nil then. It leaves what is
// listed: an agent that is back within TTL finds it so.
func (k *Keeper) Run(ctx context.Context) error {
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			soon := time.Now().Add(settle)
			if soon.Before(k.notBefore) {
				soon = k.notBefore
			}
			if soon.Before(due) {
				due = soon
			}
			continue
		case <-timer.C:
		}
		due = k.turn(ctx, time.Now())
	}
}

// turn does what is to be done now and returns when it must be called again.
func (k *Keeper) turn(ctx context.Context, now time.Time) time.Time {
	err := k.sync(ctx, now)
	if errors.Is(err, ErrUnknown) {
		err = k.sync(ctx, now) // Consul has lost it: all is read anew
	}
	if ctx.Err() != nil {
		return now
	}
	if err == nil {
		if k.trouble != "" {
			k.cfg.Logger.Info("the services are listed again")
			k.cfg.Problem("")
		}
		k.trouble, k.retry, k.notBefore = "", firstRetry, time.Time{}
		return k.refreshed.Add(RefreshEvery)
	}
	text := err.Error()
	if errors.Is(err, state.ErrUnavailable) {
		text = "Consul is away" // why in detail differs from try to try
	}
	if text != k.trouble {
		k.trouble = text
		k.cfg.Logger.Warn("the services are not listed as they are; trying again", "error", err)
		k.cfg.Problem("Consul's catalog does not show this node's services as they are: " + text)
	}
	k.notBefore = now.Add(k.retry)
	k.retry = min(2*k.retry, lastRetry)
	return k.notBefore
}

// sync makes the list what is wanted. After an error, it is read anew.
func (k *Keeper) sync(ctx context.Context, now time.Time) (err error) {
	defer func() {
		if err != nil {
			k.listed = nil
		}
	}()
	if k.listed == nil {
		if err := k.read(ctx); err != nil {
			return err
		}
	}
	wanted, all := k.cfg.Wanted()
	actions := Diff(wanted, k.listed, k.cfg.Mine)
	if !all {
		actions.Deregister = nil
	}
	if now.Sub(k.refreshed) >= RefreshEvery {
		actions.Report = refresh(wanted, k.listed, actions.Register)
		if err = k.apply(ctx, actions); !errors.Is(err, state.ErrUnavailable) {
			k.refreshed = now
		}
		return err
	}
	return k.apply(ctx, actions)
}

// refresh returns the listed services that are wanted, but for those that are
// registered anyway.
func refresh(wanted []Service, listed map[string]Service, register []Service) (out []Service) {
	skip := make(map[string]bool, len(register))
	for _, s := range register {
		skip[s.ID] = true
	}
	for _, w := range wanted {
		if _, ok := listed[w.ID]; ok && !skip[w.ID] {
			out = append(out, w)
		}
	}
	return out
}

// read reads what is listed of this node.
func (k *Keeper) read(ctx context.Context) error {
	services, err := k.cfg.Local.Services(ctx)
	if err != nil {
		return fmt.Errorf("read the list of services: %w", err)
	}
	k.listed = map[string]Service{}
	for _, s := range services {
		if k.cfg.Mine(s.ID) {
			k.listed[s.ID] = s
		}
	}
	return nil
}

// apply does the actions and notes what is listed then. One that fails keeps no
// other from being done, unless Consul is away.
func (k *Keeper) apply(ctx context.Context, a Actions) error {
	var failed failures
	for _, id := range a.Deregister {
		if failed.add(k.cfg.Local.Deregister(ctx, id)) {
			delete(k.listed, id)
		}
		if failed.stop {
			return failed.err()
		}
	}
	for _, s := range a.Register {
		// A registration says nothing of why its check is as it is.
		if failed.add(k.cfg.Local.Register(ctx, s)) && failed.add(k.cfg.Local.Report(ctx, s.ID, s.Check)) {
			k.listed[s.ID] = s
		}
		if failed.stop {
			return failed.err()
		}
	}
	for _, s := range a.Report {
		if failed.add(k.cfg.Local.Report(ctx, s.ID, s.Check)) {
			k.listed[s.ID] = s
		}
		if failed.stop {
			return failed.err()
		}
	}
	return failed.err()
}

// failures keeps the first failure and counts the others.
type failures struct {
	first   error
	more    int
	unknown bool
	stop    bool // the rest would fail, too
}

// add notes a failure and reports whether there is none.
func (f *failures) add(err error) (ok bool) {
	switch {
	case err == nil:
		return true
	case f.first == nil:
		f.first = err
	default:
		f.more++
	}
	f.unknown = f.unknown || errors.Is(err, ErrUnknown)
	for _, end := range []error{state.ErrUnavailable, state.ErrClosed, context.Canceled, context.DeadlineExceeded} {
		f.stop = f.stop || errors.Is(err, end)
	}
	return false
}

func (f *failures) err() error {
	err := f.first
	if f.more > 0 {
		err = fmt.Errorf("%w (and %d more)", err, f.more)
	}
	if f.unknown && !errors.Is(err, ErrUnknown) {
		err = errors.Join(err, ErrUnknown)
	}
	return err
}

// Withdraw takes everything of this node off the list, as a node does that
// leaves. Run must have returned.
func (k *Keeper) Withdraw(ctx context.Context) error {
	if err := k.read(ctx); err != nil {
		return err
	}
	return k.apply(ctx, Diff(nil, k.listed, k.cfg.Mine))
}
