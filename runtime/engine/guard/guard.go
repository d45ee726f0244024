// Package guard watches what the instances of a node use. It looks at nothing
// as long as no process has guards.
package guard

import (
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// Target is one generation of an instance that has guards.
type Target struct {
	ID   spec.InstanceID
	Life spec.Life
	// PID leads the process group; 0 if there is no process.
	PID int
	// Down is set if it should run, and doesn't.
	Down   bool
	Guards []spec.Guard
	// Known is what an earlier agent reported of this instance.
	Known []spec.GuardFinding
}

// Usage is what a process uses with all that it has started.
type Usage struct {
	CPU     time.Duration // so far, also by children that have ended
	Memory  uint64        // resident bytes
	Zombies int
}

// Process is what is looked at of one process of the node.
type Process struct {
	PID, Parent, Group, Session int
	StartTicks                  uint64
	Zombie                      bool
	CPU                         time.Duration // also of children that were waited for
	Memory                      uint64
}

// Table finds what belongs together among the processes of a node.
type Table struct {
	byPID map[int]*Process
	// kin are the processes that a process is the parent, the group's or the
	// session's leader of.
	kin map[int][]*Process
}

// NewTable returns the table of all processes, which must not be changed then.
func NewTable(all []Process) *Table {
	t := &Table{byPID: make(map[int]*Process, len(all)), kin: map[int][]*Process{}}
	for i := range all {
		p := &all[i]
		t.byPID[p.PID] = p
		t.kin[p.Parent] = append(t.kin[p.Parent], p)
		if p.Group != p.Parent {
			t.kin[p.Group] = append(t.kin[p.Group], p)
		}
		if p.Session != p.Parent && p.Session != p.Group {
			t.kin[p.Session] = append(t.kin[p.Session], p)
		}
	}
	return t
}

// Sum returns what a process uses with its group, its session and all that
// descends from them; false if it is not there, or is another one by now.
func (t *Table) Sum(pid int, startTicks uint64) (Usage, bool) {
	leader := t.byPID[pid]
	if leader == nil || leader.StartTicks != startTicks {
		return Usage{}, false
	}
	seen := map[*Process]bool{leader: true}
	queue := []*Process{leader}
	var u Usage
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		u.CPU += p.CPU
		u.Memory += p.Memory
		if p.Zombie && p != leader {
			u.Zombies++
		}
		for _, next := range t.kin[p.PID] {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return u, true
}

// Tally is what is remembered of one guard between two looks.
type Tally struct {
	// Value is what was found last.
	Value float64
	// Since is when the bound was first passed; zero while it is kept.
	Since time.Time
	// Over is set once that has lasted for long enough.
	Over bool
	// CPU and At are those of the last look.
	CPU time.Duration
	At  time.Time
}

// Look is what one look at an instance found: Usage, if Measured.
type Look struct {
	Usage    Usage
	Measured bool
	Down     bool
}

// Next returns the tally after a look.
func (t Tally) Next(g *spec.Guard, l Look, now time.Time) Tally {
	value, known := t.value(g, l, now)
	if l.Measured {
		t.CPU, t.At = l.Usage.CPU, now
	}
	bound, err := g.Bound()
	if err != nil || !known {
		return t
	}
	t.Value = value
	if value <= bound {
		t.Since, t.Over = time.Time{}, false
		return t
	}
	if t.Since.IsZero() {
		t.Since = now
	}
	t.Over = now.Sub(t.Since) >= g.For.Std()
	return t
}

// value returns what a guard compares with its bound; false if it is unknown.
func (t Tally) value(g *spec.Guard, l Look, now time.Time) (value float64, known bool) {
	switch g.Name {
	case spec.GuardAbsent:
		if l.Down {
			return 1, true
		}
		return 0, true
	case spec.GuardMemory:
		return float64(l.Usage.Memory), l.Measured
	case spec.GuardZombie:
		return float64(l.Usage.Zombies), l.Measured
	case spec.GuardCPU:
		if took := now.Sub(t.At); l.Measured && !t.At.IsZero() && took > 0 {
			return 100 * float64(max(l.Usage.CPU-t.CPU, 0)) / float64(took), true
		}
	}
	return 0, false
}
