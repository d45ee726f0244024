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
	// RunsKept is how many runs of a process are remembered.
	RunsKept = 50
	// maxLate is how far a tick may be past for its run still to be on time:
	// within it a control shard changes hands.
	maxLate = time.Minute
	// maxSleep is how long a schedule is trusted to a timer. Timers stand still
	// while a machine sleeps, and know nothing of a clock that is set.
	maxSleep = time.Minute
	// maxCounted is up to how many missed ticks are counted.
	maxCounted = 1000
	// manualRun begins the ID of a run that was asked for by hand.
	manualRun = "manual-"
	tickID    = "20060102T150405Z"
)

// RunChange is what becomes of the record of a run.
type RunChange struct {
	Run spec.Run
	// Forget is set if the record is to be deleted.
	Forget bool
	// Quiet is set if it is nothing to tell of.
	Quiet bool
}

// scheduledProcess is a scheduled process for which it is decided what is due.
//
// A run is recorded before it is assigned, and its record is only made, never
// made again: so a tick is run at most once. What runs it is known by its epoch,
// which is higher with every run, so that a watchdog starts its instance afresh.
// Between runs the shards stay assigned, and held. A run stays where it began; if
// its node is lost, and the shard placed elsewhere, it has failed.
type scheduledProcess struct {
	*rollout
	def  *definition
	cron *spec.Cron
	// runs are those that are remembered, the oldest first.
	runs []spec.Run
}

// schedules decides for every scheduled process which runs begin and end, and
// which of its shards are down.
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
	for _, name := range sortedKeys(byProcess) { // of what has no schedule any more
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

// manualNumber returns which of the runs by hand a run is, 0 if it is none.
func manualNumber(run *spec.Run) uint64 {
	text, by := strings.CutPrefix(run.ID, manualRun)
	n, err := strconv.ParseUint(text, 10, 64)
	if !by || err != nil {
		return 0
	}
	return n
}

// from returns the time after which the ticks of the schedule count: when the
// version was made that brought it. By a clock that was ahead that is in the future.
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

// record notes that a run begins, or is another one than it was.
func (a *scheduledProcess) record(run spec.Run, quiet bool) {
	a.records = append(a.records, RunChange{Run: run, Quiet: quiet})
	if at := slices.IndexFunc(a.runs, func(other spec.Run) bool { return other.ID == run.ID }); at >= 0 {
		a.runs[at] = run
		return
	}
	a.runs = append(a.runs, run)
}

// covers reports whether a run is one of the shard.
func covers(run *spec.Run, shard int) bool {
	return (run.Shard == shard || run.Shard < 0) && !run.Without.Contains(shard)
}

// active returns the run that is under way in a shard, nil if none is.
func (a *scheduledProcess) active(shard int) *spec.Run {
	for i := range a.runs {
		if a.runs[i].State == spec.RunActive && covers(&a.runs[i], shard) {
			return &a.runs[i]
		}
	}
	return nil
}

// shards are the numbers of the process's shards.
func (a *scheduledProcess) shards() int { return a.def.process.Instances() }

// assignedNode returns where a run's shard is assigned, "" if it is not (yet), and
// whether it was lost: its node is gone, and the shard has no place there.
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

// end finds out how the runs that are under way have ended.
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

// endShard notes how a shard of a run has ended, and reports whether it has.
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

// begin begins what is due: what was asked for by hand, and the last tick.
func (a *scheduledProcess) begin() {
	name := a.def.process.Name
	var done, epoch uint64
	last := a.since[name]
	for i := range a.runs {
		if n := manualNumber(&a.runs[i]); n > 0 {
			done = max(done, n)
		} else if tick := a.runs[i].Tick; !tick.After(a.now) {
			// A tick that is yet to come was run by a clock that was ahead.
			last = later(last, tick)
		}
		epoch = max(epoch, a.runs[i].Epoch)
	}
	if a.stopped() {
		return
	}
	if wanted := a.Job.Orders[name].Runs; wanted > done {
		for n := max(done, wanted-min(wanted, RunsKept)) + 1; n <= wanted; n++ {
			a.startRun(manualRun+strconv.FormatUint(n, 10), a.now.UTC())
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

// stopped reports whether no shard shall run at all.
func (a *scheduledProcess) stopped() bool {
	for shard := range a.shards() {
		if !a.Job.Order(a.def.process.Name, shard).Stopped {
			return false
		}
	}
	return true
}

// ticks begins the last tick that is past, and skips those before it that were
// missed.
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
		a.skip(missed.UTC().Format(tickID), missed.UTC(), n, "missed: nobody was there for it")
	}
	if run {
		a.startRun(due.UTC().Format(tickID), due.UTC())
	}
}

// startRun begins a run, if there is room for it.
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

// freeShard returns a free shard for a run that may overlap with others.
func (a *scheduledProcess) freeShard() (shard int, why string) {
	why = fmt.Sprintf("%d runs are under way, which is the most", spec.MaxRuns)
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

// freeShards finds the shards of a run of the whole process.
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

// wantedNode returns the node that a shard can run on now, "" if there is none.
func (a *scheduledProcess) wantedNode(shard int) string {
	for node, shards := range a.Placement.Processes[a.def.process.Name] {
		if shards.Contains(shard) && a.wanted[shardOnNode{node, a.def.process.Name, shard}] {
			return node
		}
	}
	return ""
}

func (a *scheduledProcess) unplacedReason(shard int) string {
	return cmp.Or(a.reasons[a.id(a.def.process.Name, shard)], "it has no node")
}

// nextEpoch returns an epoch that no run has had, nor anything that is assigned
// or seen.
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
