// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// avx512 writes the kernels with vectors of sixteen. Every result is the same chain as
// with eight, only more of them lie side by side. What is no whole number of vectors is
// done by masks, which also keep reads inside the slices.
func (g *gen) avx512() {
	g.tiles()
	g.convPools()
	g.convGradients()
	g.neighbours16()
	g.elementwise16()
}

// tileRows are the most rows of a tile that is a number of vectors wide: its sums, a
// row of the right factor and some elements of the left one fill 32 registers.
var tileRows = [5]int{0, 12, 12, 8, 6}

// tiles is the product of two matrices for all sizes of blocks.
func (g *gen) tiles() {
	g.text("See product.wide.", "tile512", "p *product", 24, 8)
	// SI product, DI left factor of this block, R10 of this segment, AX, BX, R14 and
	// R11 rows 0, 3, 6 and 9 of it at this step; CX right factor, DX results; R8 rowA,
	// R9 stepA, R12 stepB, R13 rowC; R15 steps left; K1 columns of the last vector.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ product_a(SI), DI
		MOVQ product_rowA(SI), R8
		SHLQ $2, R8
		MOVQ product_stepA(SI), R9
		SHLQ $2, R9
		MOVQ product_stepB(SI), R12
		SHLQ $2, R12
		MOVQ product_c(SI), DX
		MOVQ product_rowC(SI), R13
		SHLQ $2, R13
		MOVQ product_from(SI), AX
		MOVQ AX, 0(SP)
		MOVQ product_blocks(SI), AX
		MOVQ AX, 8(SP)
		MOVQ product_columns(SI), AX
		KMOVW AX, K1
		MOVQ product_vectors(SI), AX
		MOVQ product_rows(SI), BX`)
	for vectors := 4; vectors > 0; vectors-- {
		if vectors > 1 {
			g.p("CMPQ AX, $%d\nJNE not%d", vectors, vectors)
		}
		for rows := tileRows[vectors]; rows > 1; rows-- {
			g.p("CMPQ BX, $%d\nJEQ block%dx%d", rows, rows, vectors)
		}
		g.p("JMP block1x%d", vectors)
		if vectors > 1 {
			g.p("not%d:", vectors)
		}
	}
	for vectors := 4; vectors > 0; vectors-- {
		for rows := tileRows[vectors]; rows > 0; rows-- {
			g.tile512(rows, vectors)
		}
	}
}

// tile512 is one size of blocks, rows x 16*vectors.
func (g *gen) tile512(rows, vectors int) {
	name := fmt.Sprintf("%dx%d", rows, vectors)
	sums := rows * vectors
	// each calls do for every sum, and steps to the next row in between.
	each := func(base, row string, do func(sum int, at, mask string)) {
		for i := range rows {
			for v := range vectors {
				mask := ""
				if v == vectors-1 {
					mask = ", K1"
				}
				do(i*vectors+v, fmt.Sprintf("%d(%s)", 64*v, base), mask)
			}
			g.p("ADDQ %s, %s", row, base)
		}
	}
	load := func(at, mask string, to int) {
		if mask == "" {
			g.p("VMOVUPS %s, Z%d", at, to)
		} else {
			g.p("VMOVUPS.Z %s%s, Z%d", at, mask, to)
		}
	}
	g.p(`
		block%s:
		MOVQ 0(SP), AX
		MOVQ product_rowFrom(SI), BX
		SHLQ $2, BX`, name)
	each("AX", "BX", func(sum int, at, mask string) { load(at, mask, sum) })
	g.p(`
		MOVQ AX, 0(SP)
		MOVQ product_b(SI), CX
		MOVQ product_segments(SI), AX
		MOVQ AX, 16(SP)
		MOVQ DI, R10
		segment%s:
		MOVQ R10, AX`, name)
	bases := []string{"AX", "BX", "R14", "R11"}[:(rows+2)/3]
	for i, base := range bases[1:] {
		g.p("LEAQ (%s)(R8*2), %s\nADDQ R8, %s", bases[i], base, base)
	}
	g.p(`
		MOVQ product_steps(SI), R15
		SUBQ $2, R15
		JLT last%s
		PCALIGN $64
		steps%s:`, name, name)
	step := func() {
		for v := range vectors {
			mask := ""
			if v == vectors-1 {
				mask = ", K1"
			}
			load(fmt.Sprintf("%d(CX)", 64*v), mask, sums+v)
		}
		for i := range rows {
			a := fmt.Sprintf("(%s)%s", bases[i/3], []string{"", "(R8*1)", "(R8*2)"}[i%3])
			if vectors == 1 {
				g.p("VFMADD231PS.BCST %s, Z%d, Z%d", a, sums, i)
				continue
			}
			t := sums + vectors + i%min(4, 32-sums-vectors)
			g.p("VBROADCASTSS %s, Z%d", a, t)
			for v := range vectors {
				g.p("VFMADD231PS Z%d, Z%d, Z%d", sums+v, t, i*vectors+v)
			}
		}
		for _, base := range bases {
			g.p("ADDQ R9, %s", base)
		}
		g.p("ADDQ R12, CX")
	}
	step()
	step()
	g.p(`
		SUBQ $2, R15
		JGE steps%[1]s
		last%[1]s:
		ADDQ $2, R15
		JZ summed%[1]s`, name)
	step()
	g.p(`
		summed%[1]s:
		MOVQ product_segA(SI), AX
		LEAQ (R10)(AX*4), R10
		MOVQ product_skipB(SI), AX
		LEAQ (CX)(AX*4), CX
		DECQ 16(SP)
		JNZ segment%[1]s
		CMPQ product_rectified(SI), $0
		JEQ store%[1]s
		VPXORQ Z31, Z31, Z31
		MOVQ DX, AX`, name)
	each("AX", "R13", func(sum int, at, mask string) {
		load(at, mask, 30)
		g.p("VCMPPS $0x1e, Z31, Z30, K2\nVMOVAPS.Z Z%d, K2, Z%d", sum, sum)
	})
	g.p("store%s:", name)
	each("DX", "R13", func(sum int, at, mask string) { g.p("VMOVUPS Z%d%s, %s", sum, mask, at) })
	g.p(`
		IMUL3Q $%d, R8, AX
		ADDQ AX, DI
		DECQ 8(SP)
		JNZ block%s
		VZEROUPPER
		RET`, rows, name)
}

// convPoolMost is the most pooled pixels of a round of convPool512.
const convPoolMost = 3

// convPools is a convolution with its 2x2 max-pool, rectified or not, for all sizes of
// rounds; what is pooled never leaves the registers.
func (g *gen) convPools() {
	g.text("See pooling.wide.", "convPool512", "p *pooling", 40, 8)
	// SI pooling; DI window of the first pixel; AX and BX rows of it, R9 and R13 the
	// same from the fourth column of the convolution on, R8 a column; CX weights, R12 a
	// row of them; DX results, R10 places; R11 rows, R15 steps left; K1 says that
	// nothing is rectified.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ pooling_x(SI), DI
		MOVQ pooling_step(SI), R8
		SHLQ $2, R8
		MOVQ pooling_rowW(SI), R12
		SHLQ $2, R12
		MOVQ pooling_y(SI), DX
		MOVQ pooling_arg(SI), R10
		MOVL pooling_floor(SI), AX
		SARL $31, AX
		KMOVW AX, K1
		MOVQ pooling_records(SI), AX
		MOVQ AX, 8(SP)
		MOVQ pooling_vectors(SI), AX
		MOVQ pooling_each(SI), BX
		CMPQ AX, $2
		JNE single`)
	for vectors := 2; vectors > 0; vectors-- {
		for pixels := convPoolMost; pixels > 1; pixels-- {
			g.p("CMPQ BX, $%d\nJEQ record%dx%d", pixels, pixels, vectors)
		}
		g.p("JMP record1x%d", vectors)
		if vectors > 1 {
			g.p("single:")
		}
	}
	for vectors := 2; vectors > 0; vectors-- {
		for pixels := convPoolMost; pixels > 0; pixels-- {
			g.convPool512(pixels, vectors)
		}
	}
}

// convPool512 is one size of rounds: that many pooled pixels of 16*vectors filters.
func (g *gen) convPool512(pixels, vectors int) {
	name := fmt.Sprintf("%dx%d", pixels, vectors)
	columns := 2 * pixels
	// sum of column col of row row of the convolution.
	sum := func(row, col, v int) int { return (row*columns+col)*vectors + v }
	sums := 2 * columns * vectors
	g.p(`
		record%[1]s:
		MOVQ DI, 16(SP)
		MOVQ DX, 24(SP)
		MOVQ R10, 32(SP)
		MOVQ pooling_pixels(SI), AX
		MOVQ AX, 0(SP)
		pixel%[1]s:
		MOVQ pooling_bias(SI), CX`, name)
	for i := range sums {
		if i < vectors {
			g.p("VMOVUPS %d(CX), Z%d", 64*i, i)
		} else {
			g.p("VMOVAPS Z%d, Z%d", i%vectors, i)
		}
	}
	g.p(`
		MOVQ pooling_w(SI), CX
		MOVQ pooling_rows(SI), R11
		MOVQ DI, AX
		MOVQ pooling_rowX(SI), BX
		LEAQ (DI)(BX*4), BX
		window%s:`, name)
	bases := [2][]string{{"AX", "R9"}, {"BX", "R13"}}
	used := (columns + 2) / 3
	if used > 1 {
		for _, b := range bases {
			g.p("LEAQ (%[1]s)(R8*2), %[2]s\nADDQ R8, %[2]s", b[0], b[1])
		}
	}
	g.p(`
		MOVQ pooling_steps(SI), R15
		PCALIGN $32
		steps%s:`, name)
	for v := range vectors {
		g.p("VMOVUPS %d(CX), Z%d", 64*v, sums+v)
	}
	t := 0
	for row := range 2 {
		for col := range columns {
			x := fmt.Sprintf("(%s)%s", bases[row][col/3], []string{"", "(R8*1)", "(R8*2)"}[col%3])
			if vectors == 1 {
				g.p("VFMADD231PS.BCST %s, Z%d, Z%d", x, sums, sum(row, col, 0))
				continue
			}
			z := sums + vectors + t%min(6, 32-sums-vectors)
			t++
			g.p("VBROADCASTSS %s, Z%d", x, z)
			for v := range vectors {
				g.p("VFMADD231PS Z%d, Z%d, Z%d", sums+v, z, sum(row, col, v))
			}
		}
	}
	for _, b := range bases {
		for _, base := range b[:used] {
			g.p("ADDQ $4, %s", base)
		}
	}
	g.p(`
		ADDQ R12, CX
		DECQ R15
		JNZ steps%[1]s
		MOVQ pooling_skipX(SI), R15
		LEAQ (AX)(R15*4), AX
		LEAQ (BX)(R15*4), BX
		DECQ R11
		JNZ window%[1]s
		VPTERNLOGD $0xff, Z28, Z28, Z28
		VPSRLD $31, Z28, Z29
		VPSLLD $1, Z29, Z30
		VPORD Z29, Z30, Z31
		VPXORQ Z27, Z27, Z27
		MOVQ pooling_filters(SI), R15`, name)
	for q := range pixels {
		for v := range vectors {
			// K4 where one is NaN; then the maximum is.
			g.p(`
				VCMPPS $0x03, Z%[1]d, Z%[2]d, K2
				VCMPPS $0x03, Z%[3]d, Z%[4]d, K3
				KORW K3, K2, K4
				VCMPPS $0x1e, Z%[1]d, Z%[2]d, K2
				VCMPPS $0x1e, Z%[3]d, Z%[4]d, K3
				VMAXPS Z%[1]d, Z%[2]d, Z24
				VMAXPS Z%[3]d, Z%[4]d, Z25
				VCMPPS $0x1e, Z24, Z25, K5
				VMAXPS Z24, Z25, Z24
				VMOVDQA32.Z Z29, K2, Z26
				VPBLENDMD Z31, Z30, K3, Z25
				VMOVDQA32 Z25, K5, Z26
				VPMOVDB Z26, %[5]d(R10)
				VMOVDQA32 Z28, K4, Z24
				VCMPPS $0x16, Z27, Z24, K2
				KORW K1, K2, K2
				VMOVAPS.Z Z24, K2, Z24
				VMOVUPS Z24, %[6]d(DX)`,
				sum(0, 2*q, v), sum(0, 2*q+1, v), sum(1, 2*q, v), sum(1, 2*q+1, v), 16*v, 64*v)
		}
		g.p("LEAQ (DX)(R15*4), DX\nADDQ R15, R10")
	}
	g.p(`
		IMUL3Q $%[2]d, R8, AX
		ADDQ AX, DI
		DECQ 0(SP)
		JNZ pixel%[1]s
		MOVQ pooling_recordX(SI), AX
		MOVQ 16(SP), DI
		LEAQ (DI)(AX*4), DI
		MOVQ pooling_recordY(SI), AX
		MOVQ 24(SP), DX
		LEAQ (DX)(AX*4), DX
		MOVQ 32(SP), R10
		ADDQ AX, R10
		DECQ 8(SP)
		JNZ record%[1]s
		VZEROUPPER
		RET`, name, columns)
}

// convGradients is the gradient of the weights of a 3x3 convolution through its 2x2
// max-pool, for one or two vectors of filters.
func (g *gen) convGradients() {
	for vectors := 1; vectors <= 2; vectors++ {
		g.text("See tap.wide.", fmt.Sprintf("convGradient3x3x%d", 16*vectors), "p *tap", 0, 8)
		// SI tap; AX, BX and DI rows of the table, R8 a row of it; R9 gradients, R11
		// places, R10 a pixel of them; CX pixels, R12 records left; DX sums, R13 a row
		// of them.
		g.p(`
			MOVQ p+0(FP), SI
			MOVQ tap_rowTable(SI), R8
			SHLQ $2, R8
			MOVQ tap_filters(SI), R10
			MOVQ tap_rowSum(SI), R13
			SHLQ $2, R13
			MOVQ tap_sum(SI), DX
			MOVQ tap_sumBias(SI), R12`)
		// The bias is the tenth sum.
		all := func(format string) {
			g.p("MOVQ DX, AX")
			for k := range 10 {
				base := "AX"
				if k == 9 {
					base = "R12"
				}
				for v := range vectors {
					at, z := fmt.Sprintf("%d(%s)", 64*v, base), fmt.Sprintf("Z%d", vectors*k+v)
					g.p(format, at, z)
				}
				if k < 8 {
					g.p("ADDQ R13, AX")
				}
			}
		}
		all("VMOVUPS %[1]s, %[2]s")
		g.p(`
			MOVQ tap_table(SI), R14
			MOVQ tap_d(SI), R9
			MOVQ tap_arg(SI), R11
			MOVQ tap_records(SI), R12
			record:
			MOVQ R14, AX
			LEAQ (R14)(R8*1), BX
			LEAQ (R14)(R8*2), DI
			MOVQ R9, R15
			MOVQ tap_pixels(SI), CX
			PCALIGN $64
			pixel:`)
		for v := range vectors {
			g.p("VMOVUPS %d(R15), Z%d\nVPMOVZXBD %d(R11), Z%d", 64*v, 20+v, 16*v, 22+v)
		}
		for v := range vectors {
			g.p("VADDPS Z%d, Z%d, Z%d", 20+v, vectors*9+v, vectors*9+v)
		}
		for k := range 9 {
			t := 24 + k%2*4
			g.p("VBROADCASTF32X4 %d(%s), Z%d", 16*(k%3), []string{"AX", "BX", "DI"}[k/3], t)
			for v := range vectors {
				g.p("VPERMILPS Z%d, Z%d, Z%d", 22+v, t, t+1+v)
			}
			for v := range vectors {
				g.p("VFMADD231PS Z%d, Z%d, Z%d", t+1+v, 20+v, vectors*k+v)
			}
		}
		g.p(`
			ADDQ $32, AX
			ADDQ $32, BX
			ADDQ $32, DI
			LEAQ (R15)(R10*4), R15
			ADDQ R10, R11
			DECQ CX
			JNZ pixel
			MOVQ tap_recordTable(SI), AX
			LEAQ (R14)(AX*4), R14
			MOVQ tap_recordD(SI), AX
			LEAQ (R9)(AX*4), R9
			MOVQ tap_pixels(SI), CX
			IMULQ R10, CX
			SUBQ CX, R11
			ADDQ AX, R11
			DECQ R12
			JNZ record
			MOVQ tap_sumBias(SI), R12`)
		all("VMOVUPS %[2]s, %[1]s")
		g.p("VZEROUPPER\nRET")
	}
}

// neighboursStep is the most channels of an input whose tables neighbours512 makes: the
// values of four entries are in one vector.
const neighboursStep = 3

// neighbours16 writes the tables that convGradient reads, four entries at a time.
func (g *gen) neighbours16() {
	// For each distance of two entries, where in two rows four entries take their
	// values.
	for step := 1; step <= neighboursStep; step++ {
		for e := range 4 {
			for j, at := range []int{e * step, (e + 1) * step, 16 + e*step, 16 + (e+1)*step} {
				g.p("DATA entries<>+%d(SB)/4, $%d", 64*(step-1)+16*e+4*j, at)
			}
		}
	}
	g.p("GLOBL entries<>(SB), RODATA|NOPTR, $%d", 64*neighboursStep)
	g.text("See tables.run.", "neighbours512", "p *tables", 0, 8)
	// SI tables; DI table; R8 from one group of entries to the next, R9 from one row;
	// AX and BX pixels; DX the row; R10 groups of four, R13 left; R11 rows, R15 records
	// left; R12 the record; R14 entries of the last group. K1 and K2: what is read for a
	// group and for the last one, K3: what is written for the last one.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ tables_dst(SI), DI
		MOVQ tables_src(SI), R12
		MOVQ tables_step(SI), R8
		MOVQ tables_row(SI), R9
		SHLQ $2, R9
		MOVQ tables_entries(SI), R10
		MOVQ R10, R14
		SHRQ $2, R10
		ANDQ $3, R14
		LEAQ entries<>(SB), AX
		MOVQ R8, BX
		DECQ BX
		SHLQ $6, BX
		VMOVDQU32 (AX)(BX*1), Z2
		LEAQ 1(R8*4), CX
		MOVL $1, AX
		SHLL CX, AX
		DECL AX
		KMOVW AX, K1
		MOVQ R14, CX
		IMULQ R8, CX
		INCQ CX
		MOVL $1, AX
		SHLL CX, AX
		DECL AX
		KMOVW AX, K2
		LEAQ (R14*4), CX
		MOVL $1, AX
		SHLL CX, AX
		DECL AX
		KMOVW AX, K3
		SHLQ $4, R8
		MOVQ tables_records(SI), R15
		record:
		MOVQ R12, DX
		MOVQ tables_rows(SI), R11
		row:
		MOVQ DX, AX
		LEAQ (DX)(R9*1), BX
		MOVQ R10, R13
		CMPQ R13, $0
		JEQ rest
		four:
		VMOVUPS.Z (AX), K1, Z0
		VMOVUPS.Z (BX), K1, Z1
		VMOVAPS Z2, Z3
		VPERMI2PS Z1, Z0, Z3
		VMOVUPS Z3, (DI)
		ADDQ R8, AX
		ADDQ R8, BX
		ADDQ $64, DI
		DECQ R13
		JNZ four
		rest:
		CMPQ R14, $0
		JEQ done
		VMOVUPS.Z (AX), K2, Z0
		VMOVUPS.Z (BX), K2, Z1
		VMOVAPS Z2, Z3
		VPERMI2PS Z1, Z0, Z3
		VMOVUPS Z3, K3, (DI)
		MOVQ R14, AX
		SHLQ $4, AX
		ADDQ AX, DI
		done:
		ADDQ R9, DX
		DECQ R11
		JNZ row
		MOVQ tables_record(SI), AX
		LEAQ (R12)(AX*4), R12
		DECQ R15
		JNZ record
		VZEROUPPER
		RET`)
}
