// Package orchestrator decides when each node runs what (layer L-C).
//
// Rollout is the decision: a pure function from a Snapshot of one job to a
// Decision, which holds the job's assignments by node, why instances do not run as
// wanted, the progress of its rollout, and the runs of its schedules. It reads no
// clock and no store, and gives the same decision for the same input. In order, it
//
//   - finds where each shard is wanted (want),
//   - begins and ends the runs of processes with a schedule (schedules),
//   - stops or restarts instances whose dependencies failed or restarted
//     (stopDependents, restartDependents),
//   - bounds disruption by the update blocks, and judges whether the rollout has
//     failed (gate),
//   - stops what leaves in reverse dependency order (delayStops), and
//   - builds the assignments (assign).
//
// Loop runs Rollout. It watches jobs, nodes, placements and observations, marks the
// jobs that a change concerns, asks Rollout about each, and writes assignments,
// rollout records, run records and their events. The nodes divide the control shards
// among them (see ControlShard); a Loop writes only for jobs of control shards whose
// locks it holds, and every transaction checks that lock.
//
// The package never chooses a node for a shard (runtime/scheduler does) and never
// starts or stops a process (runtime/engine does, by the assignments). It writes a
// job only to revert a failed rollout to its last good version.
package orchestrator
