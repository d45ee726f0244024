package main

import (
	"fmt"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// checksText tells what each check of some instances says, and why one is to be
// restarted; "" if they have none.
func checksText(instances []spec.Instance, o statusOptions) string {
	var b strings.Builder
	t := table{indent: "  "}
	t.head(o.style, "INSTANCE", "CHECK", "HEALTH", "SINCE", "SAYS")
	rows := 0
	for i := range instances {
		inst := &instances[i]
		name := fmt.Sprintf("%s/%d", inst.ID.Process, inst.ID.Shard)
		for _, c := range inst.Checks {
			since := ""
			if !c.Since.IsZero() {
				since = ago(o.now.Sub(c.Since)) + " ago"
			}
			t.add(cell{text: name}, cell{text: c.Name},
				cell{text: string(c.State), paint: func(s string) string { return o.style.health(c.State, s) }},
				cell{text: since, right: true}, cell{text: oneLine(c.Output)})
			rows++
		}
	}
	if rows > 0 {
		b.WriteString("\n" + t.String())
	}
	for i := range instances {
		if why := instances[i].RestartCause; why != "" {
			b.WriteString("  " + o.style.yellow(fmt.Sprintf("%s is to be restarted: %s", instances[i].ID, oneLine(why))) + "\n")
		}
	}
	return b.String()
}

// maxSaid is how many letters of what a check says are shown beside others.
const maxSaid = 60

// failingText tells which checks of an instance fail, with what they say.
func failingText(i *spec.Instance) string {
	var parts []string
	for _, c := range i.Checks {
		if c.State != spec.HealthFailing {
			continue
		}
		said := []rune(oneLine(c.Output))
		if len(said) > maxSaid {
			said = append(said[:maxSaid-1], '…')
		}
		parts = append(parts, c.Name+": "+string(said))
	}
	return strings.Join(parts, "; ")
}
