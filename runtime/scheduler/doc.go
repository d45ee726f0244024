// Package scheduler decides where the shards of a job run (layer L-B). Place is the
// decision, a pure function of the job, the nodes and the placement before; Loop
// lets the one primary write what Place says.
//
// Where a process is to be rescheduled, a shard that has used up its restarts on a
// node is not placed there again. That is remembered in the placement itself, as
// spec.Spent, so that Place sees it in the placement before, and that it is written
// in the transaction that moves the shard, and is there for the next primary. Note
// puts what is observed into a placement, and Place drops what no longer holds: the
// memory is of one definition and one epoch of orders, and of nodes that are there.
// Each move makes the list longer, so a shard stops where no node is left.
package scheduler
