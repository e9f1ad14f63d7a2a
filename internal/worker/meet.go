// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"disdel/internal/job"
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
	// joinTries bounds how often an average is looked for: the newest one may be
	// swept between finding and reading it.
	joinTries = 3
	// pollsCollected is after how many looks their garbage is freed. Left to
	// itself the collector would let a replica that waits long take a megabyte
	// more than one that does not wait.
	pollsCollected = 16
)

// newestGlobal returns the step of the newest average in the store that is not
// before from, or -1. It is the newest that counts: of older ones what they are
// made of is gone.
func (w *Worker) newestGlobal(ctx context.Context, t *training, from int) (int, error) {
	keys, err := w.store.List(ctx, t.keys.States())
	newest := -1
	for _, key := range keys {
		if at, ok := t.keys.ParseGlobal(key); ok && at >= from {
			newest = max(newest, at)
		}
	}
	return newest, err
}

// join brings the instance to where the replica takes part in the rounds again
// and returns that step: the newest average, so that a replica that was lost
// finds the others where they are, or the state at task.From. arrived says that
// it is the end of a round which is not averaged yet, where the replica's state
// waits for the others'. from is negative when the task's steps are done
// already, by another invocation whose answer was lost; the result is complete
// then.
func (l *learner) join(ctx context.Context) (from int, arrived bool, err error) {
	n, task := l.t.plan, l.task
	if !task.Meet {
		if err = l.read(ctx, task.From); err == nil || !errors.Is(err, store.ErrNotFound) {
			return task.From, false, err
		}
	}
	missing := err
	for try := 1; ; try++ {
		at, err := l.w.newestGlobal(ctx, l.t, task.From)
		switch {
		case err != nil:
			return 0, false, err
		case at >= task.To:
			l.result.Step, l.result.Round = task.To, at/n.RoundSteps
			return -1, false, nil
		case missing != nil:
			return 0, false, missing
		case at < 0 && task.From > 0 && task.From%n.RoundSteps == 0:
			l.result.Round = task.From/n.RoundSteps - 1
			return task.From, true, nil
		}
		at = max(at, task.From)
		l.result.Round = at / n.RoundSteps
		err = l.read(ctx, at)
		if err == nil || try == joinTries || !errors.Is(err, store.ErrNotFound) {
			return at, false, err
		}
	}
}

// meet joins the other replicas at the end of a round, where this replica's
// state is in the store already. Whoever comes last averages, or several at
// once: they write the same bytes. The others wait for the average and load it.
// met is false when that took longer than the slice has left; the result is
// complete then. At the last step of the task there is nothing to wait for.
func (l *learner) meet(ctx context.Context) (met bool, err error) {
	l.reportProgress(ctx)
	defer l.w.cfg.Collect()
	end := l.loop.next
	complete := time.Time{} // since when all replicas are known to have come
	looks := 0
	for pause := pollFirst; ; pause = min(pause*3/2, pollMost) {
		if looks++; looks%pollsCollected == 0 {
			l.w.cfg.Collect()
		}
		keys, err := l.w.store.List(ctx, l.t.keys.StatesAt(end))
		if err != nil {
			return false, err
		}
		if slices.Contains(keys, l.t.keys.Global(end)) {
			return true, l.pass(ctx, end)
		}
		now := time.Now()
		if len(keys) >= l.t.plan.Replicas {
			last := complete.IsZero() && pause == pollFirst
			if complete.IsZero() {
				complete = now
			}
			if last || now.Sub(complete) > takeover {
				complete = now
				if err := l.average(ctx, end); err == nil {
					return true, l.pass(ctx, end)
				} else if !errors.Is(err, store.ErrNotFound) {
					return false, err
				}
				// Another replica was quicker and has swept what the average is
				// made of: the average is there.
			}
		}
		switch {
		case end == l.task.To:
			return true, nil
		case l.loop.over(now):
			l.result.Step, l.result.Reason = end, job.NeedPeer
			return false, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
	}
}

// pass goes on from the average at the end of a round.
func (l *learner) pass(ctx context.Context, end int) error {
	l.result.Round = (end-1)/l.t.plan.RoundSteps + 1
	if end < l.task.To {
		l.instance.Restore()
		if err := l.read(ctx, end); err != nil {
			return err
		}
	}
	l.loop = l.loop.met(time.Now())
	return nil
}

// average averages the round that ends at a step, in the memory in which the
// replica trains: its own state is in the store and nothing else is kept there
// from step to step.
func (l *learner) average(ctx context.Context, end int) error {
	n, keys := l.t.plan, l.t.keys
	from := (end - 1) / n.RoundSteps * n.RoundSteps
	digest, err := l.w.averageRound(ctx, l.t, from, end, l.memory)
	if err != nil {
		return err
	}
	if end == n.Steps {
		l.result.Digest = digest
		return nil // what the last average is made of is kept, to make it again
	}
	// All replicas have come, so nobody will read what the round was made of, nor
	// the average before its start. Its start is kept for those who are reading.
	var obsolete []string
	for replica := range n.Replicas {
		obsolete = append(obsolete, keys.Replica(replica, end))
	}
	if before := from - n.RoundSteps; before > 0 {
		obsolete = append(obsolete, keys.Global(before))
	}
	return l.w.store.Delete(ctx, obsolete...)
}

const (
	// tellInterval is how long a round may take before its middle is told.
	tellInterval = 500 * time.Millisecond
	// tellTimeout bounds telling, and after a failure nothing is told for tellPause:
	// a store that does not answer must not hold up steps that do not need it.
	tellTimeout = time.Second
	tellPause   = time.Minute
)

// reportProgress says how far this replica is. Nothing depends on it, so that it
// may fail.
func (l *learner) reportProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	p := job.ReplicaProgress{Step: l.loop.next, StepTime: l.result.StepTime, Steps: l.result.Steps}
	if l.result.Records > 0 {
		p.Loss = l.result.LossSum / float64(l.result.Records)
	}
	raw, err := json.Marshal(p)
	if err == nil {
		err = l.w.store.SetStatus(ctx, l.t.keys.Progress(l.task.Replica), raw)
	}
	if l.told = time.Now(); err != nil {
		l.told = l.told.Add(tellPause)
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
