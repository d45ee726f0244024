// Package membership keeps a node a member of its cluster. A Member holds the
// node's session, which holds the node's record and all its locks: it creates
// the session, renews it every second, finds it again after a restart of the
// agent, and gives it up when the node leaves. With each renewal goes the lease
// of the exclusive shards: a renewal that was sent at t lets them live until
// t + fence.
//
// An Enforcer is the second who holds that deadline, beside the watchdog. A
// Partition asks another node to end this one's session when this node alone
// does not reach the store.
//
// The package starts and stops no instance by itself, and decides nothing about
// placement. Losing the session is no error of the agent: the lease is taken
// back, and a new session is made.
package membership
