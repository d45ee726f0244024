package plan_test

import (
	"fmt"
	"testing"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/spec"
)

func BenchmarkPlanOfAnEditOfOneOfHundred(b *testing.B) {
	var processes []spec.Process
	for i := range 100 {
		processes = append(processes, process(fmt.Sprintf("p%d", i), 1))
	}
	v, err := plan.Next(nil, 0, plan.Wanted{Job: "j", Apply: job("j", processes...)}, noon)
	if err != nil {
		b.Fatal(err)
	}
	s := running(v)
	processes[7].Dir = "/x"
	w := plan.Wanted{Job: "j", Apply: job("j", processes...)}
	for b.Loop() {
		if _, err := plan.Compute(s, []plan.Wanted{w}, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlanOfANewJobOfHundred(b *testing.B) {
	var processes []spec.Process
	for i := range 100 {
		processes = append(processes, process(fmt.Sprintf("p%d", i), 1))
	}
	w := plan.Wanted{Job: "j", Apply: job("j", processes...)}
	for b.Loop() {
		if _, err := plan.Compute(plan.Snapshot{Nodes: []spec.Node{{Name: "a"}}}, []plan.Wanted{w}, noon); err != nil {
			b.Fatal(err)
		}
	}
}
