package orchestrator

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// RunsKept is how many run records of a process are kept.
	RunsKept = 50
	// maxLate is how late a run may begin after its tick without being missed: longer
	// than a control shard needs to change its owner.
	maxLate = time.Minute
	// maxSleep bounds the timer of a schedule. Timers stop while a machine sleeps, and
	// do not notice a clock that is set.
	maxSleep = time.Minute
	// maxCounted bounds how many missed ticks are counted.
	maxCounted = 1000
	tickID     = "20060102T150405Z"
)

// RunChange is a run record to be written or deleted.
type RunChange struct {
	Run spec.Run
	// Forget deletes the record.
	Forget bool
	// Quiet writes no event.
	Quiet bool
}

// scheduledProcess decides which runs of a process with a schedule begin and end.
// A run is recorded before it is assigned, and a record is created only if it
// does not exist, so each tick runs at most once. An instance belongs to the run
// whose epoch it has; each run has a higher epoch than all before, so that the
// watchdog starts its instance anew. Between runs the shards stay assigned, and
// held. A run stays on the node where it began; if that node is lost and the
// shard is placed elsewhere, the run has failed.
type scheduledProcess struct {
	*rollout
	def  *definition
	cron *spec.Cron
	// runs are the run records, the oldest first.
	runs []spec.Run
}

// schedules decides for every process with a schedule which runs begin and end,
// and which of its shards are held.
func (r *rollout) schedules() {
	byProcess := map[string][]spec.Run{}
	for _, run := range r.Runs {
		byProcess[run.Process] = append(byProcess[run.Process], run)
	}
	if r.Job != nil {
		for i := range r.Job.Job.Processes {
			p := &r.Job.Job.Processes[i]
			if p.Schedule == nil {
				continue
			}
			cron, err := spec.ParseCron(p.Schedule.Cron, p.Schedule.TimeZone)
			a := &scheduledProcess{rollout: r, def: r.defs[p.Name], cron: cron, runs: byProcess[p.Name]}
			delete(byProcess, p.Name)
			slices.SortFunc(a.runs, compareRuns)
			r.since[p.Name] = sooner(a.from(), r.now.UTC())
			a.end()
			if err == nil {
				a.begin()
			}
			a.trim()
			a.decideShards(err)
		}
	}
	for _, name := range sortedKeys(byProcess) { // processes without a schedule now
		for _, run := range byProcess[name] {
			r.records = append(r.records, RunChange{Run: run, Forget: true, Quiet: true})
		}
	}
}

func compareRuns(x, y spec.Run) int {
	if c := x.Tick.Compare(y.Tick); c != 0 {
		return c
	}
	return strings.Compare(x.ID, y.ID)
}

// manualNumber returns the number of a manual run, 0 for any other run.
func manualNumber(run *spec.Run) uint64 {
	text, by := strings.CutPrefix(run.ID, spec.ManualRun)
	n, err := strconv.ParseUint(text, 10, 64)
	if !by || err != nil {
		return 0
	}
	return n
}

// from returns the time after which ticks of the schedule count: when the version
// was made that introduced it. If its clock was ahead, that is in the future.
func (a *scheduledProcess) from() time.Time {
	s := a.def.process.Schedule
	for _, assignment := range a.Current {
		for i := range assignment.Processes {
			e := &assignment.Processes[i]
			if was := e.Process.Schedule; e.Process.Name == a.def.process.Name && was != nil && !e.Since.IsZero() &&
				was.Cron == s.Cron && was.TimeZone == s.TimeZone {
				return e.Since
			}
		}
	}
	return a.Job.When
}

// record records that a run begins or has changed.
func (a *scheduledProcess) record(run spec.Run, quiet bool) {
	a.records = append(a.records, RunChange{Run: run, Quiet: quiet})
	if at := slices.IndexFunc(a.runs, func(other spec.Run) bool { return other.ID == run.ID }); at >= 0 {
		a.runs[at] = run
		return
	}
	a.runs = append(a.runs, run)
}

// covers reports whether a shard takes part in a run.
func covers(run *spec.Run, shard int) bool {
	return (run.Shard == shard || run.Shard < 0) && !run.Without.Contains(shard)
}

// active returns the active run of a shard, nil if there is none.
func (a *scheduledProcess) active(shard int) *spec.Run {
	for i := range a.runs {
		if a.runs[i].State == spec.RunActive && covers(&a.runs[i], shard) {
			return &a.runs[i]
		}
	}
	return nil
}

// shards returns the number of shards of the process.
func (a *scheduledProcess) shards() int { return a.def.process.Instances() }

// assignedNode returns the node on which a run's shard is assigned, "" if it is
// not assigned yet, and whether it is lost: the node is gone and the shard is not
// placed there any more.
func (a *scheduledProcess) assignedNode(run *spec.Run, shard int) (node string, lost bool) {
	name := a.def.process.Name
	epoch := a.Job.Order(name, shard).Epoch + run.Epoch
	for at, assignment := range a.Current {
		for i := range assignment.Processes {
			e := &assignment.Processes[i]
			if e.Process.Name != name || !e.Shards.Contains(shard) || e.Epochs[shard] != epoch {
				continue
			}
			if a.Live[at] {
				return at, false
			}
			node, lost = at, !a.staying[shardOnNode{at, name, shard}]
		}
	}
	return node, lost
}

// end finds out which active runs have ended, and how.
func (a *scheduledProcess) end() {
	for i := range a.runs {
		if a.runs[i].State != spec.RunActive {
			continue
		}
		run, was := a.runs[i], len(a.runs[i].Without)
		left := false
		for shard := range max(a.shards(), run.Shard+1) {
			if covers(&run, shard) {
				left = !a.endShard(&run, shard) || left
			}
		}
		switch {
		case left && len(run.Without) == was:
		case left:
			a.record(run, true)
		default:
			a.close(&run)
			a.record(run, false)
		}
	}
}

// endShard records in run how one of its shards has ended, and reports whether it
// has.
func (a *scheduledProcess) endShard(run *spec.Run, shard int) bool {
	name := a.def.process.Name
	order := a.Job.Order(name, shard)
	node, lost := a.assignedNode(run, shard)
	why := ""
	switch {
	case shard >= a.shards():
		why = "the process has no such shard any more"
	case order.Stopped:
		why = "stopped by an operator"
	case lost:
		why = "its node " + node + " was lost"
	}
	if why != "" {
		run.Without = spec.NewShardSet(append(slices.Clone(run.Without), shard)...)
		if run.Reason == "" {
			run.Reason = why
		}
		return true
	}
	in := a.seen[shardOnNode{node, name, shard}]
	if in == nil || in.Epoch != order.Epoch+run.Epoch || present(in) {
		return false
	}
	if run.Exit == nil || run.Exit.Success() {
		run.Exit = in.LastExit
	}
	if in.Phase == spec.PhaseFailed && in.LastExit == nil && run.Reason == "" {
		run.Reason = cmp.Or(in.Reason, "it could not be started")
	}
	return true
}

// close ends a run of which every shard has ended.
func (a *scheduledProcess) close(run *spec.Run) {
	run.State, run.Ended = spec.RunSucceeded, a.now.UTC()
	if run.Reason != "" || (run.Exit != nil && !run.Exit.Success()) {
		run.State = spec.RunFailed
	}
	if run.Exit != nil && !run.Exit.At.IsZero() && run.Reason == "" {
		run.Ended = run.Exit.At
	}
}

// begin begins the runs that are due: manual ones, and the last tick.
func (a *scheduledProcess) begin() {
	name := a.def.process.Name
	var done, epoch uint64
	last := a.since[name]
	for i := range a.runs {
		if n := manualNumber(&a.runs[i]); n > 0 {
			done = max(done, n)
		} else if tick := a.runs[i].Tick; !tick.After(a.now) {
			// A tick in the future was run by a clock that was ahead.
			last = later(last, tick)
		}
		epoch = max(epoch, a.runs[i].Epoch)
	}
	if a.stopped() {
		return
	}
	if wanted := a.Job.Orders[name].Runs; wanted > done {
		for n := max(done, wanted-min(wanted, RunsKept)) + 1; n <= wanted; n++ {
			a.startRun(spec.ManualRun+strconv.FormatUint(n, 10), a.now.UTC())
		}
	}
	if a.Job.Orders[name].Paused || last.IsZero() {
		return
	}
	a.ticks(last)
	next := a.cron.Next(a.now)
	if end := a.now.Add(maxSleep); next.IsZero() || next.After(end) {
		next = end
	}
	a.wake(next)
}

// stopped reports whether an operator has stopped every shard.
func (a *scheduledProcess) stopped() bool {
	for shard := range a.shards() {
		if !a.Job.Order(a.def.process.Name, shard).Stopped {
			return false
		}
	}
	return true
}

// ticks begins the last past tick, and skips missed ticks before it.
func (a *scheduledProcess) ticks(after time.Time) {
	due := a.cron.Last(a.now)
	if !due.After(after) {
		return
	}
	run := a.now.Sub(due) <= maxLate || a.def.process.Schedule.CatchUp == spec.CatchUpOne
	missed := due
	if run {
		missed = a.cron.Last(due.Add(-time.Nanosecond))
	}
	n := 0
	for at := a.cron.Next(after); !at.After(missed) && n < maxCounted; at = a.cron.Next(at) {
		n++
	}
	if n > 0 {
		a.skip(missed.UTC().Format(tickID), missed.UTC(), n, "missed: no orchestrator was running")
	}
	if run {
		a.startRun(due.UTC().Format(tickID), due.UTC())
	}
}

// startRun begins a run if shards are free for it, and skips it otherwise.
func (a *scheduledProcess) startRun(id string, tick time.Time) {
	run := spec.Run{Job: a.job, Process: a.def.process.Name, ID: id, Tick: tick, State: spec.RunActive, Began: a.now.UTC()}
	var why string
	if a.def.process.Schedule.Overlap {
		run.Shard, why = a.freeShard()
	} else {
		why = a.freeShards(&run)
	}
	if why != "" {
		a.skip(id, tick, 1, why)
		return
	}
	if run.Shard >= 0 {
		run.Node = a.wantedNode(run.Shard)
	}
	run.Epoch = a.nextEpoch()
	a.record(run, false)
}

// freeShard returns a free shard for a run that may overlap others.
func (a *scheduledProcess) freeShard() (shard int, why string) {
	why = fmt.Sprintf("%d runs are active, the maximum", spec.MaxRuns)
	for shard := range a.shards() {
		switch {
		case a.active(shard) != nil:
		case a.wantedNode(shard) == "":
			why = a.unplacedReason(shard)
		default:
			return shard, ""
		}
	}
	return 0, why
}

// freeShards selects the shards of a run of the whole process, and returns why
// there are none.
func (a *scheduledProcess) freeShards(run *spec.Run) (why string) {
	for i := range a.runs {
		if a.runs[i].State == spec.RunActive {
			return fmt.Sprintf("run %s is still under way", a.runs[i].ID)
		}
	}
	if run.Shard = -1; a.shards() == 1 {
		run.Shard = 0
	}
	for shard := range a.shards() {
		if a.wantedNode(shard) == "" {
			run.Without, why = append(run.Without, shard), a.unplacedReason(shard)
		}
	}
	if len(run.Without) < a.shards() {
		return ""
	}
	return why
}

// wantedNode returns the node on which a shard can run now, "" if there is none.
func (a *scheduledProcess) wantedNode(shard int) string {
	for node, shards := range a.Placement.Processes[a.def.process.Name] {
		if shards.Contains(shard) && a.wanted[shardOnNode{node, a.def.process.Name, shard}] {
			return node
		}
	}
	return ""
}

func (a *scheduledProcess) unplacedReason(shard int) string {
	return cmp.Or(a.reasons[a.id(a.def.process.Name, shard)], "it is not placed")
}

// nextEpoch returns an epoch higher than that of any run, and of anything
// assigned or observed.
func (a *scheduledProcess) nextEpoch() uint64 {
	name := a.def.process.Name
	var most uint64
	for i := range a.runs {
		most = max(most, a.runs[i].Epoch)
	}
	note := func(shard int, epoch uint64) {
		if ordered := a.Job.Order(name, shard).Epoch; epoch > ordered {
			most = max(most, epoch-ordered)
		}
	}
	for where, e := range a.current {
		if where.process == name {
			note(where.shard, e.Epochs[where.shard])
		}
	}
	for where, in := range a.seen {
		if where.process == name {
			note(where.shard, in.Epoch)
		}
	}
	return most + 1
}
