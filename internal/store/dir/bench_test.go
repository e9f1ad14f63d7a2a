// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"disdel/internal/store"
)

// modelBytes is the size of the weights of a middling model.
const modelBytes = 4 << 20

var sizes = []int{256, 64 << 10, modelBytes}

func BenchmarkPut(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, b.TempDir())
			put(b, s, "jobs/7/keep", nil) // Keeps the folder, as a job does.
			data := bytes.Repeat([]byte("weights "), size/8)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := range b.N {
				key := fmt.Sprintf("jobs/7/k%d", i)
				put(b, s, key, data)
				b.StopTimer() // The page cache must not fill up.
				if err := s.Delete(b.Context(), key); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkPutFlush(b *testing.B) {
	s := open(b, b.TempDir())
	data := bytes.Repeat([]byte("weights "), modelBytes/8)
	b.SetBytes(modelBytes)
	for i := range b.N {
		key := fmt.Sprintf("jobs/7/k%d", i)
		put(b, s, key, data)
		if err := s.Flush(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Delete(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, b.TempDir())
			put(b, s, "jobs/7/k", bytes.Repeat([]byte("weights "), size/8))
			into := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Get(b.Context(), "jobs/7/k")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, into); err != nil {
					b.Fatal(err)
				}
				if n, err := r.Read(into); n != 0 || err != io.EOF {
					b.Fatal(n, err)
				}
				_ = r.Close()
			}
		})
	}
}

func BenchmarkSetStatus(b *testing.B) {
	s := open(b, b.TempDir())
	value := bytes.Repeat([]byte("s"), 200)
	for b.Loop() {
		if err := s.SetStatus(b.Context(), "jobs/7/r0", value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir())
	head := store.Head{}
	payload := bytes.Repeat([]byte("e"), 300)
	for b.Loop() {
		next, err := s.Append(b.Context(), "jobs/7", head, payload)
		if err != nil {
			b.Fatal(err)
		}
		head = next
	}
}

func BenchmarkLog1000(b *testing.B) {
	s := open(b, b.TempDir())
	head := store.Head{}
	for range 1000 {
		next, err := s.Append(b.Context(), "jobs/7", head, bytes.Repeat([]byte("e"), 300))
		if err != nil {
			b.Fatal(err)
		}
		head = next
	}
	for b.Loop() {
		entries, err := s.Log(b.Context(), "jobs/7", store.Head{})
		if err != nil || len(entries) != 1000 {
			b.Fatal(len(entries), err)
		}
	}
}
