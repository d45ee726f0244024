package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

func dependent(name string, on ...spec.Dependency) spec.Process {
	p := process(name, 1)
	p.DependsOn = on
	return p
}

func stored(jobs ...*spec.Job) plan.Snapshot {
	s := plan.Snapshot{Nodes: []spec.Node{{Name: "a"}}, Jobs: map[string]plan.Stored[spec.JobVersion]{}}
	for _, j := range jobs {
		s.Jobs[j.Name] = plan.Stored[spec.JobVersion]{Value: spec.JobVersion{Version: 1, Job: *j}, Index: 1}
	}
	return s
}

func TestAPlanRefusesACircleAcrossJobs(t *testing.T) {
	web := job("shop", dependent("web", spec.DefaultDependency("store/redis")))
	redis := job("store", dependent("redis", spec.DefaultDependency("shop/web")))
	const told = "shop/web → store/redis → shop/web"
	for name, test := range map[string]struct {
		s      plan.Snapshot
		wanted []plan.Wanted
		fails  bool
	}{
		"with a job that is there": {stored(web), []plan.Wanted{{Job: "store", Apply: redis}}, true},
		"both at once":             {stored(), []plan.Wanted{{Job: "store", Apply: redis}, {Job: "shop", Apply: web}}, true},
		"mended":                   {stored(web, redis), []plan.Wanted{{Job: "store", Apply: job("store", process("redis", 1))}}, false},
		"taken away":               {stored(web, redis), []plan.Wanted{{Job: "store", Remove: true}}, false},
		"stopped":                  {stored(web, redis), []plan.Wanted{{Job: "store", Orders: []plan.Order{{Op: spec.OpStop, Shard: -1}}}}, false},
		"somebody else's":          {stored(web, redis), []plan.Wanted{{Job: "k", Apply: job("k", process("p", 1))}}, false},
	} {
		_, err := plan.Compute(test.s, test.wanted, noon)
		if test.fails != (err != nil) || err != nil && (!errors.Is(err, plan.ErrInvalid) || !strings.Contains(err.Error(), told)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two people, each of whom plans one half of a circle before the other applies:
// the one who applies later is told to plan again, and then is refused.
func TestTwoAppliesAtOnceCannotCloseACircle(t *testing.T) {
	store := local.OpenMemory(local.Options{})
	defer store.Close()
	load := func() plan.Snapshot {
		s, err := plan.Load(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	compute := func(j *spec.Job) (spec.Plan, error) {
		return plan.Compute(load(), []plan.Wanted{{Job: j.Name, Apply: j, Who: "root"}}, noon)
	}
	commit := func(p spec.Plan) error {
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
	between := job("cache", dependent("mem", spec.DefaultDependency("store/redis")))
	for _, j := range []*spec.Job{job("shop", process("web", 1)), job("store", process("redis", 1)), between} {
		if p, err := compute(j); err != nil || commit(p) != nil {
			t.Fatal(err)
		}
	}
	shop := job("shop", dependent("web", spec.DefaultDependency("cache/mem")))
	redis := job("store", dependent("redis", spec.DefaultDependency("shop/web")))
	first, err := compute(shop)
	if err != nil {
		t.Fatal(err)
	}
	second, err := compute(redis)
	if err != nil {
		t.Fatal(err)
	}
	if err := commit(first); err != nil {
		t.Fatal(err)
	}
	if err := commit(second); !errors.Is(err, state.ErrConflict) {
		t.Errorf("the second half is applied: %v", err)
	}
	if _, err := compute(redis); !errors.Is(err, plan.ErrInvalid) {
		t.Errorf("planned again: %v", err)
	}
	if p, err := compute(shop); err != nil || p.Jobs[0].Needs != nil {
		t.Errorf("what depends on nothing new demands %v, %v", p.Jobs[0].Needs, err)
	}
}

func TestAPlanWarnsOfWhatNoJobHas(t *testing.T) {
	shop := job("shop", dependent("web", spec.DefaultDependency("store/redis")))
	for name, test := range map[string]struct {
		s      plan.Snapshot
		wanted []plan.Wanted
		warns  []string
	}{
		"it is there":    {stored(job("store", process("redis", 1))), []plan.Wanted{{Job: "shop", Apply: shop}}, nil},
		"it comes along": {stored(), []plan.Wanted{{Job: "shop", Apply: shop}, {Job: "store", Apply: job("store", process("redis", 1))}}, nil},
		"no job":         {stored(), []plan.Wanted{{Job: "shop", Apply: shop}}, []string{`job "shop": process "web": depends_on.store/redis: There is no job "store": "web" waits until it is applied.`}},
		"misspelt": {stored(job("store", process("redsi", 1))), []plan.Wanted{{Job: "shop", Apply: shop}},
			[]string{`job "shop": process "web": depends_on.store/redis: Job "store" has no process "redis": "web" waits until it has. Its processes are redsi. Did you mean "store/redsi"?`}},
		"it goes": {stored(shop, job("store", process("redis", 1))), []plan.Wanted{{Job: "store", Remove: true}},
			[]string{`job "shop": process "web": depends_on.store/redis: There is no job "store": "web" waits until it is applied.`}},
		"nothing to do with it": {stored(shop), []plan.Wanted{{Job: "k", Apply: job("k", process("p", 1))}}, nil},
	} {
		p, err := plan.Compute(test.s, test.wanted, noon)
		if err != nil || !slices.Equal(p.Warnings, test.warns) {
			t.Errorf("%s: warned %q, %v", name, p.Warnings, err)
		}
	}
}
