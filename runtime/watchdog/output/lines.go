package output

import "github.com/synergymesh/meshrun/spec"

// tail holds the last lines that it was given.
type tail struct {
	lines []spec.LogLine
	want  int
	bytes int
	// cut is set once an older line was dropped.
	cut bool
}

func newTail(want int) *tail { return &tail{want: want} }

// add adds a line and drops the oldest ones beyond the bounds.
func (t *tail) add(l spec.LogLine) error {
	t.lines = append(t.lines, l)
	t.bytes += len(l.Text)
	for len(t.lines) > t.want || (t.bytes > maxTail && len(t.lines) > 1) {
		t.bytes -= len(t.lines[0].Text)
		t.lines[0] = spec.LogLine{}
		t.lines, t.cut = t.lines[1:], true
	}
	return nil
}

// full reports whether older lines would change nothing.
func (t *tail) full() bool { return t.cut || len(t.lines) == t.want }

// each yields the lines, oldest first.
func (t *tail) each(yield func(spec.LogLine) error) error {
	for _, l := range t.lines {
		if err := yield(l); err != nil {
			return err
		}
	}
	return nil
}
