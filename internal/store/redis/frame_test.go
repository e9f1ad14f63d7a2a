// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"errors"
	"testing"

	"disdel/internal/store"
)

// wantBitsChecked flips every bit of a value and cuts it at every length: parse
// must refuse each.
func wantBitsChecked(t *testing.T, what string, value []byte, parse func([]byte) error) {
	t.Helper()
	if err := parse(bytes.Clone(value)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for bit := range 8 * len(value) {
		bad := bytes.Clone(value)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := parse(bad); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s with bit %d flipped: %v, want ErrCorrupt", what, bit, err)
		}
	}
	for n := range value {
		if err := parse(bytes.Clone(value[:n])); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s cut to %d bytes: %v, want ErrCorrupt", what, n, err)
		}
	}
	if err := parse(append(bytes.Clone(value), 0)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%s with a byte more: %v, want ErrCorrupt", what, err)
	}
}

func TestFrames(t *testing.T) {
	data := []byte("some data")
	m := manifest{total: 3*1000 + uint64(len(data)), chunk: 1000, id: newID()}
	wantBitsChecked(t, "manifest", m.encode("jobs/7/x"), func(b []byte) error { _, err := parseManifest("jobs/7/x", b); return err })
	wantBitsChecked(t, "chunk", sealChunk(bytes.Clone(data), m.id, 3), func(b []byte) error { _, err := openChunk(b, m, 3); return err })
	wantBitsChecked(t, "status", encodeStatus("k", data), func(b []byte) error { _, err := parseStatus("k", b); return err })
	next := store.Head{Sequence: 4}.Next(data)
	wantBitsChecked(t, "entry", encodeEntry("k", next, data), func(b []byte) error { _, err := parseEntry("k", 5, b); return err })

	if _, err := parseManifest("jobs/7/y", m.encode("jobs/7/x")); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("manifest under another key: %v", err)
	}
	if _, err := parseStatus("x", encodeStatus("k", data)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("status under another key: %v", err)
	}
	if _, err := parseEntry("x", 5, encodeEntry("k", next, data)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("entry of another log: %v", err)
	}
	full := manifest{total: 4 * uint64(len(data)), chunk: uint32(len(data)), id: m.id}
	if _, err := openChunk(sealChunk(bytes.Clone(data), m.id, 1), full, 2); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("chunk of another number: %v", err)
	}
	if _, err := openChunk(sealChunk(bytes.Clone(data), newID(), 1), full, 1); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("chunk of another object: %v", err)
	}
}

func TestManifestClaims(t *testing.T) {
	for _, m := range []manifest{{chunk: 0}, {chunk: maxChunkBytes + 1}, {chunk: 1, total: maxObjectBytes + 1}} {
		if _, err := parseManifest("k", m.encode("k")); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%+v: %v, want ErrCorrupt", m, err)
		}
	}
	for total, want := range map[uint64]uint64{0: 0, 1: 1, 999: 1, 1000: 1, 1001: 2, 2000: 2} {
		m := manifest{total: total, chunk: 1000}
		var sum int
		for i := range m.chunks() {
			sum += m.length(i)
		}
		if m.chunks() != want || sum != int(total) {
			t.Errorf("%d bytes: %d chunks of together %d bytes", total, m.chunks(), sum)
		}
	}
}

func FuzzManifest(f *testing.F) {
	m := manifest{total: 1 << 20, chunk: chunkBytes, id: newID()}
	f.Add("jobs/7/x", m.encode("jobs/7/x"))
	f.Add("k", []byte{})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		m, err := parseManifest(key, value)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
			return
		}
		if !bytes.Equal(m.encode(key), value) {
			t.Error("a manifest that was accepted is written differently")
		}
		if n := m.chunks(); n > 0 && (m.length(n-1) <= 0 || m.length(0) > maxChunkBytes) {
			t.Errorf("%+v: chunks of %d to %d bytes", m, m.length(n-1), m.length(0))
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add("jobs/7", encodeEntry("jobs/7", store.Head{}.Next([]byte("one")), []byte("one")))
	f.Fuzz(func(t *testing.T, log string, value []byte) {
		entry, err := parseEntry(log, 1, bytes.Clone(value))
		if err == nil && !bytes.Equal(encodeEntry(log, entry.Head, entry.Payload), value) {
			t.Error("an entry that was accepted is written differently")
		} else if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}
