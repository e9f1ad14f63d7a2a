// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"disdel/internal/store"
)

// repair gives raw a correct header and correct checksums as far as its frames
// go, so that mutations get past them to what lies behind.
func repair(raw []byte, k kind, name string) []byte {
	file := bytes.Clone(raw)
	if len(file) < headerBytes {
		return file
	}
	header, crc := makeHeader(k, name)
	copy(file, header[:])
	for rest := file[headerBytes:]; len(rest) >= frameHead; {
		length := int(binary.LittleEndian.Uint32(rest))
		end := frameHead + length
		if length == 0 {
			end = trailerBytes
		}
		if length > frameBytes || end > len(rest) {
			break
		}
		crc = crc32.Update(crc, castagnoli, rest[:4])
		crc = crc32.Update(crc, castagnoli, rest[frameHead:end])
		binary.LittleEndian.PutUint32(rest[4:], crc)
		rest = rest[end:]
	}
	return file
}

func seed(f *testing.F, k kind, name string) {
	for _, n := range []int{0, 1, 40, 300} {
		f.Add(encode(f, k, name, bytes.Repeat([]byte("x"), n)))
	}
	f.Add([]byte{})
	f.Add([]byte("disdel"))
}

// fuzzFrames checks that whatever parses is exactly what the writer makes of its
// content, so that no two files mean the same.
func fuzzFrames(t *testing.T, raw []byte, k kind, name string) {
	for _, file := range [][]byte{raw, repair(raw, k, name)} {
		data, err := decode(bytes.NewReader(file), k, name)
		if err == nil {
			if !bytes.Equal(encode(t, k, name, data), file) {
				t.Fatalf("%x parses as %x, whose file is another one", file, data)
			}
		} else if !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("%x: %v is not ErrCorrupt", file, err)
		}
	}
	if data, err := decode(bytes.NewReader(encode(t, k, name, raw)), k, name); err != nil || !bytes.Equal(data, raw) {
		t.Fatalf("%x written and read: %x, %v", raw, data, err)
	}
}

func FuzzObject(f *testing.F) {
	seed(f, kindObject, "k")
	f.Fuzz(func(t *testing.T, raw []byte) { fuzzFrames(t, raw, kindObject, "k") })
}

func FuzzStatus(f *testing.F) {
	seed(f, kindStatus, "k")
	f.Fuzz(func(t *testing.T, raw []byte) {
		fuzzFrames(t, raw, kindStatus, "k")
		for _, file := range [][]byte{raw, repair(raw, kindStatus, "k")} {
			r := newFrameReader(bytes.NewReader(file), kindStatus, "k")
			data, err := r.readAll(store.MaxStatusBytes)
			r.release()
			if err == nil && len(data) > store.MaxStatusBytes || err != nil && !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("%x: %d bytes, %v", file, len(data), err)
			}
		}
	})
}

func FuzzEntry(f *testing.F) {
	seed(f, kindEntry, "k@00000003")
	f.Fuzz(func(t *testing.T, raw []byte) {
		fuzzFrames(t, raw, kindEntry, "k@00000003")
		file := repair(raw, kindEntry, "k@00000003")
		data, err := decode(bytes.NewReader(file), kindEntry, "k@00000003")
		if err != nil {
			return
		}
		entry, before, err := parseEntry(3, data)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("%x: %v is not ErrCorrupt", data, err)
			}
			return
		}
		if before.Sequence != 2 || entry.Head != before.Next(entry.Payload) ||
			!bytes.Equal(append(bytes.Clone(before.Hash[:]), entry.Payload...), data) {
			t.Fatalf("%x parses as %+v behind %+v", data, entry, before)
		}
	})
}

func FuzzMarker(f *testing.F) {
	f.Add([]byte("disdel store\nformat 1\n"))
	f.Add([]byte("disdel store\nformat 18446744073709551617\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if checkMarker("/s", raw) == nil && !bytes.HasPrefix(raw, []byte("disdel store\nformat ")) {
			t.Fatalf("%q passes for a marker", raw)
		}
	})
}
