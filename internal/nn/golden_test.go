// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestStepsMatchPyTorch compares with PyTorch; testdata/golden.py says how the
// files were made.
func TestStepsMatchPyTorch(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			const batch = 16
			spec := named(t, name, Shape{8, 8, 1}, 10)
			in := bind(t, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3)})
			in.Init(0) // for the moments

			file, err := os.ReadFile(filepath.Join("testdata", "golden-"+name+".bin"))
			if err != nil {
				t.Fatal(err)
			}
			r := bytes.NewReader(file)
			read := func(v any) {
				if err := binary.Read(r, binary.LittleEndian, v); err != nil {
					t.Fatal(err)
				}
			}
			x, labels := make([]byte, batch*spec.Input.Elements()), make([]byte, batch)
			gradients, losses := make([]float32, spec.ParamCount()), make([]float64, 10)
			read(x)
			read(labels)
			read(in.Weights())
			read(gradients)
			read(losses)
			if r.Len() != 0 {
				t.Fatalf("%d bytes too many", r.Len())
			}
			y := make([]uint16, batch)
			for i, label := range labels {
				y[i] = uint16(label)
			}
			for i, want := range losses {
				loss, err := takeStep(in, x, y, i+1)
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(loss-want) > 1e-5 {
					t.Errorf("step %d: loss %v, want %v", i+1, loss, want)
				}
				if i > 0 {
					continue
				}
				for _, p := range spec.Params() {
					var off, norm float64
					for j, want := range p.of(gradients) {
						d := float64(p.of(in.Gradients())[j]) - float64(want)
						off, norm = off+d*d, norm+float64(want)*float64(want)
					}
					if norm == 0 || math.Sqrt(off) > 1e-5*math.Sqrt(norm) {
						t.Errorf("%s: gradient off by %.2g of %.2g", p.Name, math.Sqrt(off), math.Sqrt(norm))
					}
				}
			}
		})
	}
}
