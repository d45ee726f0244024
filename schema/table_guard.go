package schema

import (
	"strconv"

	"github.com/zclconf/go-cty/cty"

	"github.com/synergymesh/meshrun/spec"
)

var guardBlock = &Block{
	Name: "guard", Label: "what", LabelValues: []string{"cpu", "memory", "zombie", "absent"}, Repeat: true,
	Doc: "Acts when the process, with all that it has started, uses too much of something for too long, or is not what it should be: " +
		"`cpu` and `memory` over a bound, more than so many `zombie` processes, or `absent`: it should run, and is down.",
	Attrs: []Attr{
		{Name: "above", Kind: KindAmount, Doc: "The bound: a percentage of one core (`95%`) for `cpu`, a size (`512MiB`) for `memory`, a number for `zombie` (Default: 0); `absent` has none."},
		{Name: "for", Kind: KindDuration, Default: "0s", Doc: "How long it must last before the guard acts."},
		{Name: "interval", Kind: KindDuration, Default: "5s", Doc: "Time between two looks."},
		{Name: "action", Kind: KindEnum, Values: []string{"alert", "restart"}, Default: "alert", Doc: "What it does: tell of it, or also restart the instance, by its restart policy and when a rollout would let it; `absent` can only `alert`, as nothing runs then that could be restarted."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    guard "memory" {
      above  = "512MiB"
      for    = "30s"
      action = "restart"
    }
    guard "absent" { for = "5m" }
  }
}`,
}

func decodeGuard(r *reader, kind string) spec.Guard {
	v := spec.DefaultGuard(spec.GuardKind(kind))
	switch v.Name {
	case spec.GuardZombie:
		var most int
		if r.integer("above", &most); most > 0 {
			v.Above = strconv.Itoa(most)
		}
	case spec.GuardAbsent:
		// Whatever is written is refused with the job: there is no unit to ask for.
		if g, _ := r.scalar("above", cty.DynamicPseudoType); g != nil {
			v.Above = g.text()
		}
	default:
		r.amount("above", &v.Above)
	}
	r.duration("for", &v.For)
	r.duration("interval", &v.Interval)
	v.Action = spec.GuardAction(r.enum("action"))
	return v
}
