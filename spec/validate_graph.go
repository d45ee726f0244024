package spec

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// dependencies checks that every dependency exists and can come true.
func (v *validator) dependencies() {
	byName := processesByName(v.job)
	names := slices.Sorted(maps.Keys(byName))
	for i := range v.job.Processes {
		p := &v.job.Processes[i]
		seen := map[string]bool{}
		for _, d := range p.DependsOn {
			path := "depends_on." + d.Process
			if seen[d.Process] {
				v.add(p.Name, path, fmt.Sprintf("Process %q is depended on twice", d.Process), "Write one depends_on block for each process, with the stronger condition.")
				continue
			}
			seen[d.Process] = true
			v.dependency(p, d, byName[d.Process], names)
		}
	}
	v.cycles(byName)
}

func (v *validator) dependency(p *Process, d Dependency, on *Process, names []string) {
	path := "depends_on." + d.Process
	switch d.Condition {
	case ConditionStarted, ConditionHealthy, ConditionCompleted:
	default:
		v.add(p.Name, path+".condition", fmt.Sprintf("%q is not a condition", d.Condition), `Write "started", "healthy" or "completed".`)
	}
	switch d.OnFailure {
	case "", OnFailureStop, OnFailureRestart:
	default:
		v.add(p.Name, path+".on_failure", fmt.Sprintf("%q is not an on_failure action", d.OnFailure), `Write "wait", "restart" or "stop".`)
	}
	if strings.Contains(d.Process, "/") {
		v.farDependency(p, d)
		return
	}
	if d.Process == p.Name {
		v.add(p.Name, path, "A process cannot depend on itself", "It would wait for itself for ever. Remove the block.")
		return
	}
	if on == nil {
		detail := fmt.Sprintf("The processes of job %q are %s.", v.job.Name, strings.Join(names, ", "))
		if near := Nearest(d.Process, names); near != "" {
			detail = fmt.Sprintf("Did you mean %q?", near)
		}
		v.add(p.Name, path, fmt.Sprintf("There is no process %q in job %q", d.Process, v.job.Name), detail)
		return
	}
	if d.Condition == ConditionCompleted && on.Restart.Policy == RestartAlways {
		v.add(p.Name, path+".condition", fmt.Sprintf("Process %q never completes", d.Process),
			fmt.Sprintf("Its restart policy is \"always\", so it is started again whenever it ends, and %q would wait for ever. "+
				"Give %q restart { policy = \"on-failure\" } (or \"never\"), or use condition = \"started\".", p.Name, d.Process))
	}
	v.scheduled(p, d, on)
	if on.Shards == 0 && p.Shards > 0 {
		v.add(p.Name, path, fmt.Sprintf("Process %q has no shards", d.Process),
			fmt.Sprintf("It never starts, and %q would wait for ever. Give it shards, or remove the dependency.", p.Name))
	}
}

// farDependency checks the name of a process of another job. Whether there is
// such a one can change at any time, and only a plan can tell: see Unmeetable.
func (v *validator) farDependency(p *Process, d Dependency) {
	path := "depends_on." + d.Process
	job, process := d.Of(v.job.Name)
	switch {
	case job == v.job.Name:
		v.add(p.Name, path, "A process of the same job is named without it", fmt.Sprintf("Write depends_on %q.", process))
	case !namePattern.MatchString(job) || !namePattern.MatchString(process) || len(job) > MaxNameLength || len(process) > MaxNameLength:
		v.add(p.Name, path, fmt.Sprintf("%q is not the name of a process", d.Process),
			`Write "process" for one of the same job, and "job/process" for one of another job.`)
	}
}

// cycles reports each cycle of dependencies once, at the process that comes
// first by name.
func (v *validator) cycles(byName map[string]*Process) {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = open
		path = append(path, name)
		for _, d := range byName[name].DependsOn {
			switch {
			case byName[d.Process] == nil || d.Process == name:
			case state[d.Process] == open:
				v.cycle(path[slices.Index(path, d.Process):])
			case state[d.Process] == 0:
				visit(d.Process)
			}
		}
		path = path[:len(path)-1]
		state[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if state[name] == 0 {
			visit(name)
		}
	}
}

func (v *validator) cycle(names []string) {
	ring := append(slices.Clone(names), names[0])
	v.add(names[0], "depends_on."+ring[1], "These processes wait for each other: "+strings.Join(ring, " → "),
		"None of them could ever start. Remove one of the dependencies.")
}

// sortedKeys yields a map's keys in order.
func sortedKeys[V any](m map[string]V) iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(m)))
}
