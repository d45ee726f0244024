package schema

import "github.com/synergymesh/meshrun/spec"

var healthBlock = &Block{
	Name: "health", Label: "name", Repeat: true,
	Doc:   "A check of the running process.",
	Needs: `needs health checks, which this version of meshrun cannot run yet; remove the block (readiness through ready { notify = true } works today)`,
	Attrs: []Attr{
		{Name: "url", Kind: KindTemplate, Doc: "HTTP address that must answer with a status below 400."},
		{Name: "interval", Kind: KindDuration, Default: "10s", Doc: "Time between two checks."},
		{Name: "timeout", Kind: KindDuration, Default: "1s", Doc: "Time that an answer may take."},
		{Name: "failures", Kind: KindInt, Default: "3", Min: 1, Max: 1000, Doc: "Failed checks in a row that make it unhealthy."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server", "--port", port.http]
    port "http" {}
    health "http" {
      url      = "http://127.0.0.1:${port.http}/healthz"
      interval = "5s"
    }
  }
}`,
}

func decodeHealth(r *reader, name string) spec.Health {
	v := spec.DefaultHealth(name)
	r.template("url", &v.URL)
	r.duration("interval", &v.Interval)
	r.duration("timeout", &v.Timeout)
	r.integer("failures", &v.Failures)
	return v
}
