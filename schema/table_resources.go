package schema

import "github.com/synergymesh/meshrun/spec"

var resourcesBlock = &Block{
	Name: "resources",
	Doc: "What each instance may use, all of its processes together, and no more. A change takes effect at once and touches no process; " +
		"a limit of memory that is below what is in use waits for the next start. Whoever wants more memory is killed by the kernel, which " +
		"`meshrun status` tells as \"out of memory\", and restarted by the restart block. With limits nobody survives the end of the instance, " +
		"also who has left its process group. It needs root, or a systemd unit with Delegate=yes; without it, instances run unlimited, and `meshrun status` says so. Nodes whose configuration has `cpu` or `memory` are given no more shards than these come to.",
	Attrs: []Attr{
		{Name: "cpu", Kind: KindFloat, Min: spec.MinCPU, Max: 4096, Doc: "Cores: 0.5 is half of one. It is also the weight against others when all are busy."},
		{Name: "memory", Kind: KindSize, Min: float64(spec.MinMemory), Doc: "Most memory, swapped out or not."},
		{Name: "pids", Kind: KindInt, Min: 1, Max: 1 << 22, Doc: "Most processes and threads."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    resources {
      cpu    = 0.5
      memory = "256MiB"
      pids   = 100
    }
  }
}`,
}

func decodeResources(r *reader) *spec.Resources {
	v := &spec.Resources{}
	r.float("cpu", &v.CPU)
	r.size("memory", &v.Memory)
	r.integer("pids", &v.PIDs)
	return v
}
