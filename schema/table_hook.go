package schema

import "github.com/synergymesh/meshrun/spec"

var hookBlock = &Block{
	Name: "hook", Label: "when", LabelValues: []string{"before_start", "after_stop"}, Repeat: true,
	Doc: "A command that runs around the process's life, as its user, in its directory and with its environment; what it prints goes to the process's log. " +
		"`before_start` runs before every start, also before restarts; if it fails or takes too long, so has the start, and `restart` says what follows. " +
		"`after_stop` runs after every end (exit, crash, stop, failed `before_start`) and before the next start; if it fails, that is only told. " +
		"The variable `MESHRUN_HOOK` names the hook, and `MESHRUN_EXIT` tells `after_stop` how the process ended: its exit code, the name of a signal, `failed` if it was not started, or `unknown`.",
	Attrs: []Attr{
		{Name: "command", Kind: KindTemplateList, Required: true, Doc: "Program and arguments, as a list."},
		{Name: "timeout", Kind: KindDuration, Default: "30s", Doc: "Time that it may take; then it is killed with all that it has started."},
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
