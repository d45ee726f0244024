package state

import (
	"fmt"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

// The layout of the keys, all under Root. Values are indented JSON of the
// spec type named in the comment.
const (
	Root = "meshrun/v1/"

	JobsPrefix        = Root + "jobs/"        // <job>: spec.JobVersion
	HistoryPrefix     = Root + "history/"     // <job>/<version>: spec.JobVersion
	PlacementsPrefix  = Root + "placements/"  // <job>: spec.Placement
	AssignmentsPrefix = Root + "assignments/" // <node>/<job>: spec.Assignment
	ObservedPrefix    = Root + "observed/"    // <node>/<job>: spec.Observed
	NodesPrefix       = Root + "nodes/"       // <node>: spec.Node
	RolloutsPrefix    = Root + "rollouts/"    // <job>: spec.Rollout
	RunsPrefix        = Root + "runs/"        // <job>/<process>/<id>: spec.Run
	RosterKey         = Root + "roster"       // spec.Roster
	EnginesPrefix     = Root + "engines/"     // <engine>: spec.Engine
	EventsPrefix      = Root + "events/"      // <time-ordered id>: spec.Event
	LocksPrefix       = Root + "locks/"

	SchedulerLock           = LocksPrefix + "scheduler"      // names its holder, as those of the orchestrators do
	OrchestratorLocksPrefix = LocksPrefix + "orchestrators/" // <n> of ControlShards
	ShardLocksPrefix        = LocksPrefix + "shards/"        // <job>/<process>/<shard>: held by the node's session
)

// ControlShards is the number of shards into which the jobs are hashed for
// the orchestrators.
const ControlShards = 16

// JobKey is where the wanted version of a job is.
func JobKey(job string) string { return JobsPrefix + job }

// HistoryKey is where one version of a job is kept; versions sort by number.
func HistoryKey(job string, version uint64) string {
	return fmt.Sprintf("%s%s/%010d", HistoryPrefix, job, version)
}

// PlacementKey is where a job's placement is.
func PlacementKey(job string) string { return PlacementsPrefix + job }

// AssignmentKey is where a node's part of a job is.
func AssignmentKey(node, job string) string { return AssignmentsPrefix + node + "/" + job }

// ObservedKey is where a node reports a job's instances.
func ObservedKey(node, job string) string { return ObservedPrefix + node + "/" + job }

// RolloutKey is where a job's rollout is remembered.
func RolloutKey(job string) string { return RolloutsPrefix + job }

// RunKey is where one run of a scheduled process is kept; the runs of a tick
// sort by time.
func RunKey(job, process, id string) string { return RunsPrefix + job + "/" + process + "/" + id }

// NodeKey is where a node describes itself.
func NodeKey(node string) string { return NodesPrefix + node }

// EngineKey is where a registered engine is.
func EngineKey(name string) string { return EnginesPrefix + name }

// EventKey is where a decision's event is kept.
func EventKey(id string) string { return EventsPrefix + id }

// OrchestratorLock is the lock of a control shard.
func OrchestratorLock(n int) string { return OrchestratorLocksPrefix + strconv.Itoa(n) }

// ShardLock is the lock of one exclusive shard; the ModifyIndex of its taking
// is the fencing token.
func ShardLock(id spec.InstanceID) string { return ShardLocksPrefix + id.String() }
