// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"disdel/internal/store"
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
