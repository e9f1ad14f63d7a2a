// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"disdel/internal/points"
	"disdel/internal/store"
)

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
		for range max(5, points.Count(25)) {
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
		if n, err := r.Read(head); n != 0 || err != io.EOF {
			t.Fatalf("read behind the end: %d, %v; want EOF", n, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// testGetWhilePutting looks for objects while they come: each is absent, then whole.
func testGetWhilePutting(t *testing.T, a, b store.Store) {
	for i := range max(5, points.Count(50)) {
		key := fmt.Sprintf("jobs/7/k%d", i)
		data := bytesOf(100+i*1000, uint64(i))
		var put atomic.Bool // or given up
		race(t, a, b, func(s store.Store, id int) error {
			if id == 0 {
				defer put.Store(true)
				created, err := s.PutIfAbsent(t.Context(), key, writing(data))
				if err == nil && !created {
					err = errors.New("somebody else has put it")
				}
				return err
			}
			for {
				last := put.Load()
				got, err := read(t.Context(), s, key)
				switch {
				case errors.Is(err, store.ErrNotFound) && !last:
					runtime.Gosched()
				case err != nil:
					return err
				case !bytes.Equal(got, data):
					return fmt.Errorf("get %s: %d other bytes, want %d", key, len(got), len(data))
				default:
					return nil
				}
			}
		})
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
