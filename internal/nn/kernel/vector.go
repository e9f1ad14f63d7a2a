// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// vector says how the loops of fma-1 run. All give the same bits. Assembly does what
// fills its registers, or masks the rest, and plain Go does the rest.
type vector uint8

const (
	plainGo vector = iota
	avx2           // vectors of eight
	avx512         // vectors of sixteen, and those of avx2 where these do not pay
)

// lanes is the number of float32 in a register of avx2, and panel that of the columns
// of a block of its products.
const (
	lanes = 8
	panel = 2 * lanes
)

// whole returns how many of n elements the assembly with vectors of eight does.
func (v vector) whole(n int) int {
	if v == plainGo {
		return 0
	}
	return n &^ (lanes - 1)
}

// add writes dst[i] += src[i].
func (v vector) add(dst, src []float32) {
	src = src[:len(dst)]
	if v == avx512 && len(dst) > 0 {
		add512(&dst[0], &src[0], len(dst))
		return
	}
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
	if v == avx512 && len(d) > 0 {
		rectify512(&d[0], len(d))
		return
	}
	i := v.whole(len(d))
	if i > 0 {
		rectifyFMA(&d[0], i)
	}
	ReLU(d[i:])
}

// rectified writes dst[i] = d[i] where x[i] is positive, else +0.
func (v vector) rectified(dst, d, x []float32) {
	d, x = d[:len(dst)], x[:len(dst)]
	if v == avx512 && len(dst) > 0 {
		rectified512(&dst[0], &d[0], &x[0], len(dst))
		return
	}
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
	b := box{dst: dst[:len(src)], bytes: src, scale: scale, cols: len(src), rows: 1, records: 1}
	b.convert(v)
}

// adam is Adam's step:
//
//	m = fma(g-m, Decay1, m)
//	v = fma(g*g-v, Decay2, v), where g*g-v is rounded once
//	w = w - m*Alpha / (sqrt(v)+Epsilon)
func (v vector) adam(w, g, m, s []float32, f AdamFactors) {
	g, m, s = g[:len(w)], m[:len(w)], s[:len(w)]
	k := [4]float32{f.Decay1, f.Decay2, f.Alpha, f.Epsilon}
	if v == avx512 && len(w) > 0 {
		adam512(&w[0], &g[0], &m[0], &s[0], len(w), &k)
		return
	}
	i := v.whole(len(w))
	if i > 0 {
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
	if v != plainGo && len(d) >= 4*lanes {
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
	if v != plainGo {
		_, _ = dst[(rows-1)*rowDst+cols-1], src[(rows-1)*rowSrc+cols-1]
		if v == avx512 {
			addScaled512(&dst[0], rowDst, &src[0], rowSrc, rows, cols, factor)
			return
		}
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
	for i := 0; i < done && wide > 0; i += lanes {
		_, _ = dst[(wide-1)*rowDst+i+lanes-1], src[(i+lanes-1)*rowSrc+wide-1]
		transpose8(&dst[i], rowDst, &src[i*rowSrc], rowSrc, wide/lanes)
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
	// With vectors of sixteen: the rows of a block, its vectors, and a bit for each
	// column of the last one.
	rows, vectors, columns int
}

var zeros [widest * lanes512]float32

// compute writes m x n results. from nil means zero.
func (v vector) compute(p product, m, n int) {
	if v == avx512 {
		p.wide(m, n)
		return
	}
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
			if v != plainGo {
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
