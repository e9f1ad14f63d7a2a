// SPDX-License-Identifier: Apache-2.0

package main

// sixteen writes a loop over elements in AX, sixteen at a time and the rest by the mask
// K1; n holds their number and is destroyed, as are CX and BX. name tells its labels
// from those of others.
func (g *gen) sixteen(name, n, body string) {
	g.p(`
		XORQ AX, AX
		MOVL $0xffff, BX
		KMOVW BX, K1
		SUBQ $16, %[2]s
		JLT tail%[1]s
		loop%[1]s:`, name, n)
	g.p("%s", body)
	g.p(`
		ADDQ $16, AX
		SUBQ $16, %[2]s
		JGE loop%[1]s
		tail%[1]s:
		ADDQ $16, %[2]s
		JEQ done%[1]s
		MOVQ %[2]s, CX
		MOVL $1, BX
		SHLL CX, BX
		DECL BX
		KMOVW BX, K1
		XORQ %[2]s, %[2]s
		JMP loop%[1]s
		done%[1]s:`, name, n)
}

// elementwise16 writes the loops over neighbours, of any number.
func (g *gen) elementwise16() {
	g.text("adam512 is adamFMA, for any n.", "adam512", "w, d, m, v *float32, n int, k *[4]float32", 0, 48)
	g.p(`
		MOVQ w+0(FP), DI
		MOVQ d+8(FP), SI
		MOVQ m+16(FP), R8
		MOVQ v+24(FP), R9
		MOVQ n+32(FP), R10
		MOVQ k+40(FP), DX
		VBROADCASTSS (DX), Z12
		VBROADCASTSS 4(DX), Z13
		VBROADCASTSS 8(DX), Z14
		VBROADCASTSS 12(DX), Z15`)
	g.sixteen("", "R10", `
		VMOVUPS.Z (SI)(AX*4), K1, Z0
		VMOVUPS.Z (R8)(AX*4), K1, Z1
		VMOVUPS.Z (R9)(AX*4), K1, Z2
		VSUBPS Z1, Z0, Z3
		VFMADD231PS Z12, Z3, Z1
		VFMSUB213PS Z2, Z0, Z0
		VFMADD231PS Z13, Z0, Z2
		VMOVUPS Z1, K1, (R8)(AX*4)
		VMOVUPS Z2, K1, (R9)(AX*4)
		VSQRTPS Z2, Z2
		VADDPS Z15, Z2, Z2
		VMULPS Z14, Z1, Z1
		VDIVPS Z2, Z1, Z1
		VMOVUPS.Z (DI)(AX*4), K1, Z3
		VSUBPS Z1, Z3, Z3
		VMOVUPS Z3, K1, (DI)(AX*4)`)
	g.p("VZEROUPPER\nRET")

	g.text("See box.convert.", "convert512", "p *box", 0, 8)
	// SI box; DI and DX rows of values and of bytes; R8 and R9 records; R10 columns
	// left; R11 rows, R12 records left.
	g.p(`
		MOVQ p+0(FP), SI
		MOVQ box_dst(SI), R8
		MOVQ box_bytes(SI), R9
		VBROADCASTSS box_scale(SI), Z15
		MOVQ box_records(SI), R12
		record:
		MOVQ R8, DI
		MOVQ R9, DX
		MOVQ box_rows(SI), R11
		row:
		MOVQ box_cols(SI), R10`)
	g.sixteen("Row", "R10", `
		VPMOVZXBD.Z (DX)(AX*1), K1, Z0
		VCVTDQ2PS Z0, Z0
		VMULPS Z15, Z0, Z0
		VMOVUPS Z0, K1, (DI)(AX*4)`)
	g.p(`
		MOVQ box_rowDst(SI), AX
		LEAQ (DI)(AX*4), DI
		ADDQ box_rowSrc(SI), DX
		DECQ R11
		JNZ row
		MOVQ box_recordDst(SI), AX
		LEAQ (R8)(AX*4), R8
		ADDQ box_recordSrc(SI), R9
		DECQ R12
		JNZ record
		VZEROUPPER
		RET`)

	g.text("add512 is addFMA, for any n.", "add512", "dst, src *float32, n int", 0, 24)
	g.p("MOVQ dst+0(FP), DI\nMOVQ src+8(FP), SI\nMOVQ n+16(FP), R10")
	g.sixteen("", "R10", `
		VMOVUPS.Z (DI)(AX*4), K1, Z0
		VMOVUPS.Z (SI)(AX*4), K1, Z1
		VADDPS Z1, Z0, Z0
		VMOVUPS Z0, K1, (DI)(AX*4)`)
	g.p("VZEROUPPER\nRET")

	g.text("rectify512 is rectifyFMA, for any n.", "rectify512", "v *float32, n int", 0, 16)
	g.p("MOVQ v+0(FP), DI\nMOVQ n+8(FP), R10\nVPXORQ Z15, Z15, Z15")
	g.sixteen("", "R10", `
		VMOVUPS.Z (DI)(AX*4), K1, Z0
		VCMPPS $0x16, Z15, Z0, K2
		VMOVAPS.Z Z0, K2, Z0
		VMOVUPS Z0, K1, (DI)(AX*4)`)
	g.p("VZEROUPPER\nRET")

	g.text("rectified512 is rectifiedFMA, for any n.", "rectified512", "dst, d, x *float32, n int", 0, 32)
	g.p("MOVQ dst+0(FP), DI\nMOVQ d+8(FP), SI\nMOVQ x+16(FP), DX\nMOVQ n+24(FP), R10\nVPXORQ Z15, Z15, Z15")
	g.sixteen("", "R10", `
		VMOVUPS.Z (DX)(AX*4), K1, Z0
		VCMPPS $0x1e, Z15, Z0, K2
		VMOVUPS.Z (SI)(AX*4), K1, Z1
		VMOVAPS.Z Z1, K2, Z1
		VMOVUPS Z1, K1, (DI)(AX*4)`)
	g.p("VZEROUPPER\nRET")

	g.text("See addScaled.", "addScaled512", "dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32", 0, 52)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ rowDst+8(FP), R8
		SHLQ $2, R8
		MOVQ src+16(FP), SI
		MOVQ rowSrc+24(FP), R9
		SHLQ $2, R9
		MOVQ rows+32(FP), R11
		VBROADCASTSS v+48(FP), Z2
		row:
		MOVQ cols+40(FP), R10`)
	g.sixteen("Row", "R10", `
		VMOVUPS.Z (DI)(AX*4), K1, Z0
		VMOVUPS.Z (SI)(AX*4), K1, Z1
		VFMADD231PS Z1, Z2, Z0
		VMOVUPS Z0, K1, (DI)(AX*4)`)
	g.p(`
		ADDQ R8, DI
		ADDQ R9, SI
		DECQ R11
		JNZ row
		VZEROUPPER
		RET`)
}
