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
	// feedLinger is how long the feed goes on after the last one who asked.
	feedLinger = time.Minute
	// feedPatience is how long who asks waits for a store that does not answer.
	feedPatience = 3 * time.Second
)

// feed is what runs on all nodes: this node as it is now, and the others as
// they report in observed/. It follows them while somebody asks, and costs
// nothing otherwise.
type feed struct {
	node  string
	store state.Store
	// own returns this node's instances, as the engine's WaitInstances does.
	own     func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error)
	problem func(text string)
	logger  hclog.Logger
	asked   chan struct{} // somebody asks while nothing is followed

	mu      sync.Mutex // guards all below
	seen    sight
	version uint64
	changed chan struct{} // closed and replaced with every version
	all     []spec.Instance
	asking  int
	last    time.Time // somebody asked
}

// sight is what the feed has before it.
type sight struct {
	observed *follow.View[spec.Observed]
	nodes    *follow.View[spec.Node]
	own      []spec.Instance
	gone     map[string]time.Time // nodes that were seen to leave
	parts    map[string]bool      // what has been read since the feed follows
}

// The parts of a sight, beside the two prefixes.
const ownPart = "own"

func newSight() sight {
	return sight{
		observed: follow.NewView[spec.Observed](state.ObservedPrefix), nodes: follow.NewView[spec.Node](state.NodesPrefix),
		gone: map[string]time.Time{}, parts: map[string]bool{},
	}
}

func (s *sight) whole() bool { return len(s.parts) == 3 }

// newFeed returns a feed; run must run it. Its versions begin with the time,
// so that one of an agent before this one is no version of its own.
func newFeed(node string, store state.Store, own func(context.Context, uint64) ([]spec.Instance, uint64, error), problem func(string), logger hclog.Logger) *feed {
	return &feed{
		node: node, store: store, own: own, problem: problem, logger: logger.Named("feed"),
		asked: make(chan struct{}, 1), changed: make(chan struct{}), seen: newSight(), version: uint64(time.Now().UnixMicro()),
	}
}

// run follows the nodes whenever somebody asks, until the context ends.
func (f *feed) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.asked:
		}
		if err := f.follow(ctx); err != nil {
			return err
		}
	}
}

// follow follows until nobody has asked for a while.
func (f *feed) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	updates, instances, failed := make(chan follow.Update), make(chan []spec.Instance), make(chan error, 2)
	for _, prefix := range []string{state.ObservedPrefix, state.NodesPrefix} {
		sources.Go(func() {
			if err := follow.Watch(ctx, f.store, prefix, updates, f.logger); err != nil {
				failed <- err
			}
		})
	}
	sources.Go(func() { f.followOwn(ctx, instances) })
	idle := time.NewTicker(feedLinger / 2)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u := <-updates:
			f.take(u, time.Now())
		case list := <-instances:
			f.mu.Lock()
			f.seen.own, f.seen.parts[ownPart] = list, true
			f.bump()
			f.mu.Unlock()
		case now := <-idle.C:
			if f.rest(now) {
				return nil
			}
		}
	}
}

// followOwn sends this node's instances whenever they have changed.
func (f *feed) followOwn(ctx context.Context, out chan<- []spec.Instance) {
	var index uint64
	for ctx.Err() == nil {
		list, next, err := f.own(ctx, index)
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

// take takes an update over. What this node itself reports is no news.
func (f *feed) take(u follow.Update, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news := !f.seen.parts[u.Prefix]
	f.seen.parts[u.Prefix] = true
	if u.Prefix == state.ObservedPrefix {
		for _, name := range f.seen.observed.Apply(u) {
			news = news || !strings.HasPrefix(name, f.node+"/")
		}
	} else {
		for _, name := range f.seen.nodes.Apply(u) {
			news = true
			if f.seen.nodes.Has(name) {
				delete(f.seen.gone, name)
			} else {
				f.seen.gone[name] = now
			}
		}
	}
	if news {
		f.bump()
	}
}

// bump makes a new version, if there is a whole sight. mu is held.
func (f *feed) bump() {
	if !f.seen.whole() {
		return
	}
	f.problem("")
	f.version++
	f.all = nil
	close(f.changed)
	f.changed = make(chan struct{})
}

// rest forgets what was seen, if nobody has asked for a while.
func (f *feed) rest(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking > 0 || now.Sub(f.last) < feedLinger {
		return false
	}
	f.seen, f.all = newSight(), nil
	f.problem("")
	return true
}

// ask begins to ask; the function that it returns ends it.
func (f *feed) ask() (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asking++
	f.last = time.Now()
	select {
	case f.asked <- struct{}{}:
	default:
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asking--
		f.last = time.Now()
	}
}

// wait returns the instances of all nodes and their version once there is
// another one than the given. Where the store does not tell of other nodes,
// it returns what runs here, with version 0.
func (f *feed) wait(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	defer f.ask()()
	whole, err := f.await(ctx, func() bool { return f.version != after })
	if err != nil {
		return nil, 0, err
	}
	if !whole {
		own, _, err := f.own(ctx, 0)
		return own, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = f.seen.instances(f.node)
	}
	return slices.Clone(f.all), f.version, nil
}

// nodes returns the nodes that are there, and what is closed when that may
// have changed; whole is false if the store does not tell.
func (f *feed) nodes(ctx context.Context) (nodes []spec.Node, changed <-chan struct{}, whole bool, err error) {
	defer f.ask()()
	if whole, err = f.await(ctx, func() bool { return true }); err != nil || !whole {
		return nil, nil, whole, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range f.seen.nodes.Names() {
		if node, _, err := f.seen.nodes.Get(name); err == nil {
			nodes = append(nodes, *node)
		}
	}
	return nodes, f.changed, true, nil
}

// await waits until there is a whole sight that will do. It returns false if
// the store does not give one in time.
func (f *feed) await(ctx context.Context, will func() bool) (whole bool, err error) {
	var late <-chan time.Time
	for {
		f.mu.Lock()
		whole, changed := f.seen.whole(), f.changed
		done := whole && will()
		f.mu.Unlock()
		if done {
			return true, nil
		}
		if whole {
			late = nil
		} else if late == nil {
			timer := time.NewTimer(feedPatience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-changed:
		case <-late:
			f.problem("what runs on other nodes is not known now: the store does not answer")
			return false, nil
		}
	}
}

// instances puts together what runs everywhere, ordered by ID; of one that
// moves, what ends comes first. What was seen on a node that is gone is told
// as waiting for another one, unless it is there already.
func (s *sight) instances(self string) []spec.Instance {
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

// lost is an instance as it is told once its node is gone.
func (s *sight) lost(i spec.Instance) spec.Instance {
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
