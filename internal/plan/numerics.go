// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"math"

	"disdel/internal/job"
	"disdel/internal/nn"
)

// ErrModel is wrapped by errors about a model that cannot be trained on a data
// set.
var ErrModel = errors.New("model does not fit")

const (
	// defaultReplicas, with the outer optimizer below, equals sequential
	// training on the thesis's data sets (docs/adr/0010).
	defaultReplicas = 4
	// batchSpread is the most that replicas times local batch may be, in
	// sequential batches, without a price in accuracy.
	batchSpread = 4
	// minReplicaSteps is how many steps a replica needs to learn: with fewer the
	// local batch shrinks, and then the number of replicas.
	minReplicaSteps = 700
	// minLocalBatch bounds that shrinking: below it the arithmetic of a step no
	// longer pays for its Adam update.
	minLocalBatch = 4
	// roundSteps is the number of steps between two averages, of batchSpread replicas
	// with the full batch or more of them. Fewer replicas see as many records between
	// two averages, which takes more steps, unless the job has few.
	roundSteps = 20
	// outerRate and outerMomentum are the outer optimizer's (DiLoCo).
	outerRate     = 0.7
	outerMomentum = 0.9
	// maxSteps is the most steps that a job may have: the store's keys write
	// them with nine digits.
	maxSteps = 999_999_999
)

// Numerics makes the numerics plan of a training job. The spec must be valid
// and have its defaults; errors wrap job.ErrSpec, nn.ErrUnknownModel or
// ErrModel.
func Numerics(spec job.Spec, data job.Dataset, kernelSet string) (job.Numerics, error) {
	if data.Train < 1 || data.ShardRecords < 1 {
		return job.Numerics{}, fmt.Errorf("data set %s has no training records: %w", data.Name, job.ErrSpec)
	}
	model, err := modelOf(spec, data)
	if err != nil {
		if errors.Is(err, nn.ErrSpec) {
			return job.Numerics{}, fmt.Errorf("%w: %s on %s: %w", ErrModel, spec.Model, data.Name, err)
		}
		return job.Numerics{}, err
	}
	if spec.Replicas > data.Train {
		return job.Numerics{}, fmt.Errorf("workers %d: %s has only %d training records: %w",
			spec.Replicas, data.Name, data.Train, job.ErrSpec)
	}

	replicas, localBatch := divide(spec, data.Train)
	perEpoch := stepsPerEpoch(data.Train, replicas, localBatch)
	sync := job.Sync("")
	if spec.Sync == job.SyncStep {
		if model.ParamCount() != model.LearnedCount() {
			return job.Numerics{}, fmt.Errorf("%w: %s normalises a batch by its own statistics, which the parts of a divided batch do not have; "+
				"take --sync rounds or a model without batchnorm", ErrModel, spec.Model)
		}
		sync, perEpoch = spec.Sync, stepsPerEpoch(data.Train, 1, spec.Batch)
	}
	if spec.Epochs > 0 && perEpoch > maxSteps/spec.Epochs {
		return job.Numerics{}, fmt.Errorf("epochs %d: with %d steps in each (local batch %d), more than the %d steps a job may have; "+
			"take fewer epochs or a larger --batch: %w", spec.Epochs, perEpoch, localBatch, maxSteps, job.ErrSpec)
	}
	optimizer, err := localOptimizer(spec, perEpoch)
	if err != nil {
		return job.Numerics{}, fmt.Errorf("%w: %w", job.ErrSpec, err)
	}
	if least := min(data.Height, data.Width); spec.Shifts > 0 && spec.Shifts >= least {
		return job.Numerics{}, fmt.Errorf("shifts of %d pixels: the records of %s have %dx%d, so %d at most: %w",
			spec.Shifts, data.Name, data.Height, data.Width, least-1, job.ErrSpec)
	}
	n := job.Numerics{
		Version:       job.NumericsVersion,
		KernelSet:     kernelSet,
		Dataset:       data,
		Model:         model.Canonical(),
		Seed:          spec.Seed,
		Epochs:        spec.Epochs,
		Batch:         spec.Batch,
		LocalBatch:    localBatch,
		Replicas:      replicas,
		StepsPerEpoch: perEpoch,
		Steps:         perEpoch * spec.Epochs,
		Sync:          sync,
		Local:         job.Optimizer(optimizer),

		LabelSmoothing: spec.LabelSmoothing,
		Flips:          spec.Flips,
		Shifts:         spec.Shifts,
	}
	n.RoundSteps, n.Outer, err = rounds(spec, n)
	if err != nil {
		return job.Numerics{}, err
	}
	if n.Rounds() > job.MaxRounds {
		return job.Numerics{}, fmt.Errorf("epochs %d: %d steps in rounds of %d are %d rounds, more than the %d a job may have; "+
			"take fewer epochs, a larger --batch, or fix --rounds without --sync step: %w", spec.Epochs, n.Steps, n.RoundSteps, n.Rounds(), job.MaxRounds, job.ErrSpec)
	}
	return n, nil
}

// localOptimizer is the replicas' optimizer. Its schedule counts a replica's steps over
// the whole job, which are as many for all, so rounds and slices do not show in it.
func localOptimizer(spec job.Spec, perEpoch int) (nn.Optimizer, error) {
	o, err := nn.ParseOptimizer(spec.Optimizer, spec.LearningRate)
	if err != nil {
		return o, err
	}
	if spec.Schedule != "" && spec.Schedule != nn.ScheduleConstant {
		o.Schedule, o.ScheduleSteps = spec.Schedule, perEpoch*spec.Epochs
	}
	o.WarmupSteps = int(math.Round(spec.Warmup * float64(perEpoch)))
	if o.Schedule != "" {
		o.WarmupSteps = min(o.WarmupSteps, o.ScheduleSteps-1)
	}
	o.L2, o.ClipNorm = spec.L2, spec.Clip
	return o, o.Validate()
}

// modelOf is the model that a job trains: the user's own, else a named one.
func modelOf(spec job.Spec, data job.Dataset) (nn.Spec, error) {
	in := nn.Shape{H: data.Height, W: data.Width, C: data.Channels}
	if spec.ModelSpec != nil {
		return nn.Complete(spec.ModelSpec, in, data.Classes)
	}
	return nn.Named(spec.Model, in, data.Classes)
}

// divide chooses the number of replicas and the local batch. A replica's local
// batch keeps replicas x local batch within batchSpread sequential batches, and
// shrinks further where a replica would have too few steps to learn from; when
// that does not suffice there are fewer replicas. What the user fixed stays.
func divide(spec job.Spec, records int) (replicas, localBatch int) {
	if spec.Sequential() {
		return 1, spec.Batch
	}
	replicas = spec.Replicas
	if replicas == 0 {
		replicas = min(defaultReplicas, records)
	}
	if spec.Sync == job.SyncStep {
		batch := min(spec.Batch, records)
		replicas = min(replicas, batch)
		return replicas, (batch-1)/replicas + 1
	}
	for {
		localBatch = spec.LocalBatch
		if localBatch == 0 {
			localBatch = spreadBatch(spec, replicas)
			if replicas > 1 {
				for localBatch/2 >= minLocalBatch && stepsPerEpoch(records, replicas, localBatch)*spec.Epochs < minReplicaSteps {
					localBatch /= 2
				}
			}
		}
		enough := stepsPerEpoch(records, replicas, localBatch)*spec.Epochs >= minReplicaSteps
		if enough || replicas == 1 || spec.Replicas != 0 {
			return replicas, localBatch
		}
		replicas /= 2
	}
}

// spreadBatch is the largest local batch without a price in accuracy.
func spreadBatch(spec job.Spec, replicas int) int {
	return max(1, min(spec.Batch, spec.Batch*batchSpread/replicas))
}

// stepsPerEpoch is the number of batches of the largest replica.
func stepsPerEpoch(records, replicas, localBatch int) int {
	largest := (records + replicas - 1) / replicas
	return (largest + localBatch - 1) / localBatch
}

func rounds(spec job.Spec, n job.Numerics) (steps int, outer job.Nesterov, err error) {
	plain := job.Nesterov{LearningRate: 1}
	switch {
	case n.Sync == job.SyncStep:
		return 1, plain, nil
	case spec.Rounds > n.Steps:
		return 0, outer, fmt.Errorf("rounds %d: each replica takes only %d steps: %w", spec.Rounds, n.Steps, job.ErrSpec)
	case spec.Rounds == 1, spec.Rounds == 0 && n.Replicas == 1:
		// One average at the end is the thesis; one replica has nothing to
		// average.
		return n.Steps, plain, nil
	case spec.Rounds > 1:
		steps = (n.Steps + spec.Rounds - 1) / spec.Rounds
	default:
		steps = roundSteps
		if n.LocalBatch == spec.Batch && n.Steps >= minReplicaSteps {
			steps = max(steps, roundSteps*batchSpread/n.Replicas)
		}
		steps = min(steps, n.Steps)
	}
	if n.Replicas == 1 || steps >= n.Steps {
		// Momentum needs rounds to act in.
		return steps, plain, nil
	}
	return steps, job.Nesterov{LearningRate: outerRate, Momentum: outerMomentum}, nil
}

// explainNumerics says where the data set made the planner depart from what it
// takes for a large one. What the user fixed needs no explanation.
func explainNumerics(spec job.Spec, n job.Numerics) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if spec.Sequential() || n.Sync == job.SyncStep {
		return nil
	}
	if spec.Replicas == 0 && n.Replicas < defaultReplicas {
		if n.Steps >= minReplicaSteps {
			say("replicas: %d rather than %d, so that each takes at least %d steps.", n.Replicas, defaultReplicas, minReplicaSteps)
		} else {
			say("replicas: %d rather than %d, because the data set gives only %d steps.", n.Replicas, defaultReplicas, n.Steps)
		}
	}
	if spec.LocalBatch == 0 && n.LocalBatch < spec.Batch {
		spread := spreadBatch(spec, n.Replicas)
		switch {
		case n.Replicas*n.LocalBatch > batchSpread*spec.Batch:
			say("local batch: 1, the least there is; %d replicas together are %.1f sequential batches, more than %d.",
				n.Replicas, float64(n.Replicas)/float64(spec.Batch), batchSpread)
		case n.LocalBatch == spread:
			say("local batch: %d of %d, so that %d replicas together stay at %d sequential batches.",
				n.LocalBatch, spec.Batch, n.Replicas, batchSpread)
		case n.Steps >= minReplicaSteps:
			say("local batch: %d of %d, so that each replica takes at least %d steps.", n.LocalBatch, spec.Batch, minReplicaSteps)
		default:
			say("local batch: %d of %d, for as many steps as the data set gives: %d.", n.LocalBatch, spec.Batch, n.Steps)
		}
	}
	if spec.Rounds > 0 && n.Rounds() != spec.Rounds {
		say("rounds: %d rather than %d, since all rounds have the same number of steps: %d.", n.Rounds(), spec.Rounds, n.RoundSteps)
	}
	return lines
}
