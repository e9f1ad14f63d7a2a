// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"disdel/internal/job"
)

// watchInterval is how often workers that go through several rounds are looked
// at.
const watchInterval = 250 * time.Millisecond

// watching says whether somebody wants to know how far workers are that go
// through several rounds an invocation, of which the log is slow to tell.
func (r *runner) watching() bool {
	return r.cfg.Observe != nil && r.state.Numerics != nil && r.state.Resources.SpanRounds > 1 && !r.state.trained()
}

// watch reads how far the replicas are, for people, and samples the store's
// size. What cannot be read now is read later.
func (r *runner) watch(ctx context.Context) {
	keys := r.state.keys()
	live := make([]job.ReplicaProgress, r.state.Numerics.Replicas)
	for replica := range live {
		raw, err := r.cfg.Store.Status(ctx, keys.Progress(replica))
		if err != nil || json.Unmarshal(raw, &live[replica]) != nil {
			live[replica] = job.ReplicaProgress{}
		}
	}
	r.peaks(ctx)
	r.state.Live = live
	r.cfg.Observe(r.state)
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
