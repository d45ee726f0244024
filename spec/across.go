package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// JobProblem is a Problem that a job has with other jobs.
type JobProblem struct {
	Job string
	// On are the jobs that it comes from as well, sorted.
	On []string
	Problem
}

// String returns the problem on one line: "job "shop": process "web": …".
func (p JobProblem) String() string { return fmt.Sprintf("job %q: %s", p.Job, p.Problem) }

// Needs returns the other jobs, sorted, on which processes of the job depend.
func (j *Job) Needs() []string {
	out := map[string]bool{}
	for i := range j.Processes {
		for _, d := range j.Processes[i].DependsOn {
			if on, _ := d.Of(j.Name); on != j.Name {
				out[on] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// Circles returns the circles of dependencies that go through more than one of
// the jobs, each once, at the process that comes first by name. Those within a
// job are Validate's to find.
func Circles(jobs map[string]*Job) []JobProblem {
	g := graph{processes: map[string]*Process{}, state: map[string]int{}}
	far := map[string]bool{} // processes that depend on other jobs
	for name, job := range jobs {
		for i := range job.Processes {
			p := &job.Processes[i]
			g.processes[name+"/"+p.Name] = p
			if slices.ContainsFunc(p.DependsOn, func(d Dependency) bool { return strings.Contains(d.Process, "/") }) {
				far[name+"/"+p.Name] = true
			}
		}
	}
	for name := range sortedKeys(far) { // no circle leaves a job but through one of them
		g.visit(name)
	}
	return g.found
}

// graph finds the circles among processes, which are named "job/process".
type graph struct {
	processes map[string]*Process
	state     map[string]int // 1 while it is on the path, 2 once it is done
	path      []string
	found     []JobProblem
}

func (g *graph) visit(name string) {
	p := g.processes[name]
	if g.state[name] != 0 || p == nil {
		return
	}
	job, _, _ := strings.Cut(name, "/")
	g.state[name] = 1
	g.path = append(g.path, name)
	for _, d := range p.DependsOn {
		onJob, on := d.Of(job)
		next := onJob + "/" + on
		if g.state[next] == 1 {
			g.circle(slices.Clone(g.path[slices.Index(g.path, next):]))
			continue
		}
		g.visit(next)
	}
	g.path = g.path[:len(g.path)-1]
	g.state[name] = 2
}

// circle reports a circle, unless it stays within one job.
func (g *graph) circle(names []string) {
	jobs := map[string]bool{}
	for _, name := range names {
		job, _, _ := strings.Cut(name, "/")
		jobs[job] = true
	}
	if len(jobs) < 2 {
		return
	}
	first := slices.Index(names, slices.Min(names))
	names = append(slices.Clone(names[first:]), names[:first]...)
	job, process, _ := strings.Cut(names[0], "/")
	next := names[1]
	if other, name, _ := strings.Cut(next, "/"); other == job {
		next = name
	}
	g.found = append(g.found, JobProblem{Job: job, On: slices.Sorted(maps.Keys(jobs)), Problem: Problem{
		Process: process, Path: "depends_on." + next,
		Summary: "These processes wait for each other: " + strings.Join(append(names, names[0]), " → "),
		Detail:  "None of them could ever start. Remove one of the dependencies.",
	}})
}

// Unmeetable returns the dependencies on other jobs that can't come true as the
// jobs are now. That is no fault: the other job may be applied later.
func Unmeetable(jobs map[string]*Job) []JobProblem {
	var out []JobProblem
	for job := range sortedKeys(jobs) {
		for i := range jobs[job].Processes {
			p := &jobs[job].Processes[i]
			for _, d := range p.DependsOn {
				onJob, process := d.Of(job)
				if onJob == job {
					continue
				}
				if summary, detail := unmeetable(jobs, p, d, onJob, process); summary != "" {
					out = append(out, JobProblem{Job: job, On: []string{onJob}, Problem: Problem{
						Process: p.Name, Path: "depends_on." + d.Process, Summary: summary, Detail: detail,
					}})
				}
			}
		}
	}
	return out
}

func unmeetable(jobs map[string]*Job, p *Process, d Dependency, onJob, process string) (summary, detail string) {
	job := jobs[onJob]
	if job == nil {
		detail = fmt.Sprintf("%q waits until it is applied.", p.Name)
		if near := Nearest(onJob, slices.Sorted(maps.Keys(jobs))); near != "" {
			detail += fmt.Sprintf(" Did you mean %q?", near+"/"+process)
		}
		return fmt.Sprintf("There is no job %q", onJob), detail
	}
	byName := processesByName(job)
	on := byName[process]
	switch {
	case on == nil:
		names := slices.Sorted(maps.Keys(byName))
		detail = fmt.Sprintf("%q waits until it has. Its processes are %s.", p.Name, strings.Join(names, ", "))
		if near := Nearest(process, names); near != "" {
			detail += fmt.Sprintf(" Did you mean %q?", onJob+"/"+near)
		}
		return fmt.Sprintf("Job %q has no process %q", onJob, process), detail
	case on.Shards == 0 && p.Shards > 0:
		return fmt.Sprintf("Process %q has no shards", d.Process), fmt.Sprintf("%q waits until it has.", p.Name)
	case on.Schedule != nil && (d.Condition != ConditionCompleted || on.Schedule.Overlap):
		return fmt.Sprintf("Process %q is down between its runs", d.Process),
			fmt.Sprintf("%q starts only while it runs. Use condition = \"completed\", which waits for a run that succeeds, without overlap.", p.Name)
	case d.Condition == ConditionCompleted && on.Restart.Policy == RestartAlways:
		return fmt.Sprintf("Process %q never completes", d.Process),
			fmt.Sprintf("Its restart policy is \"always\", so %q waits for ever. Give it restart { policy = \"on-failure\" } (or \"never\"), or use condition = \"started\".", p.Name)
	}
	return "", ""
}
