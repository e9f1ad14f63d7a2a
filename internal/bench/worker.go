// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"

	"disdel/internal/job"
)

// WorkerResult is what a training worker of the thesis's model takes.
type WorkerResult struct {
	// ProgramBytes is the size of the worker's file.
	ProgramBytes job.Bytes `json:"program_bytes"`
	Store        string    `json:"store"`
	// Steps and Records are those of the training, Batch of a step.
	Steps   int `json:"steps"`
	Records int `json:"records"`
	Batch   int `json:"batch"`
	// Predicted is the memory that a plan expects. Process is the high-water mark
	// of the process alone, Peak with what the kernel holds for it.
	Predicted job.Bytes `json:"predicted_bytes"`
	Process   Spread    `json:"process_peak_bytes"`
	Peak      Spread    `json:"peak_bytes"`
	// FirstStep is the time from the start of the process to the end of its first
	// step, in seconds.
	FirstStep Spread `json:"first_step_seconds"`
	// Cold says that nothing of the worker's program was in the kernel's cache of
	// files before runs under a limit; Least is the smallest limit under which one
	// finished, 0 if none did.
	Cold        bool      `json:"cold"`
	Least       job.Bytes `json:"least_limit_bytes"`
	Enforcement string    `json:"enforcement"`
}

// LeastLimit finds the smallest multiple of step from low to high with which finishes
// says yes, if it does so for all above it too. 0 is none.
func LeastLimit(ctx context.Context, low, high, step job.Bytes, finishes func(context.Context, job.Bytes) (bool, error)) (job.Bytes, error) {
	least := job.Bytes(0)
	from, to := low/step, high/step
	for from <= to {
		middle := (from + to) / 2
		ok, err := finishes(ctx, middle*step)
		if err != nil {
			return 0, err
		}
		if ok {
			least, to = middle*step, middle-1
		} else {
			from = middle + 1
		}
	}
	return least, nil
}
