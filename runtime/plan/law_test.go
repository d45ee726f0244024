package plan_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/scheduler"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

// cluster is a store with a scheduler and an orchestrator, and nodes whose
// instances do what they are told and stay healthy.
type cluster struct {
	t     *rapid.T
	store state.Store
	seen  map[string]map[spec.InstanceID]*spec.Instance // by node
	did   map[spec.InstanceID]spec.InstanceAction
	on    map[spec.InstanceID]string
	from  map[spec.InstanceID]string
	ends  map[spec.InstanceID]bool // instances that may complete
	born  uint64                   // the last generation
}

// newCluster starts a cluster of the given nodes in a bubble of virtual time.
// The function that it returns ends it.
func newCluster(t *rapid.T, nodes []spec.Node) (*cluster, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &cluster{t: t, store: local.OpenMemory(local.Options{}), seen: map[string]map[spec.InstanceID]*spec.Instance{}, ends: map[spec.InstanceID]bool{}}
	done := make(chan error, 2*len(nodes))
	for _, n := range nodes {
		session, err := c.store.CreateSession(ctx, state.SessionConfig{Name: "test", Node: n.Name, Behavior: state.BehaviorDelete})
		if err != nil {
			t.Fatal(err)
		}
		c.seen[n.Name] = map[spec.InstanceID]*spec.Instance{}
		c.txn(state.Op{Kind: state.OpLock, Key: state.NodeKey(n.Name), Session: session, Value: state.Encode(n)})
		me := func() string { return session }
		go func() { done <- scheduler.New(c.store, n.Name, me, hclog.NewNullLogger()).Run(ctx) }()
		go func() { done <- orchestrator.New(c.store, n.Name, me, hclog.NewNullLogger()).Run(ctx) }()
	}
	time.Sleep(time.Minute) // virtual: until every lock is where it belongs
	return c, func() {
		cancel()
		for range 2 * len(nodes) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (c *cluster) txn(ops ...state.Op) {
	if _, err := c.store.Txn(context.Background(), ops...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) snapshot() plan.Snapshot {
	s, err := plan.Load(context.Background(), c.store)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// apply plans and applies changes and lets the cluster come to rest.
func (c *cluster) apply(wanted []plan.Wanted) spec.Plan {
	p, err := plan.Compute(c.snapshot(), wanted, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	txns, err := plan.Ops(p, "root", time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	c.watch()
	for _, ops := range txns {
		c.txn(ops...)
	}
	c.rest()
	return p
}

// watch begins to note what happens.
func (c *cluster) watch() {
	c.did, c.on, c.from = map[spec.InstanceID]spec.InstanceAction{}, map[spec.InstanceID]string{}, map[spec.InstanceID]string{}
}

// drain changes whether a node is draining, and lets the cluster come to rest.
func (c *cluster) drain(node string, draining bool) {
	n, _, err := state.GetAs[spec.Node](context.Background(), c.store, state.NodeKey(node))
	if err != nil {
		c.t.Fatal(err)
	}
	n.Draining = draining
	c.watch()
	c.txn(state.Op{Kind: state.OpSet, Key: state.NodeKey(node), Value: state.Encode(n)})
	c.rest()
}

// rest lets scheduler, orchestrator and nodes act until nothing moves.
func (c *cluster) rest() {
	for range 300 {
		synctest.Wait()
		if !c.act() && !c.complete() {
			return
		}
	}
	c.t.Fatalf("does not come to rest: %+v", c.snapshot().Assignments)
}

// act does on each node what is assigned to it, as engine and watchdog would.
func (c *cluster) act() bool {
	s := c.snapshot()
	acted := false
	for node, units := range c.seen {
		told := map[spec.InstanceID]bool{}
		for job, nodes := range s.Assignments {
			for _, p := range nodes[node].Processes {
				for _, shard := range p.Shards {
					id := spec.InstanceID{Job: job, Process: p.Process.Name, Shard: shard}
					told[id] = true
					if _, held := p.Held[shard]; !held {
						acted = c.declare(node, id, &p) || acted
					}
				}
			}
		}
		for id := range units {
			if !told[id] {
				delete(units, id)
				c.note(node, id, spec.ActionStop)
				acted = true
			}
		}
	}
	if acted {
		c.report()
	}
	return acted
}

func (c *cluster) declare(node string, id spec.InstanceID, p *spec.AssignedProcess) bool {
	hash, epoch := spec.ReplaceHash(&p.Process), p.Epochs[id.Shard]
	in := c.seen[node][id]
	c.ends[id] = p.Process.Restart.Policy != spec.RestartAlways
	switch {
	case in == nil:
		for other, units := range c.seen {
			if units[id] != nil && units[id].Phase != spec.PhaseCompleted {
				c.t.Fatalf("%s starts on %s while it still runs on %s", id, node, other)
			}
		}
		in = &spec.Instance{ID: id, Node: node}
		c.seen[node][id] = in
		c.note(node, id, spec.ActionStart)
	case in.Generation == p.Expire[id.Shard].Generation && in.Phase == spec.PhaseRunning:
		c.note(node, id, spec.ActionRestart)
	case in.Hash != hash || in.Epoch != epoch:
		if in.Phase == spec.PhaseCompleted {
			c.note(node, id, spec.ActionStart)
		} else {
			c.note(node, id, spec.ActionRestart)
		}
	default:
		was := in.Version
		in.Version = p.Version
		return was != p.Version
	}
	c.born++
	in.Phase, in.Version, in.Hash, in.Epoch, in.LastExit, in.Generation = spec.PhaseRunning, p.Version, hash, epoch, nil, c.born
	return true
}

func (c *cluster) note(node string, id spec.InstanceID, a spec.InstanceAction) {
	was, at := c.did[id], c.on[id]
	if (was == spec.ActionStart || was == spec.ActionMove) && a == spec.ActionRestart && at == node {
		return // it was started with an old definition first
	}
	c.did[id], c.on[id] = a, node
	switch {
	case was == spec.ActionStop && a == spec.ActionStart && at == node:
		c.did[id] = spec.ActionRestart
	case was == spec.ActionStop && a == spec.ActionStart:
		c.did[id], c.from[id] = spec.ActionMove, at
	case was == spec.ActionStart && a == spec.ActionStop && at != node: // it had ended there
		c.did[id], c.on[id], c.from[id] = spec.ActionMove, at, node
	}
}

// complete ends what others wait for to complete.
func (c *cluster) complete() bool {
	any := false
	awaited := map[string]bool{}
	for job, nodes := range c.snapshot().Assignments {
		for _, a := range nodes {
			for _, p := range a.Processes {
				for _, d := range p.Process.DependsOn {
					if onJob, on := d.Of(job); d.Condition == spec.ConditionCompleted {
						awaited[onJob+"/"+on] = true
					}
				}
			}
		}
	}
	for _, units := range c.seen {
		for id, in := range units {
			if awaited[id.Job+"/"+id.Process] && in.Phase == spec.PhaseRunning && c.ends[id] {
				in.Phase, any = spec.PhaseCompleted, true
			}
		}
	}
	if any {
		c.report()
	}
	return any
}

func (c *cluster) report() {
	for node, units := range c.seen {
		byJob := map[string]*spec.Observed{}
		for id, in := range units {
			if byJob[id.Job] == nil {
				byJob[id.Job] = &spec.Observed{Job: id.Job, Node: node}
			}
			byJob[id.Job].Instances = append(byJob[id.Job].Instances, *in)
		}
		entries, _, err := c.store.List(context.Background(), state.ObservedPrefix+node+"/")
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range entries {
			if job := strings.TrimPrefix(e.Key, state.ObservedPrefix+node+"/"); byJob[job] == nil {
				c.txn(state.Op{Kind: state.OpDelete, Key: e.Key})
			}
		}
		for job, o := range byJob {
			c.txn(state.Op{Kind: state.OpSet, Key: state.ObservedKey(node, job), Value: state.Encode(o)})
		}
	}
}

// drawJob draws a valid job of a few processes that may depend on earlier ones.
func drawJob(t *rapid.T, name string) *spec.Job {
	j := &spec.Job{Name: name}
	for i := range rapid.IntRange(1, 4).Draw(t, "processes") {
		if i > 0 && rapid.IntRange(0, 4).Draw(t, "left out") == 0 {
			continue
		}
		p := spec.DefaultProcess(fmt.Sprintf("p%d", i))
		p.Command = []spec.Template{spec.Template(rapid.SampledFrom([]string{"true", "sleep", "${shard.count}"}).Draw(t, "command"))}
		p.Shards = rapid.IntRange(1, 3).Draw(t, "shards")
		p.Restart.Delay = spec.Duration(rapid.IntRange(0, 1).Draw(t, "delay")) * spec.Duration(time.Second)
		p.Restart.Policy = rapid.SampledFrom([]spec.RestartPolicy{spec.RestartAlways, spec.RestartOnFailure}).Draw(t, "policy")
		p.Placing = drawPlacing(t)
		if rapid.IntRange(0, 3).Draw(t, "resources") == 0 {
			p.Resources = &spec.Resources{Memory: rapid.SampledFrom([]spec.Size{8 << 20, 16 << 20}).Draw(t, "memory")}
		}
		if p.Update = drawUpdate(t, p.Shards); p.Restart.Policy != spec.RestartAlways {
			p.Schedule = drawSchedule(t, &p)
		}
		for _, on := range j.Processes {
			d := spec.Dependency{Process: on.Name, Condition: spec.ConditionStarted, OnFailure: drawOnFailure(t)}
			switch rapid.IntRange(0, 3).Draw(t, "depends") {
			case 1:
				if d.Condition = spec.ConditionCompleted; on.Restart.Policy == spec.RestartAlways {
					continue
				}
				fallthrough
			case 0:
				if on.Schedule != nil && (d.Condition != spec.ConditionCompleted || on.Schedule.Overlap) {
					continue // it is down between its runs
				}
				if on.Schedule != nil || p.Schedule != nil {
					d.OnFailure = ""
				}
				p.DependsOn = append(p.DependsOn, d)
			}
		}
		if name != "j" && rapid.IntRange(0, 2).Draw(t, "depends on j") == 0 { // which may not have it, or not exist
			on := fmt.Sprintf("j/p%d", rapid.IntRange(0, 3).Draw(t, "process of j"))
			c := rapid.SampledFrom([]spec.Condition{spec.ConditionStarted, spec.ConditionHealthy, spec.ConditionCompleted}).Draw(t, "condition")
			d := spec.Dependency{Process: on, Condition: c}
			if p.Schedule == nil {
				d.OnFailure = drawOnFailure(t)
			}
			p.DependsOn = append(p.DependsOn, d)
		}
		j.Processes = append(j.Processes, p)
	}
	j.Normalize()
	return j
}

func drawOnFailure(t *rapid.T) spec.OnFailure {
	return rapid.SampledFrom([]spec.OnFailure{"", spec.OnFailureStop, spec.OnFailureRestart}).Draw(t, "on failure")
}

func drawUpdate(t *rapid.T, shards int) *spec.Update {
	if rapid.Bool().Draw(t, "at once") {
		return nil
	}
	u := spec.DefaultUpdate()
	u.MaxParallel = rapid.IntRange(1, 2).Draw(t, "parallel")
	u.Canary = rapid.IntRange(0, shards-1).Draw(t, "canary")
	u.AutoPromote = u.Canary > 0 && rapid.Bool().Draw(t, "auto promote")
	return &u
}

// drawSchedule makes a process one that runs at times, of which none comes while
// a plan is looked at.
func drawSchedule(t *rapid.T, p *spec.Process) *spec.Schedule {
	if rapid.Bool().Draw(t, "stays up") {
		return nil
	}
	s := spec.DefaultSchedule()
	s.Cron = rapid.SampledFrom([]string{"0 3 29 2 *", "0 4 29 2 *"}).Draw(t, "cron")
	p.Update = nil
	if s.Overlap = rapid.IntRange(0, 3).Draw(t, "overlap") == 0; s.Overlap {
		p.Shards = 1
	}
	return &s
}

func drawPlacing(t *rapid.T) *spec.Placing {
	switch rapid.IntRange(0, 5).Draw(t, "placing") {
	case 4:
		return &spec.Placing{Constraints: []spec.Constraint{{Label: "disk", Is: "ssd"}}}
	case 5:
		return &spec.Placing{Spreads: []spec.Spread{{Label: "disk"}}}
	}
	return nil
}

func drawNodes(t *rapid.T) []spec.Node {
	var nodes []spec.Node
	bounded := rapid.IntRange(0, 2).Draw(t, "bounded") == 2
	for _, name := range []string{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "nodes")] {
		n := spec.Node{Name: name, Labels: map[string]string{"disk": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")}}
		if bounded {
			n.Capacity = rapid.IntRange(0, 5).Draw(t, "capacity")
			n.Memory = rapid.SampledFrom([]spec.Size{0, 20 << 20, 50 << 20}).Draw(t, "room")
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// drawChange draws a change of a job as it stands.
func drawChange(t *rapid.T, s plan.Snapshot, name string) plan.Wanted {
	w := plan.Wanted{Job: name, Who: "root"}
	current, exists := s.Jobs[name]
	if !exists || rapid.Bool().Draw(t, "apply") {
		w.Apply = drawJob(t, name)
		return w
	}
	if rapid.IntRange(0, 5).Draw(t, "remove") == 0 {
		w.Remove = true
		return w
	}
	p := rapid.SampledFrom(current.Value.Job.Processes).Draw(t, "process")
	if p.Schedule != nil && !current.Value.Orders[p.Name].Stopped && rapid.Bool().Draw(t, "run") {
		w.Orders = []plan.Order{{Process: p.Name, Shard: -1, Op: spec.OpRun}}
		return w
	}
	o := plan.Order{Process: p.Name, Shard: -1, Op: rapid.SampledFrom([]spec.Op{
		spec.OpRestart, spec.OpStop, spec.OpStart, spec.OpScale, spec.OpPause, spec.OpResume, spec.OpPromote,
	}).Draw(t, "order")}
	switch o.Op {
	case spec.OpPause, spec.OpResume, spec.OpPromote:
		w.Orders = []plan.Order{o}
		return w
	case spec.OpScale:
		if o.Count = rapid.IntRange(1, 4).Draw(t, "count"); p.Instances() > p.Shards {
			o.Count = 1 // more can't overlap
		}
	default:
		o.Shard = rapid.IntRange(-1, p.Shards-1).Draw(t, "shard")
	}
	w.Orders = []plan.Order{o}
	return w
}

// What plan prints is what apply does.
func TestApplyDoesWhatThePlanSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A bubble has no deadline, so rapid must not see that T can tell one.
		rapid.Check(struct{ testing.TB }{t}, planHolds)
	})
}

func planHolds(t *rapid.T) {
	nodes := drawNodes(t)
	c, end := newCluster(t, nodes)
	defer end()
	for range rapid.IntRange(1, 5).Draw(t, "changes") {
		if rapid.IntRange(0, 3).Draw(t, "drain") == 3 {
			c.drain(rapid.SampledFrom(nodes).Draw(t, "node").Name, rapid.Bool().Draw(t, "draining"))
		}
		var wanted []plan.Wanted
		for _, name := range rapid.SampledFrom([][]string{{"j"}, {"k"}, {"k", "j"}}).Draw(t, "jobs") {
			wanted = append(wanted, drawChange(t, c.snapshot(), name))
		}
		p := c.apply(wanted)
		for _, j := range p.Jobs {
			compare(t, c, j)
		}
		if t.Failed() {
			t.Logf("changes %+v\nplan %+v", wanted, p.Jobs)
			return
		}
		for _, w := range wanted {
			again, err := plan.Compute(c.snapshot(), []plan.Wanted{w}, time.Now())
			if w.Apply != nil && (err != nil || !again.Empty()) {
				t.Fatalf("the same apply again is not empty: %v %+v", err, again)
			}
		}
	}
}

// compare compares what was planned with what happened.
func compare(t *rapid.T, c *cluster, p spec.JobPlan) {
	said := map[spec.InstanceID]spec.InstanceAction{}
	for _, i := range p.Instances {
		if i.Reason == "" && i.Action != spec.ActionKeep {
			t.Errorf("%s: %s without a reason", i.ID, i.Action)
		}
		switch i.Action {
		case spec.ActionKeep, spec.ActionUpdate, spec.ActionWait, spec.ActionRefuse, spec.ActionSchedule:
			continue
		}
		said[i.ID] = i.Action
		if c.did[i.ID] != i.Action || c.on[i.ID] != i.Node || c.from[i.ID] != i.From {
			t.Errorf("%s: planned %q from %q on %s, happened %q from %q on %s", i.ID, i.Action, i.From, i.Node, c.did[i.ID], c.from[i.ID], c.on[i.ID])
		}
	}
	for id, did := range c.did {
		if id.Job == p.Job && said[id] != did {
			t.Errorf("%s: planned %q, happened %q", id, said[id], did)
		}
	}
}
