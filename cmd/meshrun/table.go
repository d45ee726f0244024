package main

import (
	"strings"
	"unicode/utf8"
)

// cell is one field of a table, with how it is painted.
type cell struct {
	text  string
	paint func(string) string // nil paints nothing
	right bool                // align at the right
}

// table is rows of cells in aligned columns.
type table struct {
	indent string
	rows   [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// head adds a row of dim titles.
func (t *table) head(s style, titles ...string) {
	row := make([]cell, len(titles))
	for i, title := range titles {
		row[i] = cell{text: title, paint: s.dim}
	}
	t.add(row...)
}

// columnGap is what lies between two columns.
const columnGap = "  "

// String renders the table. The last cell of a row is not padded, and may be
// as long as it likes.
func (t *table) String() string {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row[:max(0, len(row)-1)] {
			for len(widths) <= i {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		line.WriteString(t.indent)
		for i, c := range row {
			if i > 0 {
				line.WriteString(columnGap)
			}
			pad := ""
			if i < len(row)-1 {
				pad = strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(c.text)))
			}
			text := c.text
			if c.paint != nil {
				text = c.paint(text)
			}
			if c.right {
				line.WriteString(pad + text)
			} else {
				line.WriteString(text + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
