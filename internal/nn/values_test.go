// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"slices"
	"testing"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

// TestStep_Values: records that come as values train as their pixels do, bit for
// bit.
func TestStep_Values(t *testing.T) {
	for _, name := range points.Some(Names()) {
		spec := named(t, name, small(name, Shape{8, 8, 1}), 10)
		cfg := Config{Batch: 6, Train: true, Optimizer: Adam(1e-3)}
		a, b := bind(t, spec, cfg), bind(t, spec, cfg)
		a.Init(1)
		b.Init(1)
		for step := 1; step <= 3; step++ {
			x, y := records(spec, 7-step, uint64(step)) // also less than a batch
			values := make([]float32, len(x))
			kernel.Generic().Convert(values, x, scale)
			want, err := takeStep(a, x, y, step)
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.Step(StepInput{Values: values, Labels: y, Step: step, Seed: 7, Replica: 3})
			if err != nil || got != want || !slices.Equal(state(a), state(b)) {
				t.Fatalf("%s, step %d: loss %v of values, %v of pixels, %v", name, step, got, want, err)
			}
		}
	}
}

func TestStep_BadValues(t *testing.T) {
	spec := named(t, "mlp", Shape{4, 4, 1}, 3)
	in := bind(t, spec, Config{Batch: 2, Train: true, Optimizer: Adam(1e-3)})
	in.Init(1)
	before := state(in)
	for name, s := range map[string]StepInput{
		"too few":         {Values: make([]float32, 15), Labels: []uint16{0}},
		"too many":        {Values: make([]float32, 17), Labels: []uint16{0}},
		"with pixels":     {Values: make([]float32, 16), Pixels: make([]byte, 16), Labels: []uint16{0}},
		"no records":      {Values: make([]float32, 0)},
		"too large batch": {Values: make([]float32, 48), Labels: []uint16{0, 0, 0}},
		"label":           {Values: make([]float32, 16), Labels: []uint16{3}},
	} {
		s.Step = 1
		if _, err := in.Step(s); !errors.Is(err, ErrInput) {
			t.Errorf("%s: error %v; want ErrInput", name, err)
		}
	}
	if !slices.Equal(state(in), before) {
		t.Error("a refused step has changed the state")
	}
}
