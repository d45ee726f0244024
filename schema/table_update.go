package schema

import "github.com/synergymesh/meshrun/spec"

var updateBlock = &Block{
	Name:  "update",
	Doc:   "How a new version is rolled out.",
	Needs: `needs rolling updates, which this version of meshrun cannot do yet: a change restarts all that it concerns at once; remove the block`,
	Attrs: []Attr{
		{Name: "max_parallel", Kind: KindInt, Default: "1", Min: 1, Max: 65536, Doc: "Shards that are changed at the same time."},
		{Name: "canary", Kind: KindInt, Default: "0", Min: 0, Max: 65536, Doc: "Shards that are changed first, as a trial."},
		{Name: "min_healthy", Kind: KindDuration, Default: "10s", Doc: "How long a shard must be healthy before the next one's turn."},
		{Name: "auto_revert", Kind: KindBool, Default: "false", Doc: "Go back to the last good version on failure."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    shards  = 8
    update {
      max_parallel = 2
      auto_revert  = true
    }
  }
}`,
}

func decodeUpdate(r *reader) *spec.Update {
	v := spec.DefaultUpdate()
	r.integer("max_parallel", &v.MaxParallel)
	r.integer("canary", &v.Canary)
	r.duration("min_healthy", &v.MinHealthy)
	r.boolean("auto_revert", &v.AutoRevert)
	return &v
}
