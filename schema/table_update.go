package schema

import "github.com/synergymesh/meshrun/spec"

var updateBlock = &Block{
	Name: "update",
	Doc: "How a change is rolled out. At no time are more than `max_parallel` shards down on purpose, whatever the cause: " +
		"an edit, an order, a check or a guard. `meshrun pause`, `resume`, `promote` and `revert` act on a rollout.",
	Attrs: []Attr{
		{Name: "max_parallel", Kind: KindInt, Default: "1", Min: 1, Max: 65536, Doc: "Shards that are changed at the same time."},
		{Name: "canary", Kind: KindInt, Default: "0", Min: 0, Max: 65536, Doc: "Shards that get a new version first, as a trial; the others wait until it is promoted. Fewer than `shards`."},
		{Name: "min_healthy", Kind: KindDuration, Default: "10s", Doc: "How long a shard must be healthy before the next one's turn."},
		{Name: "healthy_deadline", Kind: KindDuration, Default: "5m", Doc: "Longest time from a shard's change until it has been healthy for `min_healthy`; one that takes longer has failed, and the rollout with it."},
		{Name: "progress_deadline", Kind: KindDuration, Default: "10m", Doc: "Longest time in which no further shard becomes healthy; then the rollout has failed. At least `healthy_deadline`."},
		{Name: "auto_revert", Kind: KindBool, Default: "false", Doc: "Go back, when a rollout fails, to the last version of the job that was rolled out completely. Otherwise it stops where it is, until something else is applied."},
		{Name: "auto_promote", Kind: KindBool, Default: "false", Doc: "Promote by itself once all canaries are healthy. Otherwise `meshrun promote` does."},
		{Name: "stagger", Kind: KindDuration, Default: "0s", Doc: "Least time between two changes. Less than `progress_deadline`."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    shards  = 8
    update {
      max_parallel = 2
      canary       = 1
      auto_promote = true
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
	r.duration("healthy_deadline", &v.HealthyDeadline)
	r.duration("progress_deadline", &v.ProgressDeadline)
	r.boolean("auto_revert", &v.AutoRevert)
	r.boolean("auto_promote", &v.AutoPromote)
	r.duration("stagger", &v.Stagger)
	return &v
}
