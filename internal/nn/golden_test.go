// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

// The files in testdata come from PyTorch; testdata/golden.py says how they were
// made.

// goldenSteps is a model's file.
type goldenSteps struct {
	x         []byte
	y         []uint16
	weights   []float32
	gradients []float32 // of the first step
	losses    []float64 // of steps of Adam
}

const goldenBatch = 16

func readGolden(t *testing.T, name string, spec Spec) goldenSteps {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", "golden-"+name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(file)
	labels := make([]byte, goldenBatch)
	g := goldenSteps{
		x: make([]byte, goldenBatch*spec.Input.Elements()), y: make([]uint16, goldenBatch),
		weights: make([]float32, spec.ParamCount()), gradients: make([]float32, spec.ParamCount()), losses: make([]float64, 10),
	}
	for _, v := range []any{g.x, labels, g.weights, g.gradients, g.losses} {
		if err := binary.Read(r, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	if r.Len() != 0 {
		t.Fatalf("%d bytes too many", r.Len())
	}
	for i, label := range labels {
		g.y[i] = uint16(label)
	}
	return g
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		err = json.Unmarshal(file, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// distance returns the length of a - b and that of b.
func distance(a, b []float64) (off, norm float64) {
	for i, want := range b {
		off, norm = off+(a[i]-want)*(a[i]-want), norm+want*want
	}
	return math.Sqrt(off), math.Sqrt(norm)
}

// matchLosses takes a step for each loss.
func matchLosses(t *testing.T, want []float64, step func(i int) (float64, error)) {
	t.Helper()
	for i, want := range want {
		loss, err := step(i + 1)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-want) > 1e-5 {
			t.Errorf("step %d: loss %v, want %v", i+1, loss, want)
		}
	}
}

// forSets runs a test of each name with each kernel set.
func forSets(t *testing.T, names []string, test func(t *testing.T, name string, set kernel.Set)) {
	tried := sets(t)
	if points.Stride > 1 {
		tried = []kernel.Set{kernel.Best()} // the fastest
	}
	for _, set := range tried {
		for _, name := range names {
			t.Run(name+" "+set.Name, func(t *testing.T) { test(t, name, set) })
		}
	}
}

func TestStepsMatchPyTorch(t *testing.T) {
	forSets(t, []string{"cnn", "mlp"}, func(t *testing.T, name string, set kernel.Set) {
		spec := named(t, name, Shape{8, 8, 1}, 10)
		g := readGolden(t, name, spec)
		in := bindSet(t, spec, Config{Batch: goldenBatch, Train: true, Optimizer: Adam(1e-3), KeepGradients: true}, set)
		in.Init(0) // for the moments
		copy(in.Weights(), g.weights)
		matchLosses(t, g.losses, func(i int) (float64, error) {
			loss, err := takeStep(in, g.x, g.y, i)
			if i > 1 {
				return loss, err
			}
			for _, p := range spec.Params() {
				if off, norm := distance(wide(p.of(in.Gradients())), wide(p.of(g.gradients))); norm == 0 || off > 1e-5*norm {
					t.Errorf("%s: gradient off by %.2g of %.2g", p.Name, off, norm)
				}
			}
			return loss, err
		})
	})
}

func TestOptimizersMatchKeras(t *testing.T) {
	spec := named(t, "mlp", Shape{8, 8, 1}, 10)
	g := readGolden(t, "mlp", spec)
	var losses map[string][]float64
	readJSON(t, "golden-optimizers.json", &losses)
	forSets(t, []string{KindAdamW, KindSGD}, func(t *testing.T, name string, set kernel.Set) {
		o, err := ParseOptimizer(name, 0)
		if err != nil || len(losses[name]) != 10 {
			t.Fatal(err, losses)
		}
		in := bindSet(t, spec, Config{Batch: goldenBatch, Train: true, Optimizer: o}, set)
		in.Init(0)
		copy(in.Weights(), g.weights)
		matchLosses(t, losses[name], func(i int) (float64, error) { return takeStep(in, g.x, g.y, i) })
	})
}

// What a job can add to the loss, the records and the rate does what it is meant to do.
func TestTrainingOptionsMatchPyTorch(t *testing.T) {
	spec := named(t, "cnn", Shape{8, 8, 1}, 10)
	g := readGolden(t, "cnn", spec)
	var losses map[string][]float64
	readJSON(t, "golden-training.json", &losses)
	forSets(t, []string{ScheduleCosine, ScheduleStep}, func(t *testing.T, name string, set kernel.Set) {
		cfg := Config{Batch: goldenBatch, Train: true, Optimizer: SGD(0.05)}
		o := &cfg.Optimizer
		o.Schedule, o.ScheduleSteps = name, 10
		if name == ScheduleCosine {
			o.WarmupSteps, o.L2, o.ClipNorm, cfg.LabelSmoothing = 2, 0.01, 0.5, 0.1
		} else {
			o.L2, cfg.Augment = 0.001, Augment{Flips: true, Shifts: 2}
		}
		if len(losses[name]) != 10 {
			t.Fatal(losses)
		}
		in := bindSet(t, spec, cfg, set)
		in.Init(0)
		copy(in.Weights(), g.weights)
		matchLosses(t, losses[name], func(i int) (float64, error) { return takeStep(in, g.x, g.y, i) })
	})
}

func TestDeepStepsMatchPyTorch(t *testing.T) {
	forSets(t, []string{"cnn-deep", "lenet5", "resnet20"}, matchDeep)
}

// signedSums are the sums of a tensor's values as testdata/golden.py makes them: the
// differences between two tensors' are as large as their distance.
func signedSums(tensor int, values []float64) (sums []float64) {
	s := stream{key: 1000 + uint64(tensor)}
	sums = make([]float64, 8)
	for i, v := range values {
		bits := s.at(uint64(i))
		for k := range sums {
			if bits>>k&1 != 0 {
				sums[k] += v
			} else {
				sums[k] -= v
			}
		}
	}
	return sums
}

func matchDeep(t *testing.T, name string, set kernel.Set) {
	var g struct {
		Seed, Records uint64
		Replica       int
		Losses, Norms []float64
		Sums          [][]float64
		Moving        []float64
		Logits        []float64
	}
	readJSON(t, "golden-"+name+".json", &g)
	side := map[string]int{"cnn-deep": 4, "lenet5": 16, "resnet20": 8}[name]
	spec := named(t, name, Shape{side, side, 1}, 10)
	in := bindSet(t, spec, Config{Batch: goldenBatch, Train: true, Optimizer: Adam(1e-3), KeepGradients: true}, set)
	in.Init(g.Seed)
	x, y := records(spec, goldenBatch, g.Records)
	matchLosses(t, g.Losses, func(i int) (float64, error) {
		loss, err := in.Step(StepInput{Pixels: x, Labels: y, Scale: scale, Step: i, Seed: g.Seed, Replica: g.Replica})
		if i > 1 {
			return loss, err
		}
		if learned := len(Learned(spec.Params())); len(g.Sums) != learned || len(g.Norms) != learned {
			t.Fatalf("%d tensors, want %d", learned, len(g.Sums))
		}
		for i, p := range Learned(spec.Params()) {
			got := wide(p.of(in.Gradients()))
			off, _ := distance(signedSums(i, got), g.Sums[i])
			if _, norm := distance(got, got); math.Abs(norm-g.Norms[i]) > 1e-5*g.Norms[i] {
				t.Errorf("%s: gradient of length %.8g, want %.8g", p.Name, norm, g.Norms[i])
			}
			if off /= math.Sqrt(8); g.Norms[i] == 0 || off > 1e-4*g.Norms[i] {
				t.Errorf("%s: gradient off by %.2g of %.2g", p.Name, off, g.Norms[i])
			}
		}
		return loss, err
	})
	if len(g.Moving) > 0 || spec.ParamCount() > spec.LearnedCount() {
		matchMoving(t, spec, in, g.Moving)
	}
	logits, err := in.Predict(x, goldenBatch, scale)
	if err != nil {
		t.Fatal(err)
	}
	if off, norm := distance(wide(logits), g.Logits); norm == 0 || off > 1e-4*norm {
		t.Errorf("logits off by %.2g of %.2g", off, norm)
	}
	if i := slices.IndexFunc(spec.Layers, func(l Layer) bool { return l.Kind == KindDropout }); name == "cnn-deep" && i != 17 {
		t.Errorf("dropout is layer %d: testdata/golden.py takes 17", i)
	}
}

func matchMoving(t *testing.T, spec Spec, in *Instance, want []float64) {
	t.Helper()
	got := wide(in.Weights()[spec.LearnedCount():])
	if len(got) != len(want) {
		t.Fatalf("%d moving statistics, want %d", len(got), len(want))
	}
	if off, norm := distance(got, want); norm == 0 || off > 1e-4*norm {
		t.Errorf("moving statistics off by %.2g of %.2g", off, norm)
	}
}
