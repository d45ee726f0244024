package api

import (
	"context"
	"io"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ClusterBackend is what an agent knows and does of the cluster as a whole. On
// one machine that is a cluster of one.
type ClusterBackend interface {
	// Cluster returns the nodes and what each of them has to decide.
	Cluster(ctx context.Context) (Cluster, error)
	// Drain makes a node give its shards to others and take no new ones, or
	// ends that. It returns when it is ordered; the shards follow. ErrNotFound
	// says which name may have been meant.
	Drain(ctx context.Context, order Drain) (Drained, error)
	// EndSession ends the session of another node that asks for it because it
	// does not reach the store, so that others need not wait for its TTL. Only
	// agents may ask. It returns ErrUnavailable if this node is not sure that
	// the store is not away for all.
	EndSession(ctx context.Context, end SessionEnd) error
	// SaveSnapshot writes the whole state as portable text and returns its
	// number of keys. It holds whatever secrets the jobs hold.
	SaveSnapshot(ctx context.Context, w io.Writer) (int, error)
	// RestoreSnapshot writes what SaveSnapshot wrote into a state without jobs,
	// all or nothing, and returns the number of keys. ErrInvalid says that the
	// snapshot is damaged or that there are jobs already.
	RestoreSnapshot(ctx context.Context, r io.Reader) (int, error)

	// RegisterEngine makes an engine known that meshrun did not start, or keeps
	// it known: doing it again is its heartbeat. It returns ErrInvalid for a
	// record that makes no sense.
	RegisterEngine(ctx context.Context, engine spec.Engine) (EngineStatus, error)
	// Engines returns the registered engines, ordered by name; in a call that
	// is Local those that this agent looks after.
	Engines(ctx context.Context) ([]EngineStatus, error)
	// Engine returns one engine, or ErrNotFound.
	Engine(ctx context.Context, name string) (EngineStatus, error)
}

// Cluster is the nodes and who decides what.
type Cluster struct {
	Nodes []NodeStatus `json:"nodes"`
	// Primary is the node whose scheduler decides; "" while nobody does.
	Primary string `json:"primary"`
	// ControlShards are the nodes that own the control shards, by number; ""
	// while nobody does.
	ControlShards []string `json:"control_shards"`
}

// NodeState is whether a node can be used.
type NodeState string

// The states of a node.
const (
	NodeReady    NodeState = "ready"
	NodeDraining NodeState = "draining" // it takes no new shards, and gives its own away
	NodeGone     NodeState = "gone"     // it is not there, and something is still known of it
)

// NodeStatus is a node as the others see it.
type NodeStatus struct {
	spec.Node
	State NodeState `json:"state"`
	// Instances counts those with a process.
	Instances int `json:"instances"`
	// Reserved is what the resources come to of all that belongs on the node.
	Reserved spec.Resources `json:"reserved,omitzero"`
	Primary  bool           `json:"primary,omitempty"`
	// ControlShards are those that the node owns.
	ControlShards []int `json:"control_shards,omitempty"`
	// Exclusive are the exclusive shards whose locks the node holds.
	Exclusive []string `json:"exclusive,omitempty"`
	// Session holds the node's record and locks.
	Session string `json:"session,omitempty"`
}

// Drain is an order to drain a node.
type Drain struct {
	Node string `json:"node"`
	// Off ends the draining.
	Off bool `json:"off,omitempty"`
}

// Drained says what came of it.
type Drained struct {
	// Changed is false if the node was so already.
	Changed bool `json:"changed"`
	// Warnings are sentences about shards that no other node can take.
	Warnings []string `json:"warnings,omitempty"`
}

// SessionEnd asks for the end of the asking node's own session.
type SessionEnd struct {
	Node    string `json:"node"`
	Session string `json:"session"`
	// Silent is how long ago the last renewal was sent that succeeded.
	Silent spec.Duration `json:"silent"`
}

// EngineStatus is a registered engine and what its owner knows of it.
type EngineStatus struct {
	spec.Engine
	// Node owns the engine's control shard and counts its heartbeats.
	Node string `json:"node,omitempty"`
	// Beat is when the owner heard of it last; zero if the owner has not, since
	// it owns it, or could not be asked.
	Beat time.Time `json:"beat,omitzero"`
	// Expires is when it is forgotten unless it is heard of again.
	Expires time.Time `json:"expires,omitzero"`
}
