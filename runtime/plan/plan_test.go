package plan_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func job(name string, processes ...spec.Process) *spec.Job {
	j := &spec.Job{Name: name, Processes: processes}
	j.Normalize()
	return j
}

func process(name string, shards int) spec.Process {
	p := spec.DefaultProcess(name)
	p.Command, p.Shards = []spec.Template{"run"}, shards
	return p
}

// next makes the next version, which must be possible.
func next(t *testing.T, current *spec.JobVersion, w plan.Wanted) *spec.JobVersion {
	t.Helper()
	w.Job, w.Who = "j", "root"
	v, err := plan.Next(current, 0, w, noon)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func apply(j *spec.Job) plan.Wanted { return plan.Wanted{Apply: j, Source: "/etc/j.hcl"} }

func order(op spec.Op, process string, shard int) plan.Wanted {
	return plan.Wanted{Orders: []plan.Order{{Op: op, Process: process, Shard: shard}}}
}

func TestAnApplyThatChangesNothingKeepsTheVersion(t *testing.T) {
	v := next(t, nil, apply(job("j", process("a", 2))))
	if v.Version != 1 || v.Why != "apply" || v.Who != "root" || v.Checksum == "" || !v.When.Equal(noon) {
		t.Errorf("first version is %+v", v)
	}
	if again := next(t, v, apply(job("j", process("a", 2)))); again != v {
		t.Errorf("again is version %d", again.Version)
	}
	if other := next(t, v, plan.Wanted{Apply: job("j", process("a", 2)), Source: "/etc/k.hcl"}); other.Version != 2 {
		t.Errorf("a job from another file stays version %d", other.Version)
	}
}

func TestOrdersAreKeptUntilTheyAreLifted(t *testing.T) {
	v1 := next(t, nil, apply(job("j", process("a", 3), process("b", 1))))
	v2 := next(t, v1, order(spec.OpRestart, "a", 1))
	v3 := next(t, v2, order(spec.OpStop, "a", -1))
	if !v3.Order("a", 0).Stopped || v3.Order("b", 0).Stopped || v3.Order("a", 1).Epoch != 1 || v3.Why != "stop" {
		t.Errorf("after the stop: %+v", v3.Orders)
	}
	if again := next(t, v3, order(spec.OpStop, "a", -1)); again != v3 {
		t.Errorf("stopping again changes %+v", again.Orders)
	}
	v4 := next(t, v3, order(spec.OpStart, "a", 2))
	for shard, stopped := range []bool{true, true, false} {
		if v4.Order("a", shard).Stopped != stopped {
			t.Errorf("one shard was started, and shard %d has %+v", shard, v4.Order("a", shard))
		}
	}
	v5 := next(t, v4, apply(job("j", process("a", 3), process("b", 1))))
	if o := v5.Order("a", 1); o.Stopped || o.Epoch != 1 {
		t.Errorf("an apply ends stops and keeps epochs, but it is %+v", o)
	}
	v6 := next(t, v5, order(spec.OpRestart, "", -1))
	if v6.Order("a", 0).Epoch != 1 || v6.Order("a", 1).Epoch != 2 || v6.Order("b", 0).Epoch != 1 {
		t.Errorf("after restarting all: %+v", v6.Orders)
	}
	v7 := next(t, v6, apply(job("j", process("a", 1))))
	if len(v7.Orders) != 1 {
		t.Errorf("orders of what is gone remain: %+v", v7.Orders)
	}
}

func TestChangesThatCannotBeAreRefused(t *testing.T) {
	static := process("web", 1)
	static.Ports = []spec.Port{{Name: "http", Static: 80}}
	v := next(t, nil, apply(job("j", process("a", 2), static)))
	scale := func(process string, n int) plan.Wanted {
		return plan.Wanted{Orders: []plan.Order{{Op: spec.OpScale, Process: process, Shard: -1, Count: n}}}
	}
	tests := map[string]struct {
		current *spec.JobVersion
		w       plan.Wanted
		err     error
	}{
		"order without a job":   {nil, order(spec.OpStop, "a", -1), plan.ErrUnknown},
		"unknown process":       {v, order(spec.OpStop, "c", -1), plan.ErrUnknown},
		"unknown shard":         {v, order(spec.OpRestart, "a", 2), plan.ErrUnknown},
		"scale of a job":        {v, scale("", 2), plan.ErrInvalid},
		"scale below 0":         {v, scale("a", -1), plan.ErrInvalid},
		"scale of static ports": {v, scale("web", 2), plan.ErrInvalid},
		"invalid job":           {v, apply(&spec.Job{Name: "j"}), plan.ErrInvalid},
		"no such order":         {v, order("dance", "a", -1), plan.ErrInvalid},
	}
	for name, test := range tests {
		test.w.Job = "j"
		if got, err := plan.Next(test.current, 0, test.w, noon); !errors.Is(err, test.err) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if v := next(t, v, scale("a", 0)); v.Job.Processes[0].Shards != 0 {
		t.Errorf("scale to 0 made %d shards", v.Job.Processes[0].Shards)
	}
}

func TestOnlyJobsOfTheAppliedPathsAreRemoved(t *testing.T) {
	s := plan.Snapshot{Jobs: map[string]plan.Stored[spec.JobVersion]{}}
	for name, source := range map[string]string{
		"held": "/jobs/a.hcl", "gone": "/jobs/a.hcl", "neighbour": "/jobs/b.hcl", "below": "/jobs/sub/c.hcl", "typed": "", "elsewhere": "/other/a.hcl",
	} {
		s.Jobs[name] = plan.Stored[spec.JobVersion]{Value: spec.JobVersion{Source: source}}
	}
	for path, want := range map[string][]string{
		"/jobs/a.hcl": {"gone"}, "/jobs": {"gone", "neighbour"}, "/jobs/": {"gone", "neighbour"}, "/none": nil,
	} {
		if got := plan.Removed(&s, []string{"held"}, []string{path}); !slices.Equal(got, want) {
			t.Errorf("an apply of %s removes %v, want %v", path, got, want)
		}
	}
}

// commit plans and applies changes on a store without anything that acts.
func commit(t *testing.T, store state.Store, changes ...plan.Wanted) (spec.Plan, error) {
	t.Helper()
	s, err := plan.Load(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Compute(s, changes, noon)
	if err != nil {
		t.Fatal(err)
	}
	return p, do(t, store, p)
}

func do(t *testing.T, store state.Store, p spec.Plan) error {
	txns, err := plan.Ops(p, "root", noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, ops := range txns {
		if _, err := store.Txn(t.Context(), ops...); err != nil {
			return err
		}
	}
	return nil
}

func TestAStalePlanChangesNothing(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	if _, err := commit(t, store, plan.Wanted{Job: "a", Apply: job("a", process("p", 1))}); err != nil {
		t.Fatal(err)
	}
	s, err := plan.Load(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	changes := []plan.Wanted{{Job: "a", Remove: true}}
	for i := range 40 { // more than fits into one transaction
		name := fmt.Sprintf("b%d", i)
		changes = append(changes, plan.Wanted{Job: name, Apply: job(name, process("p", 1))})
	}
	stale, err := plan.Compute(s, changes, noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := commit(t, store, plan.Wanted{Job: "b39", Apply: job("b39", process("q", 1))}); err != nil {
		t.Fatal(err)
	}
	if err := do(t, store, stale); !errors.Is(err, state.ErrConflict) {
		t.Fatalf("applying it: %v", err)
	}
	after, err := plan.Load(t.Context(), store)
	if err != nil || len(after.Jobs) != 2 || after.Jobs["b39"].Value.Job.Processes[0].Name != "q" {
		t.Fatalf("it left %v, %v", after.Jobs, err)
	}
}

func TestHistoryKeepsTheLastVersionsAndNumbersGoOn(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	for i := range state.HistoryKeep + 5 {
		p := process("p", 1)
		p.Env = map[string]spec.Template{"N": spec.Template(fmt.Sprint(i))}
		if _, err := commit(t, store, plan.Wanted{Job: "a", Apply: job("a", p)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := commit(t, store, plan.Wanted{Job: "a", Remove: true}); err != nil {
		t.Fatal(err)
	}
	entries, _, err := store.List(t.Context(), state.HistoryPrefix+"a/")
	if err != nil || len(entries) != state.HistoryKeep {
		t.Fatalf("history holds %d versions, %v", len(entries), err)
	}
	p, err := commit(t, store, plan.Wanted{Job: "a", Apply: job("a", process("p", 1))})
	if err != nil || p.Jobs[0].To != state.HistoryKeep+6 {
		t.Fatalf("made anew, it has version %d, %v", p.Jobs[0].To, err)
	}
	events, err := state.Events(t.Context(), store)
	if err != nil || len(events) != state.HistoryKeep+7 || events[len(events)-2].Type != spec.EventJobRemoved {
		t.Fatalf("%d events, %v", len(events), err)
	}
}

func TestALargeJobIsAppliedWithinTheLimits(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	p := process("p", 1)
	p.Env = map[string]spec.Template{"A": spec.Template(strings.Repeat("x", 360<<10))}
	if _, err := commit(t, store, plan.Wanted{Job: "a", Apply: job("a", p)}, plan.Wanted{Job: "b", Apply: job("b", p)}); err != nil {
		t.Fatal(err)
	}
	s, err := plan.Load(t.Context(), store)
	if err != nil || len(s.Jobs) != 2 || s.Latest["b"] != 1 {
		t.Fatalf("the store holds %d jobs, %v", len(s.Jobs), err)
	}
}

// running returns a snapshot in which a job runs on node a.
func running(v *spec.JobVersion) plan.Snapshot {
	s := plan.Snapshot{
		Nodes: []spec.Node{{Name: "a"}}, Latest: map[string]uint64{},
		Jobs:        map[string]plan.Stored[spec.JobVersion]{"j": {Value: *v, Index: 7}},
		Placements:  map[string]plan.Stored[spec.Placement]{},
		Assignments: map[string]map[string]spec.Assignment{"j": {}}, Observed: map[string]map[string]spec.Observed{"j": {}},
	}
	a, o := spec.Assignment{Job: "j", Node: "a"}, spec.Observed{Job: "j", Node: "a"}
	for _, p := range v.Job.Processes {
		var shards []int
		for n := range p.Shards {
			shards = append(shards, n)
			o.Instances = append(o.Instances, spec.Instance{
				ID: spec.InstanceID{Job: "j", Process: p.Name, Shard: n}, Node: "a", Phase: spec.PhaseRunning, Version: v.Version, Hash: spec.ReplaceHash(&p),
			})
		}
		a.Processes = append(a.Processes, spec.AssignedProcess{Process: p, Version: v.Version, Shards: spec.NewShardSet(shards...)})
	}
	s.Assignments["j"]["a"], s.Observed["j"]["a"] = a, o
	return s
}

func TestThePlanSaysWhyInPlainWords(t *testing.T) {
	web := process("web", 2)
	web.Env = map[string]spec.Template{"PORT": "8080"}
	db := process("db", 1)
	v := next(t, nil, apply(job("j", db, web)))
	edit := func(change func(db, web *spec.Process)) plan.Wanted {
		j := v.Job.Clone()
		change(&j.Processes[0], &j.Processes[1])
		return plan.Wanted{Apply: &j, Source: v.Source}
	}
	tests := map[string]struct {
		w    plan.Wanted
		want []string
	}{
		"command": {edit(func(db, _ *spec.Process) { db.Command[0] = "other" }), []string{
			"j/db/0 restart: command changed", "j/web/0 keep: ", "j/web/1 keep: "}},
		"variable": {edit(func(_, web *spec.Process) { web.Env["PORT"] = "8081" }), []string{
			"j/db/0 keep: ", `j/web/0 restart: env.PORT "8080" → "8081"`, `j/web/1 restart: env.PORT "8080" → "8081"`}},
		"policy": {edit(func(db, _ *spec.Process) { db.Restart.Delay = 0 }), []string{
			`j/db/0 update: restart.delay "1s" → "0s" (live)`, "j/web/0 keep: ", "j/web/1 keep: "}},
		"both, one after the other": {edit(func(db, web *spec.Process) {
			db.Dir, web.Dir = "/a", "/b"
			web.DependsOn = []spec.Dependency{spec.DefaultDependency("db")}
		}), []string{"j/db/0 restart: dir added", "j/web/0 restart: dir added, after db is started", "j/web/1 restart: dir added, after db is started"}},
		"scale": {plan.Wanted{Orders: []plan.Order{{Op: spec.OpScale, Process: "web", Shard: -1, Count: 3}}}, []string{
			"j/db/0 keep: ", "j/web/0 keep: ", "j/web/1 keep: ", "j/web/2 start: new shard"}},
		"fewer": {plan.Wanted{Orders: []plan.Order{{Op: spec.OpScale, Process: "web", Shard: -1, Count: 1}}}, []string{
			"j/db/0 keep: ", "j/web/0 keep: ", "j/web/1 stop: shards 2 → 1"}},
		"stop":    {order(spec.OpStop, "db", -1), []string{"j/db/0 stop: stopped by root", "j/web/0 keep: ", "j/web/1 keep: "}},
		"restart": {order(spec.OpRestart, "web", 0), []string{"j/db/0 keep: ", "j/web/0 restart: ordered by root", "j/web/1 keep: "}},
		"in steps": {edit(func(_, web *spec.Process) {
			u := spec.DefaultUpdate()
			web.Dir, web.Update = "/b", &u
		}), []string{"j/db/0 keep: ", "j/web/0 restart: dir added, 1 at a time", "j/web/1 restart: dir added, 1 at a time"}},
		"remove": {plan.Wanted{Remove: true}, []string{"j/db/0 stop: job removed", "j/web/0 stop: job removed", "j/web/1 stop: job removed"}},
		"ports": {edit(func(db, web *spec.Process) {
			db.Ports, web.Ports, web.Shards = []spec.Port{{Name: "x", Static: 80}}, []spec.Port{{Name: "y", Static: 81}}, 1
		}), []string{"j/db/0 restart: port.x.static added", "j/web/0 restart: port.y.static added", "j/web/1 stop: shards 2 → 1"}},
	}
	for name, test := range tests {
		test.w.Job, test.w.Who = "j", "root"
		p, err := plan.Compute(running(v), []plan.Wanted{test.w}, noon)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, i := range p.Jobs[0].Instances {
			got = append(got, fmt.Sprintf("%s %s: %s", i.ID, i.Action, i.Reason))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, test.want)
		}
	}
}

func TestWhatHasGivenUpIsStartedByANewVersion(t *testing.T) {
	v := next(t, nil, apply(job("j", process("db", 1))))
	s := running(v)
	in := &s.Observed["j"]["a"].Instances[0]
	in.Phase, in.LastExit = spec.PhaseFailed, &spec.Exit{Code: 3}
	edited := process("db", 1)
	edited.Dir = "/x"
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", edited), Source: v.Source}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Jobs[0].Instances[0]; got.Action != spec.ActionStart || got.Reason != "failed (exit 3); the new version starts it again" {
		t.Errorf("got %+v", got)
	}
}

func TestWhatCannotStartIsSaidSo(t *testing.T) {
	db, web := process("db", 1), process("web", 1)
	web.DependsOn = []spec.Dependency{spec.DefaultDependency("db")}
	v := next(t, nil, apply(job("j", db)))
	s := running(v)
	s.Observed["j"]["a"].Instances[0].Phase = spec.PhaseFailed
	p, err := plan.Compute(s, []plan.Wanted{{Job: "j", Apply: job("j", db, web), Source: v.Source}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Jobs[0].Instances[1]; got.Action != spec.ActionWait || got.Reason != "waits for db to be started" {
		t.Errorf("got %+v", got)
	}
	s.Nodes = nil
	if p, err = plan.Compute(s, []plan.Wanted{{Job: "k", Apply: job("k", db)}}, noon); err != nil {
		t.Fatal(err)
	}
	if got := p.Jobs[0].Instances[0]; got.Action != spec.ActionRefuse || got.Reason != "there is no node" {
		t.Errorf("got %+v", got)
	}
}

func TestAPlanNamesWhatRunsToItsEnd(t *testing.T) {
	once := process("once", 1)
	once.Restart.Policy = spec.RestartNever
	p, err := plan.Compute(plan.Snapshot{}, []plan.Wanted{{Job: "j", Apply: job("j", process("web", 1), once)}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Jobs[0].Ends; !slices.Equal(got, []string{"once"}) {
		t.Errorf("it names %q", got)
	}
}
