package spec

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

func drawDuration(t *rapid.T, name string) Duration {
	return Duration(rapid.IntRange(0, 3).Draw(t, name)) * Duration(time.Second)
}

func drawTemplate(t *rapid.T, name string) Template {
	return Template(rapid.SampledFrom([]string{"", "a", "b", "${shard.count}", "x-${shard.index}", "$${x}", "q\"\n"}).Draw(t, name))
}

func drawTemplates(t *rapid.T, name string) []Template {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Template { return drawTemplate(t, name) }), 0, 3).Draw(t, name)
}

// drawProcess draws a process in which every field may be set or not.
func drawProcess(t *rapid.T, name string) Process {
	p := DefaultProcess(name)
	p.Command = drawTemplates(t, "command")
	p.Dir = drawTemplate(t, "dir")
	p.User = rapid.SampledFrom([]string{"", "www-data"}).Draw(t, "user")
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "B", "C"}), 0, 3, rapid.ID).Draw(t, "env") {
		if p.Env == nil {
			p.Env = map[string]Template{}
		}
		p.Env[key] = drawTemplate(t, "value")
	}
	p.Shards = rapid.IntRange(0, 3).Draw(t, "shards")
	p.Exclusive = rapid.Bool().Draw(t, "exclusive")
	p.Critical = rapid.Bool().Draw(t, "critical")
	p.Restart.Delay = drawDuration(t, "delay")
	p.Restart.Attempts = rapid.IntRange(0, 3).Draw(t, "attempts")
	p.Stop.Signal = rapid.SampledFrom([]Signal{"SIGTERM", "SIGINT"}).Draw(t, "stop")
	if rapid.Bool().Draw(t, "has reload") {
		p.Reload = &Reload{Signal: "SIGHUP", Files: drawTemplates(t, "files")}
	}
	if rapid.Bool().Draw(t, "has ready") {
		p.Ready = &Ready{Notify: rapid.Bool().Draw(t, "notify"), Timeout: drawDuration(t, "ready")}
	}
	if rapid.Bool().Draw(t, "has watchdog") {
		p.Watchdog = &Watchdog{Timeout: drawDuration(t, "watchdog")}
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"http", "admin"}), 0, 2, rapid.ID).Draw(t, "ports") {
		p.Ports = append(p.Ports, Port{Name: name, Static: rapid.SampledFrom([]int{0, 80, 81}).Draw(t, "static")})
	}
	for _, on := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y"}), 0, 2, rapid.ID).Draw(t, "depends") {
		p.DependsOn = append(p.DependsOn, Dependency{Process: on, Condition: rapid.SampledFrom([]Condition{ConditionStarted, ConditionCompleted}).Draw(t, "condition")})
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"web", "db"}), 0, 2, rapid.ID).Draw(t, "services") {
		p.Services = append(p.Services, Service{Name: name, Tags: rapid.SampledFrom([][]string{nil, {"a"}, {"b", "c"}}).Draw(t, "tags")})
	}
	if rapid.Bool().Draw(t, "has resources") {
		p.Resources = &Resources{CPU: rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "cpu")}
	}
	if rapid.Bool().Draw(t, "has placement") {
		p.Placing = &Placing{Constraints: []Constraint{{Label: "disk", Is: rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")}}}
	}
	for i := range p.Command {
		if rapid.IntRange(0, 4).Draw(t, "hide") == 0 {
			p.Sensitive = append(p.Sensitive, fmt.Sprintf("command[%d]", i))
		}
	}
	for key := range sortedKeys(p.Env) {
		if rapid.IntRange(0, 4).Draw(t, "hide") == 0 {
			p.Sensitive = append(p.Sensitive, "env."+key)
		}
	}
	return p
}

func drawJob(t *rapid.T) *Job {
	j := &Job{Name: "j"}
	if rapid.Bool().Draw(t, "labels") {
		j.Labels = map[string]string{"team": rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "team")}
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID).Draw(t, "processes") {
		j.Processes = append(j.Processes, drawProcess(t, name))
	}
	j.Normalize()
	return j
}

// mutate draws a job that differs little from j, or not at all.
func mutate(t *rapid.T, j *Job) *Job {
	other := j.Clone()
	if len(other.Processes) > 0 && rapid.Bool().Draw(t, "mutate") {
		p := &other.Processes[rapid.IntRange(0, len(other.Processes)-1).Draw(t, "which")]
		fresh := drawProcess(t, p.Name)
		switch rapid.IntRange(0, 9).Draw(t, "field") {
		case 0:
			p.Command, p.Sensitive = fresh.Command, fresh.Sensitive
		case 1:
			p.Env, p.Sensitive = fresh.Env, fresh.Sensitive
		case 2:
			p.Shards = fresh.Shards
		case 3:
			p.Restart = fresh.Restart
		case 4:
			p.Ready = fresh.Ready
		case 5:
			p.Ports = fresh.Ports
		case 6:
			p.Watchdog = fresh.Watchdog
		case 7:
			p.Reload = fresh.Reload
		case 8:
			p.DependsOn, p.Placing, p.Resources, p.Services = fresh.DependsOn, fresh.Placing, fresh.Resources, fresh.Services
		case 9:
			*p = fresh
		}
		// What is marked must be there, or the mark means nothing.
		p.Sensitive = presentPaths(p)
	}
	other.Normalize()
	return &other
}

func presentPaths(p *Process) []string {
	var out []string
	for _, s := range p.Sensitive {
		for i := range p.Command {
			if s == fmt.Sprintf("command[%d]", i) {
				out = append(out, s)
			}
		}
		for key := range p.Env {
			if s == "env."+key {
				out = append(out, s)
			}
		}
	}
	return out
}
