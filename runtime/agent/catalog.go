package agent

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/synergymesh/meshrun/runtime/engine"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state/catalog"
	"github.com/synergymesh/meshrun/spec"
)

// catalogEvery is how often the engine's changes are looked at: the keeper
// waits as long for more of them.
const catalogEvery = 200 * time.Millisecond

// lastsAfter is how long there must have been problems for the catalog to show
// them.
const lastsAfter = 10 * time.Second

// listing is what this node wants to be seen of it in Consul's catalog.
type listing struct {
	node     spec.Node
	session  func() string
	problems func() []string
	engine   *engine.Engine
	keeper   *catalog.Keeper
	// settled is set once the services of all instances are known.
	settled atomic.Bool
	// ill is since when there are problems; of the keeper's goroutine.
	ill time.Time
}

// startCatalog keeps this agent, and the services of what runs here, listed in
// Consul's catalog. On one machine there is none. A node that leaves takes all
// off the list; an agent that only ends leaves it, for the next one.
func (a *agent) startCatalog() {
	if a.consul == nil {
		return
	}
	l := &listing{
		node: a.member.Record(), session: a.sessionNow, engine: a.engine,
		// Whether it is a member the session tells better, in the same words
		// again and again.
		problems: func() []string { return a.backend.ProblemsBut("catalog", "membership") },
	}
	l.keeper = catalog.NewKeeper(catalog.Config{
		Local: a.consul.Catalog(), Mine: catalog.Mine(a.cfg.Node), Wanted: l.wanted, Logger: a.logger,
		Problem: func(text string) { a.backend.Problem("catalog", text) },
	})
	a.listed = l.keeper
	a.life.onStop("catalog", func(ctx context.Context) error {
		if !a.leaving {
			return nil
		}
		// That it is not done keeps nobody from leaving: what is listed turns
		// critical by itself.
		if err := l.keeper.Withdraw(ctx); err != nil {
			a.logger.Warn("this node stays in Consul's catalog until it is forgotten there", "after", catalog.Forget, "error", err)
		}
		return nil
	})
	a.life.start(context.Background(), "catalog keeper", l.keeper.Run, a.failed)
	a.life.start(context.Background(), "catalog feed", l.feed, a.failed)
}

// feed wakes the keeper when what runs here has changed.
func (l *listing) feed(ctx context.Context) error {
	err := l.engine.WaitSettled(ctx)
	l.settled.Store(err == nil)
	for version := uint64(0); ctx.Err() == nil; _ = loop.Sleep(ctx, catalogEvery) {
		if _, version, err = l.engine.WaitInstances(ctx, version); err == nil {
			l.keeper.Wake()
		}
	}
	return nil
}

// wanted returns what shall be listed now, and whether that is all.
func (l *listing) wanted() ([]catalog.Service, bool) {
	all := l.settled.Load()
	agent := catalog.OfAgent(&l.node, agentCheck(l.session() != "", l.lasting(l.problems(), time.Now())))
	return append([]catalog.Service{agent}, catalog.OfInstances(l.node.Name, l.engine.Instances())...), all
}

// lasting returns the problems once there have been some for a while: what
// passes, such as a restart of Consul, is no news for the whole cluster.
func (l *listing) lasting(problems []string, now time.Time) []string {
	if len(problems) == 0 {
		l.ill = time.Time{}
		return nil
	}
	if l.ill.IsZero() {
		l.ill = now
	}
	if now.Sub(l.ill) < lastsAfter {
		return nil
	}
	return problems
}

// agentCheck is how an agent is listed.
func agentCheck(member bool, problems []string) catalog.Check {
	switch {
	case !member:
		return catalog.Check{State: spec.ServiceCritical, Output: "this node is not a member of the cluster now"}
	case len(problems) > 0:
		return catalog.Check{State: spec.ServiceWarning, Output: strings.Join(problems, "\n")}
	}
	return catalog.Check{State: spec.ServicePassing}
}
