package spec

import (
	"cmp"
	"slices"
	"strings"
)

// Normalize brings a job into its one canonical form, so that two jobs that
// mean the same are equal and have equal checksums: what has a name is sorted
// by it, empty lists and maps are nil, signals are spelt "SIGTERM", and a
// block that is missing altogether gets its default. Within a block, zero
// stays zero: defaults belong to the decoder (see DefaultProcess). Doing it
// twice changes nothing.
func (j *Job) Normalize() {
	if len(j.Labels) == 0 {
		j.Labels = nil
	}
	for i := range j.Processes {
		j.Processes[i].normalize()
	}
	sortBy(&j.Processes, func(p Process) string { return p.Name })
}

func (p *Process) normalize() {
	if len(p.Command) == 0 {
		p.Command = nil
	}
	if len(p.Env) == 0 {
		p.Env = nil
	}
	p.normalizeBlocks()
	for i := range p.DependsOn {
		p.DependsOn[i].Condition = cmp.Or(p.DependsOn[i].Condition, ConditionStarted)
		if p.DependsOn[i].OnFailure == OnFailureWait {
			p.DependsOn[i].OnFailure = "" // what it means, in the one way to say it
		}
	}
	for i := range p.Services {
		if len(p.Services[i].Tags) == 0 {
			p.Services[i].Tags = nil
		}
	}
	for i := range p.Hooks {
		if len(p.Hooks[i].Command) == 0 {
			p.Hooks[i].Command = nil
		}
	}
	sortBy(&p.Ports, func(v Port) string { return v.Name })
	sortBy(&p.DependsOn, func(v Dependency) string { return v.Process })
	sortBy(&p.Health, func(v Health) string { return v.Name })
	sortBy(&p.Guards, func(v Guard) string { return string(v.Name) })
	sortBy(&p.Services, func(v Service) string { return v.Name })
	sortBy(&p.Hooks, func(v Hook) string { return string(v.When) })
	sortBy(&p.Sensitive, func(v string) string { return v })
	p.Sensitive = slices.Compact(p.Sensitive)
}

// normalizeBlocks fills blocks that are missing and spells signals one way. A
// block of zeros alone is a missing one: as a whole, it could not be meant.
func (p *Process) normalizeBlocks() {
	if p.Restart == (Restart{}) {
		p.Restart = DefaultRestart()
	}
	p.Restart.Policy = cmp.Or(p.Restart.Policy, RestartAlways)
	p.Restart.Exhausted = cmp.Or(p.Restart.Exhausted, ExhaustedFail)
	if p.Stop == (Stop{}) {
		p.Stop = DefaultStop()
	}
	p.Stop.Signal = cmp.Or(p.Stop.Signal, DefaultStop().Signal).canonical()
	if p.Logs == (Logs{}) {
		p.Logs = DefaultLogs()
	}
	if p.Reload != nil {
		p.Reload.Signal = cmp.Or(p.Reload.Signal, DefaultReload().Signal).canonical()
		if len(p.Reload.Files) == 0 {
			p.Reload.Files = nil
		}
	}
	if p.Placing != nil {
		sortBy(&p.Placing.Constraints, func(v Constraint) string { return v.Label })
		sortBy(&p.Placing.Spreads, func(v Spread) string { return v.Label })
		if p.Placing.Constraints == nil && p.Placing.Spreads == nil {
			p.Placing = nil // it demands nothing
		}
	}
}

// canonical spells a signal with its prefix and in capitals; an unknown one is
// left for Validate to quote.
func (s Signal) canonical() Signal {
	name := strings.ToUpper(string(s))
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if c := Signal(name); c.Known() {
		return c
	}
	return s
}

// sortBy sorts a list by a name of its elements and makes an empty one nil.
func sortBy[T any](list *[]T, name func(T) string) {
	if len(*list) == 0 {
		*list = nil
		return
	}
	slices.SortStableFunc(*list, func(a, b T) int { return strings.Compare(name(a), name(b)) })
}
