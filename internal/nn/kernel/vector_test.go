// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"disdel/internal/points"
)

// Loops over elements give the reference's bits for every length and offset, for
// numbers of all sizes, and touch nothing else.
func TestElementLoopsMatchReference(t *testing.T) {
	elementLoopsMatch(t, "plain Go", plainGo)
	for name, v := range variants(t) {
		elementLoopsMatch(t, name, v)
	}
}

func elementLoopsMatch(t *testing.T, variant string, v vector) {
	r := rand.New(rand.NewPCG(1, 1))
	f := AdamFactors{Alpha: 1e-3, Decay1: 0.1, Decay2: 1e-3, Epsilon: 1e-7}
	for n := 0; n <= 257; n++ {
		odd := n % 8
		var in, want, got [4][]float32
		for i := range in {
			in[i] = wide(r, n, n%2 == 0)
			if i == 3 {
				for j, u := range in[i] { // second moments are not negative
					in[i][j] = float32(math.Abs(float64(u)))
				}
			}
		}
		bytes := make([]byte, n)
		for i := range bytes {
			bytes[i] = byte(r.Uint32())
		}
		for name, run := range map[string]func(v vector, s [4][]float32){
			"adam":               func(v vector, s [4][]float32) { v.adam(s[0], s[1], s[2], s[3], f) },
			"add":                func(v vector, s [4][]float32) { v.add(s[0], s[1]) },
			"rectify":            func(v vector, s [4][]float32) { v.rectify(s[0]) },
			"rectified":          func(v vector, s [4][]float32) { v.rectified(s[0], s[1], s[2]) },
			"convert":            func(v vector, s [4][]float32) { v.convert(s[0], bytes, 1.0/255) },
			"convert to nothing": func(v vector, s [4][]float32) { v.convert(s[0], bytes, 0x1p-133) },
			"scaled": func(v vector, s [4][]float32) {
				if n > 0 {
					v.addScaled(s[0], n, s[1], n, 1, n, s[2][0])
				}
			},
			"scaled rows": func(v vector, s [4][]float32) {
				if n > 9 {
					v.addScaled(s[0], n/3, s[1], n/2, 2, n/3-2, s[2][0])
				}
			},
			"transposed": func(v vector, s [4][]float32) {
				if n > 0 {
					v.transposed(s[0], n/5, s[1], 5, n/5, 5)
					v.transposed(s[2][:n/16*16], n/16, s[3], 16, n/16, 16)
				}
			},
			"settled":            func(v vector, s [4][]float32) { v.addSettled(s[0], s[1], false) },
			"settled, rectified": func(v vector, s [4][]float32) { v.addSettled(s[0], s[1], true) },
			"mask":               func(v vector, s [4][]float32) { v.mask(s[0], s[3]) },
		} {
			if n%2 == 0 && name == "mask" {
				continue // is promised numbers
			}
			var alive [4]func() bool
			for i := range in {
				want[i] = append([]float32(nil), in[i]...)
				got[i], alive[i] = guarded(in[i], odd)
			}
			run(plainGo, want)
			if name == "mask" || strings.HasPrefix(name, "settled") { // run without flushing
				run(v, got)
			} else {
				before := v.enter()
				run(v, got)
				v.leave(before)
			}
			for i := range in {
				// rectified copies what it passes on, denormal or not.
				equal(t, fmt.Sprintf("%s, %s, %d values, slice %d", variant, name, n, i), got[i], want[i])
				if !alive[i]() {
					t.Fatalf("%s, %s, %d values, slice %d: a value outside was written", variant, name, n, i)
				}
			}
		}
		if n > 0 {
			clean, _ := guarded(numbers(r, n), odd)
			if !v.finite(clean) {
				t.Errorf("%d finite values are not", n)
			}
			for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(0xff800001)} {
				i := r.IntN(n)
				old := clean[i]
				clean[i] = bad
				if v.finite(clean) || plainGo.finite(clean) {
					t.Errorf("%v at %d of %d was not found", bad, i, n)
				}
				clean[i] = old
			}
		}
	}
}

// After a kernel the processor treats denormal numbers as before.
func TestControlIsRestored(t *testing.T) {
	for name, set := range singles(t) {
		tiny := make([]float32, 64)
		for i := range tiny {
			tiny[i] = 0x1p-130
		}
		set.Adam(tiny, make([]float32, 64), make([]float32, 64), make([]float32, 64), AdamFactors{Epsilon: 1})
		x := math.Float32frombits(3)
		if y := x * float32(len(tiny)); math.Float32bits(y) != 3*64 {
			t.Errorf("%s: 3 x 64 smallest is %d", name, math.Float32bits(y))
		}
		if tiny[0] != 0 {
			t.Errorf("%s: a denormal weight was kept: %g", name, tiny[0])
		}
	}
}

func TestNonFiniteForward(t *testing.T) {
	singles := singles(t)
	for i := range 120 {
		r := rand.New(rand.NewPCG(uint64(i), 5))
		g := Conv{H: 6 + r.IntN(5), W: 6 + r.IntN(9), C: 1 + r.IntN(2), K: 3, F: 8 * (1 + r.IntN(4)), Pool: 1 + i%3, ReLU: i%2 == 0}
		in := newConv(r, g, 2, 1, true)
		want := in.copy()
		FMAReference().ConvForward(g, 2, want.x, want.w, want.bias, want.y, want.arg, want.scratch)
		for name, set := range singles {
			got := in.copy()
			set.ConvForward(g, 2, got.x, got.w, got.bias, got.y, got.arg, got.scratch)
			equal(t, fmt.Sprintf("%s, %+v", name, g), got.y, want.y)
		}
		for name, v := range variants(t) {
			got := in.guard(t, r.IntN(8))
			c := convWork{v: v, g: g, n: 2, wide: g.W * g.C, x: got.x, w: got.w, bias: got.bias, y: got.y, arg: got.arg, maxima: true, scratch: got.scratch}
			c.outH, c.outW = g.Out()
			c.forward(0, 1)
			equal(t, fmt.Sprintf("%s, %+v, maxima alone", name, g), got.y, want.y)
		}
	}
}

func FuzzConv(f *testing.F) {
	singles := singles(f)
	f.Add(uint64(1), uint8(28), uint8(28), uint8(1), uint8(3), uint8(32), uint8(2), uint8(2))
	f.Add(uint64(2), uint8(7), uint8(9), uint8(3), uint8(2), uint8(5), uint8(3), uint8(3))
	f.Add(uint64(3), uint8(1), uint8(1), uint8(9), uint8(1), uint8(17), uint8(1), uint8(1))
	f.Add(uint64(4), uint8(5), uint8(30), uint8(2), uint8(5), uint8(24), uint8(1), uint8(4))
	f.Add(uint64(0x0102020205), uint8(9), uint8(8), uint8(7), uint8(2), uint8(15), uint8(4), uint8(2))
	f.Fuzz(func(t *testing.T, seed uint64, h, w, c, k, filters, pool, n uint8) {
		g := Conv{
			H: 1 + int(h)%30, W: 1 + int(w)%30, C: 1 + int(c)%9, K: 1 + int(k)%6, F: 1 + int(filters)%40, Pool: 1 + int(pool)%4,
			ReLU: seed%2 == 0, Rectified: seed%3 == 0,
		}
		// Of the seed too, so that the committed cases go on.
		pad := func(shift int) int { return int(seed>>shift) % 256 % g.K }
		g.Stride, g.Pad = int(seed>>8)%5, Pad{pad(16), pad(24), pad(32), pad(40)}
		if outH, outW := g.Out(); g.K > g.H+g.Pad.Top+g.Pad.Bottom || g.K > g.W+g.Pad.Left+g.Pad.Right || outH < 1 || outW < 1 {
			return
		}
		records := 1 + int(n)%3
		in := newConv(rand.New(rand.NewPCG(seed, 1)), g, records, 1, false)
		want := in.copy()
		want.conv(FMAReference(), g, records)
		for name, set := range singles {
			got := in.guard(t, int(seed%8))
			got.conv(set, g, records)
			sameConv(t, fmt.Sprintf("%s, %+v", name, g), g, got, want)
		}
	})
}

func FuzzDense(f *testing.F) {
	singles := singles(f)
	f.Add(uint64(1), uint16(64), uint8(10), uint8(64), uint8(0))
	f.Add(uint64(2), uint16(300), uint8(17), uint8(7), uint8(13))
	f.Add(uint64(3), uint16(1), uint8(1), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, inputs uint16, out, n, rows uint8) {
		g := Dense{In: 1 + int(inputs)%600, Out: 1 + int(out)%80, ReLU: seed%2 == 0, Rectified: seed%3 == 0}
		if rows %= 16; rows > 0 {
			g.Rows, g.Cols = int(rows), 1+int(seed%5)
			g.In = g.Rows * g.Cols * (1 + g.In%9)
		}
		records := 1 + int(n)%70
		in := newDense(rand.New(rand.NewPCG(seed, 1)), g, records, 1, seed%5 == 0)
		want := in.copy()
		want.denseOf(FMAReference(), g, records)
		for name, set := range singles {
			got := in.guard(t, int(seed%8))
			got.denseOf(set, g, records)
			sameDense(t, fmt.Sprintf("%s, %+v", name, g), got, want)
		}
	})
}

// Every cut of the order lies where it is said to, and nothing is left out.
func TestCuts(t *testing.T) {
	g := Dense{In: 13 * 13 * 32, Out: 64, Rows: 13, Cols: 13}
	for i, want := range []int{0, 39, 84, 123, 169} {
		if got := g.cut(i); got != want*32 {
			t.Errorf("group %d starts at %d, want %d", i, got, want*32)
		}
	}
	r := rand.New(rand.NewPCG(2, 2))
	for range 300 {
		g := Conv{H: 1 + r.IntN(40), W: 1 + r.IntN(40), C: 1 + r.IntN(5), K: 1 + r.IntN(3), F: 1 + r.IntN(300), Pool: 1 + r.IntN(2)}
		h, w := g.Out()
		if h < 1 || w < 1 || g.K > g.H || g.K > g.W {
			continue
		}
		next := 0 // pixel
		for s := range g.segments() {
			for at, end := g.segment(s); at < end; {
				var run run
				if run, at = nextRun(at, end, w); run.row*w+run.from != next {
					t.Fatalf("%+v: run at %d, want %d", g, run.row*w+run.from, next)
				}
				next += run.to - run.from
			}
		}
		if next != h*w {
			t.Fatalf("%+v: %d pixels of %d", g, next, h*w)
		}
	}
}

func TestTeam(t *testing.T) {
	for _, spin := range []bool{false, true} {
		for _, n := range []int{2, 3, 8} {
			team := NewTeam(n, spin)
			rounds := points.Count(2000)
			if spin { // more threads than processors wait for each other
				rounds = points.Count(40)
			}
			var sum atomic.Int64
			for i := range rounds {
				team.run(func(part, parts int) { sum.Add(int64(part*i + parts)) })
			}
			if want := int64(n*(n-1)/2*(rounds-1)*rounds/2 + rounds*n*n); sum.Load() != want {
				t.Errorf("%d threads: %d, want %d", n, sum.Load(), want)
			}
			team.Close()
			team.Close()
		}
	}
	if NewTeam(1, true) != nil || NewTeam(0, true).Threads() != 1 {
		t.Error("a team of one")
	}
}

// The assembly is what its generator writes.
func TestAssemblyIsGenerated(t *testing.T) {
	for form, name := range map[string]string{"avx2": "fma_amd64.s", "avx512": "fma512_amd64.s", "neon": "gemm_arm64.s"} {
		file := filepath.Join(t.TempDir(), name)
		if out, err := exec.CommandContext(t.Context(), "go", "run", "./_gen", "-form", form, "-out", file).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", form, err, out)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what its generator writes; run: go generate", name)
		}
	}
}

// Every form is of a set that every machine can run, and says so where this one cannot
// run the form.
func TestForms(t *testing.T) {
	sets := map[string]string{FormAVX2: "fma-1", FormAVX512: "fma-1", FormGeneric: "generic-1", FormReference: "fma-1"}
	for _, name := range Forms() {
		switch s, err := Form(name); {
		case name == FormAVX2 && !assembled(), name == FormAVX512 && !assembled512():
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s without assembly: %v", name, err)
			}
		case err != nil || s.Name != sets[name]:
			t.Errorf("%s: set %q, %v", name, s.Name, err)
		}
	}
	if _, err := Form("sse"); !errors.Is(err, ErrUnknownSet) {
		t.Errorf("an unknown form: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range Names() {
		if s, err := ByName(name); err != nil || s.Name != name {
			t.Errorf("%s: %q, %v", name, s.Name, err)
		}
	}
	if _, err := ByName("none"); err == nil {
		t.Error("an unknown name is a set")
	}
	if _, err := ByName(Best().Name); err != nil {
		t.Error(err)
	}
}

// Products have the reference's bits in blocks of every size, however their chains
// start and end, and nothing else is touched.
func TestProductsMatchReference(t *testing.T) {
	for name, v := range variants(t) {
		for _, n := range []int{1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 130} {
			for m := 1; m <= 25; m += points.Stride {
				r := rand.New(rand.NewPCG(uint64(n), uint64(m)))
				p := product{segments: 1 + r.IntN(2), steps: 1 + r.IntN(4), stepA: 1 + r.IntN(2), skipB: r.IntN(3), rectified: r.IntN(2)}
				p.rowA, p.stepB, p.rowC, p.rowFrom = p.steps*p.stepA+r.IntN(3), n+r.IntN(3), n+r.IntN(3), n+r.IntN(3)
				p.segA = m * p.rowA
				p.a, p.b = wide(r, p.segments*p.segA, r.IntN(2) > 0), wide(r, p.segments*(p.steps*p.stepB+p.skipB), r.IntN(2) > 0)
				c, from := wide(r, m*p.rowC, true), wide(r, m*p.rowFrom, true)
				start := r.IntN(3)
				run := func(v vector, p product, c []float32) {
					switch p.c = c; start {
					case 0:
						p.from = from
					case 1:
						p.from, p.rowFrom = c, p.rowC
					}
					defer v.leave(v.enter())
					v.compute(p, m, n)
				}
				want := slices.Clone(c)
				run(plainGo, p, want)
				var alive [3]func() bool
				p.a, alive[0] = guarded(p.a, m%8)
				p.b, alive[1] = guarded(p.b, n%8)
				got, intact := guarded(c, (m+n)%8)
				alive[2] = intact
				run(v, p, got)
				what := fmt.Sprintf("%s, %dx%d, %+v", name, m, n, []int{p.segments, p.steps, start, p.rectified})
				equal(t, what, got, want)
				for i := range alive {
					if !alive[i]() {
						t.Fatalf("%s: a value outside slice %d was written", what, i)
					}
				}
			}
		}
	}
}

// The gradient of a filter has the reference's bits for windows of all sizes, which
// assembly does in several ways, whatever the gradients are, and nothing else is
// touched.
func TestWindowMatchesReference(t *testing.T) {
	for name, v := range variants(t) {
		for cols := 1; cols <= 40; cols++ {
			for rows := 1; rows <= 7; rows++ {
				r := rand.New(rand.NewPCG(uint64(cols), uint64(rows)))
				p := window{
					rowX: 2*cols + r.IntN(9), step: 1 + r.IntN(cols), filters: 1 + r.IntN(3), rows: rows, cols: cols,
					pixels: 1 + r.IntN(4), records: 1 + r.IntN(3),
				}
				p.corner = [4]int{0, r.IntN(cols), p.rowX, p.rowX + r.IntN(cols)}
				p.recordX, p.recordD = (p.pixels-1)*p.step+p.corner[3]+(rows-1)*p.rowX+cols, p.pixels*p.filters+r.IntN(2)
				p.x, p.d = wide(r, p.records*p.recordX, cols%2 == 0), wide(r, p.records*p.recordD, rows%2 == 0)
				p.arg = make([]uint8, len(p.d))
				for i := range p.d {
					if p.arg[i] = uint8(r.IntN(4)); r.IntN(3) == 0 {
						p.d[i] = []float32{0, float32(math.Copysign(0, -1)), 0x1p-130, -0x1p-140}[r.IntN(4)]
					}
				}
				sum, bias := wide(r, rows*cols, true), wide(r, 1, true)
				want := p
				want.sum, want.bias = slices.Clone(sum), slices.Clone(bias)
				plainGo.window(want)
				var alive [4]func() bool
				p.x, alive[0] = guarded(p.x, cols)
				p.d, alive[1] = guarded(p.d, rows)
				p.sum, alive[2] = guarded(sum, cols+rows)
				p.bias, alive[3] = guarded(bias, rows)
				before := v.enter()
				v.window(p)
				v.leave(before)
				what := fmt.Sprintf("%s, window of %dx%d", name, rows, cols)
				equal(t, what+": sum", p.sum, want.sum)
				equal(t, what+": bias", p.bias, want.bias)
				for i := range alive {
					if !alive[i]() {
						t.Fatalf("%s: a value outside slice %d was written", what, i)
					}
				}
			}
		}
	}
}
