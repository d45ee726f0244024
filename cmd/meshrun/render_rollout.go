package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// barWidth is the number of cells of a bar.
const barWidth = 20

// bar draws how many of the wanted shards are healthy and updated.
func bar(p *spec.Progress, s style) string {
	healthy, updated := barWidth, barWidth
	if p.Wanted > 0 {
		healthy, updated = p.Healthy*barWidth/p.Wanted, p.Updated*barWidth/p.Wanted
		if updated == 0 && p.Updated > 0 {
			updated = 1 // one of a thousand is to be seen
		}
	}
	moving := s.yellow
	if p.State == spec.RolloutFailed {
		moving = s.red
	}
	return s.green(strings.Repeat("█", healthy)) + moving(strings.Repeat("▒", updated-healthy)) + s.dim(strings.Repeat("░", barWidth-updated))
}

// counts says the same as a bar, in numbers.
func counts(p *spec.Progress) string {
	switch {
	case p.Wanted == 0:
		return "no shards"
	case p.Healthy == p.Updated:
		return fmt.Sprintf("%d of %d updated", p.Updated, p.Wanted)
	default:
		return fmt.Sprintf("%d of %d updated, %d healthy", p.Updated, p.Wanted, p.Healthy)
	}
}

// rolloutState paints the state of a rollout in the colour of its meaning.
func (s style) rolloutState(state spec.RolloutState, text string) string {
	switch state {
	case spec.RolloutDone:
		return s.green(text)
	case spec.RolloutFailed:
		return s.red(text)
	default:
		return s.yellow(text)
	}
}

// stateText says in a word or two what a rollout does.
func stateText(state spec.RolloutState) string {
	switch state {
	case spec.RolloutRunning:
		return "rolling out"
	case spec.RolloutWaiting:
		return "waits for promotion"
	default:
		return string(state)
	}
}

// rolloutHead says in a line how a rollout is going.
func rolloutHead(r *api.RolloutStatus, s style, now time.Time) string {
	state := r.State()
	text := s.rolloutState(state, stateText(state)) + s.dim(fmt.Sprintf("  version %d", r.Version))
	if !r.When.IsZero() {
		text += s.dim(", " + ago(now.Sub(r.When)))
	}
	if r.Reverting != 0 {
		text += "  " + s.yellow(fmt.Sprintf("going back to version %d", r.Reverting))
	}
	return text
}

// rolloutLines draws a bar for each process, or only for those that aren't done.
// What a rollout can't go on without is told in a line of its own: it may hold
// a command, and is not to be cut off.
func rolloutLines(r *api.RolloutStatus, s style, indent string, all bool) []string {
	t := table{indent: indent}
	var below []string // by row
	for i := range r.Progress {
		p := &r.Progress[i]
		if p.State == spec.RolloutDone && !all {
			continue
		}
		waits, halted := cell{}, ""
		switch p.State {
		case spec.RolloutDone:
		case spec.RolloutRunning:
			waits = cell{text: oneLine(p.Waits), paint: s.dim}
		default:
			halted = indent + "  " + s.rolloutState(p.State, "→ "+oneLine(p.Waits))
		}
		below = append(below, halted)
		t.add(cell{text: p.Process}, cell{text: bar(p, style{}), paint: func(string) string { return bar(p, s) }}, cell{text: counts(p)}, waits)
	}
	var lines []string
	for i, line := range strings.Split(t.String(), "\n") {
		if i >= len(below) {
			break
		}
		if lines = append(lines, line); below[i] != "" {
			lines = append(lines, below[i])
		}
	}
	return lines
}

// rolloutHint says what can be done about a rollout that goes on by nobody's
// doing, "" if it goes on by itself.
func rolloutHint(r *api.RolloutStatus) string {
	if r.State() != spec.RolloutFailed || r.Reverting != 0 {
		return "" // one that is paused or waits says so in its line
	}
	why := ""
	for i := range r.Progress {
		if p := &r.Progress[i]; p.State == spec.RolloutFailed {
			why = p.Process + ": " + p.Waits
			break
		}
	}
	text := fmt.Sprintf("look at %s, then mend it and apply again", lookAt(r.Job, why))
	if r.Version > 1 {
		text += fmt.Sprintf(", or go back with `meshrun revert %s`", r.Job)
	}
	return text
}

// blamed finds the shard in why a rollout has failed, which may stand at the end
// of a sentence: "app: shard 2 has failed (exit 3)".
var blamed = regexp.MustCompile(`(\S+): shard (\d+) `)

// lookAt names the commands that tell what went wrong in a rollout. The output of
// the shard that failed may say nothing: one that was killed, or never started.
func lookAt(job, why string) string {
	target := job
	if found := blamed.FindStringSubmatch(why); found != nil {
		target += "/" + found[1] + "/" + found[2]
	}
	return fmt.Sprintf("`meshrun logs %s` and `meshrun events -since 5m %s`", target, job)
}

// renderRollout returns the lines about a job's rollout that isn't done, as
// they stand below the job in a status.
func renderRollout(r *api.RolloutStatus, s style, now time.Time) string {
	if r.State() == spec.RolloutDone {
		return ""
	}
	lines := append([]string{"  " + rolloutHead(r, s, now)}, rolloutLines(r, s, "    ", false)...)
	if hint := rolloutHint(r); hint != "" {
		lines = append(lines, "      "+hint)
	}
	for _, line := range heldMoves(r) {
		lines = append(lines, "    "+s.yellow(line))
	}
	return strings.Join(lines, "\n") + "\n"
}

// heldMoves says which shards cannot leave their node yet, and why: somebody who
// drains it waits for them.
func heldMoves(r *api.RolloutStatus) []string {
	type held struct{ process, why string }
	shards := map[held][]int{}
	for id, why := range r.Waiting {
		if strings.HasPrefix(why, "move to ") {
			of := held{id.Process, oneLine(why)}
			shards[of] = append(shards[of], id.Shard)
		}
	}
	lines := make([]string, 0, len(shards))
	for of, list := range shards {
		lines = append(lines, of.process+"/"+shortSet(list)+"  "+of.why)
	}
	slices.Sort(lines)
	return lines
}
