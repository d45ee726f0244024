package schema

import "github.com/synergymesh/meshrun/spec"

var guardBlock = &Block{
	Name: "guard", Label: "resource", LabelValues: []string{"cpu", "memory"}, Repeat: true,
	Doc:   "Acts when the process uses too much of something for too long.",
	Needs: `needs measuring of processes, which this version of meshrun cannot do yet; remove the block`,
	Attrs: []Attr{
		{Name: "above", Kind: KindAmount, Required: true, Doc: "Percentage of one core (`95%`), or size of memory (`512MiB`)."},
		{Name: "for", Kind: KindDuration, Default: "0s", Doc: "How long before the guard acts."},
		{Name: "action", Kind: KindEnum, Values: []string{"restart", "alert"}, Required: true, Doc: "What it does."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    guard "memory" {
      above  = "512MiB"
      for    = "30s"
      action = "restart"
    }
  }
}`,
}

func decodeGuard(r *reader, kind string) spec.Guard {
	v := spec.DefaultGuard(spec.GuardKind(kind))
	r.amount("above", &v.Above)
	r.duration("for", &v.For)
	v.Action = spec.GuardAction(r.enum("action"))
	return v
}
