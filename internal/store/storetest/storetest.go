// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"disdel/internal/store"
)

// Run tests the stores that open makes. Each call of open makes a new, empty
// store and returns two clients of it that share nothing else; the suite closes
// both.
func Run(t *testing.T, open func(t *testing.T) (a, b store.Store)) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, a, b store.Store)
	}{
		{"Object", testObject},
		{"ObjectSizes", testObjectSizes},
		{"PutWritesInPieces", testPutPieces},
		{"PutCallbackError", testPutCallbackError},
		{"PutCallbackPanic", testPutCallbackPanic},
		{"PutInvisibleUntilWhole", testPutInvisible},
		{"PutCancelledMidway", testPutCancelled},
		{"PutWriterAfterCall", testPutWriterAfterCall},
		{"PutRace", testPutRace},
		{"PutDeleteRace", testPutDeleteRace},
		{"GetReader", testGetReader},
		{"GetWhilePutting", testGetWhilePutting},
		{"GetWhileDeleting", testGetWhileDeleting},
		{"NestedKeys", testNestedKeys},
		{"ListPrefix", testListPrefix},
		{"Delete", testDelete},
		{"Flush", testFlush},
		{"Size", testSize},
		{"Status", testStatus},
		{"StatusRace", testStatusRace},
		{"Log", testLog},
		{"LogHeads", testLogHeads},
		{"LogRace", testLogRace},
		{"LogOwnership", testLogOwnership},
		{"Logs", testLogs},
		{"NameSpaces", testNameSpaces},
		{"Keys", testKeys},
		{"Limits", testLimits},
		{"Cancelled", testCancelled},
		{"Close", testClose},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t)
			t.Cleanup(func() {
				for _, client := range []store.Store{a, b} {
					if err := client.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				}
			})
			test.run(t, a, b)
		})
	}
}

// bytesOf returns n bytes that differ by seed and have no period.
func bytesOf(n int, seed uint64) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = source.Read(data)
	return data
}

func writing(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

func put(t *testing.T, s store.Store, key string, data []byte) {
	t.Helper()
	created, err := s.PutIfAbsent(t.Context(), key, writing(data))
	if err != nil || !created {
		t.Fatalf("put %s: created=%v, %v; want a new object", key, created, err)
	}
}

func read(ctx context.Context, s store.Store, key string) ([]byte, error) {
	r, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantObject(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("get %s: got %d bytes that are not the %d put", key, len(got), len(want))
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func wantAbsent(t *testing.T, s store.Store, key string) {
	t.Helper()
	_, err := s.Get(t.Context(), key)
	wantError(t, "get "+key, err, store.ErrNotFound)
	keys, err := s.List(t.Context(), key)
	if err != nil || slices.Contains(keys, key) {
		t.Fatalf("list %s: got %q, %v; want it absent", key, keys, err)
	}
}

func wantList(t *testing.T, s store.Store, prefix string, want ...string) {
	t.Helper()
	got, err := s.List(t.Context(), prefix)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("list %q: got %q, %v; want %q", prefix, got, err, want)
	}
}
