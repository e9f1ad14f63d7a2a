// SPDX-License-Identifier: Apache-2.0

package main

// elementwise writes the loops over eight neighbours at a time; n is a multiple
// of eight and not zero.
func (g *gen) elementwise() {
	g.text("adamFMA is Adam's step for n values; k is decay1, decay2, alpha, epsilon.",
		"adamFMA", "w, d, m, v *float32, n int, k *[4]float32", 0, 48)
	g.p(`
		MOVQ w+0(FP), DI
		MOVQ d+8(FP), SI
		MOVQ m+16(FP), R8
		MOVQ v+24(FP), R9
		MOVQ n+32(FP), CX
		MOVQ k+40(FP), DX
		VBROADCASTSS (DX), Y12
		VBROADCASTSS 4(DX), Y13
		VBROADCASTSS 8(DX), Y14
		VBROADCASTSS 12(DX), Y15
		XORQ AX, AX
		loop:
		VMOVUPS (SI)(AX*4), Y0
		VMOVUPS (R8)(AX*4), Y1
		VMOVUPS (R9)(AX*4), Y2
		VSUBPS Y1, Y0, Y3
		VFMADD231PS Y12, Y3, Y1
		VFMSUB213PS Y2, Y0, Y0
		VFMADD231PS Y13, Y0, Y2
		VMOVUPS Y1, (R8)(AX*4)
		VMOVUPS Y2, (R9)(AX*4)
		VSQRTPS Y2, Y2
		VADDPS Y15, Y2, Y2
		VMULPS Y14, Y1, Y1
		VDIVPS Y2, Y1, Y1
		VMOVUPS (DI)(AX*4), Y3
		VSUBPS Y1, Y3, Y3
		VMOVUPS Y3, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		VZEROUPPER
		RET`)

	// Rows that are no whole number of vectors end with one that overlaps the last but
	// one.
	g.text("See box.convert.", "convertFMA", "p *box", 16, 8)
	g.p(`
		MOVQ p+0(FP), BX
		MOVQ box_dst(BX), R8
		MOVQ box_bytes(BX), R9
		VBROADCASTSS box_scale(BX), Y15
		MOVQ box_cols(BX), DX
		SUBQ $8, DX
		MOVQ box_records(BX), AX
		MOVQ AX, 0(SP)
		record:
		MOVQ R8, DI
		MOVQ R9, SI
		MOVQ box_rows(BX), CX
		row:
		XORQ AX, AX
		CMPQ DX, $0
		JEQ last
		loop:
		VPMOVZXBD (SI)(AX*1), Y0
		VCVTDQ2PS Y0, Y0
		VMULPS Y15, Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, DX
		JLT loop
		last:
		VPMOVZXBD (SI)(DX*1), Y0
		VCVTDQ2PS Y0, Y0
		VMULPS Y15, Y0, Y0
		VMOVUPS Y0, (DI)(DX*4)
		MOVQ box_rowDst(BX), AX
		LEAQ (DI)(AX*4), DI
		ADDQ box_rowSrc(BX), SI
		DECQ CX
		JNZ row
		MOVQ box_recordDst(BX), AX
		LEAQ (R8)(AX*4), R8
		ADDQ box_recordSrc(BX), R9
		DECQ 0(SP)
		JNZ record
		VZEROUPPER
		RET`)

	g.text("addFMA writes dst[i] += src[i].", "addFMA", "dst, src *float32, n int", 0, 24)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ src+8(FP), SI
		MOVQ n+16(FP), CX
		XORQ AX, AX
		loop:
		VMOVUPS (DI)(AX*4), Y0
		VADDPS (SI)(AX*4), Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		VZEROUPPER
		RET`)

	g.text(`addSettledFMA adds src to dst, and leaves +0 where the sum's magnitude is below the
smallest normal number; where sign is 1<<31, where the sum itself is. It runs without
flushing, for the bits of plain Go: operands may be denormal.`, "addSettledFMA", "dst, src *float32, n int, sign uint32", 0, 28)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ src+8(FP), SI
		MOVQ n+16(FP), CX
		VPCMPEQD Y15, Y15, Y15
		VPSRLD $1, Y15, Y15
		VBROADCASTSS sign+24(FP), Y14
		VPOR Y14, Y15, Y15
		VPCMPEQD Y14, Y14, Y14
		VPSRLD $31, Y14, Y14
		VPSLLD $23, Y14, Y14
		XORQ AX, AX
		loop:
		VMOVUPS (DI)(AX*4), Y0
		VADDPS (SI)(AX*4), Y0, Y0
		VANDPS Y15, Y0, Y1
		VCMPPS $0x15, Y14, Y1, Y1
		VANDPS Y1, Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		VZEROUPPER
		RET`)

	g.text("rectifyFMA replaces what is not positive by +0, except NaN.", "rectifyFMA", "v *float32, n int", 0, 16)
	g.p(`
		MOVQ v+0(FP), DI
		MOVQ n+8(FP), CX
		VXORPS Y15, Y15, Y15
		XORQ AX, AX
		loop:
		VMOVUPS (DI)(AX*4), Y0
		VCMPPS $0x16, Y15, Y0, Y1
		VANDPS Y1, Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		VZEROUPPER
		RET`)

	g.text("rectifiedFMA writes dst[i] = d[i] where x[i] is positive, else +0.", "rectifiedFMA", "dst, d, x *float32, n int", 0, 32)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ d+8(FP), SI
		MOVQ x+16(FP), DX
		MOVQ n+24(FP), CX
		VXORPS Y15, Y15, Y15
		XORQ AX, AX
		loop:
		VMOVUPS (DX)(AX*4), Y0
		VCMPPS $0x1e, Y15, Y0, Y1
		VANDPS (SI)(AX*4), Y1, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		VZEROUPPER
		RET`)

	g.text(`specialFMA says whether one of n values, a multiple of 32, is infinite or NaN: then
its exponent is the largest.`, "specialFMA", "v *float32, n int) (special bool", 0, 17)
	g.p(`
		MOVQ v+0(FP), DI
		MOVQ n+8(FP), CX
		VPCMPEQD Y15, Y15, Y15
		VPSLLD $24, Y15, Y15
		VPSRLD $1, Y15, Y15
		VPXOR Y14, Y14, Y14
		XORQ AX, AX
		loop:
		VPAND (DI)(AX*4), Y15, Y0
		VPAND 32(DI)(AX*4), Y15, Y1
		VPAND 64(DI)(AX*4), Y15, Y2
		VPAND 96(DI)(AX*4), Y15, Y3
		VPMAXUD Y1, Y0, Y0
		VPMAXUD Y3, Y2, Y2
		VPMAXUD Y2, Y0, Y0
		VPMAXUD Y0, Y14, Y14
		ADDQ $32, AX
		CMPQ AX, CX
		JLT loop
		VPCMPEQD Y15, Y14, Y14
		VPMOVMSKB Y14, AX
		TESTL AX, AX
		SETNE special+16(FP)
		VZEROUPPER
		RET`)
}

// control writes the access to the processor's control register.
func (g *gen) control() {
	g.text("setControl replaces MXCSR.", "setControl", "v uint32", 0, 4)
	g.p("LDMXCSR v+0(FP)\nRET")
	g.text("control returns MXCSR.", "control", ") (v uint32", 0, 4)
	g.p("STMXCSR v+0(FP)\nRET")
}
