package orchestrator_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed of the simulation only")
	simSeeds = flag.Uint64("sim.seeds", 4, "how many seeds to run")
)

// simSteps is how many things happen in a simulation.
const simSteps = 40

// sim is a cluster on one store, in virtual time: real schedulers and
// orchestrators, engines that take their time, and faults.
type sim struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	store state.Store
	nodes map[string]*simNode
	away  map[string]bool // partitioned: they come back
	jobs  []string
	last  map[string]uint64 // each job's version; 0: there is none
	log   []string
}

// What must hold whatever nodes, sessions and the primary do: no shard is
// assigned to two nodes that are there, every lock of a role is held by one of
// them, and, left alone, the cluster comes to run all that is wanted, each
// shard once.
func TestAClusterKeepsItsLawsWhateverFails(t *testing.T) {
	first, last := uint64(1), *simSeeds
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	s := &sim{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), store: local.OpenMemory(local.Options{}),
		nodes: map[string]*simNode{}, away: map[string]bool{}, jobs: []string{"a", "b", "c", "d", "e", "f"}, last: map[string]uint64{},
	}
	defer func() {
		for _, n := range s.nodes {
			n.stop()
		}
		s.store.Close()
		if t.Failed() {
			t.Logf("again with: go test ./runtime/orchestrator -run AClusterKeeps -sim.seed %d\n%s", seed, strings.Join(s.log, "\n"))
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx)
	}()
	defer func() {
		cancel()
		<-watched
	}()
	for _, name := range []string{"x1", "x2", "y1", "y2", "z1"} {
		s.join(name)
	}
	for range simSteps {
		s.step()
		time.Sleep(time.Duration(s.rng.Int64N(int64(8 * time.Second))))
		synctest.Wait()
		if s.rng.IntN(8) == 0 {
			s.rest()
		}
		if t.Failed() {
			return
		}
	}
	s.rest()
}

// step lets one thing happen.
func (s *sim) step() {
	there := slices.Sorted(maps.Keys(s.nodes))
	there = slices.DeleteFunc(there, func(n string) bool { return s.away[n] || s.nodes[n].Session() == "" })
	name := ""
	if len(there) > 0 {
		name = there[s.rng.IntN(len(there))]
	}
	few := len(there) < 3
	switch what := s.rng.IntN(14); {
	case what == 0 && len(s.nodes) < 7:
		name = fmt.Sprintf("%c%d", 'x'+rune(s.rng.IntN(3)), 3+s.rng.IntN(6))
		if s.nodes[name] == nil {
			s.note("%s joins", name)
			s.join(name)
		}
	case what == 1 && !few:
		s.note("%s leaves", name)
		s.remove(name)
	case what == 2 && !few:
		s.note("%s crashes with all that runs on it", name)
		s.crash(name)
	case what == 3 && !few:
		if primary := s.holder(state.SchedulerLock); primary != "" && !s.away[primary] {
			s.note("the primary %s crashes", primary)
			s.crash(primary)
		}
	case what <= 5 && !few:
		s.cutOff(name)
	case what <= 7 && name != "":
		s.drain(name)
	case what <= 9 && name != "":
		if id, ok := s.nodes[name].fail(); ok {
			s.note("%s ends by itself on %s", id, name)
		}
	default:
		s.apply()
	}
}

func (s *sim) note(format string, args ...any) {
	s.log = append(s.log, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// remove ends a node as an agent that is told to stop: it stops what runs,
// gives its locks back, then ends its session.
func (s *sim) remove(name string) {
	n := s.nodes[name]
	delete(s.nodes, name)
	n.stop()
	if err := n.store.DestroySession(context.Background(), n.Session()); err != nil {
		s.t.Error(err)
	}
}

// crash ends a node without a word: its session ends later.
func (s *sim) crash(name string) {
	n := s.nodes[name]
	session := n.Session()
	delete(s.nodes, name)
	n.setSession("") // its loops write nothing any more, nor give anything back
	n.stop()
	time.Sleep(time.Second)
	if err := s.store.DestroySession(context.Background(), session); err != nil {
		s.t.Error(err)
	}
}

// cutOff ends a node's session; what runs on it goes on, and it comes back.
func (s *sim) cutOff(name string) {
	n := s.nodes[name]
	away := time.Duration(s.rng.Int64N(int64(30 * time.Second)))
	s.note("%s is cut off for %v", name, away)
	s.away[name] = true
	n.lose()
	n.wg.Go(func() {
		time.Sleep(away)
		n.enter(context.Background())
	})
}

func (s *sim) drain(name string) {
	n := s.nodes[name]
	n.mu.Lock()
	n.draining = !n.draining
	draining := n.draining
	n.mu.Unlock()
	s.note("%s draining: %v", name, draining)
	node, entry, err := state.GetAs[spec.Node](context.Background(), s.store, state.NodeKey(name))
	if err != nil {
		return // it has just gone
	}
	node.Draining = draining
	_, _ = s.store.Txn(context.Background(), state.Op{Kind: state.OpCAS, Key: entry.Key, Index: entry.ModifyIndex, Value: state.Encode(node)})
}

// apply writes another version of a job, or removes it.
func (s *sim) apply() {
	name := s.jobs[s.rng.IntN(len(s.jobs))]
	op := state.Op{Kind: state.OpSet, Key: state.JobKey(name)}
	s.last[name]++
	if s.rng.IntN(6) == 0 {
		op.Kind = state.OpDelete
		s.note("job %s is removed", name)
	} else {
		v := spec.JobVersion{Version: s.last[name], Job: spec.Job{Name: name}}
		for i := range 1 + s.rng.IntN(3) {
			p := spec.DefaultProcess(fmt.Sprint("p", i))
			p.Command = []spec.Template{spec.Template(fmt.Sprint("run", s.rng.IntN(3)))}
			p.Shards = s.rng.IntN(5)
			if i > 0 && s.rng.IntN(2) == 0 && v.Job.Processes[i-1].Shards > 0 {
				p.DependsOn = []spec.Dependency{spec.DefaultDependency(fmt.Sprint("p", i-1))}
			}
			if k := slices.Index(s.jobs, name); k > 0 && s.rng.IntN(3) == 0 {
				p.DependsOn = append(p.DependsOn, spec.Dependency{Process: s.jobs[s.rng.IntN(k)] + "/p0", Condition: spec.ConditionStarted})
			}
			for d := range p.DependsOn {
				p.DependsOn[d].OnFailure = []spec.OnFailure{"", spec.OnFailureStop, spec.OnFailureRestart}[s.rng.IntN(3)]
			}
			if p.Command[0] == simFails {
				p.Restart.Exhausted = spec.ExhaustedReschedule
			}
			if s.rng.IntN(3) == 0 {
				p.Placing = &spec.Placing{Spreads: []spec.Spread{{Label: "zone"}}}
			}
			if s.rng.IntN(2) == 0 {
				u := spec.DefaultUpdate()
				u.MinHealthy, u.Canary, u.AutoPromote = spec.Duration(time.Second), s.rng.IntN(2), true
				p.Update = &u
			}
			v.Job.Processes = append(v.Job.Processes, p)
		}
		v.When = time.Now()
		v.Job.Normalize()
		op.Value = state.Encode(v)
		s.note("job %s is applied in version %d", name, v.Version)
	}
	if _, err := s.store.Txn(context.Background(), op); err != nil {
		s.t.Fatal(err)
	}
}

// watch checks every state of the assignments that can be seen.
func (s *sim) watch(ctx context.Context) {
	for index := uint64(0); ; {
		entries, next, err := s.store.Watch(ctx, state.Root, index)
		if err != nil {
			return
		}
		index = next
		there, at := map[string]bool{}, map[spec.InstanceID]string{}
		for _, e := range entries {
			if name, ok := strings.CutPrefix(e.Key, state.NodesPrefix); ok {
				there[name] = true
			}
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Key, state.AssignmentsPrefix) {
				continue
			}
			a, err := state.Decode[spec.Assignment](e)
			if err != nil {
				s.t.Error(err)
				return
			}
			for _, p := range a.Processes {
				for _, shard := range p.Shards {
					id := spec.InstanceID{Job: a.Job, Process: p.Process.Name, Shard: shard}
					if other := at[id]; other != "" && there[other] && there[a.Node] {
						s.note("%s is assigned on %s and on %s", id, other, a.Node)
						s.t.Errorf("%s is assigned on %s and on %s", id, other, a.Node)
						return
					}
					at[id] = a.Node
				}
			}
		}
	}
}

// holder returns the node that holds a lock, "" if none does.
func (s *sim) holder(lock string) string {
	h, _, err := state.GetAs[follow.Holder](context.Background(), s.store, lock)
	if err != nil {
		return ""
	}
	node, err := s.store.Get(context.Background(), state.NodeKey(h.Node))
	if err != nil || node.Session != h.Session {
		return ""
	}
	return h.Node
}

// rest leaves the cluster alone, and demands that it then is as it should be.
func (s *sim) rest() {
	s.note("left alone")
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	clear(s.away)
	for name, n := range s.nodes {
		if n.Session() == "" {
			s.t.Errorf("%s didn't come back", name)
		}
	}
	s.checkLocks()
	s.checkJobs()
	s.checkNodes()
	s.checkIdle()
}

// checkIdle demands that a cluster in which nothing changes costs the store
// five blocking queries for each node, and nothing else.
func (s *sim) checkIdle() {
	time.Sleep(spec.DefaultUpdate().ProgressDeadline.Std()) // what waits in vain is told to have failed
	synctest.Wait()
	before := map[string]int{}
	for name, n := range s.nodes {
		before[name], _ = n.meter.read()
	}
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	for name, n := range s.nodes {
		if txns, queries := n.meter.read(); txns != before[name] || queries > 5 {
			s.t.Errorf("%s idles with %d transactions and %d blocking queries", name, txns-before[name], queries)
		}
	}
}

// checkLocks demands that every lock is held by a node that is there.
func (s *sim) checkLocks() {
	has := map[string]int{}
	for n := range state.ControlShards {
		owner := s.holder(state.OrchestratorLock(n))
		if s.nodes[owner] == nil {
			s.t.Errorf("control shard %d is held by %q", n, owner)
		}
		has[owner]++
	}
	available := 0
	for _, n := range s.nodes {
		if !n.isDraining() {
			available++
		}
	}
	if available == 0 {
		available = len(s.nodes)
	}
	for owner, n := range has {
		if part := (state.ControlShards + available - 1) / available; n > part {
			s.t.Errorf("%s holds %d control shards, of at most %d", owner, n, part)
		}
	}
	if primary := s.holder(state.SchedulerLock); s.nodes[primary] == nil {
		s.t.Errorf("the primary is %q", primary)
	}
}

// checkNodes demands that nothing is left of nodes that are gone, and that the
// coming and going of each was told.
func (s *sim) checkNodes() {
	for _, prefix := range []string{state.ObservedPrefix, state.AssignmentsPrefix} {
		entries, _, err := s.store.List(context.Background(), prefix)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if node, _, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix), "/"); s.nodes[node] == nil {
				s.t.Errorf("%s is gone, and %s is left", node, e.Key)
			}
		}
	}
	events, err := state.Events(context.Background(), s.store)
	if err != nil {
		s.t.Fatal(err)
	}
	told := map[string]int{}
	for _, ev := range events {
		switch ev.Type {
		case spec.EventNodeJoined:
			told[ev.Node]++
		case spec.EventNodeLeft:
			told[ev.Node]--
		}
		if n := told[ev.Node]; n < 0 || n > 1 {
			s.t.Errorf("%s: %s comes when it was told %d times", ev.Node, ev.Type, n)
		}
	}
	for name, n := range told {
		if (n == 1) != (s.nodes[name] != nil) {
			s.t.Errorf("%s was told of as there %d times more than as gone", name, n)
		}
	}
}

func sortInstances(instances []spec.Instance) {
	slices.SortFunc(instances, func(a, b spec.Instance) int { return a.ID.Compare(b.ID) })
}
