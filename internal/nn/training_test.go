// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

func TestRates(t *testing.T) {
	rates := func(schedule string, warmup, steps int) (all []float64) {
		o := SGD(0.8)
		o.Schedule, o.WarmupSteps, o.ScheduleSteps = schedule, warmup, steps
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		for step := 1; step <= 8; step++ {
			all = append(all, math.Round(o.Rate(step)*1e9)/1e9)
		}
		return all
	}
	// Half a turn over eight steps, and over six after two.
	cos := func(i, n float64) float64 { return math.Round(0.4*(1+math.Cos(math.Pi*i/n))*1e9) / 1e9 }
	for name, c := range map[string]struct{ got, want []float64 }{
		"constant":       {rates("", 0, 0), []float64{0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8}},
		"warm-up":        {rates("", 4, 0), []float64{0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8}},
		"step":           {rates(ScheduleStep, 0, 8), []float64{0.8, 0.8, 0.8, 0.8, 0.08, 0.08, 0.008, 0.008}},
		"step, odd":      {rates(ScheduleStep, 0, 7), []float64{0.8, 0.8, 0.8, 0.8, 0.08, 0.08, 0.008, 0.008}},
		"step, warm-up":  {rates(ScheduleStep, 2, 8), []float64{0.4, 0.8, 0.8, 0.8, 0.08, 0.08, 0.008, 0.008}},
		"cosine":         {rates(ScheduleCosine, 0, 8), []float64{cos(0, 8), cos(1, 8), cos(2, 8), cos(3, 8), cos(4, 8), cos(5, 8), cos(6, 8), cos(7, 8)}},
		"cosine, warmed": {rates(ScheduleCosine, 2, 8), []float64{0.4, 0.8, cos(0, 6), cos(1, 6), cos(2, 6), cos(3, 6), cos(4, 6), cos(5, 6)}},
		"cosine, past":   {rates(ScheduleCosine, 0, 4), []float64{cos(0, 4), cos(1, 4), cos(2, 4), cos(3, 4), 0, 0, 0, 0}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestOptimizersThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*Optimizer){
		`schedule "linear", known are: constant, step, cosine`: func(o *Optimizer) { o.Schedule = "linear" },
		"a constant learning rate over 5 steps":                func(o *Optimizer) { o.ScheduleSteps = 5 },
		"0 steps of warm-up, 0 in all":                         func(o *Optimizer) { o.Schedule = ScheduleCosine },
		"9 steps of warm-up, 9 in all":                         func(o *Optimizer) { o.Schedule, o.WarmupSteps, o.ScheduleSteps = ScheduleStep, 9, 9 },
		"-1 steps of warm-up":                                  func(o *Optimizer) { o.WarmupSteps = -1 },
		"l2 -1 is out of range":                                func(o *Optimizer) { o.L2 = -1 },
		"l2 NaN is out of range":                               func(o *Optimizer) { o.L2 = math.NaN() },
		"clip norm +Inf is out of range":                       func(o *Optimizer) { o.ClipNorm = math.Inf(1) },
	} {
		o := SGD(0.1)
		change(&o)
		if err := o.Validate(); !errors.Is(err, ErrOptimizer) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	spec := named(t, "mlp", Shape{4, 6, 1}, 3)
	for want, change := range map[string]func(*Config){
		"label smoothing 1,":    func(c *Config) { c.LabelSmoothing = 1 },
		"label smoothing NaN,":  func(c *Config) { c.LabelSmoothing = math.NaN() },
		"shifts by up to 4 of":  func(c *Config) { c.Augment.Shifts = 4 },
		"shifts by up to -1 of": func(c *Config) { c.Augment.Shifts = -1 },
	} {
		cfg := Config{Batch: 2, Train: true, Optimizer: SGD(0.1)}
		change(&cfg)
		if _, err := Compile(spec, cfg); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// tuned is a configuration with everything that changes training.
func tuned(batch int) Config {
	cfg := Config{Batch: batch, Train: true, Optimizer: SGD(0.05), LabelSmoothing: 0.1, Augment: Augment{Flips: true, Shifts: 3}}
	o := &cfg.Optimizer
	o.Schedule, o.ScheduleSteps, o.WarmupSteps, o.L2, o.ClipNorm = ScheduleCosine, 6, 2, 1e-3, 0.3
	return cfg
}

// However a step is cut, and on however many threads, it has the same bits, whether
// its records come as pixels or as values.
func TestTrainingOptionsDoNotShowCuts(t *testing.T) {
	const batch = 11
	steps := points.Count(4)
	for _, name := range []string{"cnn", "resnet20"} {
		spec := named(t, name, Shape{10, 9, 2}, 4)
		x, y := records(spec, batch, 3)
		for _, set := range someSets(t) {
			var want []uint32
			for i, change := range []func(*Config){
				func(*Config) {},
				func(c *Config) { c.Threads = 3 },
				func(c *Config) { c.MicroBatch = 1 },
				func(c *Config) { c.MicroBatch, c.Threads = 4, 2 },
				func(*Config) {}, // with values
			} {
				if points.Stride > 1 && i > 1 {
					break // threads are what the race detector looks at
				}
				cfg := tuned(batch)
				if change(&cfg); spec.WholeBatches() {
					cfg.MicroBatch = 0
				}
				in := bindSet(t, spec, cfg, set)
				in.Init(1)
				for step := 1; step <= steps; step++ {
					s := StepInput{Pixels: x, Labels: y, Scale: scale, Step: step, Seed: 7, Replica: 3}
					if i == 4 {
						s.Values = make([]float32, len(x))
						kernel.Generic().Convert(s.Values, x, scale)
						s.Pixels = nil
					}
					if _, err := in.Step(s); err != nil {
						t.Fatal(err)
					}
				}
				if got := state(in); want == nil {
					want = got
				} else if !slices.Equal(got, want) {
					t.Errorf("%s, %s: case %d shows", name, set.Name, i)
				}
			}
		}
	}
}

// Each part of the key changes what happens to a record, and nothing happens to it
// outside training.
func TestAugment(t *testing.T) {
	in := Shape{5, 7, 2}
	image := make([]float32, in.Elements())
	for i := range image {
		image[i] = float32(i + 1)
	}
	at := func(x []float32, row, col, c int) float32 {
		if row < 0 || row >= in.H || col < 0 || col >= in.W {
			return 0
		}
		return x[(row*in.W+col)*in.C+c]
	}
	seen := map[[3]int]int{}
	const draws = 20000
	chances := Augment{}.chances(StepInput{Seed: 1, Replica: 2, Step: 3})
	for i := range draws {
		a := Augment{Flips: true, Shifts: 2}
		x := slices.Clone(image)
		a.apply(in, x, chances.at(uint64(i)))
		found := false
		for flipped := range 2 {
			for down := -2; down <= 2; down++ {
				for right := -2; right <= 2; right++ {
					same := true
					for j, got := range x {
						row, col, c := j/(in.W*in.C)-down, j/in.C%in.W-right, j%in.C
						if flipped == 1 && col >= 0 && col < in.W {
							col = in.W - 1 - col
						}
						same = same && got == at(image, row, col, c)
					}
					if same {
						found = true
						seen[[3]int{flipped, down, right}]++
					}
				}
			}
		}
		if !found {
			t.Fatalf("draw %d is no flip and shift: %v", i, x)
		}
	}
	if len(seen) != 50 {
		t.Errorf("%d of 50 changes seen", len(seen))
	}
	for change, n := range seen {
		if off := math.Abs(float64(n)-draws/50) / math.Sqrt(draws/50); off > 4.5 {
			t.Errorf("%v: %d times of %d, off by %.1f deviations", change, n, draws, off)
		}
	}
	for _, s := range []StepInput{{Seed: 2, Replica: 2, Step: 3}, {Seed: 1, Replica: 3, Step: 3}, {Seed: 1, Replica: 2, Step: 4}} {
		if (Augment{}).chances(s) == chances {
			t.Errorf("%+v has the chances of another step", s)
		}
	}
	if d := newDropout(0, 0.5); d.mask(StepInput{Seed: 1, Replica: 2, Step: 3}) == chances {
		t.Error("dropout has the same chances")
	}
	// What evaluation sees.
	spec := named(t, "cnn", Shape{8, 8, 1}, 3)
	x, _ := records(spec, 4, 1)
	var want []uint32
	for _, cfg := range []Config{{Batch: 4}, tuned(4)} {
		in := bind(t, spec, cfg)
		in.Init(1)
		logits, err := in.Predict(x, 4, scale)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = bits(logits)
		} else if !slices.Equal(bits(logits), want) {
			t.Error("evaluation sees changed records")
		}
	}
}

// A gradient within its bound is left as it is, and a longer one has that length
// afterwards and its old direction. Only weights are penalised.
func TestClipAndPenalty(t *testing.T) {
	spec := named(t, "mlp", Shape{4, 4, 1}, 3)
	x, y := records(spec, 4, 1)
	gradient := func(l2, clip float64) []float64 {
		o := SGD(0.1)
		o.L2, o.ClipNorm = l2, clip
		in := bind(t, spec, Config{Batch: 4, Train: true, Optimizer: o, KeepGradients: true})
		in.Init(1)
		if _, err := takeStep(in, x, y, 1); err != nil {
			t.Fatal(err)
		}
		return wide(in.Gradients())
	}
	plain := gradient(0, 0)
	_, length := distance(plain, plain)
	if got := gradient(0, length*1.01); !slices.Equal(got, plain) {
		t.Error("a bound that is kept changes the gradient")
	}
	half := gradient(0, length/2)
	for i := range half {
		half[i] *= 2
	}
	if off, _ := distance(half, plain); off > 1e-5*length {
		t.Errorf("a bound of half the length: off by %v of %v", off, length)
	}
	weights := make([]float32, spec.ParamCount())
	InitWeights(spec, 1, weights)
	penalised := gradient(0.5, 0)
	for _, p := range spec.Params() {
		for i := p.Offset; i < p.Offset+p.Len; i++ {
			want := plain[i]
			if strings.HasSuffix(p.Name, ".weight") {
				want += 0.5 * float64(weights[i])
			}
			if math.Abs(penalised[i]-want) > 1e-6 {
				t.Fatalf("%s: %v, want %v", p.Name, penalised[i], want)
			}
		}
	}
	// A normalisation's own parameters are none of them.
	for _, p := range named(t, "resnet20", Shape{8, 8, 1}, 3).Params() {
		if p.penalised() != strings.HasSuffix(p.Name, ".weight") {
			t.Errorf("%s: penalised %v", p.Name, p.penalised())
		}
	}
}
