package spec

import (
	"fmt"
	"time"
)

// GuardFinding says that a value of an instance has been above the bound of a
// guard for as long as the guard allows.
type GuardFinding struct {
	// Guard is the guard as it was then, with its bound and its action.
	Guard Guard `json:"guard"`
	// Value is what was compared with Guard.Bound: a percentage of one core for
	// GuardCPU, bytes for GuardMemory, a number of processes for GuardZombie.
	Value float64 `json:"value,omitempty"`
	// Since is when the value passed the bound.
	Since time.Time `json:"since,omitzero"`
}

// Found says what the guard found: "memory is 600 MiB".
func (a *GuardFinding) Found() string {
	switch a.Guard.Name {
	case GuardCPU:
		return fmt.Sprintf("CPU is at %.0f%% of a core", a.Value)
	case GuardMemory:
		return fmt.Sprintf("memory is %.0f MiB", a.Value/(1<<20))
	case GuardZombie:
		return fmt.Sprintf("%.0f ended children are not waited for", a.Value)
	}
	return "down"
}

// String says what the guard found and what it allows: "memory is 600 MiB,
// above 512MiB for 1m".
func (a *GuardFinding) String() string {
	text := a.Found()
	if a.Guard.Above != "" {
		text += ", above " + a.Guard.Above
	}
	if a.Guard.For > 0 {
		text += " for " + a.Guard.For.String()
	}
	return text
}
