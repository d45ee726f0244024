// Package control answers what people and other agents ask of an agent through
// the API: it plans and applies, reports status, output and events, and sends
// signals.
//
// A Node is the api.Backend of one node: it answers from the store, from its
// engine and from its watchdog. A Mesh is a Node that also asks the agents of
// all other nodes, merges their answers by time, and forwards a request to the
// agent that owns what it is about. A Registry keeps the engines that meshrun
// did not start, for the control shards that its agent owns.
//
// The package decides nothing by itself: a plan comes from runtime/plan, and
// what an apply writes is carried out by the scheduler, the orchestrator and the
// engine.
package control
