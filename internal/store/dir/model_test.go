// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/store"
	"disdel/internal/store/mem"
)

// twins runs each operation on a folder and on the specification in memory, and
// wants the same answer of both.
type twins struct {
	clients []*Store // of one folder; an operation uses any of them
	model   *mem.Store
	heads   []store.Head // seen so far, of any log
}

// kindOf reduces an error to what the contract says about it.
func kindOf(err error) error {
	for _, known := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrCorrupt, store.ErrLimit, store.ErrUnavailable, store.ErrDenied, store.ErrClosed, errWrite,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

var errWrite = errors.New("write callback")

var (
	keys = rapid.SampledFrom([]string{
		"a", "b", "a/b", "a/b/c", "a/c", "ab", "a.b", "a-", "x/y/z", "", "a/", "../a", "A",
		strings.Repeat("l", 128), strings.Repeat("l", 129), strings.Repeat("l", 129) + "/a", strings.Repeat("l", 257), strings.Repeat("l", 513),
	})
	prefixes = rapid.SampledFrom([]string{
		"", "a", "a/", "a/b", "a/b/", "ab", "x/y", "l", strings.Repeat("l", 128), strings.Repeat("l", 129), strings.Repeat("l", 129) + "/",
		"..", "/", "a//", "B",
	})
	values = rapid.Custom(func(t *rapid.T) []byte {
		size := rapid.SampledFrom([]int{0, 1, 5, 100, 65535, 65536, 65537, 140_000}).Draw(t, "size")
		return []byte(strings.Repeat(string(rapid.SampledFrom([]rune("pqr")).Draw(t, "letter")), size))
	})
)

// same runs op on a random client of the folder and on the model.
func (w *twins) same(t *rapid.T, op func(s store.Store) (answer any, err error)) {
	got, gotErr := op(rapid.SampledFrom(w.clients).Draw(t, "client"))
	want, wantErr := op(w.model)
	if kindOf(gotErr) != kindOf(wantErr) { //nolint:errorlint // Both are reduced to sentinels.
		t.Fatalf("dir: error %v; mem: error %v", gotErr, wantErr)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("dir: %.200v; mem: %.200v", got, want)
	}
}

func (w *twins) Put(t *rapid.T) {
	key, value := keys.Draw(t, "key"), values.Draw(t, "value")
	fails := rapid.IntRange(0, 9).Draw(t, "fails") == 0
	w.same(t, func(s store.Store) (any, error) {
		return s.PutIfAbsent(t.Context(), key, func(out io.Writer) error {
			if _, err := out.Write(value); err != nil || !fails {
				return err
			}
			return errWrite
		})
	})
}

func (w *twins) Get(t *rapid.T) {
	key := keys.Draw(t, "key")
	w.same(t, func(s store.Store) (any, error) {
		r, err := s.Get(t.Context(), key)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		return string(data), errors.Join(err, r.Close())
	})
}

func (w *twins) List(t *rapid.T) {
	prefix := prefixes.Draw(t, "prefix")
	w.same(t, func(s store.Store) (any, error) { return s.List(t.Context(), prefix) })
	w.same(t, func(s store.Store) (any, error) { return s.Logs(t.Context(), prefix) })
	w.same(t, func(s store.Store) (any, error) {
		size, err := s.Size(t.Context(), prefix)
		keys, listErr := s.List(t.Context(), prefix)
		// The framing differs between stores; nothing at all does not.
		return (size > 0) == (len(keys) > 0) || s == store.Store(w.model), errors.Join(err, listErr)
	})
}

func (w *twins) Delete(t *rapid.T) {
	some := rapid.SliceOfN(keys, 0, 4).Draw(t, "keys")
	w.same(t, func(s store.Store) (any, error) { return nil, s.Delete(t.Context(), some...) })
}

func (w *twins) Flush(t *rapid.T) {
	some := rapid.SliceOfN(keys, 0, 2).Draw(t, "keys")
	w.same(t, func(s store.Store) (any, error) { return nil, s.Flush(t.Context(), some...) })
}

func (w *twins) SetStatus(t *rapid.T) {
	key, value := keys.Draw(t, "key"), values.Draw(t, "value")
	if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
		value = nil
	}
	w.same(t, func(s store.Store) (any, error) { return nil, s.SetStatus(t.Context(), key, value) })
}

func (w *twins) Status(t *rapid.T) {
	key := keys.Draw(t, "key")
	w.same(t, func(s store.Store) (any, error) {
		value, err := s.Status(t.Context(), key)
		return string(value), err
	})
}

func (w *twins) Append(t *rapid.T) {
	log, payload := keys.Draw(t, "log"), values.Draw(t, "payload")
	head := rapid.SampledFrom(w.heads).Draw(t, "head")
	if entries, err := w.model.Log(t.Context(), log, store.Head{}); err == nil && rapid.Bool().Draw(t, "at the end") {
		head = store.Head{}
		if len(entries) > 0 {
			head = entries[len(entries)-1].Head
		}
	}
	w.same(t, func(s store.Store) (any, error) {
		next, err := s.Append(t.Context(), log, head, payload)
		if err == nil {
			w.heads = append(w.heads, next)
		}
		return next, err
	})
}

func (w *twins) Log(t *rapid.T) {
	log, head := keys.Draw(t, "log"), rapid.SampledFrom(w.heads).Draw(t, "head")
	w.same(t, func(s store.Store) (any, error) {
		entries, err := s.Log(t.Context(), log, head)
		return entries, err
	})
}

// Reopen replaces one client.
func (w *twins) Reopen(t *rapid.T) {
	i := rapid.IntRange(0, len(w.clients)-1).Draw(t, "client")
	if err := w.clients[i].Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), w.clients[i].root)
	if err != nil {
		t.Fatal(err)
	}
	w.clients[i] = s
}

func (*twins) Check(*rapid.T) {}

// TestModel compares random operations on a folder with the specification.
func TestModel(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(parent, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		w := &twins{model: mem.New(), heads: []store.Head{{}, {Sequence: 1}, {Hash: [32]byte{1}}}}
		for range 2 {
			s, err := Open(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			w.clients = append(w.clients, s)
		}
		t.Repeat(rapid.StateMachineActions(w))
		for _, s := range w.clients {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
