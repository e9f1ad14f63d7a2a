// SPDX-License-Identifier: Apache-2.0

package kernel

// Input is what a first layer reads: records as float32, or as bytes that are
// multiplied by Scale, with the bits of [Set.Convert].
type Input struct {
	Values []float32
	Pixels []byte
	Scale  float32
}

// from returns the records from r on, of size values each.
func (x Input) from(r, size int) Input {
	if x.Values != nil {
		x.Values = x.Values[r*size:]
	} else {
		x.Pixels = x.Pixels[r*size:]
	}
	return x
}

// box is a part of the rows and columns of some records, and where it is converted
// or copied to.
type box struct {
	dst               []float32
	rowDst, recordDst int
	values            []float32 // or
	bytes             []byte
	scale             float32
	rowSrc, recordSrc int

	cols, rows, records int
}

// convert fills dst from bytes.
func (b *box) convert(v vector) {
	if b.cols == 0 {
		return
	}
	row, record := b.rows-1, b.records-1
	_, _ = b.dst[record*b.recordDst+row*b.rowDst+b.cols-1], b.bytes[record*b.recordSrc+row*b.rowSrc+b.cols-1]
	switch {
	case v == avx512:
		convert512(b)
		return
	case v != plainGo && b.cols >= lanes:
		convertFMA(b)
		return
	}
	for r := range b.records {
		for y := range b.rows {
			dst, src := b.dst[r*b.recordDst+y*b.rowDst:][:b.cols], b.bytes[r*b.recordSrc+y*b.rowSrc:][:b.cols]
			for i, u := range src {
				dst[i] = mul32(float32(u), b.scale)
			}
		}
	}
}

// copy fills dst from values.
func (b *box) copy() {
	for r := range b.records {
		for y := range b.rows {
			copy(b.dst[r*b.recordDst+y*b.rowDst:][:b.cols], b.values[r*b.recordSrc+y*b.rowSrc:][:b.cols])
		}
	}
}

// view is what a range of pooled pixels of some records is made from: the windows of
// the first pixel start at data, rows and records lie row and record values apart.
type view struct {
	data        []float32
	row, record int
}

// viewSize returns the rows and columns of what a run of pooled pixels is made from.
func (g Conv) viewSize(pixels int) (rows, cols int) {
	s := g.stride()
	return (g.Pool-1)*s + g.K, (pixels*g.Pool-1)*s + g.K
}

// viewScratch returns the values that the views of some records of a run of at most
// half a row take, whatever the input.
func (g Conv) viewScratch(records int) int {
	_, w := g.Out()
	rows, cols := g.viewSize((w + 1) / 2)
	return records * rows * cols * g.C
}

// view returns what the run is made from, of the records [first, last) of x. frame is
// where it is made if it has to be.
func (g Conv) view(v vector, x Input, first, last int, r run, frame []float32) view {
	s, in := g.stride(), g.H*g.W*g.C
	row, col := r.row*g.Pool*s-g.Pad.Top, r.from*g.Pool*s-g.Pad.Left
	if x.Values != nil && g.Pad == (Pad{}) {
		return view{x.Values[first*in+(row*g.W+col)*g.C:], g.W * g.C, in}
	}
	rows, cols := g.viewSize(r.to - r.from)
	made := view{frame, cols * g.C, rows * cols * g.C}
	top, bottom := max(0, -row), min(rows, g.H-row)
	left, right := max(0, -col), min(cols, g.W-col)
	if top > 0 || left > 0 || bottom < rows || right < cols {
		clear(frame[:(last-first)*made.record])
	}
	if top >= bottom || left >= right {
		return made
	}
	b := box{
		dst: frame[top*made.row+left*g.C:], rowDst: made.row, recordDst: made.record,
		rowSrc: g.W * g.C, recordSrc: in,
		cols: (right - left) * g.C, rows: bottom - top, records: last - first,
	}
	at := first*in + ((row+top)*g.W+col+left)*g.C
	if x.Values != nil {
		b.values = x.Values[at:]
		b.copy()
	} else {
		b.bytes, b.scale = x.Pixels[at:], x.Scale
		b.convert(v)
	}
	return made
}
