// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// peaks samples the store's and the controller's memory.
func (r *runner) peaks(ctx context.Context) (inStore, controller job.Bytes) {
	if size, err := r.cfg.Store.Size(ctx, r.keys.Scratch()); err == nil {
		r.storePeak = max(r.storePeak, size)
	}
	if r.cfg.ControllerPeak != nil {
		controller = r.cfg.ControllerPeak()
	}
	return r.storePeak, controller
}

// sweep deletes states that nothing will read again, according to the log: what
// is only known here must stay, for a controller that does not know it. What
// cannot be deleted now is tried again, in the end by clear.
func (r *runner) sweep(ctx context.Context) {
	if r.sweepable == r.swept {
		return
	}
	r.peaks(ctx)
	if err := r.cfg.Store.Delete(ctx, r.state.Obsolete[r.swept:r.sweepable]...); err == nil {
		r.swept = r.sweepable
	}
}

// conclude ends the job.
func (r *runner) conclude(ctx context.Context, f Finished) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	return r.sign(ctx, f)
}

// sign logs how the job ended.
func (r *runner) sign(ctx context.Context, f Finished) error {
	f.StorePeak, f.ControllerPeak = r.peaks(ctx)
	return r.append(ctx, Event{Finished: &f})
}

// settle removes the job's actions, which ends all attempts, and notes how they
// ended. Actions that cannot be removed do not keep a job from ending.
func (r *runner) settle(ctx context.Context) (err error) {
	if r.settled {
		return nil
	}
	// It works although ctx may be done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	r.fence(ctx, r.state.Controllers, r.state.Controllers+1)
	if r.removeErr = r.removePackages(ctx, r.state.Controllers, r.state.Controllers+1); r.removeErr != nil {
		r.stop()
	}
	for _, e := range r.drain(ctx) {
		if e.Kind == platform.Lost || e.Kind == platform.Refused {
			// Not by itself: its action was just removed.
			e.Kind = platform.Cancelled
		}
		err = errors.Join(err, r.note(Event{Ended: &e}))
	}
	for i, a := range r.state.Attempts {
		if a.Ended == nil {
			e := Ended{Attempt: i, Kind: platform.Cancelled, Message: "the job ended before it was started"}
			err = errors.Join(err, r.note(Event{Ended: &e}))
		}
	}
	r.settled = err == nil && r.removeErr == nil
	return err
}

// fence ends the tasks of the from-th to the to-th controller where the platform
// lets them go on. A store that does not take it now costs a task the time to
// its end: what it then writes is not read, and expires.
func (r *runner) fence(ctx context.Context, from, to int) {
	if !r.state.Created.Limits.NoCancel {
		return
	}
	for controller := from; controller < to; controller++ {
		_ = r.cfg.Store.SetStatus(ctx, r.keys.Fence(controller), []byte("ended")) // as said above
	}
}

// removePackages removes the packages of the from-th to the to-th controller.
func (r *runner) removePackages(ctx context.Context, from, to int) error {
	for controller := from; controller < to; controller++ {
		name := r.pkg(controller)
		if err := rideOut(ctx, func() error { return r.cfg.Platform.Remove(ctx, name) }); err != nil {
			return fmt.Errorf("job %s: remove its actions: %w", r.keys.Job, err)
		}
	}
	return nil
}

// drain waits for all attempts and returns how they ended. Once ctx is done it
// ends the waiting: what an attempt used then stays unknown.
func (r *runner) drain(ctx context.Context) (ended []Ended) {
	for r.inFlight > 0 {
		select {
		case e := <-r.ended:
			r.inFlight--
			ended = append(ended, e)
		case <-ctx.Done():
			r.stop()
			ctx = context.WithoutCancel(ctx)
		}
	}
	return ended
}

// finish frees the platform and the store, and logs how an interrupted job
// ended. It works although ctx may be done.
func (r *runner) finish(ctx context.Context, cause error) (job.Record, error) {
	if !r.owner && r.inDoubt == nil {
		return r.recordOf(cause) // nothing has begun
	}
	err := cause
	defer func() {
		if !errors.Is(err, ErrTaken) { // else the word is another controller's
			r.unbeat(ctx)
		}
	}()
	if ctx.Err() != nil && !errors.Is(cause, ErrTaken) {
		err = nil // a consequence of the interruption
	}
	if !r.owner {
		// The first entry may be in the log or not. Until it surely is, what would
		// be settled here may be another controller's; nothing has begun.
		if flushErr := r.own(ctx); flushErr != nil {
			err = errors.Join(err, flushErr)
			return r.recordOf(err)
		}
	}
	err = errors.Join(err, r.settle(ctx))
	// However long that took, there is time to say how the job ended.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err == nil && r.state.Finished == nil {
		err = r.sign(cleanup, Finished{Status: job.Cancelled, Error: "interrupted"})
	}
	if !errors.Is(err, ErrTaken) {
		// Also after another error: what is known now need not be done again.
		if flushErr := r.flush(cleanup); err == nil || errors.Is(flushErr, ErrTaken) {
			err = flushErr
		}
	}
	if err == nil && r.state.Finished != nil {
		err = r.clear(cleanup)
	}
	return r.recordOf(errors.Join(err, r.removeErr))
}

// own finds out whether the first entry is in the log, and adds it if the log has
// not gone on. It works although ctx may be done.
func (r *runner) own(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return r.flush(ctx)
}

// recordOf is the job's record according to the log.
func (r *runner) recordOf(err error) (job.Record, error) {
	if len(r.unlogged) > 0 {
		r.state.Finished = nil
	}
	return r.state.Record(), err
}

// tidy frees what a job that has ended may still use.
func (r *runner) tidy(ctx context.Context) error {
	return errors.Join(r.removePackages(ctx, 0, r.state.Controllers+1), r.clear(ctx))
}

// clear deletes the job's scratch objects.
func (r *runner) clear(ctx context.Context) error {
	keys, err := r.cfg.Store.List(ctx, r.keys.Scratch())
	if err != nil {
		return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
	}
	if err := r.cfg.Store.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
	}
	return r.clearProgress(ctx)
}
