package engine

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// deed is one thing that happens to an engine.
type deed struct {
	kind    string
	job     string
	process []spec.AssignedProcess
	pause   time.Duration
}

func drawDeed(t *rapid.T) deed {
	d := deed{
		kind:  rapid.SampledFrom([]string{"assign", "assign", "assign", "away", "back", "restart", "lost"}).Draw(t, "kind"),
		job:   rapid.SampledFrom([]string{"a", "b"}).Draw(t, "job"),
		pause: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 60, 3000}).Draw(t, "pause")) * time.Millisecond,
	}
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"p", "q"}), func(s string) string { return s }).Draw(t, "processes") {
		p := proc(name, rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 4, rapid.ID[int]).Draw(t, "shards")...)
		p.Shards = spec.NewShardSet(p.Shards...)
		p.Process.Command = append(p.Process.Command, rapid.SampledFrom([]spec.Template{"1", "2"}).Draw(t, "argument"))
		if rapid.Bool().Draw(t, "port") {
			p.Process.Ports = []spec.Port{{Name: "http"}}
		}
		d.process = append(d.process, p)
	}
	return d
}

func TestAnyHistoryEndsInWhatIsAssigned(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		deeds := rapid.SliceOfN(rapid.Custom(drawDeed), 1, 15).Draw(rt, "history")
		wanted := map[spec.InstanceID]string{} // hash
		var calls [][]string
		table := map[spec.InstanceID]spec.Instance{}
		ports := map[int]int{}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.start()
			for _, d := range deeds {
				r.do(d, wanted)
				time.Sleep(d.pause)
			}
			r.dog.setAway(false)
			time.Sleep(3 * lastRetry)
			r.dog.takeCalls()
			r.Refresh() // nothing is left to do
			settled()
			r.close()
			calls = r.dog.takeCalls()
			maps.Copy(table, r.dog.table)
		})
		if len(calls) != 0 {
			rt.Fatalf("the end is no fixed point: %v", calls)
		}
		for id, hash := range wanted {
			inst, ok := table[id]
			if !ok || inst.Hash != hash {
				rt.Fatalf("%s is %+v, wanted hash %s", id, inst, hash)
			}
			for _, p := range inst.Ports {
				if ports[p]++; ports[p] > 1 {
					rt.Fatalf("port %d is given twice", p)
				}
			}
		}
		if len(table) != len(wanted) {
			rt.Fatalf("runs %v, wanted %v", slices.Collect(maps.Keys(table)), slices.Collect(maps.Keys(wanted)))
		}
	})
}

// do lets one thing happen and keeps account of what is wanted.
func (r *rig) do(d deed, wanted map[spec.InstanceID]string) {
	switch d.kind {
	case "assign":
		r.assign(d.job, d.process...)
		maps.DeleteFunc(wanted, func(id spec.InstanceID, _ string) bool { return id.Job == d.job })
		for _, p := range d.process {
			for _, shard := range p.Shards {
				wanted[spec.InstanceID{Job: d.job, Process: p.Process.Name, Shard: shard}] = spec.ReplaceHash(&p.Process)
			}
		}
	case "away":
		r.dog.setAway(true)
	case "back":
		r.dog.setAway(false)
	case "restart":
		r.stop()
		r.start()
	case "lost": // a watchdog that lost what it knew, and its clients
		r.dog.mu.Lock()
		clear(r.dog.table)
		r.dog.mu.Unlock()
		r.dog.setAway(true)
		synctest.Wait()
		r.dog.setAway(false)
	}
}
