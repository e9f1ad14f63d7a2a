// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"disdel/internal/job"
)

// watchInterval is how often workers that train are looked at.
const watchInterval = 250 * time.Millisecond

// watching says whether somebody wants to know how far workers are that train, of
// which the log tells only when an invocation ends.
func (r *runner) watching() bool {
	return r.cfg.Observe != nil && r.state.Numerics != nil && !r.state.trained()
}

// recollect reads how far the replicas of a job that is resumed are. The log is
// behind where an invocation goes through many rounds, but the next one goes on
// from the newest average.
func (r *runner) recollect(ctx context.Context) {
	if r.watching() {
		r.look(ctx)
	}
}

// watch reads how far the replicas are, for people, and samples the store's
// size.
func (r *runner) watch(ctx context.Context) {
	r.look(ctx)
	r.peaks(ctx)
	r.cfg.Observe(r.state)
}

// look reads what the replicas said of themselves. What cannot be read now is
// read later.
func (r *runner) look(ctx context.Context) {
	keys := r.state.keys()
	live := make([]job.ReplicaProgress, r.state.Numerics.Replicas)
	for replica := range live {
		raw, err := r.cfg.Store.Status(ctx, keys.Progress(replica))
		if err != nil || json.Unmarshal(raw, &live[replica]) != nil {
			live[replica] = job.ReplicaProgress{}
		}
	}
	r.state.Live = live
}

// clearProgress deletes what the replicas said of themselves.
func (r *runner) clearProgress(ctx context.Context) error {
	if r.state.Numerics == nil {
		return nil
	}
	for replica := range r.state.Numerics.Replicas {
		if err := r.cfg.Store.SetStatus(ctx, r.keys.Progress(replica), nil); err != nil {
			return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
		}
	}
	return nil
}
