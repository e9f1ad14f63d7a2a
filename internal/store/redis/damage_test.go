// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/job"
	"disdel/internal/store"
)

// flip changes one bit in the middle of a value.
func flip(value string) string {
	b := []byte(value)
	b[len(b)/2] ^= 4
	return string(b)
}

func TestDamagedObject(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		url := server.fresh()
		s, c := open(t, url), raw(t, url)
		s.chunk = 1000
		data := bytes.Repeat([]byte("0123456789"), 250)
		key := s.objectKey("jobs/7/x")
		field := func(name string) string {
			value, err := c.HGet(t.Context(), key, name).Result()
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
		change := func(name string, with func(string) string) func() error {
			return func() error { return c.HSet(t.Context(), key, name, with(field(name))).Err() }
		}
		remove := func(name string) func() error {
			return func() error { return c.HDel(t.Context(), key, name).Err() }
		}
		empty := func(string) string { return "" }
		half := func(value string) string { return value[:len(value)/2] }
		huge := func(string) string { return strings.Repeat("x", 2*chunkBytes) }
		for name, test := range map[string]struct {
			damage func() error
			whole  int // bytes that may be handed out
			text   string
		}{
			"bit of the manifest":  {change("m", flip), 0, "manifest"},
			"empty manifest":       {change("m", empty), 0, "manifest"},
			"no manifest":          {remove("m"), 0, "manifest is missing"},
			"bit of a chunk":       {change("0", flip), 0, "chunk 0"},
			"bit of the last":      {change("2", flip), 2000, "chunk 2"},
			"truncated chunk":      {change("1", half), 1000, "chunk 1"},
			"longer chunk":         {change("1", huge), 1000, "chunk 1"},
			"empty chunk":          {change("1", empty), 1000, "chunk 1 of 3 is missing"},
			"missing chunk":        {remove("1"), 1000, "chunk 1 of 3 is missing"},
			"another chunk":        {change("1", func(string) string { return field("0") }), 1000, "chunk 1"},
			"value of other type":  {func() error { c.Del(t.Context(), key); return c.Set(t.Context(), key, "x", 0).Err() }, 0, "another type"},
			"object under the key": {func() error { return c.Rename(t.Context(), s.objectKey("jobs/7/y"), key).Err() }, 0, "manifest"},
		} {
			if err := s.Delete(t.Context(), "jobs/7/x", "jobs/7/y"); err != nil {
				t.Fatalf("%s: delete: %v", name, err)
			}
			put(t, s, "jobs/7/x", data)
			put(t, s, "jobs/7/y", data)
			if err := test.damage(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := get(t.Context(), s, "jobs/7/x")
			wantError(t, name, err, store.ErrCorrupt, "jobs/7/x", test.text)
			if len(got) > test.whole || !bytes.HasPrefix(data, got) {
				t.Errorf("%s: %d bytes were handed out, want at most the %d whole ones", name, len(got), test.whole)
			}
			if created, err := s.PutIfAbsent(t.Context(), "jobs/7/x", writing(data)); created || err != nil {
				t.Errorf("%s: put over it: created=%v, %v", name, created, err)
			}
			if _, err := s.Size(t.Context(), ""); err != nil {
				t.Errorf("%s: size: %v", name, err)
			}
		}
	})
}

func TestDamagedStatus(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		url := server.fresh()
		s, c := open(t, url), raw(t, url)
		good := string(encodeStatus("k", []byte("value")))
		key := s.statusKey("k")
		for name, damage := range map[string]func() error{
			"bit":        func() error { return c.Set(t.Context(), key, flip(good), 0).Err() },
			"empty":      func() error { return c.Set(t.Context(), key, "", 0).Err() },
			"cut":        func() error { return c.Set(t.Context(), key, good[:len(good)-1], 0).Err() },
			"another's":  func() error { return c.Set(t.Context(), key, string(encodeStatus("j", []byte("value"))), 0).Err() },
			"other type": func() error { c.Del(t.Context(), key); return c.LPush(t.Context(), key, good).Err() },
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			_, err := s.Status(t.Context(), "k")
			wantError(t, name, err, store.ErrCorrupt, "status k")
			if err := s.SetStatus(t.Context(), "k", []byte("again")); err != nil {
				t.Errorf("%s: set again: %v", name, err)
			}
			if value, err := s.Status(t.Context(), "k"); err != nil || string(value) != "again" {
				t.Errorf("%s: after setting it again: %q, %v", name, value, err)
			}
		}
	})
}

func TestDamagedLog(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		url := server.fresh()
		c := raw(t, url)
		for name, test := range map[string]struct {
			damage func(key string, entries []string) error
			append error // what Append at the head answers, nil for success
		}{
			"bit of the first": {func(key string, e []string) error { return c.LSet(t.Context(), key, 0, flip(e[0])).Err() }, nil},
			"bit of the last":  {func(key string, e []string) error { return c.LSet(t.Context(), key, 2, flip(e[2])).Err() }, store.ErrCorrupt},
			"entry cut":        {func(key string, e []string) error { return c.LSet(t.Context(), key, 1, e[1][:20]).Err() }, nil},
			"entry removed":    {func(key string, e []string) error { return c.LRem(t.Context(), key, 1, e[1]).Err() }, store.ErrConflict},
			"entry doubled":    {func(key string, e []string) error { return c.LSet(t.Context(), key, 1, e[0]).Err() }, nil},
			"entries exchanged": {func(key string, e []string) error {
				return errors.Join(c.LSet(t.Context(), key, 0, e[1]).Err(), c.LSet(t.Context(), key, 1, e[0]).Err())
			}, nil},
			"other type": {func(key string, _ []string) error {
				c.Del(t.Context(), key)
				return c.Set(t.Context(), key, "x", 0).Err()
			}, store.ErrCorrupt},
		} {
			s := open(t, server.fresh())
			var head store.Head
			for _, payload := range []string{"one", "two", "three"} {
				var err error
				if head, err = s.Append(t.Context(), "jobs/7", head, []byte(payload)); err != nil {
					t.Fatal(err)
				}
			}
			entries, err := c.LRange(t.Context(), s.logKey("jobs/7"), 0, -1).Result()
			if err == nil {
				err = test.damage(s.logKey("jobs/7"), entries)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Log(t.Context(), "jobs/7", store.Head{})
			wantError(t, name, err, store.ErrCorrupt, "log jobs/7")
			if _, err = s.Append(t.Context(), "jobs/7", head, []byte("four")); !errors.Is(err, test.append) {
				t.Errorf("%s: append: %v, want %v", name, err, test.append)
			}
			if logs, err := s.Logs(t.Context(), ""); err != nil || len(logs) != 1 {
				t.Errorf("%s: logs: %q, %v", name, logs, err)
			}
		}
	})
}

// TestForeignIndex: other programs' keys where the store has its own.
func TestForeignIndex(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s := open(t, server.fresh())
		c := raw(t, server.url)
		if err := errors.Join(c.Set(t.Context(), s.objectIndex(), "x", 0).Err(), c.Set(t.Context(), s.logIndex(), "x", 0).Err()); err != nil {
			t.Fatal(err)
		}
		_, err := s.PutIfAbsent(t.Context(), "k", writing([]byte("x")))
		wantError(t, "put", err, store.ErrCorrupt)
		_, err = s.Get(t.Context(), "k")
		wantError(t, "get", err, store.ErrNotFound)
		_, err = s.List(t.Context(), "")
		wantError(t, "list", err, store.ErrCorrupt)
		_, err = s.Append(t.Context(), "k", store.Head{}, nil)
		wantError(t, "append", err, store.ErrCorrupt)
		if entries, err := s.Log(t.Context(), "k", store.Head{}); err != nil || len(entries) != 0 {
			t.Errorf("log after an append that failed: %d entries, %v", len(entries), err)
		}
	})
}

// TestGone takes the store away, as a restart without an append-only file does:
// it must not look empty, and must not be made again.
func TestGone(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		for _, other := range []bool{false, true} {
			s, c := open(t, server.fresh()), raw(t, server.url)
			put(t, s, "k", []byte("k"))
			head, err := s.Append(t.Context(), "k", store.Head{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			reader, err := s.Get(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if other {
				open(t, s.URL())
			}
			ctx := t.Context()
			for name, call := range map[string]func() error{
				"put":           func() error { _, err := s.PutIfAbsent(ctx, "new", writing([]byte("x"))); return err },
				"get":           func() error { _, err := s.Get(ctx, "k"); return err },
				"read":          func() error { _, err := reader.Read(make([]byte, 1)); return err },
				"list":          func() error { _, err := s.List(ctx, ""); return err },
				"delete":        func() error { return s.Delete(ctx, "k") },
				"flush":         func() error { return s.Flush(ctx, "k") },
				"set status":    func() error { return s.SetStatus(ctx, "k", []byte("x")) },
				"remove status": func() error { return s.SetStatus(ctx, "k", nil) },
				"status":        func() error { _, err := s.Status(ctx, "k"); return err },
				"append new":    func() error { _, err := s.Append(ctx, "new", store.Head{}, nil); return err },
				"append":        func() error { _, err := s.Append(ctx, "k", head, nil); return err },
				"log":           func() error { _, err := s.Log(ctx, "k", store.Head{}); return err },
				"log from":      func() error { _, err := s.Log(ctx, "k", head); return err },
				"logs":          func() error { _, err := s.Logs(ctx, ""); return err },
				"size":          func() error { _, err := s.Size(ctx, ""); return err },
				"renew":         func() error { return s.Renew(ctx, "") },
			} {
				err := call()
				wantError(t, name, err, store.ErrUnavailable, "appendonly yes")
				if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
					t.Errorf("%s: %v, want ErrUnavailable alone", name, err)
				}
			}
			keys, err := c.Keys(ctx, s.prefix+"[oslui]*").Result()
			keys = slices.DeleteFunc(keys, func(key string) bool { return key == s.markerKey() })
			if err != nil || len(keys) > 0 {
				t.Errorf("written into a store that is not the one that was opened: %q, %v", keys, err)
			}
		}
	})
}

// TestUploadLost loses a chunk between its arrival and the end of the write.
func TestUploadLost(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s, c := open(t, server.fresh()), raw(t, server.url)
		s.chunk = 10
		for name, lose := range map[string]func(key string) error{
			"one chunk": func(key string) error { return c.HDel(t.Context(), key, "0").Err() },
			"all":       func(key string) error { return c.Del(t.Context(), key).Err() },
		} {
			_, err := s.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
				if _, err := w.Write(make([]byte, 25)); err != nil {
					return err
				}
				keys, err := c.Keys(t.Context(), s.prefix+"u:*").Result()
				if err != nil || len(keys) != 1 {
					t.Fatalf("uploads: %q, %v", keys, err)
				}
				return lose(keys[0])
			})
			wantError(t, name, err, store.ErrUnavailable, "lost parts")
			_, err = s.Get(t.Context(), "k")
			wantError(t, name, err, store.ErrNotFound)
		}
		wantTidy(t, s.URL())
	})
}

// TestExpiry: scratch goes unless renewed, the rest stays.
func TestExpiry(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s, c := open(t, server.fresh()), raw(t, server.url)
		kept := []string{"data/x", "jobs", "models/y"}
		scratch := []string{(job.Keys{Job: "7", Plan: "0123456789abcdef"}).Final(), "jobs/8/x"}
		for _, key := range append(kept, scratch...) {
			put(t, s, key, []byte(key))
			if err := s.SetStatus(t.Context(), key, []byte(key)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Append(t.Context(), key, store.Head{}, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range kept {
			for _, name := range []string{s.objectKey(key), s.statusKey(key), s.logKey(key), s.objectIndex(), s.markerKey()} {
				if left, err := c.PTTL(t.Context(), name).Result(); err != nil || left != -1 {
					t.Errorf("%s has %v left, %v; want no limit", name, left, err)
				}
			}
		}
		for _, key := range scratch {
			for _, name := range []string{s.objectKey(key), s.statusKey(key)} {
				left, err := c.PTTL(t.Context(), name).Result()
				if err != nil || left > store.ScratchLife || left < store.ScratchLife-time.Minute {
					t.Errorf("%s has %v left, %v; want about %v", name, left, err, store.ScratchLife)
				}
			}
		}
		want := func(when string, keys ...string) {
			t.Helper()
			got, err := s.List(t.Context(), "")
			if err != nil || strings.Join(got, " ") != strings.Join(keys, " ") {
				t.Errorf("%s: %q, %v; want %q", when, got, err, keys)
			}
			logs, err := s.Logs(t.Context(), "")
			if err != nil || len(logs) != 5 {
				t.Errorf("%s: logs %q, %v; want all 5", when, logs, err)
			}
			wantTidy(t, s.URL())
		}
		server.later(store.ScratchLife * 2 / 3)
		if err := s.Renew(t.Context(), "jobs/7/"); err != nil {
			t.Fatal(err)
		}
		want("early", "data/x", "jobs", scratch[0], scratch[1], "models/y")
		server.later(store.ScratchLife * 2 / 3)
		want("one renewed", "data/x", "jobs", scratch[0], "models/y")
		if size, err := s.Size(t.Context(), "jobs/8/"); size != 0 || err != nil {
			t.Errorf("size of what expired: %v, %v", size, err)
		}
		_, err := s.Status(t.Context(), "jobs/8/x")
		wantError(t, "status that expired", err, store.ErrNotFound)
		put(t, s, "jobs/8/x", []byte("again"))
		server.later(2 * store.ScratchLife)
		want("late", kept...)
		if err := s.Renew(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if left, err := c.PTTL(t.Context(), s.objectKey("models/y")).Result(); err != nil || left != -1 {
			t.Errorf("Renew gave a model a limit: %v, %v", left, err)
		}
	})
}

// TestAbandonedUpload: what a dead client was writing goes.
func TestAbandonedUpload(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s, c := open(t, server.fresh()), raw(t, server.url)
		u := &upload{s: s, ctx: t.Context(), key: "models/x", id: newID(), buf: new([chunkBytes + trailerBytes + 2]byte)}
		for range 2 { // The second chunk must not lift the limit.
			u.used = 10
			u.send()
			if u.err != nil {
				t.Fatal(u.err)
			}
			left, err := c.PTTL(t.Context(), s.uploadKey(u.id)).Result()
			if err != nil || left <= 0 || left > uploadLife {
				t.Errorf("the upload has %v left, %v", left, err)
			}
		}
		server.later(uploadLife + time.Minute)
		if keys, err := c.Keys(t.Context(), s.prefix+"u:*").Result(); err != nil || len(keys) != 0 {
			t.Errorf("left after %v: %q, %v", uploadLife, keys, err)
		}
		wantTidy(t, s.URL())
	})
}

// TestManyNames lists more names than one script looks at.
func TestManyNames(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s, c := open(t, server.fresh()), raw(t, server.url)
		put(t, s, "k/0000", nil)
		value, err := c.HGetAll(t.Context(), s.objectKey("k/0000")).Result()
		if err != nil {
			t.Fatal(err)
		}
		const names = 2*page + 1
		var keys []string
		for i := range names {
			keys = append(keys, "k/"+string(rune('a'+i/100))+string(rune('a'+i/10%10))+string(rune('a'+i%10)))
		}
		_, err = c.Pipelined(t.Context(), func(p goredis.Pipeliner) error {
			for i, key := range keys {
				if i%3 > 0 { // The others are names without an object.
					p.HSet(t.Context(), s.objectKey(key), value)
				}
				p.ZAdd(t.Context(), s.objectIndex(), goredis.Z{Member: key})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.List(t.Context(), "k/")
		if err != nil || len(got) != 1+names*2/3 {
			t.Errorf("%d names, %v; want %d", len(got), err, 1+names*2/3)
		}
		wantTidy(t, s.URL())
		if err := s.Delete(t.Context(), got...); err != nil {
			t.Fatal(err)
		}
		if got, err = s.List(t.Context(), ""); err != nil || len(got) != 0 {
			t.Errorf("%d names after all were deleted, %v", len(got), err)
		}
	})
}
