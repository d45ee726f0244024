// Package api is the door between people and an agent: HTTP over the unix
// socket agent.sock in the data directory. Bodies are the JSON of spec types;
// streams are one JSON value per line.
//
// The agent implements Backend and hands it to a Server; commands use a
// Client, which is a Backend, too. Whoever connects must be the user that the
// agent runs as, or root: the kernel says who it is.
//
// Other agents come over TCP, by the same routes and with mutual TLS
// (Credentials). They ask in the name of a person: X-Meshrun-Who, and the
// person's token in X-Consul-Token. With local=1 the agent answers for its
// node alone.
//
//	GET  /healthz                 the agent is there
//	GET  /ready                   the agent is able to work
//	GET  /v1/info                 Info
//	POST /v1/plan                 PlanRequest → spec.Plan
//	POST /v1/apply                spec.Plan → ApplyResult
//	GET  /v1/jobs                 []spec.JobVersion
//	GET  /v1/jobs/{job}           spec.JobVersion
//	GET  /v1/jobs/{job}/history   []spec.JobVersion
//	GET  /v1/instances?after=N    []spec.Instance; Meshrun-Index tells the index
//	GET  /v1/logs?…               spec.LogLine per line
//	GET  /v1/events?…             spec.Event per line
//	POST /v1/signal               Signal → Signalled
//	POST /v1/shutdown             Shutdown
//	POST /v1/upgrade
//	GET  /v1/cluster              Cluster
//	POST /v1/drain                Drain → Drained
//	GET  /v1/snapshot             the state as portable text
//	PUT  /v1/snapshot             the same, into a state without jobs
//	GET  /v1/engines              []EngineStatus
//	GET  /v1/engines/{name}       EngineStatus
//	PUT  /v1/engines/{name}       spec.Engine → EngineStatus; its heartbeat, too
package api
