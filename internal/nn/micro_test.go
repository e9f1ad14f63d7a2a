// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"disdel/internal/points"
)

// Steps in pieces end with the bits of whole steps, whatever the pieces, the set
// and the number of threads, in less memory.
func TestMicroBatchesDoNotShow(t *testing.T) {
	const batch, steps = 13, 3
	for _, spec := range points.Some(append(gradientModels(t), named(t, "cnn", Shape{20, 20, 3}, 10))) {
		if spec.WholeBatches() {
			continue
		}
		for _, set := range sets(t) {
			run := func(cfg Config) (got []uint32, total int64) {
				cfg.Batch, cfg.Train, cfg.Optimizer = batch, true, Adam(1e-3)
				in := bindSet(t, spec, cfg, set)
				in.Init(1)
				x, y := records(spec, batch, 3)
				loss := train(t, in, x, y, steps)
				// The last batch of an epoch is smaller.
				less := batch - 4
				last, err := takeStep(in, x[:less*spec.Input.Elements()], y[:less], steps+1)
				if err != nil {
					t.Fatal(err)
				}
				sum, predicted, err := in.Evaluate(x, y, scale)
				if err != nil {
					t.Fatal(err)
				}
				got = append(state(in), bits([]float32{float32(loss), float32(last), float32(sum)})...)
				for _, class := range predicted {
					got = append(got, uint32(class))
				}
				return got, in.Program().Sizes().Total
			}
			want, _ := run(Config{})
			// Pieces add up to gradients that are kept.
			_, kept := run(Config{KeepGradients: true})
			for _, cfg := range []Config{{MicroBatch: 1}, {MicroBatch: 4}, {MicroBatch: 8, Threads: 2}, {MicroBatch: batch}} {
				got, total := run(cfg)
				if !slices.Equal(got, want) {
					t.Errorf("%s, %s: pieces of %d on %d threads show", spec.Name, set.Name, cfg.MicroBatch, cfg.Threads)
				}
				if cfg.MicroBatch < 8 && total >= kept {
					t.Errorf("%s: pieces of %d take %d bytes, the whole batch %d", spec.Name, cfg.MicroBatch, total, kept)
				}
			}
		}
	}
}

func TestMicroBatchesThatCannotBe(t *testing.T) {
	spec := named(t, "cnn", Shape{8, 8, 1}, 10)
	for _, micro := range []int{-1, 9} {
		if _, err := Compile(spec, Config{Batch: 8, MicroBatch: micro}); !errors.Is(err, ErrInput) {
			t.Errorf("pieces of %d of 8: %v", micro, err)
		}
	}
	deep := named(t, "cnn-deep", Shape{8, 8, 1}, 10)
	cfg := Config{Batch: 8, MicroBatch: 4, Train: true, Optimizer: Adam(1e-3)}
	if _, err := Compile(deep, cfg); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "statistics of whole batches") {
		t.Errorf("a piece of a batch that is normalised: %v", err)
	}
	if cfg.MicroBatch = 8; !deep.WholeBatches() || spec.WholeBatches() {
		t.Error("which models need whole batches")
	}
	if _, err := Compile(deep, cfg); err != nil {
		t.Errorf("one piece: %v", err)
	}
	// Without training each record is computed alone.
	whole, pieces := bind(t, deep, Config{Batch: 8}), bind(t, deep, Config{Batch: 8, MicroBatch: 3})
	x, y := records(deep, 8, 1)
	whole.Init(1)
	pieces.Init(1)
	want, _, err := whole.Evaluate(x, y, scale)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := pieces.Evaluate(x, y, scale); err != nil || got != want {
		t.Errorf("loss in pieces %v, %v, want %v", got, err, want)
	}
	if _, err := pieces.Predict(x, 8, scale); !errors.Is(err, ErrInput) {
		t.Errorf("predict more than a piece: %v", err)
	}
}
