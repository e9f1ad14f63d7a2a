// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"disdel/internal/store"
)

// note folds events that happened together. They reach the log with the next
// flush, which comes before anything that follows from them has an effect: a
// crash in between forgets results, which repeating gives again.
func (r *runner) note(events ...Event) (err error) {
	now := time.Now().UTC()
	for _, e := range events {
		e.At = now
		if r.state, err = fold(r.state, e); err != nil {
			return fmt.Errorf("BUG: job %s: %w", r.keys.Job, err)
		}
		r.unlogged = append(r.unlogged, e)
	}
	if len(events) > 0 && r.cfg.Observe != nil {
		r.cfg.Observe(r.state)
	}
	return nil
}

// append notes events and flushes them.
func (r *runner) append(ctx context.Context, events ...Event) error {
	if err := r.note(events...); err != nil {
		return err
	}
	return r.flush(ctx)
}

// flush logs what has been noted, as one entry.
func (r *runner) flush(ctx context.Context) error {
	for len(r.unlogged) > 0 {
		payload, count, err := encodeSome(r.unlogged)
		if err != nil {
			return err
		}
		if err := r.appendEntry(ctx, payload, count); err != nil {
			return err
		}
	}
	r.flushed = time.Now()
	r.sweepable = len(r.state.Obsolete)
	r.sweep(ctx)
	return nil
}

// appendEntry adds the first count of the unlogged events to the log. An Append
// that failed may have added them all the same: the log is read to learn that,
// now or, when the store does not answer, at the next flush.
func (r *runner) appendEntry(ctx context.Context, payload []byte, count int) error {
	err := patiently(ctx, func() error {
		if r.inDoubt != nil {
			if added, err := r.resolve(ctx); added || err != nil {
				return err
			}
		}
		head, err := r.cfg.Store.Append(ctx, r.keys.Log(), r.head, payload)
		switch {
		case err == nil:
			r.logged(head, count)
		case errors.Is(err, store.ErrConflict):
			return fmt.Errorf("%w: %w", ErrTaken, err)
		case !errors.Is(err, store.ErrLimit):
			r.inDoubt, r.doubted = payload, count
		}
		return err
	}, func(err error) bool { return errors.Is(err, store.ErrUnavailable) })
	if err != nil {
		return fmt.Errorf("job %s: log: %w", r.keys.Job, err)
	}
	return nil
}

// resolve finds out what became of the entry in doubt.
func (r *runner) resolve(ctx context.Context) (added bool, err error) {
	entries, err := r.cfg.Store.Log(ctx, r.keys.Log(), r.head)
	if err != nil {
		return false, err
	}
	next := r.head.Next(r.inDoubt)
	switch {
	case len(entries) == 0:
		r.inDoubt = nil
		return false, nil
	case entries[0].Head == next:
		r.logged(next, r.doubted)
		return true, nil
	default:
		return false, fmt.Errorf("%w: the log is at %d", ErrTaken, entries[len(entries)-1].Head.Sequence)
	}
}

// logged says that the first count of the unlogged events are in the log.
func (r *runner) logged(head store.Head, count int) {
	r.head, r.unlogged, r.inDoubt, r.owner = head, r.unlogged[count:], nil, true
}

// patiently calls do until it succeeds, fails for good, or has failed maxTries
// times.
func patiently(ctx context.Context, do func() error, transient func(error) bool) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || !transient(err) || try == maxTries {
			return err
		}
		timer := time.NewTimer(backoff(try))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
