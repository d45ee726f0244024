package api

import (
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// LogResume follows output across breaks: each instance goes on after the last
// line that was seen of it. The zero value begins at the beginning. One
// goroutine uses it.
type LogResume struct {
	seen    map[outputOf]position
	skipped map[outputOf]int // of the lines at an instance's last time
	since   time.Time        // from where the present query goes on
}

// outputOf is an instance on a node: after a move its output goes on elsewhere.
type outputOf struct {
	id   spec.InstanceID
	node string
}

// position is how far an instance's output was seen: the time of the last line
// and how many lines have that very time.
type position struct {
	time  time.Time
	lines int
}

// Query returns what to ask for to go on: the query itself the first time, and
// afterwards from where something may have been missed.
func (r *LogResume) Query(query spec.LogQuery) spec.LogQuery {
	r.skipped = map[outputOf]int{}
	if len(r.seen) == 0 {
		return query
	}
	// The earliest of the last lines: an instance behind it misses nothing.
	r.since = time.Time{}
	for _, at := range r.seen {
		if r.since.IsZero() || at.time.Before(r.since) {
			r.since = at.time
		}
	}
	query.Since, query.Last = r.since, 0
	return query
}

// Fresh reports whether the line was not seen before, and notes it.
func (r *LogResume) Fresh(line *spec.LogLine) bool {
	if r.seen == nil {
		r.seen = map[outputOf]position{}
	}
	of := outputOf{line.ID, line.Node}
	at := r.seen[of]
	switch {
	case line.Time.Before(at.time):
		return false
	case line.Time.Equal(at.time) && !r.since.IsZero() && r.skipped[of] < at.lines:
		r.skipped[of]++
		return false
	case line.Time.Equal(at.time):
		at.lines++
		r.skipped[of]++
	default:
		at = position{time: line.Time, lines: 1}
		r.skipped[of] = 1
	}
	r.seen[of] = at
	return true
}
