// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"

	"disdel/internal/platform"
)

// Polling. A call is asked for soon after it was made, then at a tenth of its
// age, so that neither short calls wait long nor long ones ask often.
const (
	pollFirst = 100 * time.Millisecond
	pollMost  = 2 * time.Second
	pollShare = 10
	// pollsAtOnce bounds the questions that are under way together.
	pollsAtOnce = 4
	// lateness is how long after its end the record of a call that died may come:
	// some invokers look for the cause for 12 seconds.
	lateness = 20 * time.Second
	// outageMax is how long in a row questions may fail before the platform counts
	// as unavailable.
	outageMax = 2 * time.Minute
)

// Await implements platform.Platform. It asks for the activation's record until
// there is one. A call that has none after twice its time limit, for /init and
// /run, the time that the record may be late, and Config.QueueMax, is Lost; or
// Refused with TooLarge when calls of smaller actions ended and none of so large
// a one ever did. While the deployment does not answer, the waiting goes on for
// outageMax; one that comes back without the call's package has lost the call.
func (c *Client) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	k, err := c.call(id)
	if err != nil {
		return platform.Outcome{}, err
	}
	var failing time.Time // since when questions fail
	for {
		select {
		case <-k.ended:
			return k.out, nil
		default:
		}
		if err := ctx.Err(); err != nil {
			return platform.Outcome{}, fmt.Errorf("openwhisk: await %s: %w", id, err)
		}
		age := time.Since(k.started)
		if age >= pollFirst {
			r, found, err := c.record(ctx, id)
			switch {
			case err == nil && found:
				return c.settle(k, r)
			case errors.Is(err, errTooLarge):
				return c.giveUp(k, platform.Outcome{Kind: platform.Lost, Message: err.Error(), Usage: platform.Usage{Limit: k.action.Memory}}), nil
			case errors.Is(err, platform.ErrUnauthorised), errors.Is(err, platform.ErrRefused):
				return platform.Outcome{}, fmt.Errorf("await %s: %w", id, err)
			case err == nil && !failing.IsZero():
				since := failing
				failing = time.Time{}
				if c.forgotten(ctx, k.name.pkg) {
					c.lose(k.name.pkg, since)
				}
			case err == nil:
			case failing.IsZero():
				failing = time.Now()
			case time.Since(failing) > outageMax:
				return platform.Outcome{}, fmt.Errorf("await %s: %w", id, err)
			}
			if err == nil && age > 2*k.action.Timeout+lateness+c.cfg.QueueMax {
				return c.giveUp(k, c.overdue(k, age)), nil
			}
		}
		if err := c.pause(ctx, k, age); err != nil {
			return platform.Outcome{}, fmt.Errorf("openwhisk: await %s: %w", id, err)
		}
	}
}

// forgotten says whether a deployment that is back knows nothing of a package, or
// has given its place to another: then it has lost its memory, and the calls with
// it. What cannot be learned now counts as no.
func (c *Client) forgotten(ctx context.Context, pkg string) bool {
	place := c.place(pkg)
	view, err := c.view(ctx, place)
	if err != nil {
		return false
	}
	if view == nil {
		return true
	}
	m, ours := marked(view.Annotations)
	return place != pkg && (!ours || m.Owner != pkg)
}

// lose ends the calls of a package that were made before the deployment was away,
// those of other waiters too: once the package is made again they could not know.
// What was deployed of it counts as gone, for another may have its place by now.
func (c *Client) lose(pkg string, away time.Time) {
	c.mu.Lock()
	var lost []*call
	for _, k := range c.calls {
		if k.name.pkg == pkg && !k.started.After(away) {
			lost = append(lost, k)
		}
	}
	maps.DeleteFunc(c.actions, func(name actionName, _ platform.Action) bool { return name.pkg == pkg })
	c.mu.Unlock()
	for _, k := range lost {
		c.decide(k, platform.Outcome{
			Kind: platform.Lost, Usage: platform.Usage{Limit: k.action.Memory},
			Message: fmt.Sprintf("the call was lost: %s was away for a while and has lost package %s", c.base, pkg),
		})
	}
}

// pause waits until it is time for the next question, or the call is ended here.
func (c *Client) pause(ctx context.Context, k *call, age time.Duration) error {
	d := min(max(age/pollShare, pollFirst), pollMost)
	d += time.Duration(rand.Int64N(int64(d)/4 + 1)) //nolint:gosec // It only keeps calls that started together from asking together.
	if first := pollFirst - age; first > 0 {
		d = first
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// record asks for an activation's record; false while there is none. An error is
// of the contract or errTooLarge.
func (c *Client) record(ctx context.Context, id platform.Activation) (*record, bool, error) {
	select {
	case c.polls <- struct{}{}:
		defer func() { <-c.polls }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("openwhisk: activation %s: %w", id, ctx.Err())
	}
	r := request{method: http.MethodGet, path: c.path("activations", string(id)), most: recordMax}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, false, err
	}
	switch {
	case a.status == http.StatusOK:
	case a.status == http.StatusNotFound && isAPIError(a.body):
		return nil, false, nil
	case a.status == http.StatusNotFound, a.status == http.StatusTooManyRequests, a.status >= 500:
		// Not OpenWhisk's own, which counts no questions.
		return nil, false, c.unavailable(r, a)
	default:
		return nil, false, c.failure(r, a)
	}
	var rec record
	if err := c.decode(r, a, &rec); err != nil {
		return nil, false, err
	}
	if rec.ActivationID != string(id) || rec.Response == nil || rec.Response.Status == "" {
		return nil, false, c.unavailable(r, a)
	}
	return &rec, true, nil
}

// unavailable is the error of an answer that OpenWhisk itself does not give.
func (c *Client) unavailable(r request, a answer) error {
	return fmt.Errorf("%w: %s: status %d: %s", platform.ErrUnavailable, r, a.status, c.said(a))
}

// settle makes a record the call's outcome.
func (c *Client) settle(k *call, r *record) (platform.Outcome, error) {
	c.mu.Lock()
	if k.closed { // first
		defer c.mu.Unlock()
		return k.out, nil
	}
	k.seen = true
	gone := k.gone
	if r.started() {
		c.proven = max(c.proven, k.action.Memory)
	}
	c.mu.Unlock()
	if gone {
		return platform.Outcome{}, fmt.Errorf("openwhisk: activation %s: %w: its package was removed", r.ActivationID, platform.ErrNotFound)
	}
	out := r.outcome(k.action)
	out.Message = c.redact(out.Message)
	// The result of a success goes to the caller alone.
	if result := c.redact(string(out.Result)); out.Kind != platform.Success && result != string(out.Result) {
		if out.Result = json.RawMessage(result); !json.Valid(out.Result) {
			out.Result = nil
			out = withError(out)
		}
	}
	return out, nil
}

// giveUp ends a call whose record cannot be had, and returns its outcome: another
// one if it has ended here before. A record that has been seen meanwhile stays
// the outcome for those who can still get it.
func (c *Client) giveUp(k *call, out platform.Outcome) platform.Outcome {
	c.decide(k, out)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.closed {
		return k.out
	}
	return out
}

// overdue is the outcome of a call that has been given up.
func (c *Client) overdue(k *call, age time.Duration) platform.Outcome {
	c.mu.Lock()
	proven := c.proven
	c.mu.Unlock()
	out := platform.Outcome{
		Kind: platform.Lost,
		Message: fmt.Sprintf("no record after %v: the call was never started, or its record was lost; "+
			"if no invoker has %v for containers, it waits for ever: take a smaller --memory", age.Round(time.Second), k.action.Memory),
		Usage: platform.Usage{Limit: k.action.Memory},
	}
	if proven > 0 && k.action.Memory > proven {
		out.Kind, out.TooLarge = platform.Refused, true
		out.Message = fmt.Sprintf("the call was taken and has not been started for %v, while calls of %v were: "+
			"no invoker seems to have %v for containers, and OpenWhisk then keeps the call waiting for ever; "+
			"take a smaller --memory, tell the largest that fits with --pool-memory, or have the operator raise whisk.container-pool.user-memory",
			age.Round(time.Second), proven, k.action.Memory)
	}
	return out
}
