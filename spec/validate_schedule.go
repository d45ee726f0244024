package spec

import "fmt"

// MaxRuns is how many runs of a process whose schedule lets them overlap can be
// under way at the same time.
const MaxRuns = 8

// Instances is how many instances of the process there can be: what is placed.
// Runs that may overlap have a shard each.
func (p *Process) Instances() int {
	if p.Schedule != nil && p.Schedule.Overlap && p.Shards > 0 {
		return MaxRuns
	}
	return p.Shards
}

// schedule refuses times that never come, and what contradicts them.
func (v *validator) schedule(p *Process) {
	s := p.Schedule
	if s == nil {
		return
	}
	if _, err := cronZone(s.TimeZone); err != nil {
		v.add(p.Name, "schedule.time_zone", fmt.Sprintf("%q is not a time zone for a schedule", s.TimeZone), err.Error()+".")
	} else if _, err := ParseCron(s.Cron, s.TimeZone); err != nil {
		v.add(p.Name, "schedule.cron", fmt.Sprintf("%q is not a schedule", s.Cron), err.Error()+".")
	}
	switch s.CatchUp {
	case "", CatchUpNone, CatchUpOne:
	default:
		v.add(p.Name, "schedule.catch_up", fmt.Sprintf("%q is not known", s.CatchUp), `Write "none" (skip what was missed) or "one" (run the last of it late).`)
	}
	if p.Restart.Policy == RestartAlways {
		v.add(p.Name, "restart.policy", "A run that is restarted whenever it ends never ends",
			`A process with a schedule is down between its runs. Write policy = "on-failure" to try a failed run again, or leave the restart block out.`)
	}
	if p.Restart.Reschedules() {
		v.add(p.Name, "restart.exhausted", "A run ends on the node that it began on",
			`Of a process with a schedule, only its next run can be elsewhere. Write exhausted = "fail", or leave it out.`)
	}
	if p.Update != nil {
		v.add(p.Name, "update", "There is nothing to roll out in steps", "A process with a schedule is down between its runs, and each run starts with the definition of its time. Remove the update block.")
	}
	for _, d := range p.DependsOn {
		if d.OnFailure != "" && d.OnFailure != OnFailureWait {
			v.add(p.Name, "depends_on."+d.Process+".on_failure", "A run that has begun goes on, whatever becomes of others",
				"A process with a schedule waits for its dependencies before each run only. Remove on_failure.")
		}
	}
	if !s.Overlap {
		return
	}
	if p.Shards > 1 {
		v.add(p.Name, "schedule.overlap", fmt.Sprintf("Runs of %d shards cannot overlap", p.Shards), "Set shards = 1, or overlap = false: then all shards run at each time.")
	}
	if p.Exclusive {
		v.add(p.Name, "schedule.overlap", "Runs that overlap are not exclusive", "Remove exclusive, or set overlap = false: then there is never more than one run.")
	}
	for _, port := range p.Ports {
		if port.Static != 0 {
			v.add(p.Name, "port."+port.Name+".static", fmt.Sprintf("Runs that overlap cannot share port %d", port.Static),
				"Leave static out, so that each run gets a port of its own, or set overlap = false.")
		}
	}
}

// scheduled refuses to wait for what only a process that stays up can be.
func (v *validator) scheduled(p *Process, d Dependency, on *Process) {
	if on.Schedule == nil {
		return
	}
	path := "depends_on." + d.Process + ".condition"
	switch {
	case d.Condition != ConditionCompleted:
		v.add(p.Name, path, fmt.Sprintf("Process %q is down between its runs", d.Process),
			fmt.Sprintf("It has a schedule, so %q could start only while it runs. Use condition = \"completed\", which waits for a run that succeeds.", p.Name))
	case on.Schedule.Overlap:
		v.add(p.Name, path, fmt.Sprintf("Several runs of process %q may be under way", d.Process),
			"None of them is the one to wait for. Set overlap = false there, or remove the dependency.")
	case d.OnFailure != "" && d.OnFailure != OnFailureWait:
		v.add(p.Name, "depends_on."+d.Process+".on_failure", fmt.Sprintf("Process %q has not failed while its next run goes on", d.Process),
			fmt.Sprintf("%q would be stopped or restarted for each run. Remove on_failure.", p.Name))
	}
}
