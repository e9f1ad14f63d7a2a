// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"disdel/internal/store"
)

func testNameSpaces(t *testing.T, a, b store.Store) {
	put(t, a, "k", []byte("object"))
	if err := a.SetStatus(t.Context(), "k", []byte("status")); err != nil {
		t.Fatal(err)
	}
	appendTo(t, a, "k", store.Head{}, []byte("entry"))
	if err := a.SetStatus(t.Context(), "only/status", []byte("status")); err != nil {
		t.Fatal(err)
	}
	appendTo(t, a, "only/log", store.Head{}, []byte("entry"))

	wantList(t, b, "", "k")
	wantAbsent(t, b, "only/status")
	wantAbsent(t, b, "only/log")
	wantStatus(t, b, "only/log", nil)
	wantLog(t, b, "only/status", store.Head{})
	if err := b.Delete(t.Context(), "k", "only/status", "only/log"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, b, "k", []byte("status"))
	wantStatus(t, b, "only/status", []byte("status"))
	wantLog(t, b, "k", store.Head{}, []byte("entry"))
	if err := b.SetStatus(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	wantLog(t, b, "k", store.Head{}, []byte("entry"))
}

// calls runs every method that takes a context, with key where it takes one.
func calls(ctx context.Context, s store.Store, key string) (keyed, plain map[string]func() error) {
	keyed = map[string]func() error{
		"put": func() error {
			_, err := s.PutIfAbsent(ctx, key, writing([]byte("x")))
			return err
		},
		"get":           func() error { _, err := s.Get(ctx, key); return err },
		"delete":        func() error { return s.Delete(ctx, "fine", key) },
		"flush":         func() error { return s.Flush(ctx, key) },
		"set status":    func() error { return s.SetStatus(ctx, key, []byte("x")) },
		"remove status": func() error { return s.SetStatus(ctx, key, nil) },
		"status":        func() error { _, err := s.Status(ctx, key); return err },
		"append":        func() error { _, err := s.Append(ctx, key, store.Head{}, nil); return err },
		"log":           func() error { _, err := s.Log(ctx, key, store.Head{}); return err },
	}
	plain = map[string]func() error{
		"list": func() error { _, err := s.List(ctx, ""); return err },
		"logs": func() error { _, err := s.Logs(ctx, ""); return err },
		"size": func() error { _, err := s.Size(ctx, ""); return err },
	}
	return keyed, plain
}

func wantNothing(t *testing.T, s store.Store) {
	t.Helper()
	wantList(t, s, "")
	if logs, err := s.Logs(t.Context(), ""); len(logs) != 0 || err != nil {
		t.Fatalf("logs: %q, %v; want none", logs, err)
	}
}

func testKeys(t *testing.T, a, b store.Store) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, key := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/../b", ".a", "a/.b", "A", "a b", "a\\b", "a:b", "a@", "a+",
		"\x00", "a\nb", "ä", "\xff", strings.Repeat("a", store.MaxKeyBytes+1), strings.Repeat("a/", store.MaxKeyBytes/2) + "a",
	} {
		for _, ctx := range []context.Context{t.Context(), cancelled} {
			keyed, _ := calls(ctx, a, key)
			for name, call := range keyed {
				wantError(t, fmt.Sprintf("%s with key %.20q", name, key), call(), store.ErrLimit)
			}
		}
	}
	wantNothing(t, b)
}

func testLimits(t *testing.T, a, b store.Store) {
	err := a.SetStatus(t.Context(), "k", make([]byte, store.MaxStatusBytes+1))
	wantError(t, "set status", err, store.ErrLimit)
	wantStatus(t, b, "k", nil)
	_, err = a.Append(t.Context(), "k", store.Head{}, make([]byte, store.MaxEntryBytes+1))
	wantError(t, "append of too much", err, store.ErrLimit)
	for _, sequence := range []uint64{store.MaxLogEntries, store.MaxLogEntries + 1, 1<<64 - 1} {
		_, err = a.Append(t.Context(), "k", store.Head{Sequence: sequence}, nil)
		wantError(t, fmt.Sprintf("append at %d", sequence), err, store.ErrLimit)
	}
	wantNothing(t, b)
}

func testCancelled(t *testing.T, a, b store.Store) {
	put(t, a, "kept", []byte("kept"))
	if err := a.SetStatus(t.Context(), "kept", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	appendTo(t, a, "kept", store.Head{}, []byte("kept"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeout(t.Context(), -1)
	defer cancelLate()
	for ctx, want := range map[context.Context]error{cancelled: context.Canceled, late: context.DeadlineExceeded} {
		for _, key := range []string{"kept", "new"} {
			keyed, plain := calls(ctx, a, key)
			for _, group := range []map[string]func() error{keyed, plain} {
				for name, call := range group {
					err := call()
					wantError(t, name, err, want)
					if errors.Is(err, store.ErrUnavailable) {
						t.Fatalf("%s: %v would be retried", name, err)
					}
				}
			}
		}
	}
	wantList(t, b, "", "kept")
	wantStatus(t, b, "kept", []byte("kept"))
	wantStatus(t, b, "new", nil)
	wantLog(t, b, "kept", store.Head{}, []byte("kept"))
	wantLog(t, b, "new", store.Head{})
}

func testClose(t *testing.T, a, b store.Store) {
	put(t, a, "k", []byte("kept"))
	if err := a.SetStatus(t.Context(), "k", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	for _, key := range []string{"k", "new"} {
		keyed, plain := calls(t.Context(), a, key)
		for _, group := range []map[string]func() error{keyed, plain} {
			for name, call := range group {
				wantError(t, name+" after close", call(), store.ErrClosed)
			}
		}
	}
	wantList(t, b, "", "k")
	wantObject(t, b, "k", []byte("kept"))
	wantStatus(t, b, "k", []byte("kept"))
	put(t, b, "new", nil)
}
