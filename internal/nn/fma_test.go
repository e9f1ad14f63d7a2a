// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"slices"
	"testing"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

// sets are all kernel sets, in their fastest form.
func sets(t testing.TB) []kernel.Set {
	var s []kernel.Set
	for _, name := range kernel.Names() {
		set, err := kernel.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, set)
	}
	return s
}

// oneSet is the plain Go set, and under the race detector, where that takes some ten
// times as long, the best one.
func oneSet() kernel.Set {
	if points.Stride > 1 {
		return kernel.Best()
	}
	return kernel.Generic()
}

// someSets are all sets, and under the race detector one.
func someSets(t testing.TB) []kernel.Set {
	if points.Stride > 1 {
		return []kernel.Set{oneSet()}
	}
	return sets(t)
}

// steps trains from a seed and returns the bits of the end.
func steps(t *testing.T, spec Spec, cfg Config, set kernel.Set, n int) []uint32 {
	t.Helper()
	cfg.Train = true
	if cfg.Optimizer.Kind == "" {
		cfg.Optimizer = Adam(1e-3)
	}
	in := bindSet(t, spec, cfg, set)
	in.Init(1)
	x, y := records(spec, cfg.Batch, 3)
	train(t, in, x, y, n)
	return state(in)
}

// Plain Go, assembly and any number of threads end with the same weights and
// moments, bit for bit.
func TestOneSetOneResult(t *testing.T) {
	models := append(gradientModels(t), named(t, "cnn", Shape{20, 21, 2}, 10))
	for _, spec := range points.Some(models) {
		n, batch := 4, 5
		if spec.Name == "cnn" && spec.Input.H == 8 {
			n, batch = points.Count(200), 2
		}
		want := steps(t, spec, Config{Batch: batch}, kernel.FMAReference(), n)
		for _, threads := range []int{1, 2, 3, 8} {
			if got := steps(t, spec, Config{Batch: batch, Threads: threads}, kernel.FMA(), n); !slices.Equal(got, want) {
				t.Errorf("%s: %d threads differ from the reference", spec.Name, threads)
			}
		}
	}
	// Large enough that all layers are shared out.
	spec := named(t, "cnn", Shape{28, 28, 1}, 10)
	var want []uint32
	for _, threads := range []int{1, 2, 3, 8} {
		got := steps(t, spec, Config{Batch: 64, Threads: threads, Spin: threads == 2}, kernel.FMA(), 5)
		if want == nil {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("28x28x1: %d threads differ from one", threads)
		}
	}
}

// assemblies returns fma-1 in every form of assembly that this machine can run, or if
// there is none, in plain Go.
func assemblies(t *testing.T) map[string]kernel.Set {
	m := map[string]kernel.Set{}
	for _, form := range []string{kernel.FormAVX2, kernel.FormAVX512} {
		if set, err := kernel.Form(form); err != nil {
			t.Logf("not tested: %v", err)
		} else {
			m[form] = set
		}
	}
	if len(m) == 0 {
		m[kernel.FormReference] = kernel.FMAReference()
	}
	return m
}

// The bits of fma-1 are a promise, too: on every platform, with every width of
// vectors. If the arithmetic changes on purpose, so must the set's name.
func TestFMABitsArePinned(t *testing.T) {
	forms := assemblies(t)
	for name, c := range map[string]struct {
		spec  Spec
		o     Optimizer
		steps int
		want  uint64
	}{
		"cnn":      {named(t, "cnn", Shape{8, 9, 2}, 10), Adam(1e-3), 30, 0xbcd4da32f98a3da2},
		"mlp":      {named(t, "mlp", Shape{8, 9, 2}, 10), Adam(1e-3), 30, 0x1ece8f07d21fc1b2},
		"deep":     {gradientModel(t, "deep"), Adam(1e-3), 30, 0xb9a54a304f610d31},
		"cnn-deep": {named(t, "cnn-deep", Shape{5, 4, 2}, 10), Adam(1e-3), 5, 0xa6d30263f52fb455},
		"strides":  {gradientModel(t, "stride and same, pooled, deep"), AdamW(1e-3), 30, 0xe07383e14ce3210c},
		"lenet5":   {named(t, "lenet5", Shape{13, 12, 2}, 10), SGD(1e-2), 10, 0x18e23d44e63ea810},
		"resnet20": {named(t, "resnet20", Shape{5, 4, 2}, 10), SGD(1e-2), 3, 0x18f895ff36787f49},
		"avgpool":  {gradientModel(t, "avgpool of rectified"), SGD(1e-2), 30, 0x291c79fcb786195f},
	} {
		for form, set := range forms {
			h := uint64(14695981039346656037)
			for _, v := range steps(t, c.spec, Config{Batch: 8, Optimizer: c.o}, set, c.steps) {
				h = (h ^ uint64(v)) * 1099511628211
			}
			if h != c.want {
				t.Errorf("%q by %s: %#x, want %#x", name, form, h, c.want)
			}
		}
	}
}

func TestFMAStepAllocatesNothing(t *testing.T) {
	for form, set := range assemblies(t) {
		for i := range 6 {
			// All ways of the convolutions, and additions that are shared out.
			spec, threads := named(t, []string{"cnn", "lenet5", "resnet20"}[i/2], Shape{28, 28, 1}, 10), 1+i%2
			in := bindSet(t, spec, Config{Batch: 16, Train: true, Optimizer: Adam(1e-3), Threads: threads}, set)
			in.Init(1)
			x, y := records(spec, 16, 1)
			step := 0
			if n := testing.AllocsPerRun(points.Count(10), func() {
				step++
				if _, err := takeStep(in, x, y, step); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s, %s, %d threads: %v allocations", spec.Name, form, threads, n)
			}
		}
	}
}
