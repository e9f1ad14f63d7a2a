// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of CSV files.
const (
	csvMaxLine  = 16 << 20
	csvMaxLabel = 200
	// MaxClasses is what a label can tell apart.
	MaxClasses = 1 << 16
)

// Shape is the size of an image: rows, columns, channels.
type Shape struct{ H, W, C int }

// Bytes is the size of one image.
func (s Shape) Bytes() int { return s.H * s.W * s.C }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C) }

// ParseShape reads HxW or HxWxC. One channel is what is meant without C.
func ParseShape(text string) (Shape, error) {
	fields := strings.Split(text, "x")
	n := []int{0, 0, 1}
	ok := len(fields) == 2 || len(fields) == 3
	size := 1
	for i := 0; ok && i < len(fields); i++ {
		v, err := strconv.Atoi(fields[i])
		ok = err == nil && v >= 1 && v <= csvMaxLine && strconv.Itoa(v) == fields[i]
		n[i] = v
	}
	for i := 0; ok && i < 3; i++ {
		size *= n[i]
		ok = size <= csvMaxLine
	}
	if !ok {
		return Shape{}, badf("shape %.40q: want HxW or HxWxC, such as 28x28 or 32x32x3", text)
	}
	return Shape{n[0], n[1], n[2]}, nil
}

// Table is a CSV file of labelled images.
type Table struct {
	Shape  Shape
	Pixels []byte
	// Labels are indices of Names, the different labels in the order in which
	// they appear.
	Labels []uint16
	Names  []string
	// Column is the label's column, from 1. Guessed says that no header named it.
	Column  int
	Guessed bool
}

// CSV reads lines of a label and pixels, compressed with gzip or not.
//
// Fields are separated by commas; spaces and one pair of double quotes around a
// field do not count, and there are no commas within. Pixels are whole numbers
// of 0 to 255, rows top down, channels interleaved; labels are any text. Empty
// lines are passed over, and so are lines that start with #, except that
//
//	# shape: 20x16x1
//
// before the first record says the shape, unless the caller does; without
// either it is a square of one channel. A first line is a header if one of its
// fields is "label" or if none of them is a whole number. The label is in the
// column headed "label", else in the first one.
func CSV(r io.Reader, shape *Shape) (Table, error) {
	var t Table
	r, err := plain(r)
	if err != nil {
		return t, err
	}
	c := csvReader{table: &t, shape: shape, index: map[string]uint16{}}
	b := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return t, readError(err, fmt.Sprintf("line %d", number))
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if problem := c.line(bytes.TrimSpace(line)); problem != nil {
			return t, fmt.Errorf("line %d: %w", number, problem)
		}
		if err != nil {
			break
		}
	}
	if len(t.Labels) == 0 {
		return t, badf("there are no records")
	}
	return t, nil
}

// readLine reads a line, the last one with io.EOF.
func readLine(b *bufio.Reader) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = b.ReadSlice('\n')
		if long = append(long, line...); len(long) > csvMaxLine {
			return nil, badf("longer than %d bytes", csvMaxLine)
		}
	}
	return long, err
}

type csvReader struct {
	table   *Table
	shape   *Shape
	index   map[string]uint16 // of names
	columns int               // 0 before the first line that is not a comment
}

func (c *csvReader) line(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	if comment, ok := bytes.CutPrefix(line, []byte("#")); ok {
		return c.comment(strings.TrimSpace(string(comment)))
	}
	if c.columns == 0 {
		header, err := c.first(line)
		if err != nil || header {
			return err
		}
	}
	return c.record(line)
}

func (c *csvReader) comment(text string) error {
	text, ok := strings.CutPrefix(text, "shape:")
	// Once the table has begun its shape is known.
	if !ok || c.shape != nil {
		return nil
	}
	s, err := ParseShape(strings.TrimSpace(text))
	c.shape = &s
	return err
}

// first learns from the first line of the table and tells whether it is a
// header.
func (c *csvReader) first(line []byte) (header bool, err error) {
	t := c.table
	t.Column, t.Guessed = 1, true
	numbers := false
	for rest, more := line, true; more; {
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte{','})
		c.columns++
		field = bare(field)
		if strings.EqualFold(string(field), "label") {
			if !t.Guessed {
				return false, badf("columns %d and %d are both called label", t.Column, c.columns)
			}
			t.Column, t.Guessed, header = c.columns, false, true
		}
		if _, ok := pixel(field); ok {
			numbers = true
		}
	}
	pixels := c.columns - 1
	if pixels < 1 {
		return false, badf("one column; want a label and pixels, separated by commas")
	}
	if c.shape == nil {
		side := 1
		for side*side < pixels {
			side++
		}
		if side*side != pixels {
			return false, badf("%d pixels are no square; give the shape as --shape HxWxC or in a first line: # shape: HxWxC", pixels)
		}
		c.shape = &Shape{side, side, 1}
	}
	if c.shape.Bytes() != pixels {
		return false, badf("%d columns beside the label, want %d for the shape %v", pixels, c.shape.Bytes(), c.shape)
	}
	t.Shape = *c.shape
	return header || !numbers, nil
}

func (c *csvReader) record(line []byte) error {
	t := c.table
	if int64(len(t.Pixels)) > MaxBytes-int64(c.columns) {
		return badf("the pixels are more than %d bytes", int64(MaxBytes))
	}
	rest, more := line, true
	for column := 1; column <= c.columns; column++ {
		if !more {
			return badf("%d fields, want %d", column-1, c.columns)
		}
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte{','})
		field = bare(field)
		if column == t.Column {
			if err := c.label(field); err != nil {
				return err
			}
			continue
		}
		v, ok := pixel(field)
		if !ok || v > 255 {
			return badf("field %d is %.20q, want a whole number of 0 to 255", column, field)
		}
		t.Pixels = append(t.Pixels, byte(v))
	}
	if more {
		return badf("more than %d fields", c.columns)
	}
	return nil
}

func (c *csvReader) label(field []byte) error {
	t := c.table
	i, known := c.index[string(field)]
	if !known {
		if len(field) == 0 || len(field) > csvMaxLabel {
			return badf("a label of %d bytes, want 1 to %d", len(field), csvMaxLabel)
		}
		if bytes.ContainsRune(field, '"') {
			return badf("the label %.40q has a quote in it", field)
		}
		if len(t.Names) == MaxClasses {
			return badf("more than %d different labels", MaxClasses)
		}
		i = uint16(len(t.Names))
		t.Names = append(t.Names, string(field))
		c.index[string(field)] = i
	}
	t.Labels = append(t.Labels, i)
	return nil
}

// bare takes spaces and then one pair of quotes off a field.
func bare(field []byte) []byte {
	field = bytes.TrimSpace(field)
	if n := len(field); n >= 2 && field[0] == '"' && field[n-1] == '"' {
		return field[1 : n-1]
	}
	return field
}

// pixel reads a whole number of up to 5 digits.
func pixel(field []byte) (int, bool) {
	if len(field) == 0 || len(field) > 5 {
		return 0, false
	}
	n := 0
	for _, b := range field {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = 10*n + int(b-'0')
	}
	return n, true
}
