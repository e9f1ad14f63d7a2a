// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"disdel/internal/job"
)

// stage begins to put the job's data into the store, unless it is there.
func (r *runner) stage(ctx context.Context) error {
	put := r.cfg.Stage
	r.cfg.Stage = nil // it may hold the data set, which nobody needs afterwards
	switch {
	case r.state.Staged:
		return nil
	case put == nil:
		return r.conclude(ctx, Finished{
			Status: job.Failed, Error: "its controller was killed before all of its data was in the store; start the job anew",
		})
	}
	ctx, r.endStage = context.WithCancel(ctx)
	staged := make(chan error, 1)
	r.staged = staged
	go func() { staged <- put(ctx) }()
	return nil
}

// stagedNow notes that the data is in the store, or ends the job where it cannot
// be put there.
func (r *runner) stagedNow(ctx context.Context, err error) error {
	r.staged = nil
	r.endStage()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return r.conclude(ctx, Finished{Status: job.Failed, Error: err.Error()})
	}
	return r.append(ctx, Event{Staged: &Staged{}})
}

// unstage ends a staging that still runs, and waits until it has ended.
func (r *runner) unstage() {
	if r.staged != nil {
		r.endStage()
		<-r.staged //nolint:errcheck // What came of it does not matter to a job that ends.
		r.staged = nil
	}
}
