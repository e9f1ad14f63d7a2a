// SPDX-License-Identifier: Apache-2.0

package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// NumericsVersion is the version of the rules that turn a numerics plan into
// bits. It is part of the plan's digest: two versions never share state.
const NumericsVersion = 1

// Numerics is the numerics plan: all that decides the bits of a training job's
// result, and nothing else. It is a function of the spec, the data set and the
// kernel set, is written as one of the job's first events and never changes.
//
// A step is one local step of one replica. Steps count from 0 over the whole
// job; the weights "at step s" are those after s steps.
type Numerics struct {
	Version   int     `json:"version"`
	KernelSet string  `json:"kernel_set"`
	Dataset   Dataset `json:"dataset"`
	// Model is the model's specification in the canonical JSON of package nn.
	Model json.RawMessage `json:"model"`

	Seed       uint64 `json:"seed"`
	Epochs     int    `json:"epochs"`
	Batch      int    `json:"batch"`
	LocalBatch int    `json:"local_batch"`
	Replicas   int    `json:"replicas"`

	// StepsPerEpoch is the number of local batches of the largest replica.
	StepsPerEpoch int `json:"steps_per_epoch"`
	// Steps is Epochs times StepsPerEpoch.
	Steps int `json:"steps"`
	// RoundSteps is the number of steps between two averages (H); the last
	// round may be shorter.
	RoundSteps int `json:"round_steps"`
	// Sync is SyncStep or "", which is SyncRounds. With SyncStep a step is one of
	// all replicas together, LocalBatch the largest part of a batch, and every
	// step a round.
	Sync Sync `json:"sync,omitempty"`

	Local Optimizer `json:"local"`
	Outer Nesterov  `json:"outer"`

	// LabelSmoothing is the share of every label that is spread over all classes,
	// Flips and Shifts are how records are augmented: as in nn.Config. What is not
	// used is left out, so plans from before these were there have their digests.
	LabelSmoothing float64 `json:"label_smoothing,omitempty"`
	Flips          bool    `json:"flips,omitempty"`
	Shifts         int     `json:"shifts,omitempty"`
}

// Optimizer holds the parameters of the replicas' local optimizer. Its fields
// are those of nn.Optimizer, which says what they mean, and can be converted to
// it.
type Optimizer struct {
	Kind         string  `json:"kind"`
	LearningRate float64 `json:"learning_rate"`
	Beta1        float64 `json:"beta1,omitempty"`
	Beta2        float64 `json:"beta2,omitempty"`
	Epsilon      float64 `json:"epsilon,omitempty"`
	Momentum     float64 `json:"momentum,omitempty"`
	WeightDecay  float64 `json:"weight_decay,omitempty"`

	Schedule      string  `json:"schedule,omitempty"`
	ScheduleSteps int     `json:"schedule_steps,omitempty"`
	WarmupSteps   int     `json:"warmup_steps,omitempty"`
	L2            float64 `json:"l2,omitempty"`
	ClipNorm      float64 `json:"clip_norm,omitempty"`
}

// Nesterov holds the parameters of the outer optimizer, which treats the change
// of the averaged weights in a round as a gradient (DiLoCo, Douillard et al.
// 2023). LearningRate 1 with Momentum 0 is plain averaging.
type Nesterov struct {
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum"`
}

// Digest identifies the plan: the hexadecimal SHA-256 of its JSON.
func (n Numerics) Digest() (string, error) {
	raw, err := json.Marshal(n)
	if err != nil {
		return "", fmt.Errorf("digest of numerics plan: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// Rounds is the number of averages.
func (n Numerics) Rounds() int {
	return (n.Steps + n.RoundSteps - 1) / n.RoundSteps
}

// RoundEnd is the step at which a round (counted from 0) ends.
func (n Numerics) RoundEnd(round int) int {
	return min((round+1)*n.RoundSteps, n.Steps)
}

// BatchRecords is the number of records of the batch of a step with SyncStep,
// which the replicas divide.
func (n Numerics) BatchRecords(step int) int {
	return min(n.Batch, n.Dataset.Train-step%n.StepsPerEpoch*n.Batch)
}

// ReplicaRecords is the number of records that a replica owns: the range
// [Train*replica/Replicas, Train*(replica+1)/Replicas) of the data set's order.
func (n Numerics) ReplicaRecords(replica int) int {
	return n.Dataset.Train*(replica+1)/n.Replicas - n.Dataset.Train*replica/n.Replicas
}
