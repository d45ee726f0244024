package main

import (
	"fmt"
	"strings"
)

// screen draws text over the text before, without flicker: every line is
// written over the old one, and what is left below is cleared.
type screen struct {
	term *terminal
	live bool
	last string
}

func newScreen(term *terminal) *screen {
	s := &screen{term: term, live: term.live}
	if s.live {
		_ = term.print("\x1b[?1049h\x1b[?25l") // another page, without a cursor
	}
	return s
}

func (s *screen) draw(text string) error {
	s.last = text
	if !s.live {
		return s.term.print(text + "\n")
	}
	columns, rows := s.term.size()
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if rows > 1 && len(lines) > rows-1 {
		hidden := len(lines) - (rows - 2)
		lines = append(lines[:rows-2], s.term.outStyle.dim(fmt.Sprintf("… %s more", count(hidden, "line"))))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(clip(line, columns) + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	return s.term.print(b.String())
}

// close goes back to the page before and leaves the last picture there.
func (s *screen) close() {
	if s.live {
		_ = s.term.print("\x1b[?25h\x1b[?1049l" + s.last)
	}
}

// clip cuts a painted line to a width, 0 for any.
func clip(line string, width int) string {
	if width <= 0 {
		return line
	}
	seen := 0
	for i := 0; i < len(line); {
		if n := colorSequence(line[i:]); n > 0 {
			i += n
			continue
		}
		if seen == width {
			return line[:i] + "\x1b[0m"
		}
		seen++
		i++
		for i < len(line) && line[i]&0xc0 == 0x80 {
			i++
		}
	}
	return line
}
