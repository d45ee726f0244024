package spec

import "fmt"

// The least limits: below them nothing starts, or the kernel refuses them.
const (
	// MinCPU is the smallest share of processors, in cores.
	MinCPU = 0.01
	// MinMemory is the smallest amount of memory in which a process can begin.
	MinMemory = Size(4 << 20)
)

// resources refuses limits with which nothing could run, or that are none.
func (v *validator) resources(p *Process) {
	r := p.Resources
	if r == nil {
		return
	}
	if *r == (Resources{}) {
		v.add(p.Name, "resources", "The block limits nothing", "Set cpu, memory or pids in it, or remove it.")
	}
	if r.CPU != 0 && r.CPU < MinCPU {
		v.add(p.Name, "resources.cpu", fmt.Sprintf("%v cores are too few", r.CPU),
			fmt.Sprintf("Write the number of cores, at least %v; 0.5 is half of one.", MinCPU))
	}
	if r.Memory != 0 && r.Memory < MinMemory {
		v.add(p.Name, "resources.memory", fmt.Sprintf("%s of memory are too little", r.Memory),
			fmt.Sprintf("No process starts in less than %s. Write \"64MiB\", for example.", MinMemory))
	}
	if r.PIDs < 0 {
		v.add(p.Name, "resources.pids", fmt.Sprintf("%d processes are too few", r.PIDs),
			"Write how many processes and threads there may be together, at least 1.")
	}
}
