// SPDX-License-Identifier: Apache-2.0

package kernel

// The cuts of fma-1's work into calls of the assembly with vectors of sixteen.

const (
	// lanes512 is the number of float32 in a register.
	lanes512 = 16
	// widest is the most vectors of a block of a product.
	widest = 4
	// neighboursStep is the most channels of an input whose tables it makes.
	neighboursStep = 3
	// convPoolMost is the most pooled pixels of a round of a convolution.
	convPoolMost = 3
)

// tileRows is the most rows of a block that is the given number of vectors wide: more
// would not fit in registers.
var tileRows = [widest + 1]int{0, 12, 12, 8, 6}

// blocksWide returns how m rows are divided into blocks, some vectors wide: as few as
// can be, larger ones of rows+1 rows and then the rest, of rows.
func blocksWide(m, vectors int) (rows, larger, rest int) {
	blocks := (m + tileRows[vectors] - 1) / tileRows[vectors]
	return m / blocks, m % blocks, blocks - m%blocks
}

// wide writes m x n results.
func (p product) wide(m, n int) {
	if m == 0 {
		return
	}
	all := p
	for j := 0; j < n; j += widest * lanes512 {
		cols := min(n-j, widest*lanes512)
		p.vectors = (cols + lanes512 - 1) / lanes512
		p.columns = 1<<(cols-(p.vectors-1)*lanes512) - 1
		rows, larger, rest := blocksWide(m, p.vectors)
		p.b = all.b[j:]
		for i := 0; i < m; i += p.rows * p.blocks {
			if p.rows, p.blocks = rows, rest; i == 0 && larger > 0 {
				p.rows, p.blocks = rows+1, larger
			}
			p.a, p.c = all.a[i*p.rowA:], all.c[i*p.rowC+j:]
			if all.from == nil {
				p.from, p.rowFrom = zeros[:], 0
			} else {
				p.from = all.from[i*p.rowFrom+j:]
			}
			tile512(&p)
		}
	}
}

// wide makes the pixels for as many of the filters as fill vectors, at least one and at
// most two, and returns their number.
func (p pooling) wide(pixels, filters int) (done int) {
	p.vectors = min(filters/lanes512, 2)
	// Rounds of one pixel have too few sums to keep the processor busy.
	rounds := [convPoolMost + 1]int{}
	rounds[convPoolMost] = pixels / convPoolMost
	switch rest := pixels % convPoolMost; {
	case rest == 1 && pixels > 1:
		rounds[convPoolMost]--
		rounds[2] = 2
	case rest > 0:
		rounds[rest] = 1
	}
	for each := convPoolMost; each > 0; each-- {
		if rounds[each] == 0 {
			continue
		}
		p.each, p.pixels = each, rounds[each]
		convPool512(&p)
		made := p.each * p.pixels
		if pixels -= made; pixels > 0 {
			p.x, p.y, p.arg = p.x[2*made*p.step:], p.y[made*p.filters:], p.arg[made*p.filters:]
		}
	}
	return p.vectors * lanes512
}

// wide does all filters, two vectors, one, or half a one at a time.
func (p tap) wide() {
	for left := p.vectors; left > 0; {
		p.vectors = 1
		switch {
		case left >= 4:
			p.vectors = 4
			convGradient3x3x32(&p)
		case left >= 2:
			p.vectors = 2
			convGradient3x3x16(&p)
		default:
			convGradient3x3(&p)
		}
		if left -= p.vectors; left > 0 {
			n := p.vectors * lanes
			p.sum, p.sumBias, p.d, p.arg = p.sum[n:], p.sumBias[n:], p.d[n:], p.arg[n:]
		}
	}
}
