package plan

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Sentinels of Next and Compute.
var (
	// ErrUnknown: the change names a job, process or shard that there is not.
	ErrUnknown = errors.New("unknown")
	// ErrInvalid: the change would make a job that cannot work.
	ErrInvalid = errors.New("invalid")
)

// Wanted is a change that is wanted of one job: exactly one of Apply, Remove
// and Orders is set.
type Wanted struct {
	Job string
	// Apply is what the job shall be, from the file Source (empty: from none).
	Apply  *spec.Job
	Source string
	Remove bool
	// Revert is set if Apply takes a rollout back, which ends its pauses.
	Revert bool
	// Orders are carried out one after the other.
	Orders []Order
	Who    string
	// Why goes into the new version; empty means "apply", or the orders' names.
	Why string
}

// Order is an operator's wish for a job's instances.
type Order struct {
	Op spec.Op
	// Process is empty for all of the job, Shard -1 for all of the process.
	Process string
	Shard   int
	// Count is the number of shards, for spec.OpScale.
	Count int
}

// Next returns the version of a job that a change makes of the current one,
// which is nil if the job does not exist. latest is the highest version that
// the job ever had. It returns current itself if nothing changes, nil if the
// job is to go, and an error that wraps ErrUnknown or ErrInvalid.
//
// An apply keeps the epochs of orders and ends their stops; of a process that it
// changes it also ends a promotion, which was of the definition before. A pause
// lasts until it is ended: who made it may not know who applies. Orders change nothing but themselves, and the number of shards.
func Next(current *spec.JobVersion, latest uint64, w Wanted, now time.Time) (*spec.JobVersion, error) {
	if w.Remove {
		return nil, nil
	}
	if w.Apply == nil && current == nil {
		return nil, fmt.Errorf("no job named %q: %w", w.Job, ErrUnknown)
	}
	next := &spec.JobVersion{}
	if current != nil {
		latest = max(latest, current.Version)
		*next = *current
		next.Orders = maps.Clone(current.Orders)
	}
	if next.Orders == nil {
		next.Orders = map[string]spec.Order{}
	}
	why := "apply"
	if w.Apply != nil {
		next.Job, next.Source = w.Apply.Clone(), w.Source
		for key, o := range next.Orders {
			if o.Stopped = false; w.Revert {
				o = resumed(o)
			}
			next.Orders[key] = o
		}
	} else {
		next.Job = current.Job.Clone()
		for _, o := range w.Orders {
			if err := order(next, o); err != nil {
				return nil, err
			}
		}
		signPauses(next, current, w.Who, now)
		why = reasonOf(w.Orders)
	}
	next.Job.Normalize()
	for _, problem := range spec.Validate(&next.Job) {
		if !problem.Moot {
			return nil, fmt.Errorf("job %q cannot work: %s: %w", next.Job.Name, problem, ErrInvalid)
		}
	}
	if w.Apply != nil && current != nil {
		endPromotions(next, &current.Job)
	}
	tidyOrders(next)
	next.Checksum = spec.Checksum(&next.Job)
	if current != nil && current.Checksum == next.Checksum && current.Source == next.Source && maps.Equal(current.Orders, next.Orders) {
		return current, nil
	}
	next.Version = latest + 1
	next.Who, next.When, next.Why = w.Who, now.UTC(), why
	if w.Why != "" {
		next.Why = w.Why
	}
	return next, nil
}

func reasonOf(orders []Order) string {
	var names []string
	for _, o := range orders {
		if !slices.Contains(names, string(o.Op)) {
			names = append(names, string(o.Op))
		}
	}
	return strings.Join(names, ", ")
}

// order carries one order out.
func order(v *spec.JobVersion, o Order) error {
	var targets []*spec.Process
	for i := range v.Job.Processes {
		if p := &v.Job.Processes[i]; o.Process == "" || o.Process == p.Name {
			targets = append(targets, p)
		}
	}
	if len(targets) == 0 {
		return fmt.Errorf("no process named %q in job %q: %w", o.Process, v.Job.Name, ErrUnknown)
	}
	if o.Shard >= 0 && (o.Process == "" || o.Shard >= targets[0].Instances()) {
		return fmt.Errorf("process %q of job %q has no shard %d: it has %d, counted from 0: %w",
			o.Process, v.Job.Name, o.Shard, targets[0].Instances(), ErrUnknown)
	}
	if o.Op == spec.OpScale {
		if o.Process == "" || o.Shard >= 0 || o.Count < 0 || o.Count > spec.MaxShards {
			return fmt.Errorf("scale job %q: name one process and a number of shards from 0 to %d: %w", v.Job.Name, spec.MaxShards, ErrInvalid)
		}
		targets[0].Shards = o.Count
		return nil
	}
	for _, p := range targets {
		var err error
		switch {
		case o.Op == spec.OpRun:
			err = orderRun(v, p, o)
		case rollsOut(o.Op):
			err = orderRollout(v, p, o)
		default:
			err = orderProcess(v, p, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orderRun notes that a process shall run now. One without a schedule that ends by
// itself is restarted.
func orderRun(v *spec.JobVersion, p *spec.Process, o Order) error {
	name := v.Job.Name + "/" + p.Name
	switch {
	case o.Process == "" || o.Shard >= 0:
		return fmt.Errorf("run: name a process as a whole, such as %s: %w", name, ErrInvalid)
	case p.Schedule == nil && p.Restart.Policy == spec.RestartAlways:
		return fmt.Errorf("%s has no schedule, and is always up: meshrun restart %s: %w", name, name, ErrInvalid)
	case p.Schedule == nil:
		return orderProcess(v, p, Order{Op: spec.OpRestart, Process: o.Process, Shard: -1})
	case v.Orders[p.Name].Stopped:
		return fmt.Errorf("%s is stopped, and has no runs until: meshrun restart %s: %w", name, name, ErrInvalid)
	}
	wish := v.Orders[p.Name]
	wish.Runs++
	v.Orders[p.Name] = wish
	return nil
}

// rollsOut reports whether an order is one about a rollout.
func rollsOut(op spec.Op) bool {
	return op == spec.OpPause || op == spec.OpResume || op == spec.OpPromote
}

// orderRollout notes an order about the rollout of a process. To promote one
// that has no canaries, of which nothing ever waits, changes nothing.
func orderRollout(v *spec.JobVersion, p *spec.Process, o Order) error {
	if o.Shard >= 0 {
		return fmt.Errorf("%s %s/%s/%d: a process is rolled out as a whole: name %s/%s: %w",
			o.Op, v.Job.Name, p.Name, o.Shard, v.Job.Name, p.Name, ErrInvalid)
	}
	wish := v.Orders[p.Name]
	switch o.Op {
	case spec.OpPause:
		wish.Paused = true
	case spec.OpResume:
		wish = resumed(wish)
	case spec.OpPromote:
		wish.Promoted = wish.Promoted || (p.Update != nil && p.Update.Canary > 0)
	}
	v.Orders[p.Name] = wish
	return nil
}

func resumed(o spec.Order) spec.Order {
	o.Paused, o.PausedBy, o.PausedAt = false, "", time.Time{}
	return o
}

// signPauses notes who has paused what is paused by now, and when.
func signPauses(v, before *spec.JobVersion, who string, now time.Time) {
	for key, o := range v.Orders {
		if o.Paused && !before.Orders[key].Paused {
			o.PausedBy, o.PausedAt = who, now.UTC().Truncate(time.Second)
			v.Orders[key] = o
		}
	}
}

// endPromotions ends the promotions of the processes that a version defines
// otherwise than the job before did.
func endPromotions(v *spec.JobVersion, before *spec.Job) {
	for i := range v.Job.Processes {
		p := &v.Job.Processes[i]
		o, ordered := v.Orders[p.Name]
		was := slices.IndexFunc(before.Processes, func(b spec.Process) bool { return b.Name == p.Name })
		if !ordered || (was >= 0 && reflect.DeepEqual(before.Processes[was], *p)) {
			continue
		}
		o.Promoted = false
		v.Orders[p.Name] = o
	}
}

// orderProcess notes an order for a process, or for one shard of it.
func orderProcess(v *spec.JobVersion, p *spec.Process, o Order) error {
	key := p.Name
	if o.Shard >= 0 {
		key = shardKey(p.Name, o.Shard)
		if o.Op != spec.OpStop && v.Orders[p.Name].Stopped {
			stopEachShard(v, p)
		}
	}
	wish := v.Orders[key]
	switch o.Op {
	case spec.OpStop:
		wish.Stopped = true
	case spec.OpRestart:
		wish.Stopped = false
		wish.Epoch++
	case spec.OpStart:
		wish.Stopped = false
	default:
		return fmt.Errorf("%q is no order: %w", o.Op, ErrInvalid)
	}
	v.Orders[key] = wish
	if o.Shard < 0 && o.Op != spec.OpStop {
		for shard := range p.Instances() {
			if s, ok := v.Orders[shardKey(p.Name, shard)]; ok {
				s.Stopped = false
				v.Orders[shardKey(p.Name, shard)] = s
			}
		}
	}
	return nil
}

// stopEachShard turns the stop of a process into stops of its shards, so that
// one of them can be started.
func stopEachShard(v *spec.JobVersion, p *spec.Process) {
	whole := v.Orders[p.Name]
	whole.Stopped = false
	v.Orders[p.Name] = whole
	for shard := range p.Instances() {
		s := v.Orders[shardKey(p.Name, shard)]
		s.Stopped = true
		v.Orders[shardKey(p.Name, shard)] = s
	}
}

func shardKey(process string, shard int) string { return process + "/" + strconv.Itoa(shard) }

// tidyOrders drops orders that say nothing, or are for what the job no longer has.
func tidyOrders(v *spec.JobVersion) {
	shards := map[string]int{}
	for _, p := range v.Job.Processes {
		shards[p.Name] = p.Instances()
		if o, ordered := v.Orders[p.Name]; ordered && p.Schedule == nil {
			o.Runs = 0 // their records go with the schedule: they would be run once more
			v.Orders[p.Name] = o
		}
	}
	maps.DeleteFunc(v.Orders, func(key string, o spec.Order) bool {
		process, shard, one := strings.Cut(key, "/")
		count, exists := shards[process]
		n, err := strconv.Atoi(shard)
		return o == (spec.Order{}) || !exists || (one && (err != nil || n >= count))
	})
	if len(v.Orders) == 0 {
		v.Orders = nil
	}
}
