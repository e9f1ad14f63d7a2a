// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Page is a writer whose lines can be seen to a number of columns, those of a
// terminal. Tables on it are folded to fit. With 0 columns, and on any other writer,
// a row is a line.
type Page struct {
	io.Writer
	Columns int
}

const (
	// gap is between two columns.
	gap = 2
	// leastLast is the width to which the last column is folded before other
	// columns leave the line, foldIndent how far those that left it are indented.
	leastLast  = 24
	foldIndent = 4
)

// table collects rows and writes them with aligned columns. One of more than two
// columns starts with a row of headings; two columns are names and values.
type table struct {
	w    io.Writer
	part bool // below another table
	rows [][]string
}

func newTable(w io.Writer) *table { return &table{w: w} }

// newPart is a table below another one.
func newPart(w io.Writer) *table { return &table{w: w, part: true} }

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = oneLine(fmt.Sprint(c))
	}
	t.rows = append(t.rows, text)
}

// known is a row where there is something to say.
func (t *table) known(name, text string) {
	if text != "" {
		t.row(name, text)
	}
}

func (t *table) flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	lines := t.aligned()
	if page, ok := t.w.(Page); ok && page.Columns > 0 && widest(lines) > page.Columns {
		lines = t.folded(page.Columns)
	}
	if t.part {
		lines = append([]string{""}, lines...)
	}
	for _, line := range lines {
		if _, err := io.WriteString(t.w, strings.TrimRight(line, " ")+"\n"); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// aligned has a line for each row.
func (t *table) aligned() []string {
	var text bytes.Buffer
	tab := tabwriter.NewWriter(&text, 0, 0, gap, ' ', 0)
	for _, row := range t.rows {
		_, _ = fmt.Fprintln(tab, strings.Join(row, "\t")) // to memory
	}
	_ = tab.Flush() // to memory
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

func widest(lines []string) (width int) {
	for _, line := range lines {
		width = max(width, utf8.RuneCountInString(line))
	}
	return width
}

// folded has lines of at most a number of columns, words that are longer apart.
// The last column is folded; if the others leave too little room for it, columns
// from the right go below their row, after their headings.
func (t *table) folded(columns int) (lines []string) {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	// kept is how many columns stay, before how much those before the last take.
	kept, before := len(widths), 0
	for _, w := range widths[:kept-1] {
		before += w + gap
	}
	for kept > 1 && before+min(widths[kept-1], leastLast) > columns {
		kept--
		before -= widths[kept-1] + gap
	}
	for at, row := range t.rows {
		var line strings.Builder
		for i, cell := range row[:min(kept, len(row))] {
			if i < kept-1 {
				fmt.Fprintf(&line, "%-*s", widths[i]+gap, cell)
				continue
			}
			parts := fold(cell, columns-before)
			line.WriteString(parts[0])
			lines = append(lines, line.String())
			for _, part := range parts[1:] {
				lines = append(lines, strings.Repeat(" ", before)+part)
			}
			line.Reset()
		}
		if line.Len() > 0 {
			lines = append(lines, line.String())
		}
		if at == 0 || len(row) <= kept {
			continue
		}
		var rest []string
		for i, cell := range row[kept:] {
			if cell != "" && cell != "-" {
				rest = append(rest, strings.TrimLeft(strings.ToLower(t.rows[0][kept+i])+" "+cell, " "))
			}
		}
		for _, part := range fold(strings.Join(rest, "; "), columns-foldIndent) {
			lines = append(lines, strings.Repeat(" ", foldIndent)+part)
		}
	}
	return lines
}

// fold breaks a text between words into lines of a width, at least one line.
func fold(text string, width int) (lines []string) {
	line, length := "", 0
	for word := range strings.SplitSeq(text, " ") {
		n := utf8.RuneCountInString(word)
		if length > 0 && length+1+n > width {
			lines = append(lines, line)
			line, length = "", 0
		}
		if length > 0 {
			line += " "
			length++
		}
		line += word
		length += n
	}
	return append(lines, line)
}
