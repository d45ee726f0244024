package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Signal sends a signal to the live instances of a target, and records it.
func (b *Node) Signal(ctx context.Context, target string, signal spec.Signal) (int, error) {
	t, err := api.ParseTarget(target)
	if err != nil {
		return 0, err
	}
	instances, _, err := b.cfg.Engine.WaitInstances(ctx, 0)
	if err != nil {
		return 0, err
	}
	var ids []spec.InstanceID
	known := false
	for _, i := range instances {
		known = known || t.Matches(i.ID)
		if t.Matches(i.ID) && i.Phase.Alive() {
			ids = append(ids, i.ID)
		}
	}
	if !known {
		return 0, api.Errorf(api.ErrNotFound, "no instance named %q: `meshrun status` lists the instances", target)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	op, err := state.EventOp(spec.Event{
		Time: time.Now().UTC(), Type: spec.EventSignalled, Severity: spec.Info, Node: b.cfg.Node, Job: t.Job, Who: api.Who(ctx),
		Message: fmt.Sprintf("%s sent to %s (%d instances)", signal, target, len(ids)),
	})
	if err != nil {
		return 0, err
	}
	if _, err := b.storeFor(ctx).Txn(ctx, op); err != nil {
		return 0, fmt.Errorf("record signal: %w", err)
	}
	if err := b.cfg.Watchdog.Signal(ctx, ids, signal); err != nil {
		return 0, fmt.Errorf("signal %s: %w", target, err)
	}
	return len(ids), nil
}

// Shutdown begins to end the agent and its watchdog.
//
// Without a watchdog nothing fences what lives under a lease, so in a cluster
// exclusive shards must have left before.
func (b *Node) Shutdown(ctx context.Context, stopInstances bool) error {
	if !stopInstances && b.cfg.Grace > 0 {
		instances, _, err := b.cfg.Engine.WaitInstances(ctx, 0)
		if err != nil {
			return err
		}
		for _, i := range instances {
			if b.cfg.Engine.HoldsLock(i.ID) {
				return api.Errorf(api.ErrInvalid, "%s is exclusive, and with nobody to fence it a second one could be started elsewhere: `meshrun drain %s` first", i.ID, b.cfg.Node)
			}
		}
	}
	b.cfg.Shutdown(stopInstances)
	return nil
}

// An upgrade waits upgradePatience for the new watchdog, which has to adopt
// everything first, and asks for it every upgradeAsk.
const (
	upgradePatience = 30 * time.Second
	upgradeAsk      = 25 * time.Millisecond
)

// Upgrade lets the watchdog take over the binary that is installed now, and
// then ends this agent, so that the watchdog starts the new one. The agent ends
// only when a new watchdog answers: until then it alone can replace one that
// died of the upgrade.
func (b *Node) Upgrade(ctx context.Context) error {
	// Who asked may go: half an upgrade helps nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upgradePatience)
	defer cancel()
	before, err := b.cfg.Watchdog.Health(ctx)
	if err == nil {
		err = b.cfg.Watchdog.Upgrade(ctx)
	}
	if err != nil {
		return fmt.Errorf("upgrade the watchdog: %w", err)
	}
	for {
		now, err := b.cfg.Watchdog.Health(ctx)
		if err == nil && !now.Started.Equal(before.Started) {
			b.cfg.Restart()
			return nil
		}
		_ = loop.Sleep(ctx, upgradeAsk)
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("upgrade the watchdog: no new one answers after %s, so the agent goes on as it is: the watchdog's log says why; then `meshrun upgrade` again", upgradePatience), err)
		}
	}
}
