// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
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

func testObject(t *testing.T, a, b store.Store) {
	wantAbsent(t, a, "jobs/7/x")
	put(t, a, "jobs/7/x", []byte("first"))
	wantObject(t, a, "jobs/7/x", []byte("first"))
	wantObject(t, b, "jobs/7/x", []byte("first"))
	for _, s := range []store.Store{a, b} {
		created, err := s.PutIfAbsent(t.Context(), "jobs/7/x", writing([]byte("second")))
		if created || err != nil {
			t.Fatalf("second put: created=%v, %v; want false and no error", created, err)
		}
	}
	wantObject(t, b, "jobs/7/x", []byte("first"))
	if a.URL() == "" || a.URL() != b.URL() {
		t.Fatalf("URLs of two clients of one store: %q and %q", a.URL(), b.URL())
	}
}

func testObjectSizes(t *testing.T, a, b store.Store) {
	for _, n := range []int{
		0, 1, 15, 4095, 4096, 65535, 65536, 65537, 2*65536 - 1, 2 * 65536, 2*65536 + 1,
		1 << 20, 1<<20 + 1, 3<<20 + 12345,
	} {
		key := fmt.Sprintf("sizes/%d", n)
		data := bytesOf(n, uint64(n))
		put(t, a, key, data)
		wantObject(t, b, key, data)
	}
}

func testPutPieces(t *testing.T, a, b store.Store) {
	data := bytesOf(200_000, 3)
	created, err := a.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		for rest, n := data, 1; len(rest) > 0; n = n*2 + 1 {
			n = min(n, len(rest))
			if got, err := w.Write(rest[:n]); got != n || err != nil {
				return fmt.Errorf("write of %d: %d, %w", n, got, err)
			}
			if got, err := w.Write(nil); got != 0 || err != nil {
				return fmt.Errorf("write of nothing: %d, %w", got, err)
			}
			rest = rest[n:]
		}
		return nil
	})
	if !created || err != nil {
		t.Fatalf("put: %v, %v", created, err)
	}
	wantObject(t, b, "k", data)

	// The store may not keep what it was given to write.
	piece := []byte("abc")
	created, err = a.PutIfAbsent(t.Context(), "reused", func(w io.Writer) error {
		for range 3 {
			if _, err := w.Write(piece); err != nil {
				return err
			}
			for i := range piece {
				piece[i]++
			}
		}
		return nil
	})
	if !created || err != nil {
		t.Fatalf("put: %v, %v", created, err)
	}
	wantObject(t, b, "reused", []byte("abcbcdcde"))
	put(t, a, "nothing-written", nil)
	wantObject(t, b, "nothing-written", nil)
}

var errCallback = errors.New("the callback's own error")

func testPutCallbackError(t *testing.T, a, b store.Store) {
	for _, n := range []int{0, 10, 300_000} {
		created, err := a.PutIfAbsent(t.Context(), "jobs/k", func(w io.Writer) error {
			if _, err := w.Write(bytesOf(n, 1)); err != nil {
				return err
			}
			return errCallback
		})
		if created || err != errCallback { //nolint:errorlint // Returned as it is, not wrapped.
			t.Fatalf("put of %d bytes: created=%v, %v; want the callback's error as it is", n, created, err)
		}
		wantAbsent(t, a, "jobs/k")
		wantAbsent(t, b, "jobs/k")
	}
	put(t, b, "jobs/k", []byte("after"))
	wantObject(t, a, "jobs/k", []byte("after"))
}

func testPutCallbackPanic(t *testing.T, a, b store.Store) {
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the callback's panic was swallowed")
			}
		}()
		_, _ = a.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
			_, _ = w.Write([]byte("part"))
			panic("callback")
		})
	}()
	wantAbsent(t, b, "k")
	put(t, a, "k", []byte("whole"))
}

func testPutInvisible(t *testing.T, a, b store.Store) {
	created, err := a.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		for i := range 5 {
			if _, err := w.Write(bytesOf(100_000, uint64(i))); err != nil {
				return err
			}
			wantAbsent(t, a, "k")
			wantAbsent(t, b, "k")
			wantList(t, b, "")
		}
		return nil
	})
	if !created || err != nil {
		t.Fatalf("put: %v, %v", created, err)
	}
	wantList(t, b, "", "k")
}

func testPutCancelled(t *testing.T, a, b store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	created, err := a.PutIfAbsent(ctx, "k", func(w io.Writer) error {
		if _, err := w.Write(bytesOf(200_000, 1)); err != nil {
			return err
		}
		cancel()
		_, err := w.Write(bytesOf(200_000, 1))
		if err == nil {
			return errors.New("a write after the cancel succeeded")
		}
		return nil // Hiding the writer's error must not make an object.
	})
	if created {
		t.Error("created by a cancelled call that could not write all")
	}
	wantError(t, "put", err, context.Canceled)
	wantAbsent(t, b, "k")

	ctx, cancel = context.WithCancel(t.Context())
	created, err = a.PutIfAbsent(ctx, "k", func(w io.Writer) error {
		_, err := w.Write([]byte("all of it"))
		cancel()
		return err
	})
	if created {
		wantObject(t, b, "k", []byte("all of it"))
	} else {
		wantError(t, "put", err, context.Canceled)
		wantAbsent(t, b, "k")
	}
}

func testPutWriterAfterCall(t *testing.T, a, b store.Store) {
	var kept io.Writer
	created, err := a.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		kept = w
		_, err := w.Write([]byte("inside"))
		return err
	})
	if !created || err != nil {
		t.Fatalf("put: %v, %v", created, err)
	}
	if _, err := kept.Write([]byte("outside")); err == nil {
		t.Error("the writer still works after the call")
	}
	wantObject(t, b, "k", []byte("inside"))
}

const racers = 8

// race runs do on racers goroutines of each client at once.
func race(t *testing.T, a, b store.Store, do func(s store.Store, id int) error) {
	t.Helper()
	errs := make(chan error)
	start := make(chan struct{})
	for id := range 2 * racers {
		s := a
		if id%2 == 1 {
			s = b
		}
		go func() {
			<-start
			errs <- do(s, id)
		}()
	}
	close(start)
	for range 2 * racers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func testPutRace(t *testing.T, a, b store.Store) {
	for round := range 8 {
		key := fmt.Sprintf("race/%d/k", round)
		winners := make(chan int, 2*racers)
		race(t, a, b, func(s store.Store, id int) error {
			created, err := s.PutIfAbsent(t.Context(), key, writing(bytesOf(70_000, uint64(id))))
			if created {
				winners <- id
			}
			if err != nil {
				return err
			}
			// Whoever returns finds the object, whole.
			_, err = read(t.Context(), s, key)
			return err
		})
		if len(winners) != 1 {
			t.Fatalf("%d of %d puts created the object, want 1", len(winners), 2*racers)
		}
		wantObject(t, a, key, bytesOf(70_000, uint64(<-winners)))
	}
}

// testPutDeleteRace makes deletions empty the folder, if there is one, into
// which others put.
func testPutDeleteRace(t *testing.T, a, b store.Store) {
	race(t, a, b, func(s store.Store, id int) error {
		key := fmt.Sprintf("deep/er/k%d", id)
		for range 25 {
			created, err := s.PutIfAbsent(t.Context(), key, writing([]byte(key)))
			if err != nil || !created {
				return fmt.Errorf("put %s: created=%v, %w", key, created, err)
			}
			if data, err := read(t.Context(), s, key); err != nil || string(data) != key {
				return fmt.Errorf("get %s: %q, %w", key, data, err)
			}
			if _, err := s.List(t.Context(), "deep/"); err != nil {
				return err
			}
			if _, err := s.Size(t.Context(), ""); err != nil {
				return err
			}
			if err := s.SetStatus(t.Context(), key, []byte(key)); err != nil {
				return err
			}
			if err := s.SetStatus(t.Context(), key, nil); err != nil {
				return err
			}
			if err := s.Delete(t.Context(), key); err != nil {
				return err
			}
		}
		return nil
	})
	wantList(t, a, "")
}

func testGetReader(t *testing.T, a, b store.Store) {
	data := bytesOf(200_000, 9)
	put(t, a, "k", data)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.Get(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Fatalf("read of nothing: %d, %v", n, err)
	}
	head := make([]byte, 100)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, data[:100]) {
		t.Fatalf("first bytes: %v", err)
	}
	cancel()
	_, err = r.Read(head)
	wantError(t, "read after cancel", err, context.Canceled)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	r, err = b.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close before the end: %v", err)
	}
	if n, err := r.Read(head); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("read after close: %d, %v; want an error", n, err)
	}

	r, err = b.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := r.Read(head); n != 0 || err != io.EOF { //nolint:errorlint // io.Reader wants it bare.
			t.Fatalf("read behind the end: %d, %v; want EOF", n, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func testGetWhileDeleting(t *testing.T, a, b store.Store) {
	data := bytesOf(1<<20, 4)
	put(t, a, "k", data)
	r, err := a.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 1000)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, a, "k")
	put(t, b, "k", bytesOf(1<<20, 5)) // Another object under the key, so wrong bytes would be possible.
	rest, err := io.ReadAll(r)
	if err != nil {
		wantError(t, "read of a deleted object", err, store.ErrNotFound)
	}
	got = append(got, rest...)
	if !bytes.HasPrefix(data, got) || err == nil && len(got) != len(data) {
		t.Fatalf("wrong bytes from a deleted object: %d of %d, %v", len(got), len(data), err)
	}
}

func testNestedKeys(t *testing.T, a, b store.Store) {
	long := strings.Repeat("l", 129)
	keys := []string{
		"a", "a-", "a.b", "a/b", "a/b/c", "a/b/c/d", "a/b.c", "ab", "b/-", "b/_", "0/0..",
		long, long + "/x", long[:128], long[:127], long[:128] + "/l", "d/" + strings.Repeat("m", store.MaxKeyBytes-2),
		strings.Repeat("n", store.MaxKeyBytes), strings.Repeat("o/", store.MaxKeyBytes/2-1) + "oo",
	}
	slices.Sort(keys)
	for i, key := range keys {
		put(t, a, key, []byte{byte(i)})
	}
	for i, key := range keys {
		wantObject(t, b, key, []byte{byte(i)})
	}
	wantList(t, b, "", keys...)
	for i, key := range keys {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		wantList(t, a, "", keys[i+1:]...)
	}
}

func testListPrefix(t *testing.T, a, b store.Store) {
	long := strings.Repeat("z", 300)
	for _, key := range []string{"jobs/7/r1", "jobs/7/r12", "jobs/7/s", "jobs/70/r1", "jobs/8", "job", "data/" + long} {
		put(t, a, key, nil)
	}
	wantList(t, b, "jobs/7/", "jobs/7/r1", "jobs/7/r12", "jobs/7/s")
	wantList(t, b, "jobs/7/r", "jobs/7/r1", "jobs/7/r12")
	wantList(t, b, "jobs/7/r1", "jobs/7/r1", "jobs/7/r12")
	wantList(t, b, "jobs/7", "jobs/7/r1", "jobs/7/r12", "jobs/7/s", "jobs/70/r1")
	wantList(t, b, "jo", "job", "jobs/7/r1", "jobs/7/r12", "jobs/7/s", "jobs/70/r1", "jobs/8")
	wantList(t, b, "job", "job", "jobs/7/r1", "jobs/7/r12", "jobs/7/s", "jobs/70/r1", "jobs/8")
	wantList(t, b, "job/")
	wantList(t, b, "jobs/8/")
	wantList(t, b, "jobs/8", "jobs/8")
	wantList(t, b, "data/"+long[:128], "data/"+long)
	wantList(t, b, "data/"+long[:150], "data/"+long)
	wantList(t, b, "data/"+long, "data/"+long)
	wantList(t, b, "data/"+long+"z")
	// What no key starts with matches nothing, however it looks to a file system.
	for _, prefix := range []string{
		"/", "//", ".", "..", "../", "./jobs", "jobs/../", "jobs//7", "JOBS", "*", "jobs/7/r1@", "\x00", "\\",
		strings.Repeat("x", 5000), strings.Repeat("x/", 5000),
	} {
		wantList(t, b, prefix)
		if size, err := b.Size(t.Context(), prefix); size != 0 || err != nil {
			t.Fatalf("size of %q: %v, %v", prefix, size, err)
		}
		if logs, err := b.Logs(t.Context(), prefix); len(logs) != 0 || err != nil {
			t.Fatalf("logs of %q: %v, %v", prefix, logs, err)
		}
	}
}

func testDelete(t *testing.T, a, b store.Store) {
	for _, key := range []string{"a", "a/b", "a/b/c", "d"} {
		put(t, a, key, []byte(key))
	}
	if err := b.Delete(t.Context()); err != nil {
		t.Fatalf("delete of nothing: %v", err)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "a/b", "missing", "a/b", "x/y/z"); err != nil {
			t.Fatal(err)
		}
		wantList(t, a, "", "a", "a/b/c", "d")
	}
	wantError(t, "delete of a malformed key", a.Delete(t.Context(), "d", "D"), store.ErrLimit)
	wantObject(t, a, "d", []byte("d"))
	put(t, a, "a/b", []byte("again"))
	wantObject(t, b, "a/b", []byte("again"))
}

func testFlush(t *testing.T, a, b store.Store) {
	put(t, a, "a/b/c", bytesOf(100_000, 1))
	put(t, a, "d", nil)
	for _, s := range []store.Store{a, b} {
		if err := s.Flush(t.Context(), "a/b/c", "d", "d"); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantError(t, "flush of a missing key", s.Flush(t.Context(), "d", "a/b"), store.ErrNotFound)
	}
}

func testSize(t *testing.T, a, b store.Store) {
	sizeOf := func(prefix string) int {
		size, err := b.Size(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		return int(size)
	}
	if got := sizeOf(""); got != 0 {
		t.Fatalf("size of an empty store: %d", got)
	}
	put(t, a, "a/1", bytesOf(100_000, 1))
	put(t, a, "a/2", bytesOf(200_000, 1))
	put(t, a, "ab", bytesOf(50_000, 1))
	if got := sizeOf("a/"); got < 300_000 || got > 310_000 {
		t.Errorf("size of a/: %d, want 300000 and some framing", got)
	}
	if got := sizeOf("a/2"); got < 200_000 || got > 205_000 {
		t.Errorf("size of a/2: %d, want 200000 and some framing", got)
	}
	if one, all := sizeOf("a/1")+sizeOf("a/2")+sizeOf("ab"), sizeOf(""); one != all {
		t.Errorf("sizes add up to %d, the whole is %d", one, all)
	}
	if err := a.SetStatus(t.Context(), "a/s", bytesOf(1000, 1)); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(t.Context(), "a/1", "a/2", "ab"); err != nil {
		t.Fatal(err)
	}
	if got := sizeOf(""); got != 0 {
		t.Errorf("size once all objects are deleted: %d", got)
	}
}

func wantStatus(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	got, err := s.Status(t.Context(), key)
	if want == nil {
		wantError(t, "status "+key, err, store.ErrNotFound)
		return
	}
	if err != nil || got == nil || !bytes.Equal(got, want) {
		t.Fatalf("status %s: got %d bytes (nil: %v), %v; want %d", key, len(got), got == nil, err, len(want))
	}
}

func testStatus(t *testing.T, a, b store.Store) {
	wantStatus(t, a, "jobs/7/r0", nil)
	for _, value := range [][]byte{
		[]byte("one"), []byte("the second, longer"), []byte("3"), {}, bytesOf(store.MaxStatusBytes, 1), {0},
	} {
		if err := a.SetStatus(t.Context(), "jobs/7/r0", value); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, a, "jobs/7/r0", value)
		wantStatus(t, b, "jobs/7/r0", value)
	}
	if err := a.SetStatus(t.Context(), "jobs/7", []byte("parent")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.SetStatus(t.Context(), "jobs/7/r0", nil); err != nil {
			t.Fatalf("remove: %v", err)
		}
		wantStatus(t, a, "jobs/7/r0", nil)
	}
	wantStatus(t, a, "jobs/7", []byte("parent"))

	value := []byte("mine")
	if err := a.SetStatus(t.Context(), "k", value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	got, err := a.Status(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	got[1] = 'Y'
	wantStatus(t, a, "k", []byte("mine"))
}

// testStatusRace checks that a status is never seen in part.
func testStatusRace(t *testing.T, a, b store.Store) {
	race(t, a, b, func(s store.Store, id int) error {
		for i := range 30 {
			if err := s.SetStatus(t.Context(), "k", bytes.Repeat([]byte{byte(id)}, 1+(id*977+i*131)%9000)); err != nil {
				return err
			}
			got, err := s.Status(t.Context(), "k")
			if err != nil {
				return err
			}
			if len(got) == 0 || bytes.Count(got, got[:1]) != len(got) {
				return fmt.Errorf("a status of %d bytes mixes two writers", len(got))
			}
		}
		return nil
	})
}

func appendTo(t *testing.T, s store.Store, log string, head store.Head, payload []byte) store.Head {
	t.Helper()
	next, err := s.Append(t.Context(), log, head, payload)
	if err != nil {
		t.Fatalf("append %s at %d: %v", log, head.Sequence, err)
	}
	if next != head.Next(payload) {
		t.Fatalf("append %s at %d: the new head is not head.Next", log, head.Sequence)
	}
	return next
}

func wantLog(t *testing.T, s store.Store, log string, from store.Head, want ...[]byte) {
	t.Helper()
	entries, err := s.Log(t.Context(), log, from)
	if err != nil || len(entries) != len(want) {
		t.Fatalf("log %s from %d: %d entries, %v; want %d", log, from.Sequence, len(entries), err, len(want))
	}
	for i, entry := range entries {
		from = from.Next(want[i])
		if entry.Head != from || !bytes.Equal(entry.Payload, want[i]) {
			t.Fatalf("log %s: entry %d is not the one appended", log, i)
		}
	}
}

func testLog(t *testing.T, a, b store.Store) {
	wantLog(t, a, "jobs/7", store.Head{})
	payloads := [][]byte{
		[]byte("one"), {}, []byte("three"), bytesOf(65536, 1), bytesOf(65536-32, 2), bytesOf(store.MaxEntryBytes, 3), nil, []byte("eight"),
	}
	heads := []store.Head{{}}
	for i, payload := range payloads {
		s := a
		if i%2 == 1 {
			s = b
		}
		heads = append(heads, appendTo(t, s, "jobs/7", heads[i], payload))
	}
	for i, head := range heads {
		wantLog(t, a, "jobs/7", head, payloads[i:]...)
		wantLog(t, b, "jobs/7", head, payloads[i:]...)
	}
	wantLog(t, a, "jobs/8", store.Head{})
}

func testLogHeads(t *testing.T, a, b store.Store) {
	one := appendTo(t, a, "k", store.Head{}, []byte("one"))
	two := appendTo(t, a, "k", one, []byte("two"))
	forged := two
	forged.Hash[31] ^= 1
	for name, head := range map[string]store.Head{
		"a hash before the first entry": {Hash: one.Hash},
		"another hash":                  forged,
		"a head of the future":          two.Next([]byte("three")),
		"far in the future":             {Sequence: store.MaxLogEntries - 1, Hash: two.Hash},
		"a number with another's hash":  {Sequence: 1, Hash: two.Hash},
		"a number without a hash":       {Sequence: 2},
	} {
		_, err := b.Append(t.Context(), "k", head, []byte("x"))
		wantError(t, "append at "+name, err, store.ErrConflict)
		_, err = b.Log(t.Context(), "k", head)
		wantError(t, "log from "+name, err, store.ErrConflict)
	}
	_, err := b.Log(t.Context(), "k", store.Head{Sequence: 1 << 63})
	wantError(t, "log from an absurd head", err, store.ErrConflict)
	for _, head := range []store.Head{{}, one} {
		_, err := b.Append(t.Context(), "k", head, []byte("x"))
		wantError(t, "append at an old head", err, store.ErrConflict)
	}
	_, err = b.Append(t.Context(), "absent", one, []byte("x"))
	wantError(t, "append behind the start of a log that does not exist", err, store.ErrConflict)
	_, err = b.Log(t.Context(), "absent", one)
	wantError(t, "log of a log that does not exist from a head", err, store.ErrConflict)
	wantLog(t, b, "k", store.Head{}, []byte("one"), []byte("two"))
	wantLog(t, b, "absent", store.Head{})
}

// testLogRace lets all append at the same head, over and over: one wins each
// time, and the log is the winners in order.
func testLogRace(t *testing.T, a, b store.Store) {
	head := store.Head{}
	var won [][]byte
	for round := range 6 {
		type win struct {
			head    store.Head
			payload []byte
		}
		winners := make(chan win, 2*racers)
		race(t, a, b, func(s store.Store, id int) error {
			payload := fmt.Appendf(nil, "round %d by %d", round, id)
			next, err := s.Append(t.Context(), "jobs/k", head, payload)
			switch {
			case err == nil:
				winners <- win{next, payload}
			case !errors.Is(err, store.ErrConflict):
				return err
			case next != store.Head{}:
				return errors.New("a head with an error")
			}
			// Whoever returns finds the winner's entry.
			entries, err := s.Log(t.Context(), "jobs/k", head)
			if err != nil || len(entries) != 1 {
				return fmt.Errorf("log: %d entries, %w", len(entries), err)
			}
			return nil
		})
		if len(winners) != 1 {
			t.Fatalf("%d appends at one head succeeded, want 1", len(winners))
		}
		winner := <-winners
		head, won = winner.head, append(won, winner.payload)
	}
	wantLog(t, a, "jobs/k", store.Head{}, won...)
}

func testLogOwnership(t *testing.T, a, b store.Store) {
	payload := []byte("mine")
	appendTo(t, a, "k", store.Head{}, payload)
	payload[0] = 'X'
	for _, s := range []store.Store{a, b} {
		entries, err := s.Log(t.Context(), "k", store.Head{})
		if err != nil || len(entries) != 1 {
			t.Fatal(len(entries), err)
		}
		entries[0].Payload[0] = 'Y'
		entries[0].Head = store.Head{}
	}
	wantLog(t, a, "k", store.Head{}, []byte("mine"))
}

func testLogs(t *testing.T, a, b store.Store) {
	names := []string{"a", "a/b", "a/b/c", "ab", strings.Repeat("l", 300)}
	for _, name := range names {
		appendTo(t, a, name, store.Head{}, []byte(name))
	}
	for prefix, want := range map[string][]string{
		"": names, "a": names[:4], "a/": names[1:3], "a/b": names[1:3], "ab": names[3:4], "x": nil, "lll": names[4:],
	} {
		got, err := b.Logs(t.Context(), prefix)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("logs %q: %q, %v; want %q", prefix, got, err, want)
		}
	}
	for _, name := range names {
		wantLog(t, b, name, store.Head{}, []byte(name))
	}
}

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
