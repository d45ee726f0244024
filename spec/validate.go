package spec

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// ReservedJob is the name of the job under which meshrun runs its own parts.
const ReservedJob = "meshrun"

// MaxNameLength is the longest name that a job, process or port may have.
const MaxNameLength = 63

// MaxJobBytes is the largest JSON that a job may have, so that it and what a
// node is told of it fit into one transaction of every store (512 KiB with
// values in base64).
const MaxJobBytes = 372 << 10

// assignedBytes is what a process takes beside its own JSON when it is
// assigned to a node: its version, its shards, why they are held, and what the
// event of it tells.
const assignedBytes = 160

// scheduledBytes is what comes to that with a schedule: when its next run is, the
// epoch of its last one, and since when its ticks count.
const scheduledBytes = 150

// MaxReportBytes is the largest JSON that a node may tell of what it runs of a
// job, so that it fits into one transaction of every store.
const MaxReportBytes = 378 << 10

// reportedBytes is what an instance takes in the shortest report beside the names
// of its job and its process, and checkedBytes what comes to that with checks.
const (
	reportedBytes = 335
	checkedBytes  = 65
)

// MaxFiles bounds the rotated log files of an instance.
const MaxFiles = 1000

// Problem is something in a job that cannot be meant, or cannot work.
type Problem struct {
	// Process is the process it is in; empty for the job's own.
	Process string
	// Path is the field or block as the user writes it: "restart.delay",
	// `port.http`; empty for the process or job as a whole.
	Path string
	// Summary says what is wrong in a few words, Detail how to mend it.
	Summary, Detail string
	// Moot is set if the job works all the same. What people write is refused
	// for it; what an order makes of that (a number of shards) is not.
	Moot bool
}

// String returns the problem on one line: "process "web": restart.delay: …".
func (p Problem) String() string {
	var b strings.Builder
	if p.Process != "" {
		fmt.Fprintf(&b, "process %q: ", p.Process)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Summary)
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	return b.String()
}

var (
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	userPattern = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.@-]*\$?(:[A-Za-z0-9_.][A-Za-z0-9_.@-]*)?$`)
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	dnsPattern  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

// Validate returns everything that is wrong with a normalized job, in the
// order of its processes and fields. It looks at meaning only: what this
// version cannot act on yet is schema's to refuse, and what only a node can
// know (users, directories, programs) is checked there.
func Validate(j *Job) []Problem {
	v := &validator{job: j}
	v.name("", "name", "job", j.Name)
	if j.Name == ReservedJob {
		v.add("", "name", `The job name "meshrun" is reserved`, "meshrun runs its own parts under it. Choose another name.")
	}
	if len(j.Processes) == 0 {
		v.add("", "", "A job needs at least one process", fmt.Sprintf("Add a process block to job %q, or remove the job.", j.Name))
	}
	seen := map[string]bool{}
	for i := range j.Processes {
		p := &j.Processes[i]
		if seen[p.Name] {
			v.add(p.Name, "", fmt.Sprintf("Two processes are named %q", p.Name), "Names of processes are unique within a job. Rename one of them.")
			continue
		}
		seen[p.Name] = true
		v.process(p)
	}
	v.staticPorts()
	v.dependencies()
	v.size()
	return v.problems
}

type validator struct {
	job      *Job
	problems []Problem
}

func (v *validator) add(process, path, summary, detail string) {
	v.problems = append(v.problems, Problem{Process: process, Path: path, Summary: summary, Detail: detail})
}

// name checks the name of a thing.
func (v *validator) name(process, path, thing, name string) {
	switch {
	case len(name) > MaxNameLength:
		v.add(process, path, fmt.Sprintf("The name of a %s is too long", thing),
			fmt.Sprintf("%q has %d characters; at most %d are allowed.", name, len(name), MaxNameLength))
	case !namePattern.MatchString(name):
		v.add(process, path, fmt.Sprintf("%q is not a name for a %s", name, thing),
			"Names consist of lower-case letters, digits, \"-\" and \"_\", and begin with a letter or digit.")
	}
}

func (v *validator) process(p *Process) {
	v.name(p.Name, "", "process", p.Name)
	v.command(p)
	if p.User != "" && !userPattern.MatchString(p.User) {
		v.add(p.Name, "user", fmt.Sprintf("%q is not a user", p.User), `Write "name" or "name:group", for example "www-data" or "synergy:adm".`)
	}
	for name := range sortedKeys(p.Env) {
		v.variable(p, name)
	}
	if p.Shards < 0 || p.Shards > MaxShards {
		v.add(p.Name, "shards", fmt.Sprintf("%d shards are not possible", p.Shards), fmt.Sprintf("Write a number from 0 to %d.", MaxShards))
	}
	v.restart(p)
	v.signals(p)
	v.limits(p)
	v.ports(p)
	v.services(p)
	v.health(p)
	v.guards(p)
	v.placing(p)
	v.schedule(p)
	v.update(p)
	v.resources(p)
	v.hooks(p)
}

func (v *validator) command(p *Process) {
	switch {
	case len(p.Command) == 0:
		v.add(p.Name, "command", "The command is empty", `Write the program and its arguments as a list, for example ["python3", "launcher.py"].`)
	case p.Command[0] == "":
		v.add(p.Name, "command[0]", "The program is an empty string", `The first element of command is the program to run, for example "python3".`)
	}
	for i, arg := range p.Command {
		v.nul(p, fmt.Sprintf("command[%d]", i), string(arg))
	}
	v.nul(p, "dir", string(p.Dir))
}

func (v *validator) variable(p *Process, name string) {
	path := "env." + name
	if !envPattern.MatchString(name) {
		v.add(p.Name, path, fmt.Sprintf("%q is not a name for an environment variable", name),
			"Such a name consists of letters, digits and \"_\", and does not begin with a digit.")
	}
	if strings.HasPrefix(name, "MESHRUN_") || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" || name == "WATCHDOG_PID" {
		v.add(p.Name, path, fmt.Sprintf("%s is set by meshrun", name), "Choose another name; those that begin with MESHRUN_ and those of sd_notify(3) are taken.")
	}
	v.nul(p, path, string(p.Env[name]))
}

// nul refuses what no argument and no variable of a Unix process can hold.
func (v *validator) nul(p *Process, path, text string) {
	if strings.ContainsRune(text, 0) {
		v.add(p.Name, path, "The text holds a NUL character", "No argument, variable or path can hold one. Remove it.")
	}
}

func (v *validator) ports(p *Process) {
	seen := map[string]bool{}
	for _, port := range p.Ports {
		path := "port." + port.Name
		v.name(p.Name, path, "port", port.Name)
		if seen[port.Name] {
			v.add(p.Name, path, fmt.Sprintf("Two ports are named %q", port.Name), "Names of ports are unique within a process. Rename one of them.")
		}
		seen[port.Name] = true
		if port.Static < 0 || port.Static > 65535 {
			v.add(p.Name, path+".static", fmt.Sprintf("%d is not a port", port.Static), "Write a number from 1 to 65535, or leave static out to have a free port chosen.")
		}
		if port.Static != 0 && p.Shards > 1 {
			v.add(p.Name, path+".static", fmt.Sprintf("%d shards cannot share port %d", p.Shards, port.Static),
				"Leave static out, so that each shard gets a port of its own, or set shards = 1.")
		}
	}
}

// staticPorts finds ports that two processes want.
func (v *validator) staticPorts() {
	type place struct{ process, port string }
	taken := map[int]place{}
	for _, p := range v.job.Processes {
		for _, port := range p.Ports {
			if port.Static == 0 {
				continue
			}
			if first, ok := taken[port.Static]; ok {
				v.add(p.Name, "port."+port.Name+".static", fmt.Sprintf("Port %d is used twice", port.Static),
					fmt.Sprintf("port %q of process %q has it already. Choose another one, or leave static out.", first.port, first.process))
				continue
			}
			taken[port.Static] = place{p.Name, port.Name}
		}
	}
}

// ReportBytes is about the most that a node must tell of one instance of the
// process, all but what it can leave out.
func (p *Process) ReportBytes(job string) int {
	n := reportedBytes + len(job) + len(p.Name)
	if len(p.Health) > 0 {
		n += checkedBytes
	}
	return n
}

// size makes sure that the job fits into the store, also while a node has two
// versions of those of its processes that an update block changes in steps.
func (v *validator) size() {
	data, err := json.Marshal(v.job)
	if err != nil {
		v.add("", "", "The job cannot be written as JSON", err.Error())
		return
	}
	size := len(data) + assignedBytes*len(v.job.Processes)
	twice := 0
	for i := range v.job.Processes {
		p := &v.job.Processes[i]
		if p.Schedule != nil {
			size += scheduledBytes
		}
		if p.Update != nil && p.Shards > 1 {
			old, _ := json.Marshal(p) // the job could be
			twice += len(old) + assignedBytes
		}
	}
	const mend = "Split it into several jobs, use shards instead of processes that are alike, or keep large texts in files."
	switch {
	case size > MaxJobBytes:
		v.add("", "", "The job is too large", fmt.Sprintf(
			"It takes %d KiB; at most %d KiB fit into one value of the store. %s", size>>10, MaxJobBytes>>10, mend))
	case size+twice > MaxJobBytes:
		v.add("", "", "The job is too large to be updated in steps", fmt.Sprintf(
			"A process with an update block and several shards counts twice, as a node has its old and its new version during a rollout. "+
				"So it takes %d KiB; at most %d KiB fit into one value of the store. %s", (size+twice)>>10, MaxJobBytes>>10, mend))
	}
}
