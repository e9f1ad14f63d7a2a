// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

func (r *runner) deploy(ctx context.Context, d deploy) error {
	err := rideOut(ctx, func() error {
		return r.cfg.Platform.Deploy(ctx, platform.Package{
			Name:    r.pkg(r.state.Controllers),
			Family:  family,
			Init:    r.cfg.Init,
			Actions: []platform.Action{{Name: d.name, Memory: d.memory, Timeout: d.timeout}},
		})
	})
	if errors.Is(err, platform.ErrRefused) || errors.Is(err, platform.ErrUnauthorised) {
		return r.conclude(ctx, Finished{Status: job.Failed, Error: err.Error()})
	}
	if err != nil {
		return fmt.Errorf("job %s: deploy: %w", r.keys.Job, err)
	}
	if warmer, ok := r.cfg.Platform.(platform.Prewarmer); ok && d.warm > 0 {
		// Without it the first calls are cold, no more.
		_ = warmer.Prewarm(ctx, r.pkg(r.state.Controllers), d.name, d.warm)
	}
	return r.append(ctx, Event{Deployed: &Deployed{Action: d.name, Timeout: d.timeout}})
}

// rideOut calls do until it succeeds, fails for good, or has failed for maxAway.
func rideOut(ctx context.Context, do func() error) error {
	began := time.Now()
	for try := 1; ; try++ {
		err := do()
		if err == nil || !passing(err) || time.Since(began) >= maxAway {
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

// family is that of all jobs' packages: workers keep nothing of one task for the
// next, and a task says which job's it is.
const family = "disdel"

// passing says whether an error of the platform may pass.
func passing(err error) bool {
	return errors.Is(err, platform.ErrUnavailable) || errors.Is(err, platform.ErrThrottled)
}

// start invokes an attempt that is in the log already.
func (r *runner) start(ctx context.Context, i Invoked) error {
	if r.state.Created.Limits.NoCancel {
		i.Task.Fence = r.keys.Fence(r.state.Controllers)
	}
	params, err := json.Marshal(i.Task)
	if err != nil {
		return fmt.Errorf("job %s: attempt %d: %w", r.keys.Job, i.Attempt, err)
	}
	r.inFlight++
	call := platform.Call{Package: r.pkg(r.state.Controllers), Action: i.Action, Params: params}
	limit := awaitSlack + 2*r.timeout() // to start and to run
	numerics := r.state.Numerics
	own, end := context.WithCancel(ctx)
	r.giveUps[i.Attempt] = end
	go func() {
		defer end()
		e := attempt(own, r.cfg.Platform, call, limit)
		e.Attempt = i.Attempt
		if e.Kind == platform.Cancelled && own.Err() != nil && ctx.Err() == nil {
			e.Message = "given up: it did not come while others waited for it"
		}
		if e.Kind == platform.Success {
			if err := checkResult(numerics, i.Task, e.Result); err != nil {
				e.Kind, e.Message = platform.Lost, err.Error()
			}
		}
		r.ended <- e
	}()
	return nil
}

// timeout is the time limit of invocations now.
func (r *runner) timeout() time.Duration {
	if r.state.Resources != nil {
		return r.state.Resources.Timeout
	}
	return cmp.Or(r.state.Created.Spec.Timeout, r.state.Created.Limits.TimeoutDefault)
}

// attempt makes one invocation and waits for its outcome.
func attempt(ctx context.Context, p platform.Platform, call platform.Call, limit time.Duration) Ended {
	id, err := p.Invoke(ctx, call)
	if err != nil {
		e := Ended{Kind: platform.KindOf(err), Message: "invoke: " + err.Error()}
		var throttle *platform.Throttle
		if errors.As(err, &throttle) {
			e.NotBefore = throttle.Until.UTC()
		}
		e.Away = errors.Is(err, platform.ErrUnavailable)
		if errors.Is(err, platform.ErrNotFound) {
			// It was deployed: the platform has lost it, or somebody has deleted it.
			e.Kind, e.Undeployed = platform.Lost, true
		}
		return e
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p.Await(bounded, id)
	if err != nil {
		e := Ended{Kind: platform.KindOf(err), Message: "await: " + err.Error()}
		e.Away = errors.Is(err, platform.ErrUnavailable)
		if errors.Is(err, platform.ErrNotFound) || ctx.Err() == nil && bounded.Err() != nil {
			e.Kind = platform.Lost // its record is gone, or there never will be one
		}
		if !errors.Is(err, platform.ErrNotFound) {
			abandon(ctx, p, id)
		}
		return e
	}
	e := Ended{Kind: out.Kind, Message: out.Message, Usage: out.Usage, MaybeMemory: out.MaybeMemory, TooLarge: out.TooLarge}
	if out.Kind != platform.Success && out.Kind != platform.ApplicationError {
		return e
	}
	if out.Kind == platform.ApplicationError && len(out.Result) == 0 {
		return e // the worker refused to be initialised, and the message says why
	}
	result, err := job.DecodeAnswer(out.Result)
	if err != nil {
		e.Kind, e.Message = platform.Lost, "the worker's answer is no task result: "+err.Error()
		return e
	}
	e.Result = &result
	if result.Error != "" {
		if e.Kind == platform.Success || result.Reason != "" {
			e.Message = result.Error
		} // else the error is not the worker's own, and the platform knows more
		e.Kind = platform.ApplicationError
	}
	if result.Probe != nil && out.Usage.Peak > 0 {
		seen := result.Probe.Seen(out.Usage.Peak)
		result.Probe = &seen
	}
	return e
}

// abandon ends an invocation whose outcome nobody waits for, as far as that is
// possible: what it may still do is harmless.
func abandon(ctx context.Context, p platform.Platform, id platform.Activation) {
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	_ = p.Cancel(cleanup, id)
}
