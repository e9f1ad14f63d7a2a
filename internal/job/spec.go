// SPDX-License-Identifier: Apache-2.0

package job

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ErrSpec is wrapped by every error about what the user asked for.
var ErrSpec = errors.New("invalid job")

// Kind says what a job does.
type Kind string

// The kinds of jobs.
const (
	// Train fits a model to a data set's training part and evaluates it on its
	// test part.
	Train Kind = "train"
	// Infer evaluates a stored model on a data set's test part.
	Infer Kind = "infer"
)

// Sync says what replicas exchange, and when.
type Sync string

// The ways to keep replicas together.
const (
	// SyncRounds: replicas take steps of their own and average their weights.
	SyncRounds Sync = "rounds"
	// SyncStep: replicas average the gradients of every step, each over its part
	// of the batch, which is sequential training, divided (the mirrored strategy
	// of the thesis's section 3.2.1).
	SyncStep Sync = "step"
)

// Defaults of a training job: those of the thesis (section 6).
const (
	DefaultEpochs       = 5
	DefaultBatch        = 64
	DefaultOptimizer    = "adam"
	DefaultLearningRate = 1e-3 // of adam
	DefaultModel        = "cnn"
	DefaultSeed         = 1
)

// learningRates has the optimizers that package nn knows, and the learning rate
// that each usually has.
var learningRates = map[string]float64{"adam": DefaultLearningRate, "adamw": 1e-3, "sgd": 1e-2}

// schedules of the learning rate, as package nn has them; "" is constant.
var schedules = []string{"", "constant", "step", "cosine"}

// KernelForms returns the values of Spec.Kernel: a choice of the worker's own, then the
// forms that package nn/kernel knows.
func KernelForms() []string { return []string{"auto", "avx2", "avx512", "generic", "reference"} }

// KernelForm is what workers are told of Kernel: "" leaves them the choice.
func (s Spec) KernelForm() string {
	if s.Kernel == "auto" {
		return ""
	}
	return s.Kernel
}

// Limits of a job, so that every size made from a spec stays bounded.
const (
	MaxEpochs   = 100_000
	MaxBatch    = 65_536
	MaxReplicas = 1024
	MaxRounds   = 1_000_000
	MaxThreads  = 256
	MaxL2       = 10
	MaxClip     = 1_000_000
	MaxShifts   = 64
	// MaxModelSpec is in bytes of JSON.
	MaxModelSpec = 1 << 16
)

// Spec is what a user asks for. The first group decides the bits of the
// result, and so does the strategy; the rest only where and how it runs. Zero values of the fields marked
// "planned" leave the choice to the planner.
type Spec struct {
	Kind    Kind   `json:"kind"`
	Dataset string `json:"dataset"`
	// Model is a named model ("cnn", "mlp") for training; for inference the
	// digest of a stored model, or the start of one; "" there is the newest model
	// of the data set.
	Model string `json:"model,omitempty"`
	// ModelSpec is a model of the user's own for training, in the canonical JSON
	// of package nn; Model is then only what it is called. Without it Model is a
	// name that package nn knows.
	ModelSpec json.RawMessage `json:"model_spec,omitempty"`

	// Epochs is the number of passes over the training part. Default 5.
	Epochs int `json:"epochs,omitempty"`
	// Batch is the batch size in records that a sequential run would use.
	// Default 64.
	Batch int `json:"batch,omitempty"`
	// Optimizer is the local optimizer: "adam", "adamw" or "sgd". Default "adam".
	Optimizer string `json:"optimizer,omitempty"`
	// LearningRate of the local optimizer. Default: 0.001, for "sgd" 0.01.
	LearningRate float64 `json:"learning_rate,omitempty"`
	// Schedule is how the learning rate changes: "constant" or "" leaves it, "step"
	// divides it by ten after a half and after three quarters of all steps, "cosine"
	// lowers it to zero. Warmup is for how many epochs it grows first.
	Schedule string  `json:"schedule,omitempty"`
	Warmup   float64 `json:"warmup,omitempty"`
	// L2 is the weight of half the sum of the squares of the weights in what is
	// minimised; Clip the most that the length of a step's gradient may be, 0 is no
	// bound; LabelSmoothing the share of each label that is spread over all classes.
	L2             float64 `json:"l2,omitempty"`
	Clip           float64 `json:"clip,omitempty"`
	LabelSmoothing float64 `json:"label_smoothing,omitempty"`
	// Flips mirrors training records by chance, Shifts moves them by up to so many
	// pixels.
	Flips  bool `json:"flips,omitempty"`
	Shifts int  `json:"shifts,omitempty"`
	// Seed of weights and shuffles. Any value is a seed, 0 too.
	Seed uint64 `json:"seed"`
	// Replicas is the number of logical learners. Planned.
	Replicas int `json:"replicas,omitempty"`
	// LocalBatch is the batch size of one replica, in records. Planned.
	LocalBatch int `json:"local_batch,omitempty"`
	// Rounds is how often the replicas' weights are averaged; 1 is the thesis.
	// Planned.
	Rounds int `json:"rounds,omitempty"`
	// Sync is how replicas are kept together; "" is SyncRounds. With SyncStep the
	// batch decides LocalBatch and Rounds.
	Sync Sync `json:"sync,omitempty"`

	// Strategy is how the work is divided. Default: distributed.
	Strategy Strategy `json:"strategy,omitempty"`
	// Estimator is how the memory of training is estimated. Default: exact.
	Estimator Estimator `json:"estimator,omitempty"`
	// Minimize is what the scheduler makes small. Default: time.
	Minimize Objective `json:"minimize,omitempty"`

	// Output is the absolute path of a CSV file for the prediction of each test
	// record, on the controller's machine; "" wants none. Inference only.
	Output string `json:"output,omitempty"`

	// Kernel is the form of a kernel set in which workers compute, as in
	// [KernelForms]; "" is "auto", what is fastest on their processors. It decides the
	// bits as far as forms of different sets do.
	Kernel string `json:"kernel,omitempty"`

	// Containers is the most containers at once. Planned.
	Containers int `json:"containers,omitempty"`
	// Threads is how many threads each container computes with. Planned.
	Threads int `json:"threads,omitempty"`
	// Memory is the limit of each container. Planned.
	Memory Bytes `json:"memory,omitempty"`
	// Timeout is the time limit of one invocation. Default: the platform's.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// WithDefaults returns the spec with the documented defaults in place of zero
// values. Planned fields stay as they are.
func (s Spec) WithDefaults() Spec {
	if s.Kind == Train {
		if s.Model == "" {
			s.Model = DefaultModel
		}
		if s.Epochs == 0 {
			s.Epochs = DefaultEpochs
		}
		s.Strategy = cmp.Or(s.Strategy, Distributed)
		s.Estimator, s.Minimize = cmp.Or(s.Estimator, Exact), cmp.Or(s.Minimize, LeastTime)
		if s.Optimizer == "" {
			s.Optimizer = DefaultOptimizer
		}
		if s.LearningRate == 0 {
			s.LearningRate = learningRates[s.Optimizer]
		}
	}
	if s.Batch == 0 {
		s.Batch = DefaultBatch
	}
	return s
}

// Validate reports every field that is out of range in one error that wraps
// ErrSpec. It changes nothing and applies no defaults.
func (s Spec) Validate() error {
	var bad []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	check(s.Kind == Train || s.Kind == Infer, "kind %q: want train or infer", s.Kind)
	check(s.Dataset != "", "data set: none named")
	check(s.Batch >= 1 && s.Batch <= MaxBatch, "batch %d: want 1 to %d", s.Batch, MaxBatch)
	if s.Kind == Train {
		check(s.Model != "", "model: none named")
		check(s.ModelSpec == nil || len(s.ModelSpec) <= MaxModelSpec && json.Valid(s.ModelSpec),
			"model spec: want JSON of at most %d bytes", MaxModelSpec)
		check(s.Epochs >= 1 && s.Epochs <= MaxEpochs, "epochs %d: want 1 to %d", s.Epochs, MaxEpochs)
		known := slices.Sorted(maps.Keys(learningRates))
		check(slices.Contains(known, s.Optimizer), "optimizer %.40q: want %s", s.Optimizer, strings.Join(known, ", "))
		unset := s.LearningRate == 0 && !slices.Contains(known, s.Optimizer) // an optimizer that is none has no usual one
		check(unset || s.LearningRate > 0 && s.LearningRate <= 10, "learning rate %v: want more than 0 and at most 10", s.LearningRate)
		check(slices.Contains(schedules, s.Schedule), "schedule %.40q: want constant, step or cosine", s.Schedule)
		// Written so that NaN is out of range.
		check(s.Warmup >= 0 && s.Warmup < float64(max(s.Epochs, 1)), "warm-up of %v epochs: want 0 to below the %d of the job", s.Warmup, s.Epochs)
		check(s.L2 >= 0 && s.L2 <= MaxL2, "l2 %v: want 0 to %d", s.L2, MaxL2)
		check(s.Clip >= 0 && s.Clip <= MaxClip, "clip %v: want 0 to %d", s.Clip, MaxClip)
		check(s.LabelSmoothing >= 0 && s.LabelSmoothing < 1, "label smoothing %v: want 0 to below 1", s.LabelSmoothing)
		check(s.Shifts >= 0 && s.Shifts <= MaxShifts, "shifts of %d pixels: want 0 to %d", s.Shifts, MaxShifts)
		check(s.Replicas >= 0 && s.Replicas <= MaxReplicas, "workers %d: want 1 to %d", s.Replicas, MaxReplicas)
		check(s.LocalBatch >= 0 && s.LocalBatch <= MaxBatch, "local batch %d: want 1 to %d", s.LocalBatch, MaxBatch)
		s.checkStrategy(check)
		check(s.Rounds >= 0 && s.Rounds <= MaxRounds, "rounds %d: want 1 to %d", s.Rounds, MaxRounds)
		check(s.Sync == "" || s.Sync == SyncRounds || s.Sync == SyncStep, "sync %.40q: want %s, %s", s.Sync, SyncRounds, SyncStep)
		if s.Sync == SyncStep {
			check(s.Rounds == 0, "rounds %d with sync %s: every step is a round; leave --rounds out", s.Rounds, SyncStep)
			check(s.LocalBatch == 0, "local batch %d with sync %s: the batch is divided among the workers; leave --local-batch out", s.LocalBatch, SyncStep)
			check(s.Replicas <= s.Batch, "workers %d with sync %s: a batch of %d cannot be divided among more than that many", s.Replicas, SyncStep, s.Batch)
		}
	}
	check(s.Kind == Train || s.ModelSpec == nil, "model spec: only training has one")
	check(s.Kind == Infer || s.Output == "", "output: only inference has one")
	check(s.Kernel == "" || slices.Contains(KernelForms(), s.Kernel), "kernel %.40q: want %s (of which avx2, avx512 and reference have the bits of the kernel set fma-1, generic those of generic-1)", s.Kernel, strings.Join(KernelForms(), ", "))
	check(s.Containers >= 0 && s.Containers <= MaxReplicas, "containers %d: want 1 to %d", s.Containers, MaxReplicas)
	check(s.Threads >= 0 && s.Threads <= MaxThreads, "threads %d: want 1 to %d", s.Threads, MaxThreads)
	check(s.Memory >= 0, "memory %d: want more than 0", int64(s.Memory))
	check(s.Timeout >= 0, "timeout %v: want more than 0", s.Timeout)
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrSpec, strings.Join(bad, "; "))
}
