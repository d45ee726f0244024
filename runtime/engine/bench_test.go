package engine

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// BenchmarkThousand takes an assignment through to the list of declarations.
func BenchmarkThousand(b *testing.B) {
	many := func(edited string) []spec.AssignedProcess {
		out := make([]spec.AssignedProcess, 1000)
		for i := range out {
			p := proc(fmt.Sprintf("p%03d", i), 0)
			p.Process.Command = []spec.Template{"/bin/sleep", "100000"}
			p.Process.Env = map[string]spec.Template{"A": "1", "B": "2"}
			out[i] = p
		}
		out[500].Process.Command[1] = spec.Template(edited)
		return out
	}
	sharded := proc("p", func() (s []int) {
		for i := range 1000 {
			s = append(s, i)
		}
		return s
	}()...)
	for name, values := range map[string][2][]spec.AssignedProcess{
		"processes": {many("1"), many("2")},
		"shards":    {{sharded}, {sharded}},
	} {
		var entries [2]state.Entry
		for i, v := range values {
			text, err := json.MarshalIndent(spec.Assignment{Job: "a", Node: "n", Processes: v}, "", "  ")
			if err != nil {
				b.Fatal(err)
			}
			entries[i] = state.Entry{Key: state.AssignmentKey("n", "a"), Value: text}
		}
		newEngine := func() *Engine {
			return New(Config{Agent: &fakeAgent{}, Logger: hclog.NewNullLogger(), Host: Host{Node: "n", Account: func(string) (Account, error) { return Account{}, nil }}})
		}
		b.Run(name+"/apply", func(b *testing.B) {
			for b.Loop() {
				e := newEngine()
				e.assignments.update(entries[:1])
				jobs, _ := e.assignments.current()
				if a := Converge(e.build.wanted(jobs, nil), nil, nil); len(a.Declare) != 1000 {
					b.Fatal(len(a.Declare))
				}
			}
		})
		b.Run(name+"/edit", func(b *testing.B) {
			e := newEngine()
			declared := map[spec.InstanceID]Declared{}
			n := uint64(0)
			for b.Loop() {
				n++
				entry := entries[n%2]
				entry.ModifyIndex = n
				e.assignments.update([]state.Entry{entry})
				jobs, _ := e.assignments.current()
				for _, w := range Converge(e.build.wanted(jobs, nil), nil, declared).Declare {
					declared[w.ID] = Declared{Digest: w.Digest}
				}
			}
		})
	}
}
