// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Loops over elements give the reference's bits for every length and offset, for
// numbers of all sizes, and touch nothing else.
func TestElementLoopsMatchReference(t *testing.T) {
	v := vector(assembled())
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
		} {
			var alive [4]func() bool
			for i := range in {
				want[i] = append([]float32(nil), in[i]...)
				got[i], alive[i] = guarded(in[i], odd)
			}
			run(false, want)
			before := v.enter()
			run(v, got)
			v.leave(before)
			for i := range in {
				// rectified copies what it passes on, denormal or not.
				equal(t, fmt.Sprintf("%s, %d values, slice %d", name, n, i), got[i], want[i])
				if !alive[i]() {
					t.Fatalf("%s, %d values, slice %d: a value outside was written", name, n, i)
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
				if v.finite(clean) || vector(false).finite(clean) {
					t.Errorf("%v at %d of %d was not found", bad, i, n)
				}
				clean[i] = old
			}
		}
	}
}

// After a kernel the processor treats denormal numbers as before.
func TestControlIsRestored(t *testing.T) {
	tiny := make([]float32, 64)
	for i := range tiny {
		tiny[i] = 0x1p-130
	}
	FMA().Adam(tiny, make([]float32, 64), make([]float32, 64), make([]float32, 64), AdamFactors{Epsilon: 1})
	x := math.Float32frombits(3)
	if y := x * float32(len(tiny)); math.Float32bits(y) != 3*64 {
		t.Errorf("3 x 64 smallest is %d", math.Float32bits(y))
	}
	if tiny[0] != 0 {
		t.Errorf("a denormal weight was kept: %g", tiny[0])
	}
}

func TestNonFiniteForward(t *testing.T) {
	for i := range 60 {
		r := rand.New(rand.NewPCG(uint64(i), 5))
		g := Conv{H: 6 + r.IntN(5), W: 6 + r.IntN(9), C: 1 + r.IntN(2), K: 3, F: 8 * (1 + r.IntN(4)), Pool: 1 + i%3, ReLU: i%2 == 0}
		in := newConv(r, g, 2, 1, true)
		got, want := in.copy(), in.copy()
		FMA().ConvForward(g, 2, got.x, got.w, got.bias, got.y, got.arg, got.scratch)
		FMAReference().ConvForward(g, 2, want.x, want.w, want.bias, want.y, want.arg, want.scratch)
		equal(t, fmt.Sprintf("%+v", g), got.y, want.y)
	}
}

func FuzzConv(f *testing.F) {
	f.Add(uint64(1), uint8(28), uint8(28), uint8(1), uint8(3), uint8(32), uint8(2), uint8(2))
	f.Add(uint64(2), uint8(7), uint8(9), uint8(3), uint8(2), uint8(5), uint8(3), uint8(3))
	f.Add(uint64(3), uint8(1), uint8(1), uint8(9), uint8(1), uint8(17), uint8(1), uint8(1))
	f.Add(uint64(4), uint8(5), uint8(30), uint8(2), uint8(5), uint8(24), uint8(1), uint8(4))
	f.Fuzz(func(t *testing.T, seed uint64, h, w, c, k, filters, pool, n uint8) {
		g := Conv{
			H: 1 + int(h)%30, W: 1 + int(w)%30, C: 1 + int(c)%9, K: 1 + int(k)%6, F: 1 + int(filters)%40, Pool: 1 + int(pool)%4,
			ReLU: seed%2 == 0, Rectified: seed%3 == 0,
		}
		if outH, outW := g.Out(); g.K > g.H || g.K > g.W || outH < 1 || outW < 1 {
			return
		}
		records := 1 + int(n)%3
		in := newConv(rand.New(rand.NewPCG(seed, 1)), g, records, 1, false)
		got, want := in.guard(t, int(seed%8)), in.copy()
		got.conv(FMA(), g, records)
		want.conv(FMAReference(), g, records)
		sameConv(t, fmt.Sprintf("%+v", g), g, got, want)
	})
}

func FuzzDense(f *testing.F) {
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
		got, want := in.guard(t, int(seed%8)), in.copy()
		got.denseOf(FMA(), g, records)
		want.denseOf(FMAReference(), g, records)
		sameDense(t, fmt.Sprintf("%+v", g), got, want)
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
			rounds := 2000
			if spin { // more threads than processors wait for each other
				rounds = 20
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
	file := filepath.Join(t.TempDir(), "out.s")
	if out, err := exec.CommandContext(t.Context(), "go", "run", "./_gen", "-out", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("fma_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("fma_amd64.s is not what its generator writes; run: go generate")
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
