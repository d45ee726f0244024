package main

import (
	"fmt"
	"io"
	"strings"
)

// draw shows lines below all messages, in the place of those that it showed
// last. It is for a terminal only.
func (t *terminal) draw(lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	columns, rows := t.size()
	if rows > 1 && len(lines) >= rows {
		hidden := len(lines) - (rows - 2)
		lines = append(lines[:rows-2:rows-2], t.errStyle.dim(fmt.Sprintf("… %s more", count(hidden, "line"))))
	}
	clipped := make([]string, len(lines))
	for i, line := range lines {
		clipped[i] = clip(line, columns)
	}
	var b strings.Builder
	if len(t.panel) > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", len(t.panel))
	}
	for _, line := range clipped {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	t.panel = clipped
	_, _ = io.WriteString(t.err, b.String()) // there is nowhere else to say that it failed
}

// settle leaves what was drawn last where it is.
func (t *terminal) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.panel = nil
}

// wipe takes the panel off the screen; t.mu is held.
func (t *terminal) wipe() {
	if len(t.panel) > 0 {
		_, _ = fmt.Fprintf(t.err, "\x1b[%dA\r\x1b[J", len(t.panel))
	}
}

// repaint puts the panel back; t.mu is held.
func (t *terminal) repaint() {
	if len(t.panel) > 0 {
		_, _ = io.WriteString(t.err, strings.Join(t.panel, "\n")+"\n")
	}
}
