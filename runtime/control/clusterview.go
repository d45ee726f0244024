package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/spec"
)

const (
	// viewLinger is how long the view is kept up to date after the last call.
	viewLinger = time.Minute
	// viewPatience is how long a call waits for a store that does not answer.
	viewPatience = 3 * time.Second
)

// clusterView is what runs on all nodes: this node as it is now, and the others
// as they report in observed/. It watches the store while there are calls, and
// costs nothing otherwise.
type clusterView struct {
	node  string
	store state.Store
	// own returns this node's instances, as the engine's WaitInstances does.
	own     func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error)
	problem func(text string)
	logger  hclog.Logger
	called  loop.Signal // there is a call

	mu      sync.Mutex // guards all below
	seen    viewState
	version uint64
	changed chan struct{} // closed and replaced with every version
	all     []spec.Instance
	calls   int       // under way
	last    time.Time // of the last call
}

// viewState is what the view has read.
type viewState struct {
	observed *follow.View[spec.Observed]
	nodes    *follow.View[spec.Node]
	own      []spec.Instance
	gone     map[string]time.Time // nodes that were seen to leave
	parts    map[string]bool      // what has been read since the view watches
}

// ownPart is the part of a viewState beside the two prefixes.
const ownPart = "own"

func newViewState() viewState {
	return viewState{
		observed: follow.NewView[spec.Observed](state.ObservedPrefix), nodes: follow.NewView[spec.Node](state.NodesPrefix),
		gone: map[string]time.Time{}, parts: map[string]bool{},
	}
}

func (s *viewState) whole() bool { return len(s.parts) == 3 }

// newClusterView returns a view; run must run. Its versions start at the time, so
// that the version of an earlier agent is none of its own.
func newClusterView(node string, store state.Store, own func(context.Context, uint64) ([]spec.Instance, uint64, error), problem func(string), logger hclog.Logger) *clusterView {
	return &clusterView{
		node: node, store: store, own: own, problem: problem, logger: logger.Named("instances"),
		called: loop.NewSignal(), changed: make(chan struct{}), seen: newViewState(), version: uint64(time.Now().UnixMicro()),
	}
}

// run watches whenever there are calls, until the context ends.
func (c *clusterView) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.called:
		}
		if err := c.watch(ctx); err != nil {
			return err
		}
	}
}

// watch watches until there was no call for a while.
func (c *clusterView) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	updates, instances, failed := make(chan follow.Update), make(chan []spec.Instance), make(chan error, 2)
	for _, prefix := range []string{state.ObservedPrefix, state.NodesPrefix} {
		sources.Go(func() {
			if err := follow.Watch(ctx, c.store, prefix, updates, c.logger); err != nil {
				failed <- err
			}
		})
	}
	sources.Go(func() { c.watchOwn(ctx, instances) })
	idle := time.NewTicker(viewLinger / 2)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u := <-updates:
			c.apply(u, time.Now())
		case list := <-instances:
			c.mu.Lock()
			c.seen.own, c.seen.parts[ownPart] = list, true
			c.bump()
			c.mu.Unlock()
		case now := <-idle.C:
			if c.release(now) {
				return nil
			}
		}
	}
}

// watchOwn sends this node's instances whenever they have changed.
func (c *clusterView) watchOwn(ctx context.Context, out chan<- []spec.Instance) {
	var index uint64
	for ctx.Err() == nil {
		list, next, err := c.own(ctx, index)
		if err != nil {
			_ = loop.Sleep(ctx, time.Second)
			continue
		}
		index = next
		select {
		case out <- list:
		case <-ctx.Done():
		}
	}
}

// apply applies an update. What this node itself reports makes no version.
func (c *clusterView) apply(u follow.Update, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := !c.seen.parts[u.Prefix]
	c.seen.parts[u.Prefix] = true
	if u.Prefix == state.ObservedPrefix {
		for _, name := range c.seen.observed.Apply(u) {
			changed = changed || !strings.HasPrefix(name, c.node+"/")
		}
	} else {
		for _, name := range c.seen.nodes.Apply(u) {
			changed = true
			if c.seen.nodes.Has(name) {
				delete(c.seen.gone, name)
			} else {
				c.seen.gone[name] = now
			}
		}
	}
	if changed {
		c.bump()
	}
}

// bump makes a new version, once everything has been read. mu is held.
func (c *clusterView) bump() {
	if !c.seen.whole() {
		return
	}
	c.problem("")
	c.version++
	c.all = nil
	close(c.changed)
	c.changed = make(chan struct{})
}

// release drops what was read, if there was no call for a while.
func (c *clusterView) release(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls > 0 || now.Sub(c.last) < viewLinger {
		return false
	}
	c.seen, c.all = newViewState(), nil
	c.problem("")
	return true
}

// call records that a call begins; the function that it returns ends it.
func (c *clusterView) call() (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.last = time.Now()
	c.called.Set()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls--
		c.last = time.Now()
	}
}

// wait returns the instances of all nodes and their version once that differs
// from after. If the store does not answer, it returns what runs here, with
// version 0.
func (c *clusterView) wait(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	defer c.call()()
	whole, err := c.await(ctx, func() bool { return c.version != after })
	if err != nil {
		return nil, 0, err
	}
	if !whole {
		own, _, err := c.own(ctx, 0)
		return own, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = c.seen.instances(c.node)
	}
	return slices.Clone(c.all), c.version, nil
}

// nodes returns the nodes that are present, and a channel that is closed when
// that may have changed; whole is false if the store does not answer.
func (c *clusterView) nodes(ctx context.Context) (nodes []spec.Node, changed <-chan struct{}, whole bool, err error) {
	defer c.call()()
	if whole, err = c.await(ctx, func() bool { return true }); err != nil || !whole {
		return nil, nil, whole, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.seen.nodes.Names() {
		if node, _, err := c.seen.nodes.Get(name); err == nil {
			nodes = append(nodes, *node)
		}
	}
	return nodes, c.changed, true, nil
}

// await waits until everything has been read and will returns true. It returns
// false if the store does not answer in time.
func (c *clusterView) await(ctx context.Context, will func() bool) (whole bool, err error) {
	var late <-chan time.Time
	for {
		c.mu.Lock()
		whole, changed := c.seen.whole(), c.changed
		done := whole && will()
		c.mu.Unlock()
		if done {
			return true, nil
		}
		if whole {
			late = nil
		} else if late == nil {
			timer := time.NewTimer(viewPatience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-changed:
		case <-late:
			c.problem("what runs on other nodes is not known now: the store does not answer")
			return false, nil
		}
	}
}

// instances merges what runs on all nodes, ordered by ID; of an instance that
// moves, the one that ends comes first. An instance of a node that is gone is
// pending, unless another node has it already.
func (s *viewState) instances(self string) []spec.Instance {
	all := slices.Clone(s.own)
	there := map[spec.InstanceID]bool{}
	for i := range all {
		there[all[i].ID] = true
	}
	var lost []spec.Instance
	for _, name := range s.observed.Names() {
		node, _, _ := strings.Cut(name, "/")
		seen, _, err := s.observed.Get(name)
		if node == self || err != nil {
			continue
		}
		for _, i := range seen.Instances {
			if i.Node = node; s.nodes.Has(node) {
				there[i.ID] = true
				all = append(all, i)
			} else {
				lost = append(lost, s.lost(i))
			}
		}
	}
	for _, i := range lost {
		if !there[i.ID] {
			all = append(all, i)
		}
	}
	slices.SortStableFunc(all, func(a, b spec.Instance) int {
		if c := a.ID.Compare(b.ID); c != 0 {
			return c
		}
		return rank(a) - rank(b)
	})
	return all
}

// rank orders the two instances of one that moves.
func rank(i spec.Instance) int {
	if i.Phase == spec.PhaseStopping {
		return 0
	}
	return 1
}

// lost returns an instance as it is shown once its node is gone.
func (s *viewState) lost(i spec.Instance) spec.Instance {
	reason := fmt.Sprintf("%s is gone", i.Node)
	if since, known := s.gone[i.Node]; known {
		reason += " since " + since.UTC().Format("15:04:05Z")
	}
	if i.Phase == spec.PhaseCompleted || i.Phase == spec.PhaseFailed {
		i.Reason = reason
		return i
	}
	return spec.Instance{
		ID: i.ID, Node: i.Node, Phase: spec.PhasePending, Version: i.Version, Epoch: i.Epoch, Critical: i.Critical,
		Reason: fmt.Sprintf("%s; it was %s there", reason, i.Phase),
	}
}
