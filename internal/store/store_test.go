// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"disdel/internal/store"
	"disdel/internal/store/mem"
)

func TestHeadNext(t *testing.T) {
	one := store.Head{}.Next([]byte("first"))
	two := one.Next(nil)
	want := sha256.Sum256(append(append([]byte{}, one.Hash[:]...), 0, 0, 0, 0, 0, 0, 0, 2))
	if one.Sequence != 1 || two != (store.Head{Sequence: 2, Hash: want}) {
		t.Errorf("heads %d and %+v, want 1 and 2 with hash %x", one.Sequence, two, want)
	}
	if one.Next([]byte("x")) == one.Next([]byte("y")) || one.Next(nil) == (store.Head{Sequence: 1}).Next(nil) {
		t.Error("different histories have the same head")
	}
}

func TestValidateKey(t *testing.T) {
	for _, key := range []string{
		"a", "0", "-", "_", "a.b", "a..b", "a.", "jobs/7/round-0001/replica_2.state", strings.Repeat("k", store.MaxKeyBytes),
	} {
		if err := store.ValidateKey(key); err != nil {
			t.Errorf("%.40q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", ".a", "a/.b", "a/..", "A", "ä", "a b", "a\x00", "a@", "a+", "a\\b", "\xff",
		strings.Repeat("k", store.MaxKeyBytes+1),
	} {
		if err := store.ValidateKey(key); !errors.Is(err, store.ErrLimit) || len(err.Error()) > 200 {
			t.Errorf("%.40q: %v, want a short ErrLimit", key, err)
		}
	}
}

type idling struct{ store.Store }

func (idling) Idle() {}

func TestAs(t *testing.T) {
	for name, test := range map[string]struct {
		s    store.Store
		want bool
	}{
		"itself":           {idling{mem.New()}, true},
		"under decorators": {store.WithRetry(store.WithRetry(idling{mem.New()}, store.RetryPolicy{}), store.RetryPolicy{}), true},
		"absent":           {store.WithRetry(mem.New(), store.RetryPolicy{}), false},
	} {
		if _, ok := store.As[store.Idler](test.s); ok != test.want {
			t.Errorf("%s: found %v, want %v", name, ok, test.want)
		}
	}
}
