// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/store"
)

const (
	// pollFirst and pollMost bound the pauses between two looks at who has come
	// to the end of a round.
	pollFirst = 500 * time.Microsecond
	pollMost  = 5 * time.Millisecond
	// takeover is how long a replica waits for the average once all have come:
	// whoever was to make it may be lost.
	takeover = 2 * time.Second
)

// meet joins the other replicas at the end of a round, where this replica's
// state is in the store already. Whoever comes last averages, or several at
// once: they write the same bytes. The others wait for the average and load it.
// met is false when that took longer than the slice has left. At the last step
// of the task there is nothing to wait for.
func (w *Worker) meet(ctx context.Context, t *training, task job.Task, loop slice, instance *nn.Instance, result *job.TaskResult) (met bool, err error) {
	w.reportProgress(ctx, t, task.Replica, loop.next, result)
	defer w.cfg.Collect()
	end := loop.next
	complete := time.Time{} // since when all replicas are known to have come
	for pause := pollFirst; ; pause = min(pause*3/2, pollMost) {
		keys, err := w.store.List(ctx, t.keys.StatesAt(end))
		if err != nil {
			return false, err
		}
		if slices.Contains(keys, t.keys.Global(end)) {
			result.Round++
			return true, w.readState(ctx, t, task.Replica, end, instance)
		}
		now := time.Now()
		if len(keys) >= t.plan.Replicas {
			first := complete.IsZero()
			if first {
				complete = now
			}
			if last := first && pause == pollFirst; last || now.Sub(complete) > takeover {
				complete = now
				err := w.averageHere(ctx, t, end, instance, result)
				if !errors.Is(err, store.ErrNotFound) {
					return err == nil, err
				}
				// Another replica was quicker and has swept what the average is
				// made of: the average is there.
				continue
			}
		}
		if end == task.To {
			return true, nil
		}
		if loop.over(now) {
			return false, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
	}
}

// averageHere averages the round that ends at a step and leaves the average in
// the instance.
func (w *Worker) averageHere(ctx context.Context, t *training, end int, instance *nn.Instance, result *job.TaskResult) error {
	n := t.plan
	from := (end - 1) / n.RoundSteps * n.RoundSteps
	digest, err := w.averageRound(ctx, t, from, end, func(weights, m, v []float32) {
		copy(instance.Weights(), weights)
		haveM, haveV := instance.Moments()
		copy(haveM, m)
		copy(haveV, v)
	})
	if err != nil {
		return err
	}
	result.Round++
	result.Digest = digest
	if end == n.Steps {
		return nil // what the last average is made of is kept, to make it again
	}
	// All replicas have come, so nobody will read what the round was made of, nor
	// the average before its start. Its start is kept for those who are reading.
	var obsolete []string
	for replica := range n.Replicas {
		obsolete = append(obsolete, t.keys.Replica(replica, end))
	}
	if before := from - n.RoundSteps; before > 0 {
		obsolete = append(obsolete, t.keys.Global(before))
	}
	return w.store.Delete(ctx, obsolete...)
}

// reportProgress says how far this replica is. Nothing depends on it, so that it
// may fail.
func (w *Worker) reportProgress(ctx context.Context, t *training, replica, step int, result *job.TaskResult) {
	p := job.ReplicaProgress{Step: step}
	if result.Records > 0 {
		p.Loss = result.LossSum / float64(result.Records)
	}
	if raw, err := json.Marshal(p); err == nil {
		_ = w.store.SetStatus(ctx, t.keys.Progress(replica), raw)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
