package watchdog

import "github.com/synergymesh/meshrun/spec"

// phase is the state of an instance in the table. It is finer than spec.Phase:
// there are several reasons to be stopping.
type phase uint8

// The phases. In hooking, starting, running, stopping, replacing, killing,
// ceding and cleaning a generation is under way: one of its processes is alive,
// or in the queue to be forked. In the others there is none.
const (
	pending   phase = iota // in the queue of forks
	starting               // forked, has not said READY=1 yet
	running                // up
	stopping               // asked to end; removed once it has
	replacing              // asked to end; started again once it has
	killing                // unresponsive or expired, and asked to end; the restart policy decides what follows
	ceding                 // its lease expires, and it was asked to end; fenced once it has
	backoff                // down until its next start is due
	completed              // ended with success, and the policy does not restart it
	failed                 // ended, and the policy has given up
	fenced                 // waits until its lease is renewed
	gone                   // removed
	hooking                // its before_start hook runs, or has just succeeded
	cleaning               // ended on its own; its after_stop hook runs
	numPhases
)

// event is what can happen to an instance.
type event uint8

// The events.
const (
	evReplace      event = iota // declared with another hash, epoch or lease
	evRemove                    // removed by a declaration
	evForked                    // forked; READY=1 must follow
	evUp                        // forked, and ready by that
	evReady                     // sent READY=1
	evReadyTimeout              // did not send READY=1 in time
	evUnresponsive              // did not send WATCHDOG=1 in time
	evExpire                    // this generation is to end; the restart policy decides what follows
	evRetry                     // ended or could not start; policy: restart
	evDone                      // ended; policy: done
	evGiveUp                    // ended or could not start; policy: give up
	evStopTimeout               // did not end in time after it was asked to
	evDue                       // the wait before the next start is over
	evStable                    // has run for its stable time
	evCede                      // its lease was not renewed, and expires soon
	evFence                     // its lease has expired, or allows no start
	evGrant                     // its lease is renewed, and allows its start
	evHooking                   // its before_start hook was forked
	evHooked                    // its before_start hook has succeeded
	evClean                     // its process has ended; after_stop is next
	numEvents
)

// action is what the loop does when the table says so.
type action uint8

// The actions, in the order in which a cell's are done.
const (
	actQueue   action = iota // put into the queue of forks
	actAsk                   // the stop signal to the group; SIGKILL at the timeout
	actKill                  // SIGKILL to the group
	actWait                  // set the timer of the next start
	actRecover               // record that a restart proved stable
	actRemove                // delete the instance and close what it holds
)

// cell is one entry of the table: the next phase, and the actions.
type cell struct {
	next phase
	acts []action
}

func to(next phase, acts ...action) cell { return cell{next: next, acts: acts} }

// table says what follows for every phase and every event. A late or
// meaningless event changes nothing.
//
//	declare                                         policy: again
//	   │          ┌───────────────────────────────────────────────────────┐
//	   ▼          ▼                                                       │
//	pending ──fork──▶ starting ──READY=1──▶ running ──ended──┬─again──▶ backoff
//	   ▲  ▲              │ │                 │  │  │         ├─done───▶ completed
//	   │  │              │ └──no READY=1──┐  │  │  │         └─give up▶ failed
//	   │  │              │                ▼  │  │  │              ▲
//	   │  │              │             killing◀─┘ no WATCHDOG=1,  │
//	   │  │              │                │          or it expires │
//	   │  │              │                └───────────ended───────┘ (or backoff)
//	   │  └──ended── replacing ◀──other hash or epoch
//	   │                 │ remove
//	   │                 ▼
//	   │             stopping ◀──remove── (starting, running, killing)
//	   │                 │ ended
//	   │                 ▼
//	   │               gone ◀──remove── (pending, backoff, completed, failed)
//	   └──other hash or epoch, or due── (backoff, completed, failed)
//
// Instances under a lease (lease.go):
//
//	starting, running ──lease ends soon, or is over──▶ ceding ──ended──▶ fenced
//	pending ──next in the queue, and its lease is not valid────────────────▲ │
//	   ▲──────────────────────lease renewed, or another hash, epoch or lease─┘
//
// Instances with hooks (hook.go):
//
//	pending ──fork of before_start──▶ hooking ──ended well, fork──▶ starting, running
//	                                     │ failed                           │ ended
//	                                     └──────────────▶ cleaning ◀────────┘
//	              (backoff, completed, failed) ◀──after_stop ended──┘
//
// stopping, replacing, killing and ceding last until after_stop has ended.
//
// Laws, each of them tested: every entry is filled; a start is queued only if no
// process is alive, or by the event of its end; no event leads out of gone; a
// removed instance never starts again on its own; an instance whose lease has
// expired is killed in every phase in which a process is alive, and starts only
// by a grant or another declaration.
var table = [numPhases][numEvents]cell{
	pending: row(pending, moves{
		evReplace: to(pending), // it is in the queue already
		evRemove:  to(gone, actRemove),
		evForked:  to(starting),
		evUp:      to(running),
		evRetry:   to(backoff, actWait),
		evGiveUp:  to(failed),
		evFence:   to(fenced),
		evHooking: to(hooking),
	}),
	hooking: row(hooking, moves{
		evReplace:     to(replacing, actAsk),
		evRemove:      to(stopping, actAsk),
		evHooked:      to(hooking, actQueue),
		evForked:      to(starting),
		evUp:          to(running),
		evExpire:      to(killing, actAsk),
		evStopTimeout: to(killing, actKill),
		evClean:       to(cleaning, actQueue),
		evRetry:       to(backoff, actWait),
		evDone:        to(failed), // it was never up
		evGiveUp:      to(failed),
		evCede:        to(ceding, actAsk),
		evFence:       to(ceding, actKill),
	}),
	starting: row(starting, moves{
		evReplace:      to(replacing, actAsk),
		evRemove:       to(stopping, actAsk),
		evReady:        to(running),
		evReadyTimeout: to(killing, actAsk),
		evUnresponsive: to(killing, actKill),
		evExpire:       to(killing, actAsk),
		evClean:        to(cleaning, actQueue),
		evRetry:        to(backoff, actWait),
		evDone:         to(completed),
		evGiveUp:       to(failed),
		evCede:         to(ceding, actAsk),
		evFence:        to(ceding, actKill),
	}),
	running: row(running, moves{
		evReplace:      to(replacing, actAsk),
		evRemove:       to(stopping, actAsk),
		evUnresponsive: to(killing, actKill),
		evExpire:       to(killing, actAsk),
		evClean:        to(cleaning, actQueue),
		evRetry:        to(backoff, actWait),
		evDone:         to(completed),
		evGiveUp:       to(failed),
		evStable:       to(running, actRecover),
		evCede:         to(ceding, actAsk),
		evFence:        to(ceding, actKill),
	}),
	stopping: row(stopping, moves{
		evReplace:     to(replacing), // removed and wanted again: it is ending already
		evClean:       to(stopping, actQueue),
		evRetry:       to(gone, actRemove),
		evDone:        to(gone, actRemove),
		evGiveUp:      to(gone, actRemove),
		evStopTimeout: to(stopping, actKill),
		evFence:       to(stopping, actKill),
	}),
	replacing: row(replacing, moves{
		evRemove:      to(stopping),
		evClean:       to(replacing, actQueue),
		evRetry:       to(pending, actQueue),
		evDone:        to(pending, actQueue),
		evGiveUp:      to(pending, actQueue),
		evStopTimeout: to(replacing, actKill),
		evFence:       to(replacing, actKill),
	}),
	killing: row(killing, moves{
		evReplace:     to(replacing),
		evRemove:      to(stopping),
		evClean:       to(killing, actQueue),
		evRetry:       to(backoff, actWait),
		evDone:        to(failed), // a duty not done is never a success
		evGiveUp:      to(failed),
		evStopTimeout: to(killing, actKill),
		evFence:       to(killing, actKill), // its next start waits for the lease
	}),
	ceding: row(ceding, moves{
		evReplace:     to(replacing),
		evRemove:      to(stopping),
		evClean:       to(ceding, actQueue),
		evRetry:       to(fenced),
		evDone:        to(fenced),
		evGiveUp:      to(fenced),
		evStopTimeout: to(ceding, actKill),
		evFence:       to(ceding, actKill),
	}),
	cleaning: row(cleaning, moves{
		evReplace:     to(replacing), // what ran has ended already
		evRemove:      to(stopping),
		evRetry:       to(backoff, actWait),
		evDone:        to(completed),
		evGiveUp:      to(failed),
		evStopTimeout: to(cleaning, actKill),
		evFence:       to(ceding, actKill),
	}),
	backoff: row(backoff, moves{
		evReplace: to(pending, actQueue),
		evRemove:  to(gone, actRemove),
		evDue:     to(pending, actQueue),
	}),
	completed: row(completed, moves{
		evReplace: to(pending, actQueue),
		evRemove:  to(gone, actRemove),
	}),
	failed: row(failed, moves{
		evReplace: to(pending, actQueue),
		evRemove:  to(gone, actRemove),
	}),
	fenced: row(fenced, moves{
		evReplace: to(pending, actQueue),
		evRemove:  to(gone, actRemove),
		evGrant:   to(pending, actQueue),
	}),
	gone: row(gone, nil),
}

// moves are the entries of a row that change something.
type moves map[event]cell

// row fills the row of a phase: other events change nothing.
func row(self phase, named moves) [numEvents]cell {
	var r [numEvents]cell
	for e := range numEvents {
		r[e] = to(self)
		if c, ok := named[e]; ok {
			r[e] = c
		}
	}
	return r
}

// Next returns the phase that an event leads an instance to, and the actions to
// do. It is total and pure; callers must not change the actions.
func Next(p phase, e event) (phase, []action) {
	c := table[p][e]
	return c.next, c.acts
}

// alive reports whether a generation is in progress in the phase.
func (p phase) alive() bool {
	switch p {
	case hooking, starting, running, stopping, replacing, killing, ceding, cleaning:
		return true
	}
	return false
}

// judged reports whether the restart policy decides what follows an end in the
// phase; it does not if the end was requested.
func (p phase) judged() bool { return p != stopping && p != replacing && p != ceding }

// public returns the phase that clients see.
func (p phase) public() spec.Phase {
	switch p {
	case hooking, starting:
		return spec.PhaseStarting
	case running:
		return spec.PhaseRunning
	case stopping, replacing, killing, ceding, cleaning:
		return spec.PhaseStopping
	case backoff:
		return spec.PhaseBackoff
	case completed:
		return spec.PhaseCompleted
	case failed:
		return spec.PhaseFailed
	default:
		return spec.PhasePending
	}
}

var phaseNames = [numPhases]string{"pending", "starting", "running", "stopping", "replacing", "killing",
	"ceding", "backoff", "completed", "failed", "fenced", "gone", "hooking", "cleaning"}

// String returns the phase's name, as the journal has it.
func (p phase) String() string { return phaseNames[p] }

// MarshalText writes the phase's name.
func (p phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a phase's name; an unknown one reads as pending, which a
// successor verifies anyway.
func (p *phase) UnmarshalText(b []byte) error {
	*p = pending
	for i, name := range phaseNames {
		if name == string(b) {
			*p = phase(i)
		}
	}
	return nil
}
