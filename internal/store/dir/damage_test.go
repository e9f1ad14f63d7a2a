// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"disdel/internal/store"
)

func put(t testing.TB, s *Store, key string, data []byte) {
	t.Helper()
	created, err := s.PutIfAbsent(context.Background(), key, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil || !created {
		t.Fatalf("put %s: created=%v, %v", key, created, err)
	}
}

func get(s *Store, key string) ([]byte, error) {
	r, err := s.Get(context.Background(), key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func encode(t testing.TB, k kind, name string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := newFrameWriter(t.Context(), &out, k, name)
	defer w.release()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decode(in io.Reader, k kind, name string) ([]byte, error) {
	r := newFrameReader(in, k, name)
	defer r.release()
	var all []byte
	for {
		data, err := r.next()
		all = append(all, data...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// TestFormat pins the bytes, which stores that exist are made of.
func TestFormat(t *testing.T) {
	want := strings.Join([]string{
		"64697364656c" + "6f" + "01" + "a3400bfb" + "c391da3d",
		"03000000" + "2c440a5c" + "616263",
		"00000000" + "53448cbb" + "0300000000000000",
	}, "")
	if got := hex.EncodeToString(encode(t, kindObject, "a/b", []byte("abc"))); got != want {
		t.Errorf("the file of a/b:\n got %s\nwant %s", got, want)
	}
}

// victims are files of each kind, with a read that must notice damage to them.
func victims(t *testing.T) (s *Store, files map[string]func() ([]byte, error)) {
	ctx := t.Context()
	s = open(t, t.TempDir())
	put(t, s, "jobs/7/x", []byte("the bytes of a small object"))
	put(t, s, "jobs/7/empty", nil)
	if err := s.SetStatus(ctx, "jobs/7/x", []byte("step 12 of 900")); err != nil {
		t.Fatal(err)
	}
	one, err := s.Append(ctx, "jobs/7/x", store.Head{}, []byte("planned"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Append(ctx, "jobs/7/x", one, []byte("round 1 done"))
	if err != nil {
		t.Fatal(err)
	}
	payloads := func(from store.Head) ([]byte, error) {
		entries, err := s.Log(ctx, "jobs/7/x", from)
		var all []byte
		for _, entry := range entries {
			all = append(all, entry.Payload...)
		}
		return all, err
	}
	return s, map[string]func() ([]byte, error){
		"objects/jobs/7/x@":     func() ([]byte, error) { return get(s, "jobs/7/x") },
		"objects/jobs/7/empty@": func() ([]byte, error) { return get(s, "jobs/7/empty") },
		"status/jobs/7/x@":      func() ([]byte, error) { return s.Status(ctx, "jobs/7/x") },
		"logs/jobs/7/x@/00000001": func() ([]byte, error) {
			return payloads(store.Head{})
		},
		"logs/jobs/7/x@/00000002": func() ([]byte, error) {
			if _, err := s.Append(ctx, "jobs/7/x", two, nil); !errors.Is(err, store.ErrCorrupt) {
				return nil, fmt.Errorf("append behind a damaged entry: %w", err)
			}
			return payloads(one)
		},
	}
}

// TestDamage flips every bit of a file of each kind, cuts it at every length and
// adds to it.
func TestDamage(t *testing.T) {
	t.Parallel()
	s, files := victims(t)
	for name, read := range files {
		path := filepath.Join(s.root, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content := string(good[headerBytes:])
		check := func(what string, damaged []byte) {
			t.Helper()
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := read()
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("%s, %s: got %q, %v; want ErrCorrupt", name, what, got, err)
			}
			if !strings.Contains(content, string(got)) {
				t.Fatalf("%s, %s: wrong bytes %q", name, what, got)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "jobs/7/") {
				t.Fatalf("%s, %s: %v does not name the file and the key", name, what, err)
			}
			if errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("%s, %s: %v would be retried", name, what, err)
			}
		}
		for bit := range 8 * len(good) {
			damaged := bytes.Clone(good)
			damaged[bit/8] ^= 1 << (bit % 8)
			check(fmt.Sprintf("bit %d flipped", bit), damaged)
		}
		for n := range good {
			check(fmt.Sprintf("cut to %d bytes", n), good[:n])
		}
		for _, tail := range []string{"\x00", "x", string(good), string(good[headerBytes:])} {
			check(fmt.Sprintf("%d bytes added", len(tail)), append(bytes.Clone(good), tail...))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := read(); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("%s replaced by a folder: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageLarge does the same to a file of several frames, at places around
// their ends and at random.
func TestDamageLarge(t *testing.T) {
	t.Parallel()
	for _, size := range []int{frameBytes, 2*frameBytes + 777} {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
		good := encode(t, kindObject, "k", data)
		var places []int
		for edge := headerBytes; edge < len(good); edge += frameHead + frameBytes {
			for near := -10; near < 15; near++ {
				places = append(places, edge+near)
			}
		}
		for n := range trailerBytes {
			places = append(places, len(good)-1-n)
		}
		random := rand.New(rand.NewPCG(1, uint64(size)))
		for range 100 {
			places = append(places, random.IntN(len(good)))
		}
		for _, place := range places {
			damaged := bytes.Clone(good)
			damaged[place] ^= 1 << random.IntN(8)
			for what, file := range map[string][]byte{"flipped": damaged, "cut": good[:place]} {
				got, err := decode(bytes.NewReader(file), kindObject, "k")
				if !errors.Is(err, store.ErrCorrupt) || !bytes.HasPrefix(data, got) {
					t.Fatalf("%s at %d of %d: %d bytes, %v", what, place, len(good), len(got), err)
				}
				if what == "flipped" && place > headerBytes && len(got) > place {
					t.Fatalf("flipped at %d: %d bytes handed out", place, len(got))
				}
			}
		}
	}
}

// TestFrameOrder swaps, repeats and drops whole frames, whose own bytes are
// right.
func TestFrameOrder(t *testing.T) {
	data := make([]byte, 3*frameBytes)
	_, _ = rand.NewChaCha8([32]byte{8}).Read(data)
	good := encode(t, kindObject, "k", data)
	const frame = frameHead + frameBytes
	header, trailer := good[:headerBytes], good[len(good)-trailerBytes:]
	part := func(i int) []byte { return good[headerBytes+i*frame:][:frame] }
	for name, parts := range map[string][][]byte{
		"swapped":     {header, part(1), part(0), part(2), trailer},
		"swapped end": {header, part(0), part(2), part(1), trailer},
		"repeated":    {header, part(0), part(0), part(1), part(2), trailer},
		"dropped":     {header, part(0), part(2), trailer},
		"end dropped": {header, part(0), part(1), trailer},
		"no frame":    {header, trailer},
		"two ends":    {header, part(0), part(1), part(2), trailer, trailer},
		"two headers": {header, header, part(0), part(1), part(2), trailer},
	} {
		got, err := decode(bytes.NewReader(bytes.Join(parts, nil)), kindObject, "k")
		if !errors.Is(err, store.ErrCorrupt) || !bytes.HasPrefix(data, got) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	// A short frame is the last: else one content would have many files.
	two := bytes.Join([][]byte{header, {1, 0, 0, 0, 0, 0, 0, 0, 'a'}, {1, 0, 0, 0, 0, 0, 0, 0, 'b'}, make([]byte, trailerBytes)}, nil)
	two[len(two)-8] = 2
	if got, err := decode(bytes.NewReader(repair(two, kindObject, "k")), kindObject, "k"); !errors.Is(err, store.ErrCorrupt) || string(got) != "a" {
		t.Errorf("two short frames: %q, %v", got, err)
	}
	if got, err := decode(iotest.OneByteReader(bytes.NewReader(good)), kindObject, "k"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read byte by byte: %d bytes, %v", len(got), err)
	}
	if got, err := decode(iotest.DataErrReader(bytes.NewReader(good)), kindObject, "k"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read with the end and the last bytes at once: %d bytes, %v", len(got), err)
	}
}

// TestMoved puts correct files in places that are not theirs.
func TestMoved(t *testing.T) {
	s, _ := victims(t)
	ctx := t.Context()
	move := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(s.root, from))
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(s.root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	move("objects/jobs/7/x@", "objects/jobs/8/x@")
	if data, err := get(s, "jobs/8/x"); !errors.Is(err, store.ErrCorrupt) || len(data) > 0 {
		t.Errorf("an object under another key: %q, %v", data, err)
	}
	move("status/jobs/7/x@", "objects/jobs/7/x@")
	if data, err := get(s, "jobs/7/x"); !errors.Is(err, store.ErrCorrupt) || len(data) > 0 {
		t.Errorf("a status as an object: %q, %v", data, err)
	}
	move("status/jobs/7/x@", "status/jobs/7/y@")
	if data, err := s.Status(ctx, "jobs/7/y"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a status under another key: %q, %v", data, err)
	}
	move("logs/jobs/7/x@/00000002", "logs/jobs/7/x@/00000003")
	if entries, err := s.Log(ctx, "jobs/7/x", store.Head{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("an entry with another number: %d entries, %v", len(entries), err)
	}
	move("logs/jobs/7/x@/00000001", "logs/jobs/8@/00000001")
	if entries, err := s.Log(ctx, "jobs/8", store.Head{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("an entry of another log: %d entries, %v", len(entries), err)
	}

	// What is corrupt stands in the way until it is deleted.
	write := func(w io.Writer) error { _, err := w.Write([]byte("new")); return err }
	if created, err := s.PutIfAbsent(ctx, "jobs/8/x", write); created || err != nil {
		t.Errorf("put over a corrupt object: %v, %v", created, err)
	}
	if err := s.Delete(ctx, "jobs/8/x"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "jobs/8/x", []byte("new"))
	if err := s.SetStatus(ctx, "jobs/7/y", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if data, err := s.Status(ctx, "jobs/7/y"); err != nil || string(data) != "new" {
		t.Errorf("a corrupt status replaced: %q, %v", data, err)
	}
}

// TestLogDamage breaks the chain with entries that are each correct.
func TestLogDamage(t *testing.T) {
	ctx := t.Context()
	fill := func(s *Store, log string, payloads ...string) []store.Head {
		heads := []store.Head{{}}
		for i, payload := range payloads {
			next, err := s.Append(ctx, log, heads[i], []byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, next)
		}
		return heads
	}
	s, other := open(t, t.TempDir()), open(t, t.TempDir())
	heads := fill(s, "k", "one", "two", "three", "four")
	fill(other, "k", "one", "TWO", "three", "four")
	entry := func(s *Store, n uint64) string { return filepath.Join(keyPath(s.base(logsName), "k"), entryName(n)) }
	kept := entry(s, 3) + ".kept" // A name that is not in the store's scheme.

	if err := os.Rename(entry(s, 3), kept); err != nil {
		t.Fatal(err)
	}
	_, err := s.Log(ctx, "k", store.Head{})
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "entry 3 is missing") {
		t.Errorf("an entry in the middle is missing: %v", err)
	}
	if err := os.Link(entry(other, 3), entry(s, 3)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Log(ctx, "k", heads[1])
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "entry 3 does not follow entry 2") {
		t.Errorf("an entry of another history: %v", err)
	}
	if _, err = s.Log(ctx, "k", heads[3]); !errors.Is(err, store.ErrConflict) {
		t.Errorf("log from a head that was replaced: %v", err)
	}
	if err := os.Rename(kept, entry(s, 3)); err != nil {
		t.Fatal(err)
	}
	if entries, err := s.Log(ctx, "k", store.Head{}); err != nil || len(entries) != 4 {
		t.Errorf("the log once repaired: %d entries, %v", len(entries), err)
	}
	if err := os.Remove(entry(s, 1)); err != nil {
		t.Fatal(err)
	}
	if logs, err := s.Logs(ctx, ""); err != nil || len(logs) != 1 {
		t.Errorf("a log without its first entry is not listed: %q, %v", logs, err)
	}
	if _, err := s.Log(ctx, "k", store.Head{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a log without its first entry: %v", err)
	}
}

// TestTooLong reads files whose checksums are right and whose content is longer
// than its kind may be.
func TestTooLong(t *testing.T) {
	s, _ := victims(t)
	write := func(path string, k kind, name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.root, path), encode(t, k, name, make([]byte, n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("status/jobs/7/x@", kindStatus, "jobs/7/x", store.MaxStatusBytes+1)
	if _, err := s.Status(t.Context(), "jobs/7/x"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a status that is too long: %v", err)
	}
	for _, n := range []int{0, prefixBytes - 1, prefixBytes + store.MaxEntryBytes + 1} {
		write("logs/jobs/7/x@/00000001", kindEntry, "jobs/7/x@00000001", n)
		if _, err := s.Log(t.Context(), "jobs/7/x", store.Head{}); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("an entry of %d bytes: %v", n, err)
		}
	}
}

// TestPlanted puts in the place of a file what is none: it is neither waited for
// nor followed, and named.
func TestPlanted(t *testing.T) {
	t.Parallel()
	s, files := victims(t)
	// What is behind the link is right.
	for what, plant := range map[string]func(path, good string) error{
		"pipe":          func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"link":          func(path, good string) error { return os.Symlink(good, path) },
		"dangling link": func(path, _ string) error { return os.Symlink("nowhere", path) },
		"socket": func(path, _ string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = syscall.Close(fd) })
			// The address has little room.
			short := filepath.Join(os.TempDir(), randomName())
			if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: short}); err != nil {
				return err
			}
			return os.Rename(short, path)
		},
	} {
		for name, read := range files {
			path := filepath.Join(s.root, name)
			good := path + ".good"
			if err := errors.Join(os.Rename(path, good), plant(path, good)); err != nil {
				t.Fatal(err)
			}
			data, err := read()
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) || len(data) > 0 {
				t.Errorf("%s in place of %s: %q, %v", what, name, data, err)
			}
			if strings.HasPrefix(name, "objects/") {
				key := strings.TrimSuffix(strings.TrimPrefix(name, "objects/"), leafMark)
				if err := s.Flush(t.Context(), key); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("flush of a %s: %v", what, err)
				}
				if err := s.Delete(t.Context(), key); err != nil || exists(path) {
					t.Errorf("delete of a %s: %v", what, err)
				}
			} else if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(good, path); err != nil {
				t.Fatal(err)
			}
		}
	}

	log := keyPath(s.base(logsName), "pipe")
	marker := filepath.Join(s.root, markerName)
	if err := errors.Join(syscall.Mkfifo(log, 0o600), os.Remove(marker), syscall.Mkfifo(marker, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Log(t.Context(), "pipe", store.Head{}); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), log) {
		t.Errorf("a pipe in place of a log: %v", err)
	}
	if _, err := s.lastNumber("pipe"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a pipe in place of a log's folder: %v", err)
	}
	if _, err := Open(t.Context(), s.root); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), marker) {
		t.Errorf("a pipe in place of the marker: %v", err)
	}
}
