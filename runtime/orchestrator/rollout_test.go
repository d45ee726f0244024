package orchestrator

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

func drawVersion(t *rapid.T, n uint64) *spec.JobVersion {
	var processes []spec.Process
	v := &spec.JobVersion{}
	orders := map[string]spec.Order{}
	for i := range 4 {
		if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
			continue
		}
		p := process(fmt.Sprintf("p%d", i))
		p.Shards = rapid.IntRange(1, 3).Draw(t, "shards")
		p.Command[0] = spec.Template(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "command"))
		for _, other := range processes {
			if rapid.Bool().Draw(t, "depends") {
				p.DependsOn = append(p.DependsOn, spec.DefaultDependency(other.Name))
			}
		}
		processes = append(processes, p)
		if rapid.IntRange(0, 3).Draw(t, "ordered") == 0 {
			orders[p.Name] = spec.Order{Epoch: uint64(rapid.IntRange(0, 2).Draw(t, "epoch"))}
		}
	}
	v = version(n, processes...)
	v.Orders = orders
	return v
}

func drawPlacement(t *rapid.T, v *spec.JobVersion) *spec.Placement {
	p := &spec.Placement{Job: "j", Version: v.Version, Processes: map[string]map[string]spec.ShardSet{}}
	for _, proc := range v.Job.Processes {
		nodes := map[string]spec.ShardSet{}
		for shard := range proc.Shards {
			node := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node")
			nodes[node] = append(nodes[node], shard)
		}
		p.Processes[proc.Name] = nodes
	}
	return p
}

// From whatever is assigned and seen, the wanted state is reached; no shard is
// ever assigned twice, or while it is still somewhere else; nothing starts
// before what it depends on.
func TestRolloutReachesWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		slow := func() bool { return rapid.IntRange(0, 3).Draw(t, "slow") == 0 }
		for n := range uint64(rapid.IntRange(1, 4).Draw(t, "versions")) {
			w.Job = drawVersion(t, n+1)
			w.Placement = drawPlacement(t, w.Job)
			for range rapid.IntRange(0, 3).Draw(t, "turns") { // leave in the middle
				w.decide()
				once(t, w)
				w.act(slow)
			}
		}
		w.settle(t, slow, func() { once(t, w) })
		want := map[string]uint64{}
		for process, nodes := range w.Placement.Processes {
			for node, shards := range nodes {
				for _, shard := range shards {
					want[fmt.Sprintf("%s/%d@%s", process, shard, node)] = w.Job.Order(process, shard).Epoch
				}
			}
		}
		if got := w.running(); !reflect.DeepEqual(got, want) {
			t.Fatalf("running %v\nwanted  %v\nassigned %+v", got, want, w.Current)
		}
		if again := Rollout(w.Snapshot, time.Time{}); !reflect.DeepEqual(again.Assignments, w.Current) || len(again.Reasons) > 0 {
			t.Fatalf("at rest, and yet %+v", again)
		}
		w.Job, w.Placement = nil, nil
		w.settle(t, slow, func() { once(t, w) })
		if len(w.Current) > 0 || len(w.running()) > 0 {
			t.Fatalf("removed, but %+v is assigned and %v runs", w.Current, w.running())
		}
	})
}

// once demands that each shard is assigned at most once, and not while it is
// still on another node.
func once(t *rapid.T, w *world) {
	at := map[spec.InstanceID]string{}
	for node, a := range w.Current {
		versions := map[string]bool{}
		for _, p := range a.Processes {
			if key := fmt.Sprint(p.Process.Name, p.Version); versions[key] {
				t.Fatalf("%s is on %s twice at version %d", p.Process.Name, node, p.Version)
			} else {
				versions[key] = true
			}
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: "j", Process: p.Process.Name, Shard: shard}
				if at[id] != "" {
					t.Fatalf("%s is assigned on %s and on %s", id, at[id], node)
				}
				at[id] = node
			}
		}
	}
	for node, o := range w.Observed {
		for _, in := range o.Instances {
			if other := at[in.ID]; other != "" && other != node && w.instance(other, in.ID.Process, in.ID.Shard) == nil {
				t.Fatalf("%s is assigned on %s while %s still has it", in.ID, other, node)
			}
		}
	}
}

func TestDependentsStartAfterAndStopBefore(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("db"), process("api", "db"), process("web", "api")))
	var order []string
	note := func() {
		for _, name := range []string{"db", "api", "web"} {
			there := w.instance("a", name, 0) != nil
			switch came := slices.Contains(order, "+"+name); {
			case there && !came:
				order = append(order, "+"+name)
			case !there && came && !slices.Contains(order, "-"+name):
				order = append(order, "-"+name)
			}
		}
	}
	w.settle(t, nil, note)
	note()
	w.want(nil)
	w.settle(t, nil, note)
	note()
	want := []string{"+db", "+api", "+web", "-web", "-api", "-db"}
	if !reflect.DeepEqual(order, want) {
		t.Fatalf("order %v, want %v", order, want)
	}
}

func TestADependencyStaysUntilItsDependentsAreGone(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("db"), process("web", "db")))
	w.settle(t, nil, func() {})
	w.want(nil)
	d := w.decide()
	if got := w.Current["a"].Processes; len(got) != 2 || len(got[0].Shards) != 1 || len(got[1].Shards) != 0 {
		t.Fatalf("web is to end first, but assigned is %+v", got)
	}
	if why := d.Reasons[spec.InstanceID{Job: "j", Process: "db"}]; why != "is stopped once web is gone" {
		t.Errorf("reason of db is %q", why)
	}
	w.instance("a", "web", 0).Phase = spec.PhaseStopping
	if w.decide(); len(w.Current["a"].Processes[0].Shards) != 1 {
		t.Fatal("db was stopped while web was still stopping")
	}
	w.act(nil)
	if w.decide(); len(w.Current) != 0 {
		t.Fatalf("web is gone, but assigned is still %+v", w.Current)
	}
}

func TestAnEditTouchesOnlyItsProcess(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("a"), process("b")))
	w.settle(t, nil, func() {})
	before := w.Current["a"]
	edited := process("b")
	edited.Command[0] = "other"
	w.want(version(2, process("a"), edited))
	w.decide()
	after := w.Current["a"]
	if !reflect.DeepEqual(before.Processes[0], after.Processes[0]) {
		t.Errorf("a became %+v", after.Processes[0])
	}
	if after.Processes[1].Version != 2 || after.Processes[1].Process.Command[0] != "other" {
		t.Errorf("b is still %+v", after.Processes[1])
	}
}

func TestARestartWaitsForTheDependencysOwnRestart(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("db"), process("web", "db")))
	w.settle(t, nil, func() {})
	db, web := process("db"), process("web", "db")
	db.Command[0], web.Command[0] = "db2", "web2"
	w.want(version(2, db, web))
	w.decide()
	if held := w.Current["a"].Processes[1].Held[0]; held != "waits for db to be started" {
		t.Fatalf("db does not run its new version yet, but web's hold is %q", held)
	}
	w.act(nil)
	w.decide()
	if held := w.Current["a"].Processes[1].Held; held != nil {
		t.Fatalf("db is up, but web is held: %v", held)
	}
}

func TestARunningInstanceIsLeftWhenItsDependencyFails(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("db"), process("web", "db")))
	w.settle(t, nil, func() {})
	w.instance("a", "db", 0).Phase = spec.PhaseBackoff
	if w.decide(); w.Current["a"].Processes[1].Held != nil {
		t.Fatal("web runs and is to be left alone")
	}
	w.Observed["a"] = spec.Observed{Job: "j", Node: "a", Instances: w.Observed["a"].Instances[:1]} // web is gone
	if w.decide(); w.Current["a"].Processes[1].Held == nil {
		t.Fatal("web is to wait for db")
	}
}

func TestCompletedWaitsForSuccess(t *testing.T) {
	migrate, web := process("migrate"), process("web")
	migrate.Restart.Policy = spec.RestartNever
	web.DependsOn = []spec.Dependency{{Process: "migrate", Condition: spec.ConditionCompleted}}
	w := newWorld()
	w.want(version(1, migrate, web))
	for _, step := range []struct {
		phase spec.Phase
		exit  *spec.Exit
		held  bool
	}{
		{spec.PhaseRunning, nil, true},
		{spec.PhaseFailed, &spec.Exit{Code: 1}, true},
		{spec.PhaseCompleted, &spec.Exit{Code: 1}, true},
		{spec.PhaseCompleted, &spec.Exit{Unknown: true}, true},
		{spec.PhaseCompleted, &spec.Exit{}, false},
	} {
		w.Observed["a"] = spec.Observed{Job: "j", Node: "a", Instances: []spec.Instance{{
			ID: spec.InstanceID{Job: "j", Process: "migrate"}, Phase: step.phase, LastExit: step.exit, Version: 1,
		}}}
		if w.decide(); (w.Current["a"].Processes[1].Held != nil) != step.held {
			t.Errorf("%s, %v: held is %v", step.phase, step.exit, w.Current["a"].Processes[1].Held)
		}
	}
}

func TestNothingMovesBeforeThePlacementIsOfTheVersion(t *testing.T) {
	w := newWorld()
	w.want(version(1, process("a")))
	w.settle(t, nil, func() {})
	before := w.Current
	old := w.Placement
	w.want(version(2, process("a"), process("b")))
	w.Placement = old
	if d := w.decide(); !reflect.DeepEqual(d.Assignments, before) {
		t.Fatalf("assigned %+v", d.Assignments)
	}
}

func TestAStoppedShardIsNotAssigned(t *testing.T) {
	p := process("p")
	p.Shards = 3
	w := newWorld()
	v := version(1, p)
	v.Orders = map[string]spec.Order{"p/1": {Stopped: true}, "p/2": {Epoch: 4}}
	w.want(v)
	w.decide()
	a := w.Current["a"].Processes[0]
	if a.Shards.String() != "0,2" || a.Epochs[2] != 4 || len(a.Epochs) != 1 {
		t.Fatalf("assigned %+v", a)
	}
}

func BenchmarkRolloutThousandProcesses(b *testing.B) {
	for name, on := range map[string][]string{"independent": nil, "dependent": {"p0"}} {
		b.Run(name, func(b *testing.B) {
			var processes []spec.Process
			for i := range 1000 {
				if i == 0 {
					processes = append(processes, process("p0"))
				} else {
					processes = append(processes, process(fmt.Sprintf("p%d", i), on...))
				}
			}
			w := newWorld()
			w.want(version(1, processes...))
			for _, p := range processes {
				o := w.Observed["a"]
				o.Instances = append(o.Instances, spec.Instance{
					ID: spec.InstanceID{Job: "j", Process: p.Name}, Phase: spec.PhaseRunning, Version: 1,
				})
				w.Observed["a"] = o
			}
			w.decide()
			for b.Loop() {
				Rollout(w.Snapshot, time.Time{})
			}
		})
	}
}
