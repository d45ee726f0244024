// Package api is how people and other agents reach an agent: HTTP over the
// unix socket agent.sock in the data directory. Bodies are the JSON of spec
// types; a stream is one JSON value per line.
//
// The agent implements Backend and hands it to a Server; a command uses a
// Client, which is a Backend, too. A caller must run as the agent's user or as
// root: the kernel says who it is.
//
// Other agents call the same endpoints over TCP with mutual TLS (Credentials).
// They call in the name of a person: X-Meshrun-Who names the person, and
// X-Consul-Token is the person's token. With local=1 the agent answers for its
// node alone.
//
// An endpoint is declared once, in endpoints.go: its method, its path, the
// types of its bodies, and the method of Backend that answers. Outside of that
// table are only GET /healthz and the snapshot (GET and PUT /v1/snapshot),
// whose body is portable text of any length.
package api
