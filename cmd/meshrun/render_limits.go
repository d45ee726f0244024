package main

import (
	"fmt"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// limitRows says in each row what its process may use.
func limitRows(rows []statusRow, job *spec.Job) {
	texts := map[string]string{}
	for i := range job.Processes {
		texts[job.Processes[i].Name] = limitsText(job.Processes[i].Resources)
	}
	for i := range rows {
		rows[i].limits = texts[rows[i].process]
	}
}

// limitsText tells limits in a few words: "0.5 cores, 256MiB, 100 pids".
func limitsText(r *spec.Resources) string {
	if r == nil {
		return ""
	}
	var parts []string
	if r.CPU > 0 {
		cores := "cores"
		if r.CPU == 1 {
			cores = "core"
		}
		parts = append(parts, fmt.Sprintf("%v %s", r.CPU, cores))
	}
	if r.Memory > 0 {
		parts = append(parts, r.Memory.String())
	}
	if r.PIDs > 0 {
		parts = append(parts, fmt.Sprintf("%d pids", r.PIDs))
	}
	return strings.Join(parts, ", ")
}
