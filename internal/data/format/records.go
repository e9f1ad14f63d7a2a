// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Records reads the images of an array of uint8, N x H x W or N x H x W x C, one
// after the other, so that memory holds one of them: each is called for every
// image with a slice that it must not keep. Images of another shape than want are
// an error before the first call. Labels play no part.
func (n *NPZ) Records(name string, want Shape, each func(image []byte) error) error {
	return n.read(name, func(r io.Reader, _ int64) error {
		h, err := readNPYHeader(r)
		if err != nil {
			return err
		}
		if h.kind != 'u' || h.size != 1 {
			return badf("values are %s, want uint8", h.typeName())
		}
		dims := h.dims
		if len(dims) == 3 {
			dims = append(dims[:3:3], 1)
		}
		if len(dims) != 4 {
			return badf("%d dimensions, want 3 or 4: images, rows, columns, channels", len(h.dims))
		}
		if dims[1] != int64(want.H) || dims[2] != int64(want.W) || dims[3] != int64(want.C) {
			return badf("images of %dx%dx%d, want %v", dims[1], dims[2], dims[3], want)
		}
		if h.fortran && h.values > 0 {
			return badf("the array is in Fortran's order; save numpy.ascontiguousarray of it")
		}
		image := make([]byte, want.Bytes())
		for i := range dims[0] {
			if _, err := io.ReadFull(r, image); err != nil {
				return readError(err, fmt.Sprintf("image %d", i))
			}
			if err := each(image); err != nil {
				return err
			}
		}
		return ended(r, "values")
	})
}

// CSVRecords reads the images of a file that [CSV] reads, or of one that has no
// label column, one after the other, so that memory holds one line: each is called
// for every image with a slice that it must not keep. Labels are passed over.
// Lines are of want's size; a "# shape:" in the file must agree.
func CSVRecords(r io.Reader, want Shape, each func(image []byte) error) error {
	r, err := plain(r)
	if err != nil {
		return err
	}
	c := recordReader{want: want, image: make([]byte, 0, want.Bytes())}
	b := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return readError(err, fmt.Sprintf("line %d", number))
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		is, problem := c.line(bytes.TrimSpace(line))
		if problem != nil {
			return fmt.Errorf("line %d: %w", number, problem)
		}
		if is {
			if err := each(c.image); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

type recordReader struct {
	want    Shape
	image   []byte
	columns int // 0 before the first line of the table
	label   int // the label's column, from 1; 0 if there is none
}

// line reads one and tells whether it is an image.
func (c *recordReader) line(line []byte) (bool, error) {
	if len(line) == 0 {
		return false, nil
	}
	if comment, ok := bytes.CutPrefix(line, []byte("#")); ok {
		text, ok := strings.CutPrefix(strings.TrimSpace(string(comment)), "shape:")
		if !ok || c.columns > 0 {
			return false, nil
		}
		s, err := ParseShape(strings.TrimSpace(text))
		if err == nil && s != c.want {
			err = badf("images of %v, want %v", s, c.want)
		}
		return false, err
	}
	if c.columns == 0 {
		if header, err := c.first(line); err != nil || header {
			return false, err
		}
	}
	return true, c.record(line)
}

// first learns from the first line of the table and tells whether it is a header.
func (c *recordReader) first(line []byte) (header bool, err error) {
	named, numbers := 0, false
	for rest, more := line, true; more; {
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte{','})
		c.columns++
		field = bare(field)
		if strings.EqualFold(string(field), "label") {
			named = c.columns
		}
		if _, ok := pixel(field); ok {
			numbers = true
		}
	}
	switch pixels := c.want.Bytes(); c.columns {
	case pixels + 1:
		c.label = max(named, 1)
	case pixels:
		if named > 0 {
			return false, badf("%d columns beside the label, want %d for %v", c.columns-1, pixels, c.want)
		}
	default:
		return false, badf("%d columns, want %d for images of %v, or one more with a label", c.columns, pixels, c.want)
	}
	return named > 0 || !numbers, nil
}

func (c *recordReader) record(line []byte) error {
	c.image = c.image[:0]
	rest, more := line, true
	for column := 1; column <= c.columns; column++ {
		if !more {
			return badf("%d fields, want %d", column-1, c.columns)
		}
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte{','})
		if column == c.label {
			continue
		}
		field = bare(field)
		v, ok := pixel(field)
		if !ok || v > 255 {
			return badf("field %d is %.20q, want a whole number of 0 to 255", column, field)
		}
		c.image = append(c.image, byte(v))
	}
	if more {
		return badf("more than %d fields", c.columns)
	}
	return nil
}
