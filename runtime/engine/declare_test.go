package engine

import (
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestLaunchesWithLargeEnvironmentsAreDeclaredInBatches(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		var shards []int
		for i := range 100 {
			shards = append(shards, i)
		}
		p := proc("web", shards...)
		p.Process.Env = map[string]spec.Template{"A": spec.Template(strings.Repeat("x", 225_000))}
		r.dog.takeCalls()
		r.assign("shop", p)
		settled()
		declared := 0
		for _, call := range r.dog.takeCalls() {
			if declared += len(call); len(call)*225_000 > declareBytes {
				t.Errorf("%d of them were declared together", len(call))
			}
		}
		want(t, declared, 100)
	})
}
