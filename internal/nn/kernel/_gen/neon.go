// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

const (
	// neonRows and neonVectors bound a tile: its sums are half of the registers.
	neonRows, neonVectors = 4, 4
	// neonB, neonA and neonTemps are where the others start: a row of the right
	// factor, elements of the left one, products.
	neonB, neonA, neonTemps = 16, 20, 24
)

// neon writes the product of generic-1 for arm64: lanes lie over columns, and every
// product is rounded before it is added. The assembler of Go knows no multiplication and
// no addition of vectors, so those are words.
func (g *gen) neon() {
	g.text("See strided.run.", "strided128", "p *strided", 0, 8)
	// R0 the work; R1 right factor, R2 a row of it; R3 a step of the left factor, R12 an
	// outer one; R4 to R7 its rows at this step, R8 to R11 at this outer step; R13 outer
	// steps, R14 steps left; R15 results, R16 a row of them; R17 and R19 to spare.
	g.p(`
		MOVD p+0(FP), R0
		MOVD strided_b(R0), R1
		MOVD strided_rowB(R0), R2
		LSL $2, R2, R2
		MOVD strided_inner(R0), R3
		LSL $2, R3, R3
		MOVD strided_outer(R0), R12
		LSL $2, R12, R12
		MOVD strided_c(R0), R15
		MOVD strided_rowC(R0), R16
		LSL $2, R16, R16
		MOVD strided_row(R0), R19
		LSL $2, R19, R19
		MOVD strided_a(R0), R8
		ADD R19, R8, R9
		ADD R19, R9, R10
		ADD R19, R10, R11
		MOVD strided_outers(R0), R13
		MOVD strided_rows(R0), R17
		MOVD strided_vectors(R0), R19`)
	for vectors := neonVectors; vectors > 0; vectors-- {
		if vectors > 1 {
			g.p("CMP $%d, R19\nBNE not%d", vectors, vectors)
		}
		for rows := neonRows; rows > 1; rows-- {
			g.p("CMP $%d, R17\nBEQ tile%dx%d", rows, rows, vectors)
		}
		g.p("B tile1x%d", vectors)
		if vectors > 1 {
			g.p("not%d:", vectors)
		}
	}
	for vectors := neonVectors; vectors > 0; vectors-- {
		for rows := neonRows; rows > 0; rows-- {
			g.tile128(rows, vectors)
		}
	}
}

// tile128 is one size of tiles, rows x 4*vectors.
func (g *gen) tile128(rows, vectors int) {
	name := fmt.Sprintf("%dx%d", rows, vectors)
	list := func(first int) string {
		var names []string
		for v := range vectors {
			names = append(names, fmt.Sprintf("V%d.S4", first+v))
		}
		return "[" + strings.Join(names, ", ") + "]"
	}
	g.p("tile%s:\nMOVD R15, R17", name)
	for i := range rows {
		g.p("VLD1 (R17), %s\nADD R16, R17, R17", list(i*vectors))
	}
	g.p("outer%s:", name)
	for i := range rows {
		g.p("MOVD R%d, R%d", 8+i, 4+i)
	}
	g.p("MOVD strided_inners(R0), R14\nstep%s:\nVLD1 (R1), %s", name, list(neonB))
	for i := range rows {
		g.p("FMOVS (R%d), F%d\nADD R3, R%d, R%d", 4+i, neonA+i, 4+i, 4+i)
	}
	g.p("ADD R2, R1, R1")
	for i := range rows {
		temp := func(v int) int { return neonTemps + (i*vectors+v)%(32-neonTemps) }
		for v := range vectors {
			g.p("WORD $%#x // FMUL V%d.S[0], V%d.S4, V%d.S4", 0x4F809000|(neonA+i)<<16|(neonB+v)<<5|temp(v), neonA+i, neonB+v, temp(v))
		}
		for v := range vectors {
			sum := i*vectors + v
			g.p("WORD $%#x // FADD V%d.S4, V%d.S4, V%d.S4", 0x4E20D400|temp(v)<<16|sum<<5|sum, temp(v), sum, sum)
		}
	}
	g.p("SUBS $1, R14, R14\nBNE step%s", name)
	for i := range rows {
		g.p("ADD R12, R%d, R%d", 8+i, 8+i)
	}
	g.p("SUBS $1, R13, R13\nBNE outer%s\nMOVD R15, R17", name)
	for i := range rows {
		g.p("VST1 %s, (R17)\nADD R16, R17, R17", list(i*vectors))
	}
	g.p("RET")
}
