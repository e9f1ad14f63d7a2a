// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"unicode/utf8"
)

// Confusion writes which classes were taken for which. On a page that is too
// narrow for it the columns have numbers for names, and come in blocks.
func Confusion(w io.Writer, counts [][]int, names []string) error {
	if len(counts) == 0 {
		return nil
	}
	name := func(i int) string {
		if i < len(names) {
			return names[i]
		}
		return fmt.Sprint(i)
	}
	page, _ := w.(Page)
	if page.Columns == 0 || confusionWidth(counts, name, name) <= page.Columns {
		return confusionBlock(w, counts, name, name, 0, len(counts))
	}
	number := func(i int) string { return fmt.Sprint(i) }
	side := name
	if len(names) > 0 {
		side = func(i int) string { return fmt.Sprintf("%d %s", i, name(i)) }
	}
	first, cell := confusionWidths(counts, side, number)
	most := max(1, (page.Columns-first)/(cell+gap))
	for from := 0; from < len(counts); from += most {
		if err := confusionBlock(w, counts, side, number, from, min(from+most, len(counts))); err != nil {
			return err
		}
	}
	return nil
}

const confusionCorner = "is \\ seen as"

// confusionWidths are those of the first column and of the widest other one.
func confusionWidths(counts [][]int, side, head func(int) string) (first, cell int) {
	first = len(confusionCorner)
	for i, row := range counts {
		first = max(first, utf8.RuneCountInString(oneLine(side(i))))
		cell = max(cell, utf8.RuneCountInString(oneLine(head(i))))
		for _, n := range row {
			cell = max(cell, len(fmt.Sprint(n)))
		}
	}
	return first, cell
}

// confusionWidth is at least the width of the whole table.
func confusionWidth(counts [][]int, side, head func(int) string) int {
	first, cell := confusionWidths(counts, side, head)
	return first + len(counts)*(cell+gap)
}

// confusionBlock writes the columns from one class to another.
func confusionBlock(w io.Writer, counts [][]int, side, head func(int) string, from, to int) error {
	t := newPart(w)
	cells := []any{confusionCorner}
	for i := from; i < to; i++ {
		cells = append(cells, head(i))
	}
	t.row(cells...)
	for i, row := range counts {
		cells := []any{side(i)}
		for _, n := range row[from:to] {
			if n == 0 {
				cells = append(cells, ".")
				continue
			}
			cells = append(cells, n)
		}
		t.row(cells...)
	}
	return t.flush()
}
