package spec

import "time"

// Severity says whom an event should wake.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// EventType names what happened.
type EventType string

// Decisions: written to the store in the transaction of the change itself.
const (
	EventJobApplied    EventType = "job.applied"
	EventJobRemoved    EventType = "job.removed"
	EventJobScaled     EventType = "job.scaled"
	EventJobStopped    EventType = "job.stopped"
	EventJobRestarted  EventType = "job.restarted"
	EventJobRefused    EventType = "job.refused"
	EventPlaced        EventType = "job.placed"
	EventRescheduled   EventType = "job.rescheduled" // restarts are used up on a node: a warning for what moves, critical for what stays down
	EventAssigned      EventType = "job.assigned"
	EventSignalled     EventType = "instance.signalled"
	EventNodeJoined    EventType = "node.joined"
	EventNodeLeft      EventType = "node.left" // critical if shards were on it
	EventNodeDrained   EventType = "node.drained"
	EventStateRepaired EventType = "state.repaired"
	EventStateRestored EventType = "state.restored" // from a snapshot
	EventNodeDraining  EventType = "node.draining"  // an operator drains it, or ends that
	EventWatchdogHung  EventType = "watchdog.hung"  // critical: it did not answer and was killed, for a successor

	// The rollout of a job: done is info; failed and reverted are critical.
	EventRolloutDone     EventType = "rollout.done"
	EventRolloutWaiting  EventType = "rollout.waiting"
	EventRolloutFailed   EventType = "rollout.failed"
	EventRolloutReverted EventType = "rollout.reverted"
	EventRolloutOrdered  EventType = "rollout.ordered" // paused, resumed or promoted by an operator

	EventRunStarted EventType = "run.started"
	EventRunEnded   EventType = "run.ended" // a warning if it failed
	EventRunSkipped EventType = "run.skipped"

	EventEngineRegistered EventType = "engine.registered" // from outside, or with another record
	EventEngineExpired    EventType = "engine.expired"    // its heartbeats stopped
)

// What instances do: journalled on their node.
const (
	EventDeclared    EventType = "instance.declared"
	EventStarting    EventType = "instance.starting" // about to fork
	EventStarted     EventType = "instance.started"  // forked and executed
	EventReady       EventType = "instance.ready"
	EventStatus      EventType = "instance.status"
	EventExited      EventType = "instance.exited"
	EventStartFailed EventType = "instance.start_failed"
	EventRecovered   EventType = "instance.recovered" // stayed up after a restart
	EventExhausted   EventType = "instance.exhausted" // critical: attempts used up
	EventStopping    EventType = "instance.stopping"
	EventKilled      EventType = "instance.killed"  // SIGKILL: stop timeout, missed watchdog
	EventFenced      EventType = "instance.fenced"  // critical: its lease was not renewed, so it has to end
	EventWaiting     EventType = "instance.waiting" // down, and waits for its lease
	EventReloaded    EventType = "instance.reloaded"
	EventUpdated     EventType = "instance.updated" // live change, nothing touched
	EventAdopted     EventType = "instance.adopted" // found alive by a new watchdog
	EventRemoved     EventType = "instance.removed"
	EventOutputLost  EventType = "instance.output_dropped"
	EventWatchdogUp  EventType = "watchdog.started"
	EventHealthy     EventType = "instance.healthy"
	EventUnhealthy   EventType = "instance.unhealthy" // a check fails
	EventGuard       EventType = "instance.guard"     // a guard's bound is passed, or kept again
	EventHook        EventType = "instance.hook"      // a hook runs, or has ended
	EventUnlimited   EventType = "node.unlimited"     // limits of resources cannot be set here
	EventStray       EventType = "watchdog.stray"     // a forgotten process was found and ended
	EventJournalGap  EventType = "watchdog.gap"       // events before this one are no longer kept: read the table
)

// Event is one thing that happened or was decided. Events never hold secrets.
type Event struct {
	// ID is unique and sorts by time: it is the key in the store for
	// decisions, "node/seq" for what a node journalled.
	ID string `json:"id,omitempty"`
	// Seq numbers the events of one node's journal without gaps, from 1.
	Seq      uint64    `json:"seq,omitempty"`
	Time     time.Time `json:"time"`
	Type     EventType `json:"type"`
	Severity Severity  `json:"severity"`
	Node     string    `json:"node,omitempty"`
	Job      string    `json:"job,omitempty"`
	Version  uint64    `json:"version,omitempty"`
	// Who asked for it: a person ("root"), or a part of meshrun ("watchdog").
	Who     string `json:"who,omitempty"`
	Message string `json:"message"`
	// Instance is the instance as it is after the event, for instance.* events.
	Instance *Instance `json:"instance,omitempty"`
	// Placement is what job.placed wrote; nil if it removed the placement.
	Placement *Placement `json:"placement,omitempty"`
	// Assigned is what job.assigned gave to Node; empty if it took all away.
	Assigned []AssignedShards `json:"assigned,omitempty"`
}
