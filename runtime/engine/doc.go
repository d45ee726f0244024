// Package engine does on one node what is assigned to it (layer L-D): it turns
// assignments into launches, declares the difference to the watchdog, and
// reports what it sees.
//
//	assignments/<node>/ ──watch──▶ Launch ──▶ Converge ──▶ Watchdog.Declare
//	observed/<node>/<job> ◀──batched── view ◀──events── Watchdog.Events
//
// Its brain is two pure functions, Launch and Converge; its body is a loop that
// may be killed at any moment: all that it must not forget is in the store, in
// the watchdog's table, or in a shard's lock. Nothing is ever removed because
// something could not be read.
package engine
