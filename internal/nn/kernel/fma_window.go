// SPDX-License-Identifier: Apache-2.0

package kernel

// window adds what a run of pixels that a 2x2 max-pool made, of some records, gives to
// the gradients of one filter's weights and of its bias: the gradient of each, if it is
// not zero, times the window of its maximum.
type window struct {
	x                   []float32 // from the first pixel's window on
	rowX, step, recordX int       // from a row of x, a pixel's window, a record to the next
	corner              [4]int    // where in x the window of each place starts
	d                   []float32 // gradients, from the first pixel's on
	arg                 []uint8   // places of the maxima, 0 to 3
	filters, recordD    int       // from a pixel, a record of d and arg to the next
	sum                 []float32 // of the weights, row by row
	rows, cols          int       // of the window, in values
	bias                []float32
	mask                []int32 // lanes of a row's last vector
	pixels, records     int
}

// windowRows is for each number of vectors that a row of a window fills the most rows
// that the assembly does at once.
var windowRows = [5]int{0, 5, 4, 2, 2}

// fits says that the assembly can do it: a row fills registers that it has, and what a
// row's last vector has too much is no more than the next row.
func (p *window) fits() bool {
	return p.cols >= lanes/2 && p.cols <= lanes*(len(windowRows)-1)
}

// window does all rows of p.
func (v vector) window(p window) {
	if v == plainGo || !p.fits() {
		p.scatter(v)
		return
	}
	last := (p.records-1)*p.recordD + (p.pixels-1)*p.filters
	_, _ = p.d[last], p.arg[last]
	_ = p.x[(p.records-1)*p.recordX+(p.pixels-1)*p.step+p.corner[3]+(p.rows-1)*p.rowX+p.cols-1]
	_ = p.sum[p.rows*p.cols-1]
	vectors := (p.cols + lanes - 1) / lanes
	p.mask = masks[p.cols-(vectors-1)*lanes][:]
	var unused [1]float32
	for left := p.rows; left > 0; {
		blocks := (left + windowRows[vectors] - 1) / windowRows[vectors]
		rows := (left + blocks - 1) / blocks
		windowFMA(&p, rows, vectors)
		if left -= rows; left > 0 {
			p.x, p.sum, p.bias = p.x[rows*p.rowX:], p.sum[rows*p.cols:], unused[:]
		}
	}
}

// scatter is vector.window, a pixel at a time.
func (p *window) scatter(v vector) {
	for i := range p.records * p.pixels {
		record, pixel := i/p.pixels, i%p.pixels
		at := record*p.recordD + pixel*p.filters
		if d := p.d[at]; !none(d) {
			p.bias[0] = add32(p.bias[0], d)
			v.addScaled(p.sum, p.cols, p.x[record*p.recordX+pixel*p.step+p.corner[p.arg[at]]:], p.rowX, p.rows, p.cols, d)
		}
	}
}
