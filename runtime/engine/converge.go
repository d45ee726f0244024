package engine

import (
	"encoding/json"
	"hash/fnv"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// Wanted is one shard that is assigned to the node. Exactly one of Launch and
// Why is set.
type Wanted struct {
	ID     spec.InstanceID
	Launch *spec.Launch
	// Digest identifies the launch: see Digest.
	Digest uint64
	// Why the shard must not be started or changed now; one that runs is left
	// exactly as it is, unless Stop is set.
	Why string
	// Failed tells that Why is a fault and not something to wait for.
	Failed bool
	// Version is the one that the shard is assigned with.
	Version uint64
	// Stop tells that the shard must not go on running either.
	Stop bool
}

// Declared is what was last told to the watchdog about an instance.
type Declared struct {
	Digest  uint64
	Removed bool
}

// Actions is the difference between what is assigned and what runs.
type Actions struct {
	// Declare holds what must be declared: first the Urgent ones, which start,
	// restart or reload something, then those that only take effect silently.
	Declare []Wanted
	Urgent  int
	Remove  []spec.InstanceID
	// Pending holds every assigned instance that cannot be declared now.
	Pending map[spec.InstanceID]Pending
}

// Pending says why an instance is not declared.
type Pending struct {
	Reason string
	Failed bool
	// Version is the one that cannot be.
	Version uint64
}

// Empty reports whether there is nothing to tell the watchdog.
func (a *Actions) Empty() bool { return len(a.Declare) == 0 && len(a.Remove) == 0 }

// Digest identifies everything in a launch, so that a change that restarts
// nothing is told to the watchdog, too.
func Digest(l *spec.Launch) uint64 {
	h := fnv.New64a()
	// Nothing in a Launch's types can fail to marshal.
	_ = json.NewEncoder(h).Encode(l)
	return h.Sum64()
}

// Converge compares what is assigned with what runs, given what has been told
// to the watchdog since the table was last read as a whole. It is pure.
//
// An instance that was declared as it is wanted is not declared again; one that
// is held back is not declared at all; one that runs and is not assigned, or
// must not run, is removed. Should a shard be assigned twice, the newer version counts.
func Converge(assigned []Wanted, running []spec.Instance, declared map[spec.InstanceID]Declared) Actions {
	wanted := unique(assigned)
	runs := make(map[spec.InstanceID]*spec.Instance, len(running))
	a := Actions{Pending: map[spec.InstanceID]Pending{}}
	for i := range running {
		inst := &running[i]
		if inst.ID.Job == spec.ReservedJob {
			continue
		}
		runs[inst.ID] = inst
		if _, ok := wanted[inst.ID]; !ok && !declared[inst.ID].Removed {
			a.Remove = append(a.Remove, inst.ID)
		}
	}
	// Declared, and not seen yet: it will appear.
	for id, d := range declared {
		if _, ok := wanted[id]; !ok && !d.Removed && runs[id] == nil {
			a.Remove = append(a.Remove, id)
		}
	}
	var silent []Wanted
	for _, w := range wanted {
		d, known := declared[w.ID]
		switch {
		case w.ID.Job == spec.ReservedJob:
		case w.Launch == nil:
			a.Pending[w.ID] = Pending{Reason: w.Why, Failed: w.Failed, Version: w.Version}
			if w.Stop && !d.Removed && (known || runs[w.ID] != nil) {
				a.Remove = append(a.Remove, w.ID)
			}
		case known && !d.Removed && d.Digest == w.Digest:
		case known && d.Removed, runs[w.ID] == nil, disturbs(w.Launch, runs[w.ID]):
			a.Declare = append(a.Declare, w)
		default:
			silent = append(silent, w)
		}
	}
	slices.SortFunc(a.Declare, byID)
	slices.SortFunc(silent, byID)
	slices.SortFunc(a.Remove, spec.InstanceID.Compare)
	a.Urgent = len(a.Declare)
	a.Declare = append(a.Declare, silent...)
	return a
}

func byID(a, b Wanted) int { return a.ID.Compare(b.ID) }

// disturbs reports whether declaring the launch restarts or reloads the instance.
func disturbs(l *spec.Launch, inst *spec.Instance) bool {
	return l.Hash != inst.Hash || l.Epoch != inst.Epoch || l.ReloadHash != inst.ReloadHash
}

// unique returns the assigned shards by ID, of two for one shard the newer.
func unique(assigned []Wanted) map[spec.InstanceID]Wanted {
	out := make(map[spec.InstanceID]Wanted, len(assigned))
	for _, w := range assigned {
		old, twice := out[w.ID]
		if !twice || old.Launch == nil || (w.Launch != nil && w.Launch.Version > old.Launch.Version) {
			out[w.ID] = w
		}
	}
	return out
}
