// SPDX-License-Identifier: Apache-2.0

package main

// neighbours writes the tables that convGradient reads.
func (g *gen) neighbours() {
	g.text("See tables.run.", "neighbours", "p *tables", 16, 8)
	// SI tables; DI table; R8 from one pixel to the next, R9 from one row; AX and BX
	// pixels; DX the row; R10 entries, CX left; R11 rows left; R12 the record.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ tables_dst(SI), DI
		MOVQ tables_src(SI), R12
		MOVQ tables_step(SI), R8
		SHLQ $2, R8
		MOVQ tables_row(SI), R9
		SHLQ $2, R9
		MOVQ tables_entries(SI), R10
		MOVQ tables_records(SI), AX
		MOVQ AX, 0(SP)
		record:
		MOVQ R12, DX
		MOVQ tables_rows(SI), R11
		row:
		MOVQ DX, AX
		LEAQ (DX)(R9*1), BX
		MOVQ R10, CX
		CMPQ R8, $4
		JNE few
		SUBQ $4, CX
		JLT rest
		four:
		VMOVUPS (AX), X0
		VMOVUPS 4(AX), X1
		VMOVUPS (BX), X2
		VMOVUPS 4(BX), X3
		VUNPCKLPS X1, X0, X4
		VUNPCKHPS X1, X0, X5
		VUNPCKLPS X3, X2, X6
		VUNPCKHPS X3, X2, X7
		VUNPCKLPD X6, X4, X0
		VUNPCKHPD X6, X4, X1
		VUNPCKLPD X7, X5, X2
		VUNPCKHPD X7, X5, X3
		VMOVUPS X0, (DI)
		VMOVUPS X1, 16(DI)
		VMOVUPS X2, 32(DI)
		VMOVUPS X3, 48(DI)
		ADDQ $16, AX
		ADDQ $16, BX
		ADDQ $64, DI
		SUBQ $4, CX
		JGE four
		rest:
		ADDQ $4, CX
		JEQ done
		few:
		VMOVSS (AX), X2
		VINSERTPS $0x10, (BX), X2, X2
		entry:
		ADDQ R8, AX
		ADDQ R8, BX
		VMOVSS (AX), X1
		VINSERTPS $0x10, (BX), X1, X1
		VUNPCKLPS X1, X2, X3
		VMOVUPS X3, (DI)
		VMOVAPS X1, X2
		ADDQ $16, DI
		DECQ CX
		JNZ entry
		done:
		ADDQ R9, DX
		DECQ R11
		JNZ row
		MOVQ tables_record(SI), AX
		LEAQ (R12)(AX*4), R12
		DECQ 0(SP)
		JNZ record
		RET`)
}

// convGradient is the gradient of the weights of a 3x3 convolution through its
// 2x2 max-pool. Only one of four places has a gradient; which, the byte says. It becomes
// the four bytes' places of a value, as choosing bytes is faster than choosing values
// on some processors and as fast on others.
func (g *gen) convGradient() {
	g.text("See tap.run.", "convGradient3x3", "p *tap", 40, 8)
	// SI tap; AX, BX, DI rows of the table, R8 a row of it; R9 gradients, R11
	// places, R10 a pixel of them; CX pixels left; DX sums, R13 a row of them; R14
	// and R15 the first record's gradients and places.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ tap_rowTable(SI), R8
		SHLQ $2, R8
		MOVQ tap_filters(SI), R10
		MOVQ tap_rowSum(SI), R13
		SHLQ $2, R13
		MOVQ tap_sum(SI), DX
		MOVQ tap_sumBias(SI), R12
		MOVQ tap_d(SI), R14
		MOVQ tap_arg(SI), R15
		MOVQ tap_vectors(SI), AX
		MOVQ AX, 0(SP)
		vector:
		MOVQ DX, AX`)
	for k := range 9 {
		g.p("VMOVUPS (AX), Y%d\nADDQ R13, AX", k)
	}
	g.p(`
		VMOVUPS (R12), Y9
		MOVQ tap_table(SI), AX
		MOVQ AX, 16(SP)
		MOVQ R14, 24(SP)
		MOVQ R15, 32(SP)
		MOVQ tap_records(SI), AX
		MOVQ AX, 8(SP)
		record:
		MOVQ 16(SP), AX
		LEAQ (AX)(R8*1), BX
		LEAQ (AX)(R8*2), DI
		MOVQ 24(SP), R9
		MOVQ 32(SP), R11
		MOVQ tap_pixels(SI), CX
		PCALIGN $32
		pixel:
		VMOVUPS (R9), Y12
		VPMOVZXBD (R11), Y13
		VPSHUFB replicate<>(SB), Y13, Y13
		VPSLLW $2, Y13, Y13
		VPOR bytes<>(SB), Y13, Y13
		VADDPS Y12, Y9, Y9`)
	for ky, row := range []string{"AX", "BX", "DI"} {
		for kx := range 3 {
			k := 3*ky + kx
			t := []int{10, 11, 14, 15}[k%4]
			g.p("VBROADCASTF128 %d(%s), Y%d\nVPSHUFB Y13, Y%d, Y%d\nVFMADD231PS Y%d, Y12, Y%d", 16*kx, row, t, t, t, t, k)
		}
	}
	g.p(`
		ADDQ $32, AX
		ADDQ $32, BX
		ADDQ $32, DI
		LEAQ (R9)(R10*4), R9
		ADDQ R10, R11
		DECQ CX
		JNZ pixel
		MOVQ tap_recordTable(SI), AX
		SHLQ $2, AX
		ADDQ AX, 16(SP)
		MOVQ tap_recordD(SI), AX
		ADDQ AX, 32(SP)
		SHLQ $2, AX
		ADDQ AX, 24(SP)
		DECQ 8(SP)
		JNZ record
		MOVQ DX, AX`)
	for k := range 9 {
		g.p("VMOVUPS Y%d, (AX)\nADDQ R13, AX", k)
	}
	g.p(`
		VMOVUPS Y9, (R12)
		ADDQ $32, DX
		ADDQ $32, R12
		ADDQ $32, R14
		ADDQ $8, R15
		DECQ 0(SP)
		JNZ vector
		VZEROUPPER
		RET`)
}

// scatter adds a multiple of one matrix to another. A masked store takes some tens of
// cycles on some processors, so where the next row follows it is written over with
// what it holds.
func (g *gen) scatter() {
	g.text("See addScaled.", "addScaledFMA", "dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32, mask *int32", 0, 64)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ rowDst+8(FP), R8
		SHLQ $2, R8
		MOVQ src+16(FP), SI
		MOVQ rowSrc+24(FP), R9
		SHLQ $2, R9
		MOVQ rows+32(FP), CX
		MOVQ cols+40(FP), DX
		VBROADCASTSS v+48(FP), Y0
		MOVQ mask+56(FP), AX
		VMOVDQU (AX), Y3
		MOVQ DX, R10
		ANDQ $-8, R10
		row:
		XORQ AX, AX
		CMPQ R10, $0
		JEQ tail
		eight:
		VMOVUPS (DI)(AX*4), Y1
		VFMADD231PS (SI)(AX*4), Y0, Y1
		VMOVUPS Y1, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, R10
		JLT eight
		tail:
		CMPQ AX, DX
		JEQ done
		CMPQ CX, $1
		JEQ last
		CMPQ R8, $32
		JLT last
		VMASKMOVPS (SI)(AX*4), Y3, Y2
		VMOVUPS (DI)(AX*4), Y4
		VMOVAPS Y4, Y1
		VFMADD231PS Y2, Y0, Y1
		VBLENDVPS Y3, Y1, Y4, Y1
		VMOVUPS Y1, (DI)(AX*4)
		JMP done
		last:
		VMASKMOVPS (DI)(AX*4), Y3, Y1
		VMASKMOVPS (SI)(AX*4), Y3, Y2
		VFMADD231PS Y2, Y0, Y1
		VMASKMOVPS Y1, Y3, (DI)(AX*4)
		done:
		ADDQ R8, DI
		ADDQ R9, SI
		DECQ CX
		JNZ row
		VZEROUPPER
		RET`)
}
