// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"disdel/internal/store"
)

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
