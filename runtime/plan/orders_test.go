package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/spec"
)

// canaried returns a process of which one shard is tried first.
func canaried(name string, shards int) spec.Process {
	p, u := process(name, shards), spec.DefaultUpdate()
	u.Canary = 1
	p.Update = &u
	return p
}

func TestARolloutIsPausedResumedAndPromotedByProcess(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3), process("b", 1))))

	paused := next(t, v, order(spec.OpPause, "", -1))
	if !paused.Orders["a"].Paused || !paused.Orders["b"].Paused || !paused.Order("a", 2).Paused {
		t.Errorf("pause of the job gives %+v", paused.Orders)
	}
	if paused.Version != v.Version+1 || paused.Why != "pause" {
		t.Errorf("pause makes version %d, %q", paused.Version, paused.Why)
	}
	if again := next(t, paused, order(spec.OpPause, "a", -1)); again != paused {
		t.Errorf("a second pause makes version %d", again.Version)
	}
	one := next(t, paused, order(spec.OpResume, "b", -1))
	if !one.Orders["a"].Paused || one.Orders["b"].Paused {
		t.Errorf("resume of b leaves %+v", one.Orders)
	}
	if all := next(t, one, order(spec.OpResume, "", -1)); all.Orders != nil {
		t.Errorf("resume of the job leaves %+v", all.Orders)
	}

	promoted := next(t, v, order(spec.OpPromote, "", -1))
	if !promoted.Orders["a"].Promoted || promoted.Orders["b"].Promoted {
		t.Errorf("promote of the job gives %+v", promoted.Orders)
	}
	if nothing := next(t, v, order(spec.OpPromote, "b", -1)); nothing != v {
		t.Errorf("to promote a process without canaries makes version %d", nothing.Version)
	}
}

func TestOrdersOfARolloutDoNotTouchOthers(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3))))
	v = next(t, v, order(spec.OpRestart, "a", -1))
	v = next(t, v, order(spec.OpStop, "a", 1))
	v = next(t, v, order(spec.OpPause, "a", -1))
	if o := v.Order("a", 1); !o.Stopped || o.Epoch != 1 || !o.Paused {
		t.Errorf("after a pause the order is %+v", o)
	}
	v = next(t, v, order(spec.OpRestart, "a", 0))
	if o := v.Order("a", 0); o.Epoch != 2 || !o.Paused {
		t.Errorf("after a restart the order is %+v", o)
	}
}

func TestAnApplyEndsWhatWasOrderedOfAnOlderDefinition(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3), canaried("b", 3))))
	v = next(t, v, order(spec.OpPause, "", -1))
	v = next(t, v, order(spec.OpPromote, "", -1))
	v = next(t, v, order(spec.OpRestart, "a", -1))

	if same := next(t, v, apply(job("j", canaried("a", 3), canaried("b", 3)))); same != v {
		t.Errorf("an apply of the same makes version %d with %+v", same.Version, same.Orders)
	}
	other := canaried("a", 3)
	other.Command = []spec.Template{"walk"}
	v = next(t, v, apply(job("j", other, canaried("b", 3))))
	if o := v.Orders["a"]; !o.Paused || o.Promoted || o.Epoch != 1 {
		t.Errorf("of the changed process the order is %+v", o)
	}
	if o := v.Orders["b"]; !o.Paused || !o.Promoted {
		t.Errorf("of the process that is as it was the order is %+v", o)
	}
	back := apply(job("j", canaried("a", 3), canaried("b", 3)))
	back.Revert = true
	if v = next(t, v, back); v.Orders["a"].Paused || v.Orders["b"].Paused {
		t.Errorf("taken back, and yet %+v", v.Orders)
	}
}

func TestAPauseSaysWhoHoldsWhatIsApplied(t *testing.T) {
	for name, p := range map[string]spec.Process{"in steps": canaried("a", 3), "at once": process("a", 3)} {
		v := next(t, nil, apply(job("j", p)))
		v = next(t, v, order(spec.OpPause, "", -1))
		v = next(t, v, order(spec.OpRestart, "", -1))
		if text := v.Orders["a"].PausedText(); text != "paused by root since "+noon.Format("2006-01-02 15:04 MST") {
			t.Errorf("%s: it is %s", name, text)
		}
		p.Command = []spec.Template{"walk"}
		other := apply(job("j", p))
		other.Job = "j"
		planned, err := plan.Compute(plan.Snapshot{Jobs: map[string]plan.Stored[spec.JobVersion]{"j": {Value: *v, Index: 1}}},
			[]plan.Wanted{other}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if !planned.Jobs[0].Steps || !slices.ContainsFunc(planned.Warnings, func(w string) bool {
			return strings.Contains(w, "j/a is paused by root") && strings.Contains(w, "meshrun resume j")
		}) {
			t.Errorf("%s: the plan warns %q", name, planned.Warnings)
		}
	}
}

func TestOneShardIsNotRolledOut(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3))))
	for _, op := range []spec.Op{spec.OpPause, spec.OpResume, spec.OpPromote} {
		w := order(op, "a", 1)
		w.Job = "j"
		_, err := plan.Next(v, 0, w, noon)
		if !errors.Is(err, plan.ErrInvalid) || !strings.Contains(err.Error(), "name j/a") {
			t.Errorf("%s of a shard: %v", op, err)
		}
	}
}

func TestScaleBelowTheCanariesIsNotRefused(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3))))
	w := order(spec.OpScale, "a", -1)
	w.Orders[0].Count = 1
	scaled := next(t, v, w)
	if got := scaled.Job.Processes[0].Shards; got != 1 {
		t.Errorf("scaled to %d shards", got)
	}
	// A version that was scaled so can be brought back.
	next(t, v, apply(&scaled.Job))
}

func TestAnOrderOfARolloutIsToldAsOne(t *testing.T) {
	v := next(t, nil, apply(job("j", canaried("a", 3))))
	p, err := plan.Compute(plan.Snapshot{Jobs: map[string]plan.Stored[spec.JobVersion]{"j": {Value: *v, Index: 1}}},
		[]plan.Wanted{{Job: "j", Orders: []plan.Order{{Op: spec.OpPause, Shard: -1}}}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	txns, err := plan.Ops(p, "root", noon)
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, op := range txns[0] {
		told = told || strings.Contains(string(op.Value), `"`+string(spec.EventRolloutOrdered)+`"`)
	}
	if !told {
		t.Errorf("no event of type %s is written", spec.EventRolloutOrdered)
	}
}

func TestRunsByHandEndWithTheSchedule(t *testing.T) {
	scheduled := process("a", 1)
	s := spec.DefaultSchedule()
	s.Cron = "0 3 * * *"
	scheduled.Restart.Policy, scheduled.Schedule = spec.RestartNever, &s
	v := next(t, nil, apply(job("j", scheduled)))
	v = next(t, v, order(spec.OpRun, "a", -1))
	if n := v.Orders["a"].Runs; n != 1 {
		t.Fatalf("%d runs are asked for", n)
	}
	v = next(t, v, apply(job("j", process("a", 1))))
	v = next(t, v, apply(job("j", scheduled)))
	if n := v.Orders["a"].Runs; n != 0 {
		t.Errorf("%d runs are asked for once more", n)
	}
}
