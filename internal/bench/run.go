// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"time"

	"disdel/internal/job"
)

// Sample is one run of one configuration.
type Sample struct {
	Configuration int    `json:"configuration"`
	Seed          uint64 `json:"seed"`
	// Args are the command line without the program.
	Args []string `json:"args"`
	// Wall is the time from the start of the process to its end.
	Wall time.Duration `json:"wall_ns"`
	// Record is what the job printed; its status is not [job.Succeeded] where it
	// failed.
	Record job.Record `json:"record"`
	// Infer is what a job printed that ran the trained model over the test part
	// once more, in containers of its own, and InferWall its time from outside. It
	// is nil where none ran.
	Infer     *job.Record   `json:"infer,omitempty"`
	InferWall time.Duration `json:"infer_wall_ns,omitempty"`
}

// jobs are the records of the sample's jobs.
func (s Sample) jobs() []job.Record {
	if s.Infer == nil {
		return []job.Record{s.Record}
	}
	return []job.Record{s.Record, *s.Infer}
}

// Failed is the record of the sample's first job that did not succeed, nil if all
// did.
func (s Sample) Failed() *job.Record {
	for _, r := range s.jobs() {
		if r.Status != job.Succeeded {
			return &r
		}
	}
	return nil
}

// Command runs one command line and fills in Wall and Record. Its error ends the
// experiment; a job that fails is no error.
type Command func(ctx context.Context, args []string) (Sample, error)

// Run runs every configuration with the first seed, then every one with the
// next. It hands each sample to keep when it is there; what it returns was kept.
// When ctx is done it returns the samples so far and the error.
func Run(ctx context.Context, all []Configuration, seeds int, run Command, keep func(Sample) error) ([]Sample, error) {
	var samples []Sample
	for i := range seeds {
		seed := uint64(i + 1)
		for at, c := range all {
			if err := ctx.Err(); err != nil {
				return samples, err
			}
			args := c.Args(seed)
			sample, err := run(ctx, args)
			if err != nil {
				return samples, err
			}
			sample.Configuration, sample.Seed, sample.Args = at, seed, args
			if err := keep(sample); err != nil {
				return samples, errors.Join(errors.New("keep a sample"), err)
			}
			samples = append(samples, sample)
		}
	}
	return samples, nil
}
