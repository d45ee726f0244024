package plan_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/spec"
)

func TestMoreInstancesThanANodeCanReportAreRefused(t *testing.T) {
	one := plan.Snapshot{Nodes: []spec.Node{{Name: "a"}}}
	four := plan.Snapshot{Nodes: []spec.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}}
	many := running(next(t, nil, apply(job("j", process("web", 2000)))))
	for name, test := range map[string]struct {
		s      plan.Snapshot
		change plan.Wanted
		fails  bool
	}{
		"a thousand":        {one, apply(job("j", process("web", 1000))), false},
		"two thousand":      {one, apply(job("j", process("web", 2000))), true},
		"of two processes":  {one, apply(job("j", process("web", 800), process("db", 800))), true},
		"on several nodes":  {four, apply(job("j", process("web", 2000))), false},
		"more of many":      {many, plan.Wanted{Job: "j", Orders: []plan.Order{{Op: spec.OpScale, Process: "web", Shard: -1, Count: 2001}}}, true},
		"less of many":      {many, plan.Wanted{Job: "j", Orders: []plan.Order{{Op: spec.OpScale, Process: "web", Shard: -1, Count: 1999}}}, false},
		"a stop of many":    {many, plan.Wanted{Job: "j", Orders: []plan.Order{{Op: spec.OpStop, Shard: -1}}}, false},
		"a removal of many": {many, plan.Wanted{Job: "j", Remove: true}, false},
	} {
		test.change.Job = "j"
		_, err := plan.Compute(test.s, []plan.Wanted{test.change}, noon)
		if test.fails != errors.Is(err, plan.ErrInvalid) || test.fails != (err != nil) || err != nil && !strings.Contains(err.Error(), "split it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
