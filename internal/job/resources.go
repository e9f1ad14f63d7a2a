// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"time"
)

// Resources is the resource plan: all that does not decide the bits of the
// result. It is made from the numerics plan, a probe and the platform's limits,
// and made anew whenever reality teaches.
type Resources struct {
	// Revision counts the resource plans of a job from 0.
	Revision int `json:"revision"`
	// Memory is the limit of every container, Timeout of every invocation.
	Memory  Bytes         `json:"memory"`
	Timeout time.Duration `json:"timeout_ns"`
	// Containers is the most invocations at once.
	Containers int `json:"containers"`
	// SpanRounds is the most rounds that one training invocation goes through: it
	// waits at the end of each for the other replicas, so all of them must run at
	// once. 1 is one round an invocation.
	SpanRounds int `json:"span_rounds,omitempty"`
	// Window is the most records of a shard that a worker holds at a time; 0 is
	// all of them.
	Window int `json:"window,omitempty"`
	// Budget is how long a training invocation computes before it hands over; 0
	// where it never does.
	Budget time.Duration `json:"budget_ns"`
	// Threads is how many threads a training or inference invocation computes
	// with; 0 counts as 1. Spin makes them wait for each other in loops, which is
	// for containers that have a processor for each.
	Threads int  `json:"threads,omitempty"`
	Spin    bool `json:"spin,omitempty"`
	// MicroBatch is the most records of a training step that are computed at once.
	// 0 is the whole local batch.
	MicroBatch int `json:"micro_batch,omitempty"`
	// Remake has training steps make outputs of batch normalisations again rather
	// than keep them.
	Remake bool `json:"remake,omitempty"`
	// InferBatch is the batch size of inference; InferPieces the number of
	// infer invocations that the test part is divided among.
	InferBatch  int `json:"infer_batch"`
	InferPieces int `json:"infer_pieces"`
	// Roles has the memory estimate of each role that the job uses.
	Roles map[Role]Estimate `json:"roles"`
	// Seconds is the predicted wall time of the job's invocations, GBSeconds
	// their limit of memory times their time, in GB of 2^30 bytes.
	Seconds   float64 `json:"seconds"`
	GBSeconds float64 `json:"gb_seconds"`
	// AccuracyCost is what the division among replicas is expected to cost of the
	// accuracy, as a fraction; AccuracyNote says where that number comes from, and
	// is "" where nothing is expected.
	AccuracyCost float64 `json:"expected_accuracy_cost"`
	AccuracyNote string  `json:"accuracy_note,omitempty"`
	// In training a step of all replicas takes Waves times StepSeconds, and each
	// round RoundSeconds beside its steps.
	StepSeconds  float64 `json:"step_seconds,omitempty"`
	RoundSeconds float64 `json:"round_seconds,omitempty"`
	Waves        float64 `json:"waves,omitempty"`
	// Explanation says in sentences which limit decided what.
	Explanation []string `json:"explanation"`
}

// Equip returns the task with what the plan grants its invocation.
func (r Resources) Equip(t Task) Task {
	if e, ok := r.Roles[t.Role]; ok {
		t.Spare = max(1, r.Memory-e.Total())
	}
	switch t.Role {
	case RoleTrain:
		t.Threads, t.Spin, t.MicroBatch, t.Remake, t.Window = r.Threads, r.Spin, r.MicroBatch, r.Remake, r.Window
	case RoleInfer:
		t.Threads, t.Spin, t.Window = r.Threads, r.Spin, r.Window
	case RoleProbe, RoleNothing, RoleAverage, RoleEvaluate:
	}
	return t
}

// ActionName is the name of the action that serves this plan: one action for
// each memory size, whatever the role, so that warm containers serve all roles.
func (r Resources) ActionName() string {
	if r.Memory%MB == 0 {
		return fmt.Sprintf("m%d", r.Memory/MB)
	}
	return fmt.Sprintf("b%d", int64(r.Memory))
}

// Estimate is the memory that an invocation needs, by the thesis's terms
// (section 4.1): fit + pkg + dta + mod + saf.
type Estimate struct {
	// Fit is the arena of the compiled program.
	Fit Bytes `json:"fit"`
	// Package is the resident memory of a worker that has worked once.
	Package Bytes `json:"pkg"`
	// Data is the buffers that hold records.
	Data Bytes `json:"dta"`
	// Model is the buffers through which weights are read and written.
	Model Bytes `json:"mod"`
	// Safety is stacks, allocator slack and page tables.
	Safety Bytes `json:"saf"`
}

// Total is the sum of the terms.
func (e Estimate) Total() Bytes {
	return e.Fit + e.Package + e.Data + e.Model + e.Safety
}
