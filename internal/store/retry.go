// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"disdel/internal/job"
)

// RetryPolicy says how [WithRetry] retries. Its zero value is usable: every
// field that is zero takes the default given with it.
type RetryPolicy struct {
	// Tries bounds the calls made for one operation, the first one included.
	// Default 8; 1 never retries.
	Tries int
	// Total bounds the time of one operation up to the start of its last try:
	// a wait that would pass it is not begun. A try that hangs is ended by the
	// caller's context, not by Total. Default 30 s.
	Total time.Duration
	// First is the longest wait before the second try; each later one is twice
	// as long, up to Max. The wait is drawn from the upper half, so that
	// clients which failed together do not come back together. Default 50 ms.
	First time.Duration
	// Max bounds one wait. Default 5 s.
	Max time.Duration
	// Report, if not nil, is told of each retry before its wait. It must be safe
	// for concurrent calls and must not block.
	Report func(Retry)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Wait returns after d, or with the context's error. Default: a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Random returns a number in [0, 1) and must be safe for concurrent calls.
	// Default: math/rand/v2.
	Random func() float64
}

// Retry is one retry that is about to happen.
type Retry struct {
	Op, Key string        // "put", "jobs/7/x"; the key is empty where a call has none or many
	Try     int           // the try that failed, from 1
	Wait    time.Duration // how long until the next try
	Err     error         // why it failed
}

// WithRetry returns s with transient failures retried: errors that are
// [ErrUnavailable], and no others. A context that is done before the first try
// does nothing at all.
//
// Append is never retried, because a try whose answer was lost may have
// appended. Get is retried while it opens; a reader that fails midway is the
// caller's. After a retry, PutIfAbsent may report created=false for an object
// that an earlier try of the same call made, and SetStatus may replace a value
// that another client set meanwhile. An error of the write callback ends
// PutIfAbsent at once, whatever it wraps.
func WithRetry(s Store, policy RetryPolicy) Store {
	return &retrying{Store: s, policy: policy.withDefaults()}
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.Tries <= 0 {
		p.Tries = 8
	}
	if p.Total <= 0 {
		p.Total = 30 * time.Second
	}
	if p.First <= 0 {
		p.First = 50 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 5 * time.Second
	}
	if p.Report == nil {
		p.Report = func(Retry) {}
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Wait == nil {
		p.Wait = wait
	}
	if p.Random == nil {
		p.Random = rand.Float64
	}
	return p
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// retrying inherits URL and Close.
type retrying struct {
	Store
	policy RetryPolicy
}

// Unwrap returns the store below.
func (r *retrying) Unwrap() Store { return r.Store }

// final marks an error that must not be retried and is returned as it is.
type final struct{ error }

func retry[T any](ctx context.Context, p RetryPolicy, op, key string, call func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, label(op, key, err)
	}
	start, longest := p.Now(), p.First
	for try := 1; ; try++ {
		value, err := call()
		if err == nil {
			return value, nil
		}
		if own, ok := err.(final); ok { //nolint:errorlint // Only call itself makes it, never wrapped.
			return none, own.error
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return none, err
		}
		longest = min(longest, p.Max)
		delay := longest/2 + time.Duration(p.Random()*float64(longest-longest/2))
		longest *= 2
		if elapsed := p.Now().Sub(start); try >= p.Tries || elapsed+delay > p.Total {
			if try > 1 {
				err = fmt.Errorf("%w (gave up after %d tries in %v)", err, try, elapsed.Round(time.Millisecond))
			}
			return none, err
		}
		p.Report(Retry{Op: op, Key: key, Try: try, Wait: delay, Err: err})
		if ended := p.Wait(ctx, delay); ended != nil {
			//nolint:errorlint // what ended the call is ctx, not the failure that was waited over
			return none, label(op, key, fmt.Errorf("%w while waiting to retry: %v", ended, err))
		}
	}
}

func label(op, key string, err error) error {
	if key == "" {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s %s: %w", op, key, err)
}

// noted remembers whether the store's writer failed, to tell the store's errors
// that come back through a write callback from the callback's own.
type noted struct {
	out io.Writer
	err error
}

func (n *noted) Write(p []byte) (int, error) {
	written, err := n.out.Write(p)
	if err != nil {
		n.err = err
	}
	return written, err
}

func (r *retrying) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if err := ValidateKey(key); err != nil {
		return false, label("put", "", err)
	}
	return retry(ctx, r.policy, "put", key, func() (bool, error) {
		own := false
		created, err := r.Store.PutIfAbsent(ctx, key, func(w io.Writer) error {
			out := &noted{out: w}
			err := write(out)
			own = err != nil && out.err == nil
			return err
		})
		if own && err != nil {
			return created, final{err}
		}
		return created, err
	})
}

func (r *retrying) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := ValidateKey(key); err != nil {
		return nil, label("get", "", err)
	}
	return retry(ctx, r.policy, "get", key, func() (io.ReadCloser, error) { return r.Store.Get(ctx, key) })
}

func (r *retrying) List(ctx context.Context, prefix string) ([]string, error) {
	return retry(ctx, r.policy, "list", prefix, func() ([]string, error) { return r.Store.List(ctx, prefix) })
}

func (r *retrying) Delete(ctx context.Context, keys ...string) error {
	return r.each(ctx, "delete", keys, r.Store.Delete)
}

func (r *retrying) Flush(ctx context.Context, keys ...string) error {
	return r.each(ctx, "flush", keys, r.Store.Flush)
}

func (r *retrying) each(ctx context.Context, op string, keys []string, call func(context.Context, ...string) error) error {
	for _, key := range keys {
		if err := ValidateKey(key); err != nil {
			return label(op, "", err)
		}
	}
	name := ""
	if len(keys) == 1 {
		name = keys[0]
	}
	_, err := retry(ctx, r.policy, op, name, func() (struct{}, error) { return struct{}{}, call(ctx, keys...) })
	return err
}

func (r *retrying) SetStatus(ctx context.Context, key string, value []byte) error {
	if err := ValidateKey(key); err != nil {
		return label("set status", "", err)
	}
	if len(value) > MaxStatusBytes {
		return label("set status", key, fmt.Errorf("%d bytes, at most %d: %w", len(value), MaxStatusBytes, ErrLimit))
	}
	_, err := retry(ctx, r.policy, "set status", key, func() (struct{}, error) {
		return struct{}{}, r.Store.SetStatus(ctx, key, value)
	})
	return err
}

func (r *retrying) Status(ctx context.Context, key string) ([]byte, error) {
	if err := ValidateKey(key); err != nil {
		return nil, label("status", "", err)
	}
	return retry(ctx, r.policy, "status", key, func() ([]byte, error) { return r.Store.Status(ctx, key) })
}

func (r *retrying) Log(ctx context.Context, log string, head Head) ([]Entry, error) {
	if err := ValidateKey(log); err != nil {
		return nil, label("log", "", err)
	}
	return retry(ctx, r.policy, "log", log, func() ([]Entry, error) { return r.Store.Log(ctx, log, head) })
}

func (r *retrying) Logs(ctx context.Context, prefix string) ([]string, error) {
	return retry(ctx, r.policy, "logs", prefix, func() ([]string, error) { return r.Store.Logs(ctx, prefix) })
}

func (r *retrying) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	return retry(ctx, r.policy, "size", prefix, func() (job.Bytes, error) { return r.Store.Size(ctx, prefix) })
}
