// SPDX-License-Identifier: Apache-2.0

package kernel

// factor is a strided view of the left factor of a product: element (i, p, q)
// is at i*row + p*outer + q*inner, where the sum runs over p, and inside over q.
// Two levels make a convolution a product of matrices without copying its input.
type factor struct {
	data              []float32
	row, outer, inner int
}

// accumulate adds the product of a [m, outer*inner] and b [outer*inner, n] to
// c [m, n]; rows of b and c lie rowB and rowC values apart. Each element of c is
// one chain: it starts from its old value and takes its products in the order
// of the sum, so a sum may be continued by another call without changing a bit.
func accumulate(m, n, outer, inner int, a factor, b []float32, rowB int, c []float32, rowC int) {
	if done := accumulateVectors(m, n, outer, inner, a, b, rowB, c, rowC); done < n {
		accumulatePlain(m, n, done, outer, inner, a, b, rowB, c, rowC)
	}
}

// accumulatePlain does the columns from the given one on.
func accumulatePlain(m, n, from, outer, inner int, a factor, b []float32, rowB int, c []float32, rowC int) {
	for i := range m {
		row := a
		row.data = a.data[i*a.row:]
		c := c[i*rowC:][:n]
		j := from
		for ; j+8 <= n; j += 8 {
			tile8(outer, inner, row, b[j:], rowB, (*[8]float32)(c[j:]))
		}
		for ; j+4 <= n; j += 4 {
			tile4(outer, inner, row, b[j:], rowB, (*[4]float32)(c[j:]))
		}
		for ; j < n; j++ {
			c[j] = tile1(outer, inner, row, b[j:], rowB, c[j])
		}
	}
}

// tile8 is accumulate for one row and eight columns, held in registers. Tiles
// of two rows by four were no faster: the compiler spills.
func tile8(outer, inner int, a factor, b []float32, rowB int, c *[8]float32) {
	s0, s1, s2, s3 := c[0], c[1], c[2], c[3]
	s4, s5, s6, s7 := c[4], c[5], c[6], c[7]
	data, step, at := a.data, a.inner, 0
	for p := range outer {
		first := p * a.outer
		for q := first; q < first+inner*step; q += step {
			x := data[q]
			y := (*[8]float32)(b[at:])
			s0 += float32(x * y[0])
			s1 += float32(x * y[1])
			s2 += float32(x * y[2])
			s3 += float32(x * y[3])
			s4 += float32(x * y[4])
			s5 += float32(x * y[5])
			s6 += float32(x * y[6])
			s7 += float32(x * y[7])
			at += rowB
		}
	}
	c[0], c[1], c[2], c[3] = s0, s1, s2, s3
	c[4], c[5], c[6], c[7] = s4, s5, s6, s7
}

// tile4 is accumulate for one row and four columns.
func tile4(outer, inner int, a factor, b []float32, rowB int, c *[4]float32) {
	s0, s1, s2, s3 := c[0], c[1], c[2], c[3]
	data, step, at := a.data, a.inner, 0
	for p := range outer {
		first := p * a.outer
		for q := first; q < first+inner*step; q += step {
			x := data[q]
			y := (*[4]float32)(b[at:])
			s0 += float32(x * y[0])
			s1 += float32(x * y[1])
			s2 += float32(x * y[2])
			s3 += float32(x * y[3])
			at += rowB
		}
	}
	c[0], c[1], c[2], c[3] = s0, s1, s2, s3
}

// tile1 is accumulate for one element, whose old value is s.
func tile1(outer, inner int, a factor, b []float32, rowB int, s float32) float32 {
	data, step, at := a.data, a.inner, 0
	for p := range outer {
		first := p * a.outer
		for q := first; q < first+inner*step; q += step {
			s += float32(data[q] * b[at])
			at += rowB
		}
	}
	return s
}

// dot4 returns the dot products of x with four rows of w, each one chain from
// zero in the order of the elements. All have the length of x.
func dot4(x, w0, w1, w2, w3 []float32) (s0, s1, s2, s3 float32) {
	w0, w1, w2, w3 = w0[:len(x)], w1[:len(x)], w2[:len(x)], w3[:len(x)]
	for i, v := range x {
		s0 += float32(v * w0[i])
		s1 += float32(v * w1[i])
		s2 += float32(v * w2[i])
		s3 += float32(v * w3[i])
	}
	return s0, s1, s2, s3
}

// dot returns the dot product of x and w, one chain from zero.
func dot(x, w []float32) (s float32) {
	w = w[:len(x)]
	for i, v := range x {
		s += float32(v * w[i])
	}
	return s
}
