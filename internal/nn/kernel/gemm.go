// SPDX-License-Identifier: Apache-2.0

package kernel

// A strided view of the left factor: element (i, p, q) is at
// i*row + p*outer + q*inner, where the sum runs over p, and inside over q. Two
// levels make a convolution a product of matrices without copying its input.
type factor struct {
	data              []float32
	row, outer, inner int
}

// accumulate adds the product of a [m, outer*inner] and b [outer*inner, n] to
// c [m, n]; rows of b and c lie rowB and rowC values apart. Each element of c is
// one chain: it starts from its old value and takes its products in the order
// of the sum, so a sum may be continued by another call without changing a bit.
func accumulate(m, n, outer, inner int, a factor, b []float32, rowB int, c []float32, rowC int) {
	i := 0
	for ; i+2 <= m; i += 2 {
		a2 := a
		a2.data = a.data[i*a.row:]
		c0, c1 := c[i*rowC:][:n], c[(i+1)*rowC:][:n]
		j := 0
		for ; j+4 <= n; j += 4 {
			tile2x4(outer, inner, a2, b[j:], rowB, (*[4]float32)(c0[j:]), (*[4]float32)(c1[j:]))
		}
		for ; j < n; j++ {
			c0[j] = chain(outer, inner, a2.data, a, b[j:], rowB, c0[j])
			c1[j] = chain(outer, inner, a2.data[a.row:], a, b[j:], rowB, c1[j])
		}
	}
	if i == m {
		return
	}
	a1 := a
	a1.data = a.data[i*a.row:]
	c0 := c[i*rowC:][:n]
	j := 0
	for ; j+4 <= n; j += 4 {
		tile1x4(outer, inner, a1, b[j:], rowB, (*[4]float32)(c0[j:]))
	}
	for ; j < n; j++ {
		c0[j] = chain(outer, inner, a1.data, a, b[j:], rowB, c0[j])
	}
}

// tile2x4 is accumulate for two rows and four columns, held in registers.
func tile2x4(outer, inner int, a factor, b []float32, rowB int, c0, c1 *[4]float32) {
	s00, s01, s02, s03 := c0[0], c0[1], c0[2], c0[3]
	s10, s11, s12, s13 := c1[0], c1[1], c1[2], c1[3]
	at := 0
	for p := range outer {
		a0 := a.data[p*a.outer:]
		a1 := a0[a.row:]
		a0 = a0[:len(a1)]
		k := 0
		for range inner {
			x0, x1 := a0[k], a1[k]
			y := (*[4]float32)(b[at:])
			s00 += float32(x0 * y[0])
			s10 += float32(x1 * y[0])
			s01 += float32(x0 * y[1])
			s11 += float32(x1 * y[1])
			s02 += float32(x0 * y[2])
			s12 += float32(x1 * y[2])
			s03 += float32(x0 * y[3])
			s13 += float32(x1 * y[3])
			k += a.inner
			at += rowB
		}
	}
	c0[0], c0[1], c0[2], c0[3] = s00, s01, s02, s03
	c1[0], c1[1], c1[2], c1[3] = s10, s11, s12, s13
}

// tile1x4 is accumulate for one row and four columns.
func tile1x4(outer, inner int, a factor, b []float32, rowB int, c *[4]float32) {
	s0, s1, s2, s3 := c[0], c[1], c[2], c[3]
	at := 0
	for p := range outer {
		a0 := a.data[p*a.outer:]
		k := 0
		for range inner {
			x := a0[k]
			y := (*[4]float32)(b[at:])
			s0 += float32(x * y[0])
			s1 += float32(x * y[1])
			s2 += float32(x * y[2])
			s3 += float32(x * y[3])
			k += a.inner
			at += rowB
		}
	}
	c[0], c[1], c[2], c[3] = s0, s1, s2, s3
}

// chain is accumulate for one element, whose row of the left factor is data.
func chain(outer, inner int, data []float32, a factor, b []float32, rowB int, s float32) float32 {
	at := 0
	for p := range outer {
		k := p * a.outer
		for range inner {
			s += float32(data[k] * b[at])
			k += a.inner
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

// dot2x4 is dot4 for two vectors at once.
func dot2x4(x0, x1, w0, w1, w2, w3 []float32) (r0, r1 [4]float32) {
	n := len(x0)
	x1, w0, w1, w2, w3 = x1[:n], w0[:n], w1[:n], w2[:n], w3[:n]
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	for i, u := range x0 {
		v := x1[i]
		y := w0[i]
		s00 += float32(u * y)
		s10 += float32(v * y)
		y = w1[i]
		s01 += float32(u * y)
		s11 += float32(v * y)
		y = w2[i]
		s02 += float32(u * y)
		s12 += float32(v * y)
		y = w3[i]
		s03 += float32(u * y)
		s13 += float32(v * y)
	}
	return [4]float32{s00, s01, s02, s03}, [4]float32{s10, s11, s12, s13}
}

// dot returns the dot product of x and w, one chain from zero.
func dot(x, w []float32) (s float32) {
	w = w[:len(x)]
	for i, v := range x {
		s += float32(v * w[i])
	}
	return s
}
