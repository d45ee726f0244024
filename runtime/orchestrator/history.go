package orchestrator

import (
	"slices"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// skip records that n ticks, of which tick is the last, did not run. Consecutive
// skipped ticks with the same reason share one record and one event.
func (a *scheduledProcess) skip(id string, tick time.Time, n int, why string) {
	run := spec.Run{
		Job: a.job, Process: a.def.process.Name, ID: id, Tick: tick, State: spec.RunSkipped, Ended: a.now.UTC(), Reason: why, Ticks: n,
	}
	quiet := false
	if len(a.runs) > 0 && manualNumber(&run) == 0 {
		was := a.runs[len(a.runs)-1]
		if was.State == spec.RunSkipped && was.Reason == why && manualNumber(&was) == 0 {
			run.Ticks, quiet = was.Ticks+n, true
			a.removeRun(len(a.runs) - 1)
		}
	}
	a.record(run, quiet)
}

func (a *scheduledProcess) removeRun(at int) {
	run := a.runs[at]
	a.runs = slices.Delete(a.runs, at, at+1)
	a.records = slices.DeleteFunc(a.records, func(c RunChange) bool { return c.Run.Process == run.Process && c.Run.ID == run.ID })
	if slices.ContainsFunc(a.Runs, func(r spec.Run) bool { return r.Process == run.Process && r.ID == run.ID }) {
		a.records = append(a.records, RunChange{Run: run, Forget: true, Quiet: true})
	}
}

// trim removes the oldest runs. It keeps active runs, the last run of each kind,
// and the run with the highest epoch, which record what was begun. Ticks in the
// future, recorded by a clock that was ahead, do not count as last.
func (a *scheduledProcess) trim() {
	over := len(a.runs) - RunsKept
	if over <= 0 {
		return
	}
	slices.SortStableFunc(a.runs, compareRuns)
	lastTick, lastManual, highest := -1, -1, -1
	for i := range a.runs {
		if manualNumber(&a.runs[i]) == 0 {
			if lastTick < 0 || !a.runs[i].Tick.After(a.now) {
				lastTick = i
			}
		} else if lastManual < 0 || manualNumber(&a.runs[i]) > manualNumber(&a.runs[lastManual]) {
			lastManual = i
		}
		if highest < 0 || a.runs[i].Epoch > a.runs[highest].Epoch {
			highest = i
		}
	}
	for i := len(a.runs) - 1; i >= 0; i-- {
		if i < over && i != lastTick && i != lastManual && i != highest && a.runs[i].State != spec.RunActive {
			a.removeRun(i)
		}
	}
}
