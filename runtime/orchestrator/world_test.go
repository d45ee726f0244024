package orchestrator

import (
	"fmt"
	"reflect"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// process returns a process that depends on others.
func process(name string, on ...string) spec.Process {
	p := spec.DefaultProcess(name)
	p.Command = []spec.Template{"run"}
	for _, d := range on {
		p.DependsOn = append(p.DependsOn, spec.DefaultDependency(d))
	}
	return p
}

// version returns a version of job j.
func version(n uint64, processes ...spec.Process) *spec.JobVersion {
	v := &spec.JobVersion{Version: n, Job: spec.Job{Name: "j", Processes: processes}}
	v.Job.Normalize()
	return v
}

// onNode places all of a job on one node.
func onNode(v *spec.JobVersion, node string) *spec.Placement {
	p := &spec.Placement{Job: "j", Version: v.Version, Processes: map[string]map[string]spec.ShardSet{}}
	for _, proc := range v.Job.Processes {
		var all []int
		for shard := range proc.Instances() {
			all = append(all, shard)
		}
		if len(all) > 0 {
			p.Processes[proc.Name] = map[string]spec.ShardSet{node: spec.NewShardSet(all...)}
		}
	}
	return p
}

// world is a job on its nodes, as Rollout sees it.
type world struct {
	Snapshot
	now time.Time
	// bad are the programs, by the first word of the command, that never get well,
	// and what becomes of them.
	bad map[spec.Template]spec.Phase
	gen uint64
}

func newWorld() *world {
	return &world{Snapshot: Snapshot{Live: map[string]bool{"a": true, "b": true, "c": true}, Current: map[string]spec.Assignment{}, Observed: map[string]spec.Observed{}}}
}

// want puts a version in place, all on node a.
func (w *world) want(v *spec.JobVersion) {
	w.Job, w.Placement = v, nil
	if v != nil {
		w.Placement = onNode(v, "a")
	}
}

// decide takes the decision over as the nodes' assignments.
func (w *world) decide() Decision {
	d := Rollout(w.Snapshot, w.now)
	w.Current, w.Snapshot.Rollout = d.Assignments, d.Rollout
	w.record(d.Runs)
	return d
}

func (w *world) instance(node, process string, shard int) *spec.Instance {
	for i, in := range w.Observed[node].Instances {
		if in.ID.Process == process && in.ID.Shard == shard {
			return &w.Observed[node].Instances[i]
		}
	}
	return nil
}

// act lets nodes do what they are told. If slow is not nil it may leave
// instances in between: starting, or stopping.
func (w *world) act(slow func() bool) bool {
	acted := false
	for _, node := range []string{"a", "b", "c"} {
		if !w.Live[node] {
			continue // nobody hears of it
		}
		told := map[spec.InstanceID]bool{}
		for _, p := range w.Current[node].Processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: "j", Process: p.Process.Name, Shard: shard}
				told[id] = true
				if _, held := p.Held[shard]; !held {
					acted = w.declare(node, id, &p, slow) || acted
				}
			}
		}
		o := spec.Observed{Job: "j", Node: node}
		for _, in := range w.Observed[node].Instances {
			switch {
			case told[in.ID]:
			case slow != nil && in.Phase != spec.PhaseStopping && slow():
				in.Phase, acted = spec.PhaseStopping, true
			default:
				acted = true
				continue
			}
			o.Instances = append(o.Instances, in)
		}
		w.Observed[node] = o
	}
	return acted
}

func (w *world) declare(node string, id spec.InstanceID, p *spec.AssignedProcess, slow func() bool) bool {
	hash, epoch := spec.ReplaceHash(&p.Process), p.Epochs[id.Shard]
	in := w.instance(node, id.Process, id.Shard)
	phase := spec.PhaseRunning
	if slow != nil && slow() {
		phase = spec.PhaseStarting
	}
	end := spec.PhaseRunning
	if fate, bad := w.bad[p.Process.Command[0]]; bad {
		phase, end = fate, fate
	}
	w.gen++
	fresh := spec.Instance{
		ID: id, Node: node, Phase: phase, Version: p.Version, Hash: hash, Epoch: epoch, Generation: w.gen, ReadyAt: w.now, Since: w.now,
	}
	switch {
	case in == nil:
		o := w.Observed[node]
		o.Instances = append(o.Instances, fresh)
		w.Observed[node] = o
	case in.Hash != hash || in.Epoch != epoch:
		*in = fresh
	case in.Version != p.Version:
		in.Version = p.Version
	case in.Generation == p.Expire[id.Shard].Generation:
		since := in.Since
		*in = fresh
		in.Since = since
	case in.Phase == spec.PhaseStarting || in.Phase == spec.PhaseBackoff || in.Phase == spec.PhaseStopping:
		if in.Phase == end {
			return false
		}
		in.Phase, in.ReadyAt = end, w.now
	default:
		return false
	}
	return true
}

// settle decides and acts until nothing moves.
func (w *world) settle(t interface{ Fatalf(string, ...any) }, slow func() bool, each func()) {
	for range 400 {
		before := w.Current
		w.decide()
		each()
		if !w.act(slow) && reflect.DeepEqual(before, w.Current) {
			return
		}
	}
	t.Fatalf("does not come to rest: %+v", w.Current)
}

func (w *world) running() map[string]uint64 {
	out := map[string]uint64{}
	for node, o := range w.Observed {
		for _, in := range o.Instances {
			if in.Phase == spec.PhaseRunning {
				out[fmt.Sprintf("%s/%d@%s", in.ID.Process, in.ID.Shard, node)] = in.Epoch
			}
		}
	}
	return out
}
