package schema

import "github.com/synergymesh/meshrun/spec"

var healthBlock = &Block{
	Name: "health", Label: "name", Repeat: true,
	Doc: "A check of the running process. Exactly one of `url`, `tcp`, `command`, `grpc`, `notify` and `log` says what is checked. " +
		"The instance is healthy once all its checks pass, and unhealthy as soon as one fails.",
	Attrs: []Attr{
		{Name: "url", Kind: KindTemplate, Doc: "HTTP or HTTPS address that is asked. Redirects are not followed, and no proxy is used."},
		{Name: "tcp", Kind: KindTemplate, Doc: "`host:port` that must take a connection."},
		{Name: "command", Kind: KindTemplateList, Doc: "Program and arguments that must exit with 0. It runs with the process's user, directory and environment, and is killed at the timeout with all that it has started."},
		{Name: "grpc", Kind: KindTemplate, Doc: "`host:port` whose standard health service (grpc.health.v1) must say SERVING."},
		{Name: "notify", Kind: KindBool, Default: "false", Doc: "The process must have sent READY=1; needs `ready { notify = true }`."},
		{Name: "log", Kind: KindString, Doc: "Regular expression (RE2) that a line of output must match once after each start."},
		{Name: "method", Kind: KindString, Doc: "With `url`: the method. Default: GET."},
		{Name: "headers", Kind: KindTemplateMap, Doc: "With `url`: headers to send; `Host` is the name that is asked for."},
		{Name: "status", Kind: KindStringList, Doc: "With `url`: the codes that are right, as `\"204\"` or `\"200-299\"`. Default: 200 to 399."},
		{Name: "body", Kind: KindString, Doc: "With `url`: regular expression (RE2) that the first 64 KiB of the body must match."},
		{Name: "service", Kind: KindString, Doc: "With `grpc`: the service that is asked for. Default: the server as a whole."},
		{Name: "tls", Kind: KindBool, Default: "false", Doc: "With `grpc`: use TLS."},
		{Name: "ca_file", Kind: KindString, Doc: "With TLS: file of the authorities to trust, on the node, instead of the system's."},
		{Name: "skip_verify", Kind: KindBool, Default: "false", Doc: "With TLS: trust whoever answers."},
		{Name: "interval", Kind: KindDuration, Default: "10s", Doc: "Time between two checks."},
		{Name: "timeout", Kind: KindDuration, Default: "1s", Doc: "Time that an answer may take."},
		{Name: "failures", Kind: KindInt, Default: "3", Min: 1, Max: 1000, Doc: "Failed checks in a row that make it fail."},
		{Name: "successes", Kind: KindInt, Default: "1", Min: 1, Max: 1000, Doc: "Successful checks in a row that make it pass."},
		{Name: "start_period", Kind: KindDuration, Default: "10s", Doc: "Time after a start in which failures don't count, until the first success: what starts slowly needs more."},
		{Name: "on_failure", Kind: KindEnum, Values: []string{"alert", "withdraw", "restart"}, Default: "alert",
			Doc: "What a failing check leads to: `alert` tells of it, `withdraw` also takes the services of the instance out of the catalog, `restart` also restarts the instance, by its restart policy and when a rollout would let it."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server", "--port", port.http]
    port "http" {}
    health "http" {
      url      = "http://127.0.0.1:${port.http}/healthz"
      interval = "5s"
    }
    health "queue" {
      command    = ["./check-queue"]
      interval   = "30s"
      on_failure = "restart"
    }
  }
}`,
}

func decodeHealth(r *reader, name string) spec.Health {
	v := spec.DefaultHealth(name)
	r.template("url", &v.URL)
	r.template("tcp", &v.TCP)
	r.templates("command", &v.Command)
	r.template("grpc", &v.GRPC)
	r.boolean("notify", &v.Notify)
	r.str("log", &v.Log)
	r.str("method", &v.Method)
	r.templateMap("headers", &v.Headers)
	r.stringList("status", &v.Status)
	r.str("body", &v.Body)
	r.str("service", &v.Service)
	r.boolean("tls", &v.TLS)
	r.str("ca_file", &v.CAFile)
	r.boolean("skip_verify", &v.SkipVerify)
	r.duration("interval", &v.Interval)
	r.duration("timeout", &v.Timeout)
	r.integer("failures", &v.Failures)
	r.integer("successes", &v.Successes)
	r.duration("start_period", &v.StartPeriod)
	v.OnFailure = spec.HealthAction(r.enum("on_failure"))
	return v
}
