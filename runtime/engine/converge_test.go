package engine

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// model is a watchdog reduced to what Converge can know of it.
type model struct {
	runs     map[spec.InstanceID]spec.Instance
	declared map[spec.InstanceID]Declared
	touched  map[spec.InstanceID]bool // started, restarted, reloaded or stopped
}

// act does what the actions say.
func (m *model) act(t *rapid.T, a Actions) {
	seen := map[spec.InstanceID]bool{}
	once := func(id spec.InstanceID) {
		if seen[id] {
			t.Fatalf("%s appears twice in the actions", id)
		}
		seen[id] = true
	}
	for i, w := range a.Declare {
		once(w.ID)
		old, known := m.runs[w.ID]
		disturbed := !known || old.Hash != w.Launch.Hash || old.Epoch != w.Launch.Epoch || old.ReloadHash != w.Launch.ReloadHash
		if disturbed {
			m.touched[w.ID] = true
		}
		if disturbed && i >= a.Urgent {
			t.Fatalf("%s is disturbed by a declaration that is not urgent", w.ID)
		}
		l := w.Launch
		m.runs[w.ID] = spec.Instance{ID: w.ID, Version: l.Version, Hash: l.Hash, Epoch: l.Epoch, ReloadHash: l.ReloadHash}
		m.declared[w.ID] = Declared{Digest: w.Digest}
	}
	for _, id := range a.Remove {
		once(id)
		delete(m.runs, id)
		delete(m.declared, id)
		m.touched[id] = true
	}
}

func drawID(t *rapid.T) spec.InstanceID {
	return spec.InstanceID{
		Job:     rapid.SampledFrom([]string{"a", "b", spec.ReservedJob}).Draw(t, "job"),
		Process: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "process"),
		Shard:   rapid.IntRange(0, 3).Draw(t, "shard"),
	}
}

func drawWanted(t *rapid.T) Wanted {
	w := Wanted{ID: drawID(t)}
	if rapid.IntRange(0, 3).Draw(t, "held") == 0 {
		w.Why = "held"
		return w
	}
	w.Launch = &spec.Launch{
		ID: w.ID, Version: rapid.Uint64Range(1, 3).Draw(t, "version"),
		Hash: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "hash"), Epoch: rapid.Uint64Range(0, 1).Draw(t, "epoch"),
		ReloadHash: rapid.SampledFrom([]string{"", "r"}).Draw(t, "reload"), Critical: rapid.Bool().Draw(t, "policy"),
	}
	w.Digest = Digest(w.Launch)
	return w
}

func drawModel(t *rapid.T) *model {
	m := &model{runs: map[spec.InstanceID]spec.Instance{}, declared: map[spec.InstanceID]Declared{}, touched: map[spec.InstanceID]bool{}}
	for range rapid.IntRange(0, 10).Draw(t, "running") {
		w := drawWanted(t)
		if w.Launch == nil {
			continue
		}
		m.runs[w.ID] = spec.Instance{ID: w.ID, Hash: w.Launch.Hash, Epoch: w.Launch.Epoch, ReloadHash: w.Launch.ReloadHash}
		if w.ID.Job != spec.ReservedJob && rapid.Bool().Draw(t, "declared") {
			m.declared[w.ID] = Declared{Digest: w.Digest}
		}
	}
	return m
}

func (m *model) running() []spec.Instance { return slices.Collect(maps.Values(m.runs)) }

func TestConvergeReachesWhatIsAssignedAndStaysThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		before := maps.Clone(m.runs)
		assigned := rapid.SliceOfN(rapid.Custom(drawWanted), 0, 12).Draw(t, "assigned")
		m.act(t, Converge(assigned, m.running(), m.declared))

		byID := map[spec.InstanceID]Wanted{}
		for _, w := range assigned {
			old, twice := byID[w.ID]
			if !twice || old.Launch == nil || (w.Launch != nil && w.Launch.Version > old.Launch.Version) {
				byID[w.ID] = w
			}
		}
		for id, inst := range m.runs {
			w, isWanted := byID[id]
			old, ran := before[id]
			switch {
			case id.Job == spec.ReservedJob:
				if m.touched[id] || !ran {
					t.Fatalf("%s is not ours to touch", id)
				}
			case !isWanted:
				t.Fatalf("%s runs and is not assigned", id)
			case w.Launch == nil:
				if !ran || m.touched[id] {
					t.Fatalf("%s is held and was touched", id)
				}
			case inst.Hash != w.Launch.Hash || inst.Epoch != w.Launch.Epoch || inst.ReloadHash != w.Launch.ReloadHash:
				t.Fatalf("%s runs as %+v, wanted %+v", id, inst, w.Launch)
			case ran && old.Hash == w.Launch.Hash && old.Epoch == w.Launch.Epoch && old.ReloadHash == w.Launch.ReloadHash && m.touched[id]:
				t.Fatalf("%s was touched though nothing that needs it has changed", id)
			}
		}
		for id, w := range byID {
			if _, runs := m.runs[id]; id.Job != spec.ReservedJob && w.Launch != nil && !runs {
				t.Fatalf("%s is assigned and does not run", id)
			}
		}
		if again := Converge(assigned, m.running(), m.declared); !again.Empty() {
			t.Fatalf("it is no fixed point: %+v", again)
		}
	})
}

func TestConvergeTouchesOnlyWhatChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		assigned := rapid.SliceOfNDistinct(rapid.Custom(drawWanted), 1, 12, func(w Wanted) spec.InstanceID { return w.ID }).Draw(t, "assigned")
		m.act(t, Converge(assigned, m.running(), m.declared))
		i := rapid.IntRange(0, len(assigned)-1).Draw(t, "edited")
		edited := assigned[i]
		if edited.Launch == nil || edited.ID.Job == spec.ReservedJob {
			t.Skip("held, or not ours")
		}
		l := *edited.Launch
		l.Hash += "'"
		assigned[i] = Wanted{ID: l.ID, Launch: &l, Digest: Digest(&l)}
		a := Converge(assigned, m.running(), m.declared)
		if len(a.Declare) != 1 || a.Declare[0].ID != l.ID || len(a.Remove) != 0 {
			t.Fatalf("editing %s does %+v", l.ID, a)
		}
	})
}

func TestARemovedInstanceThatIsWantedAgainIsDeclared(t *testing.T) {
	l := spec.Launch{ID: id("a/p/0"), Hash: "x"}
	w := []Wanted{{ID: l.ID, Launch: &l, Digest: Digest(&l)}}
	stopping := []spec.Instance{{ID: l.ID, Hash: "x", Phase: spec.PhaseStopping}}
	declared := map[spec.InstanceID]Declared{l.ID: {Removed: true}}
	if a := Converge(w, stopping, declared); len(a.Declare) != 1 || a.Urgent != 1 {
		t.Errorf("it is left to die: %+v", a)
	}
	if a := Converge(nil, stopping, declared); !a.Empty() {
		t.Errorf("it is removed again: %+v", a)
	}
	if a := Converge(nil, nil, map[spec.InstanceID]Declared{l.ID: {Digest: 1}}); len(a.Remove) != 1 {
		t.Errorf("what was declared and not seen yet is forgotten: %+v", a)
	}
}

// After a repair of the store, an assignment may be missing or an old one, and
// what runs is left as it is until its job is assigned or unassigned anew.
func TestARepairedStoreStopsNothingUntilItsJobIsAssignedAnew(t *testing.T) {
	const repaired = 100
	entry := func(job string, index uint64, shards ...int) state.Entry {
		value := state.Encode(spec.Assignment{Job: job, Node: "n", Processes: []spec.AssignedProcess{
			{Process: spec.Process{Name: "p"}, Shards: spec.NewShardSet(shards...)},
		}})
		return state.Entry{Key: state.AssignmentKey("n", job), Value: value, ModifyIndex: index}
	}
	a := newAssignments("n", repaired, hclog.NewNullLogger())
	running := []spec.Instance{
		{ID: spec.InstanceID{Job: "gone", Process: "p"}}, {ID: spec.InstanceID{Job: "old", Process: "p"}},
		{ID: spec.InstanceID{Job: "old", Process: "p", Shard: 1}}, {ID: spec.InstanceID{Job: spec.ReservedJob, Process: "agent"}},
	}
	for _, step := range []struct {
		name    string
		entries []state.Entry
		want    []string
	}{
		{"what the repair left", []state.Entry{entry("old", repaired-5, 0)}, []string{"gone/p/0", "old/p/1"}},
		{"one is assigned anew", []state.Entry{entry("old", repaired+1, 0)}, []string{"gone/p/0"}},
		{"both are", []state.Entry{entry("old", repaired+1, 0), entry("gone", repaired+2, 0)}, nil},
		{"and unassigned", nil, nil},
	} {
		a.update(step.entries)
		jobs, _ := a.current()
		var got []string
		for _, w := range a.lost(jobs, running) {
			got = append(got, w.ID.String())
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: %q stay, want %q", step.name, got, step.want)
		}
	}
	healthy := newAssignments("n", 0, hclog.NewNullLogger())
	healthy.update(nil)
	if got := healthy.lost(nil, running); got != nil {
		t.Errorf("with a healthy store %v stay", got)
	}
}
