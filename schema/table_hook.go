package schema

import "github.com/synergymesh/meshrun/spec"

var hookBlock = &Block{
	Name: "hook", Label: "when", LabelValues: []string{"before_start", "after_stop"}, Repeat: true,
	Doc:   "A command that runs around the process's life.",
	Needs: `needs hooks, which this version of meshrun cannot run yet; remove the block (a process that others wait for with depends_on and condition = "completed" works today)`,
	Attrs: []Attr{
		{Name: "command", Kind: KindTemplateList, Required: true, Doc: "Program and arguments, as a list."},
		{Name: "timeout", Kind: KindDuration, Default: "30s", Doc: "Time that it may take."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    hook "before_start" {
      command = ["./warm-up"]
      timeout = "10s"
    }
  }
}`,
}

func decodeHook(r *reader, when string) spec.Hook {
	v := spec.DefaultHook(spec.HookTime(when))
	r.templates("command", &v.Command)
	r.duration("timeout", &v.Timeout)
	return v
}
