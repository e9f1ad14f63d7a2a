// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
)

// MaxBatch bounds the records of one step.
const MaxBatch = 1 << 16

// Config says what a program is compiled for.
type Config struct {
	// Batch is the largest number of records of one call.
	Batch int
	// Train adds gradients and moments. Without it the program can only
	// Predict and Evaluate, and Optimizer is ignored.
	Train bool
	// Optimizer must be valid if Train is set.
	Optimizer Optimizer
}

// Sizes says exactly how many bytes of the arena each term takes. Each is a
// multiple of 64, alignment included.
type Sizes struct {
	Weights     int64
	Moments     int64 // both of Adam's; zero without training
	Gradients   int64 // of the weights; zero without training
	Activations int64 // input, activations and their gradients, places of maxima
	Workspace   int64 // scratch of kernels, predicted labels
	Total       int64 // the sum
}

// FLOPs counts the multiplications and additions of convolutions and dense
// layers for one full batch, two per multiply-add, as if nothing were skipped.
type FLOPs struct {
	Forward  int64
	Backward int64
}

// Program is a model compiled for a batch size: a static list of operations
// over one arena. It is immutable and holds no arena.
type Program struct {
	spec Spec
	cfg  Config
}

// Compile makes the program of a model. It allocates nothing that grows with
// the model's sizes. The spec, the batch and the optimizer are validated.
func Compile(spec Spec, cfg Config) (*Program, error) {
	return nil, errors.New("nn: not implemented")
}

// Spec returns the model.
func (p *Program) Spec() Spec { return p.spec }

// Config returns what the program was compiled for.
func (p *Program) Config() Config { return p.cfg }

// Sizes returns the exact bytes of the arena.
func (p *Program) Sizes() Sizes { return Sizes{} }

// FLOPs returns the work of one full batch.
func (p *Program) FLOPs() FLOPs { return FLOPs{} }
