package watchdog

import "github.com/synergymesh/meshrun/spec"

// phase is where an instance is in its life, as the table sees it. It is finer
// than spec.Phase: there are three reasons to be stopping.
type phase uint8

// The phases. In hooking, starting, running, stopping, replacing, killing,
// ceding and cleaning a generation is under way: one of its processes is alive,
// or in the queue to be forked. In the others there is none.
const (
	pending   phase = iota // waits for its turn to be forked
	starting               // forked, has not said READY=1 yet
	running                // up
	stopping               // asked to end, and forgotten once it has
	replacing              // asked to end, and started afresh once it has
	killing                // did not do its duty, or expired; its restart policy follows
	ceding                 // its lease ends; fenced once it has ended
	backoff                // down until its next start is due
	completed              // ended as its policy wants
	failed                 // given up
	fenced                 // down until its lease is renewed
	gone                   // forgotten
	hooking                // its before_start hook runs, or has just ended well
	cleaning               // ended by itself; its after_stop hook runs
	numPhases
)

// event is what can happen to an instance.
type event uint8

// The events.
const (
	evReplace      event = iota // declared anew, with another hash or epoch
	evRemove                    // not wanted any more
	evForked                    // the fork worked; READY=1 has to come
	evUp                        // the fork worked, and that is all it takes
	evReady                     // READY=1 came
	evReadyTimeout              // READY=1 did not come in time
	evUnresponsive              // WATCHDOG=1 did not come in time
	evExpire                    // this generation shall end, and its policy follows
	evRetry                     // ended, or not startable; policy: again
	evDone                      // ended; policy: that was all
	evGiveUp                    // ended, or not startable; policy: no more
	evStopTimeout               // did not end in time after being asked to
	evDue                       // the wait before the next start is over
	evStable                    // has been up for long enough
	evCede                      // its lease was not renewed, and ends soon
	evFence                     // its lease is over, or must not be started under
	evGrant                     // its lease is renewed: it may be started
	evHooking                   // its before_start hook was forked
	evHooked                    // its before_start hook has ended well
	evClean                     // what ran has ended, and its after_stop hook comes
	numEvents
)

// action is what the loop does when the table says so.
type action uint8

// The actions, in the order in which a cell's are done.
const (
	actQueue   action = iota // put into the queue of starts
	actAsk                   // the stop signal to the group; SIGKILL at the timeout
	actKill                  // SIGKILL to the group
	actWait                  // set the timer of the next start
	actRecover               // note that a restart proved stable
	actRemove                // drop the instance and what it holds
)

// cell is one place of the table: where an event leads, and what is done.
type cell struct {
	next phase
	acts []action
}

func to(next phase, acts ...action) cell { return cell{next: next, acts: acts} }

// table says, for every phase and every event, what follows. A late or
// meaningless event leads to where one is, and does nothing.
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
// And of those that live under a lease (lease.go):
//
//	starting, running ──lease ends soon, or is over──▶ ceding ──ended──▶ fenced
//	pending ──its turn, and the lease does not hold────────────────────────▲ │
//	   ▲──────────────────────lease renewed, or another hash, epoch or lease─┘
//
// And of those with hooks (hook.go):
//
//	pending ──fork of before_start──▶ hooking ──ended well, fork──▶ starting, running
//	                                     │ failed                           │ ended
//	                                     └──────────────▶ cleaning ◀────────┘
//	              (backoff, completed, failed) ◀──after_stop ended──┘
//
// stopping, replacing, killing and ceding last until after_stop has ended.
//
// Laws, each one tested: every place is filled; a start is queued only where
// no process is alive or by the event that says it has ended; nothing leads
// out of gone; what is removed never starts again by itself; whose lease is over
// is killed in every phase in which it lives, and starts by no event but a grant
// or another declaration.
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

// moves are the places of a row where an event matters.
type moves map[event]cell

// row fills a phase's row: what is not named stays and does nothing.
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

// Next says where an event leads an instance, and what is to be done. It is
// total and pure; the actions must not be changed.
func Next(p phase, e event) (phase, []action) {
	c := table[p][e]
	return c.next, c.acts
}

// alive reports whether a generation is under way in the phase.
func (p phase) alive() bool {
	switch p {
	case hooking, starting, running, stopping, replacing, killing, ceding, cleaning:
		return true
	}
	return false
}

// judged reports whether an end in the phase is the restart policy's matter: of
// one that was asked for it is not.
func (p phase) judged() bool { return p != stopping && p != replacing && p != ceding }

// public returns the phase as it is told.
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

// String returns the phase's name: the form in which the journal keeps it.
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
