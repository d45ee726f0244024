package schema

import "github.com/synergymesh/meshrun/spec"

var resourcesBlock = &Block{
	Name:  "resources",
	Doc:   "Scheduling weights and limits.",
	Needs: `needs cgroups, which this version of meshrun cannot set up yet; remove the block`,
	Attrs: []Attr{
		{Name: "cpu", Kind: KindFloat, Min: 0, Max: 4096, Doc: "Cores."},
		{Name: "memory", Kind: KindSize, Min: 1, Doc: "Most memory."},
		{Name: "pids", Kind: KindInt, Min: 1, Max: 1 << 22, Doc: "Most processes and threads."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    resources {
      cpu    = 0.5
      memory = "256MiB"
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
