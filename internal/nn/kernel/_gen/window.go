// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// windowRows is for each number of vectors the most rows of a window whose sums fit in
// registers. Package kernel has the same.
var windowRows = [5]int{0, 5, 4, 2, 2}

// window is the gradient of some rows of the weights of one filter through a 2x2
// max-pool: the sums stay in registers, and the pixels go by.
func (g *gen) window(rows, vectors int) {
	g.text("See vector.window.", fmt.Sprintf("window%dx%d", rows, vectors), "p *window", 32, 8)
	// SI window; BX window of this pixel, R12 from it to the next, AX where its
	// maximum's window starts, R8 a row of it, R9 three; DI gradient, R11 place, R10
	// from a pixel of them to the next; CX pixels left; DX sums, R13 a row of them.
	// Y15 lanes of the last vector that count, Y13 zero, Y12 gradient, Y11 where it is
	// one, Y14 sum of the bias.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ window_rowX(SI), R8
		SHLQ $2, R8
		LEAQ (R8)(R8*2), R9
		MOVQ window_step(SI), R12
		SHLQ $2, R12
		MOVQ window_filters(SI), R10
		MOVQ window_cols(SI), R13
		SHLQ $2, R13
		MOVQ window_mask(SI), AX
		VMOVDQU (AX), Y15
		VXORPS Y13, Y13, Y13
		MOVQ window_bias(SI), AX
		VMOVSS (AX), X14
		MOVQ window_sum(SI), DX`)
	sum := func(r, v int) int { return r*vectors + v }
	// What lies behind a row is the next one, which is written after it; behind the
	// last, it is not ours.
	g.p("MOVQ DX, AX")
	for r := range rows {
		for v := range vectors {
			if v == vectors-1 && r == rows-1 {
				g.p("VMASKMOVPS %d(AX), Y15, Y%d", 32*v, sum(r, v))
			} else {
				g.p("VMOVUPS %d(AX), Y%d", 32*v, sum(r, v))
			}
		}
		g.p("ADDQ R13, AX")
	}
	g.p(`
		MOVQ window_x(SI), AX
		MOVQ AX, 8(SP)
		MOVQ window_d(SI), AX
		MOVQ AX, 16(SP)
		MOVQ window_arg(SI), AX
		MOVQ AX, 24(SP)
		MOVQ window_records(SI), AX
		MOVQ AX, 0(SP)
		record:
		MOVQ 8(SP), BX
		MOVQ 16(SP), DI
		MOVQ 24(SP), R11
		MOVQ window_pixels(SI), CX
		PCALIGN $32
		pixel:
		VBROADCASTSS (DI), Y12
		VCMPPS $4, Y13, Y12, Y11
		MOVBLZX (R11), AX
		ANDL $3, AX
		MOVQ window_corner(SI)(AX*8), AX
		LEAQ (BX)(AX*4), AX
		VADDSS X12, X14, X10
		VBLENDVPS X11, X10, X14, X14`)
	row := []string{"(AX)", "(AX)(R8*1)", "(AX)(R8*2)", "(AX)(R9*1)", "(AX)(R8*4)"}
	for r := range rows {
		for v := range vectors {
			s, t := sum(r, v), 8+sum(r, v)%3
			if v == vectors-1 {
				g.p("VMASKMOVPS %d%s, Y15, Y%d", 32*v, row[r], t)
			} else {
				g.p("VMOVUPS %d%s, Y%d", 32*v, row[r], t)
			}
			g.p("VFMADD213PS Y%d, Y12, Y%d\nVBLENDVPS Y11, Y%d, Y%d, Y%d", s, t, t, s, s)
		}
	}
	g.p(`
		ADDQ R12, BX
		LEAQ (DI)(R10*4), DI
		ADDQ R10, R11
		DECQ CX
		JNZ pixel
		MOVQ window_recordX(SI), AX
		SHLQ $2, AX
		ADDQ AX, 8(SP)
		MOVQ window_recordD(SI), AX
		ADDQ AX, 24(SP)
		SHLQ $2, AX
		ADDQ AX, 16(SP)
		DECQ 0(SP)
		JNZ record`)
	for r := range rows {
		for v := range vectors {
			if v == vectors-1 && r == rows-1 {
				g.p("VMASKMOVPS Y%d, Y15, %d(DX)", sum(r, v), 32*v)
			} else {
				g.p("VMOVUPS Y%d, %d(DX)", sum(r, v), 32*v)
			}
		}
		g.p("ADDQ R13, DX")
	}
	g.p(`
		MOVQ window_bias(SI), AX
		VMOVSS X14, (AX)
		VZEROUPPER
		RET`)
}
