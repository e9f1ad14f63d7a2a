// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// vector says how the loops of fma-1 run: by assembly if true, else in plain
// Go. Both give the same bits. Assembly does what fills its registers, and plain
// Go the rest.
type vector bool

// lanes is the number of float32 in a register, and panel that of the columns of
// a block of a product.
const (
	lanes = 8
	panel = 2 * lanes
)

// whole returns how many of n elements the assembly does.
func (v vector) whole(n int) int {
	if v {
		return n &^ (lanes - 1)
	}
	return 0
}

// add writes dst[i] += src[i].
func (v vector) add(dst, src []float32) {
	src = src[:len(dst)]
	i := v.whole(len(dst))
	if i > 0 {
		addFMA(&dst[0], &src[0], i)
	}
	for ; i < len(dst); i++ {
		dst[i] = add32(dst[i], src[i])
	}
}

// rectify replaces what is not positive by +0, except NaN.
func (v vector) rectify(d []float32) {
	i := v.whole(len(d))
	if i > 0 {
		rectifyFMA(&d[0], i)
	}
	ReLU(d[i:])
}

// rectified writes dst[i] = d[i] where x[i] is positive, else +0.
func (v vector) rectified(dst, d, x []float32) {
	d, x = d[:len(dst)], x[:len(dst)]
	i := v.whole(len(dst))
	if i > 0 {
		rectifiedFMA(&dst[0], &d[0], &x[0], i)
	}
	for ; i < len(dst); i++ {
		u := d[i]
		if !(x[i] >= minNormal) {
			u = 0
		}
		dst[i] = u
	}
}

// convert writes dst[i] = src[i]*scale.
func (v vector) convert(dst []float32, src []byte, scale float32) {
	dst = dst[:len(src)]
	i := v.whole(len(src))
	if i > 0 {
		convertFMA(&dst[0], &src[0], i, scale)
	}
	for ; i < len(src); i++ {
		dst[i] = mul32(float32(src[i]), scale)
	}
}

// adam is Adam's step:
//
//	m = fma(g-m, Decay1, m)
//	v = fma(g*g-v, Decay2, v), where g*g-v is rounded once
//	w = w - m*Alpha / (sqrt(v)+Epsilon)
func (v vector) adam(w, g, m, s []float32, f AdamFactors) {
	g, m, s = g[:len(w)], m[:len(w)], s[:len(w)]
	i := v.whole(len(w))
	if i > 0 {
		k := [4]float32{f.Decay1, f.Decay2, f.Alpha, f.Epsilon}
		adamFMA(&w[0], &g[0], &m[0], &s[0], i, &k)
	}
	for ; i < len(w); i++ {
		a := fma32(sub32(g[i], m[i]), f.Decay1, m[i])
		b := fma32(fma32(g[i], g[i], -s[i]), f.Decay2, s[i])
		m[i], s[i] = a, b
		w[i] = sub32(w[i], div32(mul32(a, f.Alpha), add32(sqrt32(b), f.Epsilon)))
	}
}

// finite says whether no value is infinite or NaN.
func (v vector) finite(d []float32) bool {
	i := 0
	if v && len(d) >= 4*lanes {
		i = len(d) &^ (4*lanes - 1)
		if specialFMA(&d[0], i) {
			return false
		}
	}
	for _, u := range d[i:] {
		const exponent = 0xff << 23
		if math.Float32bits(u)&exponent == exponent {
			return false
		}
	}
	return true
}

// masks has for each number of columns of the last panel the lanes that count.
var masks = func() (m [panel + 1][panel]int32) {
	for n := range m {
		for i := range n {
			m[n][i] = -1
		}
	}
	return m
}()

// addScaled adds v times src [rows, cols] to dst [rows, cols]; their rows lie
// rowSrc and rowDst values apart.
func (v vector) addScaled(dst []float32, rowDst int, src []float32, rowSrc, rows, cols int, factor float32) {
	if v {
		_, _ = dst[(rows-1)*rowDst+cols-1], src[(rows-1)*rowSrc+cols-1]
		addScaledFMA(&dst[0], rowDst, &src[0], rowSrc, rows, cols, factor, &masks[cols%lanes][0])
		return
	}
	for i := range rows {
		d, s := dst[i*rowDst:][:cols], src[i*rowSrc:][:cols]
		for j, u := range s {
			d[j] = fma32(u, factor, d[j])
		}
	}
}

// transposed writes dst [cols, rows] from src [rows, cols]; rows lie rowDst and
// rowSrc values apart.
func (v vector) transposed(dst []float32, rowDst int, src []float32, rowSrc, rows, cols int) {
	done := v.whole(rows)
	wide := v.whole(cols)
	for i := 0; i < done; i += lanes {
		for j := 0; j < wide; j += lanes {
			_, _ = dst[(j+lanes-1)*rowDst+i+lanes-1], src[(i+lanes-1)*rowSrc+j+lanes-1]
			transpose8x8(&dst[j*rowDst+i], rowDst, &src[i*rowSrc+j], rowSrc)
		}
	}
	for i := range rows {
		j := 0
		if i < done {
			j = wide
		}
		for ; j < cols; j++ {
			dst[j*rowDst+i] = src[i*rowSrc+j]
		}
	}
}

// product is a product of matrices, c = a b, or what of it one call does. Row i
// and step k of the sum in segment s of a is a[i*rowA + s*segA + k*stepA]; that
// row of b is at b[(s*steps+k)*stepB + s*skipB]. Each result is one chain
// through all segments.
type product struct {
	a                 []float32
	rowA, stepA, segA int
	segments, steps   int
	b                 []float32
	stepB, skipB      int
	// from is where the chains start; its rows lie rowFrom values apart.
	from    []float32
	rowFrom int
	c       []float32
	rowC    int
	// rectified, if not zero: results where c was not positive are +0.
	rectified int

	// Of one call: how many blocks of rows, and the columns that count.
	blocks int
	mask   *[panel]int32
}

var zeros [panel]float32

// compute writes m x n results. from nil means zero.
func (v vector) compute(p product, m, n int) {
	all := p
	for j := 0; j < n; j += panel {
		cols := min(panel, n-j)
		p.b, p.mask = all.b[j:], &masks[cols]
		for i := 0; i < m; {
			rows, blocks := blocksOf(m - i)
			p.a, p.c, p.blocks = all.a[i*p.rowA:], all.c[i*p.rowC+j:], blocks
			if all.from == nil {
				p.from, p.rowFrom = zeros[:], 0
			} else {
				p.from = all.from[i*p.rowFrom+j:]
			}
			if v {
				p.assembly(rows, cols)
			} else {
				p.plain(rows, cols)
			}
			i += rows * blocks
		}
	}
}

// blocksOf returns how the next of m rows are divided: blocks of the given
// number of rows, at most six. Blocks of one to three rows cannot keep the
// processor busy, so they are avoided.
func blocksOf(m int) (rows, blocks int) {
	switch {
	case m <= 6:
		return m, 1
	case m == 7:
		return 4, 1
	case m == 8:
		return 4, 2
	case m == 9:
		return 5, 1
	case m%6 >= 1 && m%6 <= 3:
		return 6, m/6 - 1
	}
	return 6, m / 6
}

// plain is one call in plain Go.
func (p *product) plain(rows, cols int) {
	for i := range rows * p.blocks {
		for j := range cols {
			s, at := p.from[i*p.rowFrom+j], j
			for seg := range p.segments {
				a := p.a[i*p.rowA+seg*p.segA:]
				for k := range p.steps {
					s = fma32(a[k*p.stepA], p.b[at], s)
					at += p.stepB
				}
				at += p.skipB
			}
			if c := p.c[i*p.rowC+j]; p.rectified != 0 && !(c >= minNormal) {
				s = 0
			}
			p.c[i*p.rowC+j] = s
		}
	}
}

// assembly is one call of the assembly.
func (p *product) assembly(rows, cols int) {
	if cols == panel {
		switch rows {
		case 1:
			tile1x16(p)
		case 2:
			tile2x16(p)
		case 3:
			tile3x16(p)
		case 4:
			tile4x16(p)
		case 5:
			tile5x16(p)
		default:
			tile6x16(p)
		}
		return
	}
	switch rows {
	case 1:
		tile1x16Masked(p)
	case 2:
		tile2x16Masked(p)
	case 3:
		tile3x16Masked(p)
	case 4:
		tile4x16Masked(p)
	case 5:
		tile5x16Masked(p)
	default:
		tile6x16Masked(p)
	}
}
