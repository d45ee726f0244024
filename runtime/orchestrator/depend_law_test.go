package orchestrator

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// Whatever falls and rises, in whatever order: nobody starts before what it
// depends on; at rest, those that say so are down while a dependency is, and
// nobody was restarted but for a cause that its file names.
func TestFailuresLeadToWhatTheFileSaysAndToNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		var processes []spec.Process
		for i := range 4 {
			p := process(fmt.Sprintf("p%d", i))
			p.Shards = rapid.IntRange(1, 2).Draw(t, "shards")
			for _, on := range processes {
				if rapid.Bool().Draw(t, "depends") {
					p = after(p, on.Name, spec.ConditionStarted, rapid.SampledFrom([]spec.OnFailure{"", spec.OnFailureStop, spec.OnFailureRestart}).Draw(t, "on failure"))
				}
			}
			processes = append(processes, p)
		}
		w.want(version(1, processes...))
		slow := func() bool { return rapid.IntRange(0, 3).Draw(t, "slow") == 0 }
		w.settle(t, slow, func() { once(t, w) })
		for range rapid.IntRange(1, 6).Draw(t, "events") {
			before, fallen := w.generations(), map[string]bool{}
			for range rapid.IntRange(1, 2).Draw(t, "at a time") {
				p := rapid.SampledFrom(w.Job.Job.Processes).Draw(t, "process")
				shard := rapid.IntRange(0, p.Shards-1).Draw(t, "shard")
				if in := w.instance("a", p.Name, shard); in == nil || in.Phase == spec.PhaseFailed {
					if in != nil {
						w.rise(p.Name, shard)
					}
				} else {
					w.fall(p.Name, shard)
				}
				fallen[p.Name] = true
				for range rapid.IntRange(0, 2).Draw(t, "turns") {
					w.startsAreDue(t, func() { w.decide(); once(t, w); w.act(slow) })
				}
			}
			w.settle(t, slow, func() { once(t, w) })
			w.restIsRight(t, before, fallen)
		}
		for {
			down := slices.IndexFunc(w.Observed["a"].Instances, func(in spec.Instance) bool { return in.Phase == spec.PhaseFailed })
			if down < 0 {
				break
			}
			id := w.Observed["a"].Instances[down].ID
			w.rise(id.Process, id.Shard)
			w.settle(t, slow, func() { once(t, w) })
		}
		for i := range w.Job.Job.Processes {
			for shard := range w.Job.Job.Processes[i].Shards {
				if id := fmt.Sprintf("%s/%d@a", w.Job.Job.Processes[i].Name, shard); !slices.Contains(slices.Collect(maps.Keys(w.running())), id) {
					t.Fatalf("all are back, and %s is not: %q", id, w.shown())
				}
			}
		}
	})
}

func (w *world) generations() map[spec.InstanceID]uint64 {
	out := map[spec.InstanceID]uint64{}
	for _, in := range w.Observed["a"].Instances {
		out[in.ID] = in.Generation
	}
	return out
}

// startsAreDue demands that nothing that wasn't there comes while a dependency
// of it is not up.
func (w *world) startsAreDue(t *rapid.T, do func()) {
	before, up := w.generations(), w.running()
	do()
	for id := range w.generations() {
		if _, was := before[id]; was {
			continue
		}
		for _, d := range w.process(id.Process).DependsOn {
			for shard := range w.process(d.Process).Shards {
				if _, is := up[fmt.Sprintf("%s/%d@a", d.Process, shard)]; !is {
					t.Fatalf("%s started while %s/%d was not up", id, d.Process, shard)
				}
			}
		}
	}
}

func (w *world) process(name string) *spec.Process {
	for i := range w.Job.Job.Processes {
		if p := &w.Job.Job.Processes[i]; p.Name == name {
			return p
		}
	}
	return nil
}

// restIsRight checks a world at rest against what it was before something fell
// or rose.
func (w *world) restIsRight(t *rapid.T, before map[spec.InstanceID]uint64, touched map[string]bool) {
	if again := Rollout(w.Snapshot, w.now); !reflect.DeepEqual(again.Assignments, w.Current) {
		t.Fatalf("at rest, and yet %+v, not %+v", again.Assignments, w.Current)
	}
	now := w.generations()
	ups := func(p *spec.Process) (up, moved int) {
		for shard := range p.Shards {
			id := spec.InstanceID{Job: "j", Process: p.Name, Shard: shard}
			if in := w.instance("a", p.Name, shard); in != nil && in.Phase == spec.PhaseRunning {
				up++
			}
			if was := before[id]; was != 0 && now[id] != was { // a first start is none
				moved++
			}
		}
		return up, moved
	}
	cause := maps.Clone(touched)
	for i := range w.Job.Job.Processes { // each depends on earlier ones
		p := &w.Job.Job.Processes[i]
		up, moved := ups(p)
		stopped := false
		for _, d := range p.DependsOn {
			n, _ := ups(w.process(d.Process))
			stopped = stopped || (d.OnFailure == spec.OnFailureStop && n == 0)
			cause[p.Name] = cause[p.Name] || (d.OnFailure != "" && cause[d.Process])
		}
		if stopped && up > 0 {
			t.Fatalf("%s runs, and what it stops for is down", p.Name)
		}
		if !cause[p.Name] && moved > 0 {
			t.Fatalf("%s was restarted without a cause: %v became %v", p.Name, before, now)
		}
	}
}
