// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"disdel/internal/job"
	"disdel/internal/store"
	"disdel/internal/store/mem"
	"disdel/internal/store/storetest"
)

// flaky fails the next calls, before or after it does them.
type flaky struct {
	store.Store
	failures []error
	after    bool
	calls    int
}

func (f *flaky) fail(op string) error {
	f.calls++
	if len(f.failures) == 0 {
		return nil
	}
	err := f.failures[0]
	f.failures = f.failures[1:]
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}

func (f *flaky) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if f.after {
		_, err := f.Store.PutIfAbsent(ctx, key, write)
		return false, errors.Join(f.fail("put"), err)
	}
	if err := f.fail("put"); err != nil {
		return false, err
	}
	return f.Store.PutIfAbsent(ctx, key, write)
}

func (f *flaky) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := f.fail("get"); err != nil {
		return nil, err
	}
	return f.Store.Get(ctx, key)
}

func (f *flaky) List(ctx context.Context, prefix string) ([]string, error) {
	if err := f.fail("list"); err != nil {
		return nil, err
	}
	return f.Store.List(ctx, prefix)
}

func (f *flaky) Delete(ctx context.Context, keys ...string) error {
	if err := f.fail("delete"); err != nil {
		return err
	}
	return f.Store.Delete(ctx, keys...)
}

func (f *flaky) Flush(ctx context.Context, keys ...string) error {
	if err := f.fail("flush"); err != nil {
		return err
	}
	return f.Store.Flush(ctx, keys...)
}

func (f *flaky) SetStatus(ctx context.Context, key string, value []byte) error {
	if err := f.fail("set status"); err != nil {
		return err
	}
	return f.Store.SetStatus(ctx, key, value)
}

func (f *flaky) Status(ctx context.Context, key string) ([]byte, error) {
	if err := f.fail("status"); err != nil {
		return nil, err
	}
	return f.Store.Status(ctx, key)
}

func (f *flaky) Append(ctx context.Context, log string, head store.Head, payload []byte) (store.Head, error) {
	if err := f.fail("append"); err != nil {
		return store.Head{}, err
	}
	return f.Store.Append(ctx, log, head, payload)
}

func (f *flaky) Log(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := f.fail("log"); err != nil {
		return nil, err
	}
	return f.Store.Log(ctx, log, head)
}

func (f *flaky) Logs(ctx context.Context, prefix string) ([]string, error) {
	if err := f.fail("logs"); err != nil {
		return nil, err
	}
	return f.Store.Logs(ctx, prefix)
}

func (f *flaky) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	if err := f.fail("size"); err != nil {
		return 0, err
	}
	return f.Store.Size(ctx, prefix)
}

// TestRetryContract holds the decorator to the contract of what it decorates.
func TestRetryContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) (a, b store.Store) {
		s := mem.New()
		return store.WithRetry(s, store.RetryPolicy{}), store.WithRetry(s.Share(), store.RetryPolicy{})
	})
}

func operations(ctx context.Context, s store.Store) map[string]func() error {
	return map[string]func() error{
		"put": func() error {
			_, err := s.PutIfAbsent(ctx, "new", func(io.Writer) error { return nil })
			return err
		},
		"get":        func() error { _, err := s.Get(ctx, "k"); return err },
		"list":       func() error { _, err := s.List(ctx, ""); return err },
		"delete":     func() error { return s.Delete(ctx, "d") },
		"flush":      func() error { return s.Flush(ctx, "k") },
		"set status": func() error { return s.SetStatus(ctx, "k", []byte("s")) },
		"status":     func() error { _, err := s.Status(ctx, "k"); return err },
		"log":        func() error { _, err := s.Log(ctx, "k", store.Head{}); return err },
		"logs":       func() error { _, err := s.Logs(ctx, ""); return err },
		"size":       func() error { _, err := s.Size(ctx, ""); return err },
	}
}

func filled(t *testing.T) *flaky {
	s := mem.New()
	if _, err := s.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		_, err := w.Write([]byte("object"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetStatus(t.Context(), "k", []byte("status")); err != nil {
		t.Fatal(err)
	}
	return &flaky{Store: s}
}

func repeated(err error, n int) []error { return slices.Repeat([]error{err}, n) }

func TestRetryAllButAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name := range operations(t.Context(), nil) {
			inner := filled(t)
			var seen []store.Retry
			s := store.WithRetry(inner, store.RetryPolicy{Report: func(r store.Retry) { seen = append(seen, r) }})
			inner.failures = repeated(store.ErrUnavailable, 3)
			if err := operations(t.Context(), s)[name](); err != nil {
				t.Errorf("%s: %v after three failures", name, err)
			}
			if inner.calls != 4 || len(seen) != 3 {
				t.Errorf("%s: %d calls and %d reports, want 4 and 3", name, inner.calls, len(seen))
			}
			for i, r := range seen {
				if r.Op != name || r.Try != i+1 || r.Wait <= 0 || !errors.Is(r.Err, store.ErrUnavailable) {
					t.Errorf("%s: report %d is %+v", name, i, r)
				}
			}
		}
		inner := filled(t)
		inner.failures = repeated(store.ErrUnavailable, 1)
		_, err := store.WithRetry(inner, store.RetryPolicy{}).Append(t.Context(), "k", store.Head{}, nil)
		if !errors.Is(err, store.ErrUnavailable) || inner.calls != 1 {
			t.Errorf("append: %v after %d calls, want its first error", err, inner.calls)
		}
	})
}

func TestRetryOnlyTransient(t *testing.T) {
	for _, permanent := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrCorrupt, store.ErrLimit, store.ErrClosed, store.ErrDenied, errors.New("unknown"), context.Canceled,
	} {
		for name := range operations(t.Context(), nil) {
			inner := filled(t)
			inner.failures = []error{permanent}
			err := operations(t.Context(), store.WithRetry(inner, store.RetryPolicy{}))[name]()
			if !errors.Is(err, permanent) || inner.calls != 1 {
				t.Errorf("%s: %v after %d calls, want %v at once", name, err, inner.calls, permanent)
			}
		}
	}
}

// TestRetryBackoff checks the waits: doubled up to the longest, drawn from their
// upper half, bounded by tries and by time.
func TestRetryBackoff(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		policy store.RetryPolicy
		random float64
		want   []time.Duration
	}{
		"least":       {store.RetryPolicy{Tries: 5, First: 100 * ms, Max: 300 * ms}, 0, []time.Duration{50 * ms, 100 * ms, 150 * ms, 150 * ms}},
		"middle":      {store.RetryPolicy{Tries: 4, First: 100 * ms, Max: 300 * ms}, 0.5, []time.Duration{75 * ms, 150 * ms, 225 * ms}},
		"one try":     {store.RetryPolicy{Tries: 1}, 0, nil},
		"total":       {store.RetryPolicy{Tries: 99, First: 100 * ms, Max: 400 * ms, Total: 550 * ms}, 0, []time.Duration{50 * ms, 100 * ms, 200 * ms, 200 * ms}},
		"first > max": {store.RetryPolicy{Tries: 3, First: 900 * ms, Max: 100 * ms}, 0, []time.Duration{50 * ms, 50 * ms}},
		"defaults":    {store.RetryPolicy{}, 0, []time.Duration{25 * ms, 50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms}},
	} {
		synctest.Test(t, func(t *testing.T) {
			inner := filled(t)
			inner.failures = repeated(store.ErrUnavailable, 1000)
			var waits []time.Duration
			var total time.Duration
			test.policy.Report = func(r store.Retry) {
				waits = append(waits, r.Wait)
				total += r.Wait
			}
			test.policy.Random = func() float64 { return test.random }
			start := time.Now()
			_, err := store.WithRetry(inner, test.policy).List(t.Context(), "")
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if !slices.Equal(waits, test.want) || inner.calls != len(test.want)+1 {
				t.Errorf("%s: waits %v in %d calls, want %v", name, waits, inner.calls, test.want)
			}
			if spent := time.Since(start); spent != total {
				t.Errorf("%s: took %v, reported %v", name, spent, total)
			}
		})
	}
}

// TestRetryInjected uses nothing of package time's clock.
func TestRetryInjected(t *testing.T) {
	inner := filled(t)
	inner.failures = repeated(store.ErrUnavailable, 1000)
	now := time.Unix(0, 0)
	s := store.WithRetry(inner, store.RetryPolicy{
		Tries: 1000, First: time.Hour, Max: time.Hour, Total: 10 * time.Hour,
		Now:    func() time.Time { return now },
		Wait:   func(_ context.Context, d time.Duration) error { now = now.Add(d); return nil },
		Random: func() float64 { return 0 },
	})
	if _, err := s.Status(t.Context(), "k"); !errors.Is(err, store.ErrUnavailable) || inner.calls != 21 {
		t.Errorf("%v after %d calls, want ErrUnavailable after 21", err, inner.calls)
	}
}

func TestRetryCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		for name := range operations(t.Context(), nil) {
			inner := filled(t)
			err := operations(dead, store.WithRetry(inner, store.RetryPolicy{}))[name]()
			if !errors.Is(err, context.Canceled) || inner.calls != 0 {
				t.Errorf("%s: %v after %d calls, want Canceled after none", name, err, inner.calls)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Millisecond)
		defer cancel()
		inner := filled(t)
		inner.failures = repeated(store.ErrUnavailable, 1000)
		start := time.Now()
		_, err := store.WithRetry(inner, store.RetryPolicy{Random: func() float64 { return 0 }}).List(ctx, "")
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrUnavailable) || inner.calls != 2 {
			t.Errorf("%v after %d calls, want DeadlineExceeded after 2", err, inner.calls)
		}
		if spent := time.Since(start); spent != 70*time.Millisecond {
			t.Errorf("ended after %v, want when the context did", spent)
		}
	})
}

// TestRetryPut loses the answer of a put that worked, and gives the callback
// errors that look transient.
func TestRetryPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := filled(t)
		inner.after, inner.failures = true, repeated(store.ErrUnavailable, 1)
		s := store.WithRetry(inner, store.RetryPolicy{})
		created, err := s.PutIfAbsent(t.Context(), "new", func(w io.Writer) error {
			_, err := w.Write([]byte("bytes"))
			return err
		})
		if created || err != nil || inner.calls != 2 {
			t.Errorf("put: created=%v, %v after %d calls; want false and no error after 2", created, err, inner.calls)
		}
		r, err := s.Get(t.Context(), "new")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, []byte("bytes")) {
			t.Errorf("get: %q, %v", data, err)
		}

		inner = filled(t)
		own := fmt.Errorf("another store: %w", store.ErrUnavailable)
		_, err = store.WithRetry(inner, store.RetryPolicy{}).PutIfAbsent(t.Context(), "new", func(io.Writer) error { return own })
		if err != own || inner.calls != 1 { //nolint:errorlint // Returned as it is, not wrapped.
			t.Errorf("put whose callback fails: %v after %d calls, want the callback's error after 1", err, inner.calls)
		}
	})
}

// broken gives a writer that fails, whose error comes back through the callback.
type broken struct {
	store.Store
	tries int
}

func (b *broken) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if b.tries++; b.tries < 3 {
		return false, write(failing{})
	}
	return b.Store.PutIfAbsent(ctx, key, write)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, store.ErrUnavailable }

func TestRetryPutWriterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &broken{Store: mem.New()}
		created, err := store.WithRetry(inner, store.RetryPolicy{}).PutIfAbsent(t.Context(), "new", func(w io.Writer) error {
			_, err := w.Write([]byte("bytes"))
			return err
		})
		if !created || err != nil || inner.tries != 3 {
			t.Errorf("put: created=%v, %v after %d tries; want true after 3", created, err, inner.tries)
		}
	})
}

func TestRetryUnwrap(t *testing.T) {
	inner := mem.New()
	s := store.WithRetry(inner, store.RetryPolicy{})
	if below, ok := s.(interface{ Unwrap() store.Store }); !ok || below.Unwrap() != store.Store(inner) {
		t.Error("the store below cannot be reached")
	}
	if s.URL() != inner.URL() {
		t.Error("the URL is not the one of the store below")
	}
}
