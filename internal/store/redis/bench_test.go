// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"disdel/internal/store"
)

// modelBytes is the size of the weights of a middling model.
const modelBytes = 4 << 20

// benchStore opens a store on the server that DISDEL_BENCH_REDIS names, else on
// an imitation, which measures the client alone.
func benchStore(b *testing.B) *Store {
	url := os.Getenv("DISDEL_BENCH_REDIS")
	if url == "" {
		url = startImitation(b).url
	}
	s := open(b, url+"?name=bench")
	b.Cleanup(func() {
		keys, err := s.List(b.Context(), "")
		if err == nil {
			err = s.Delete(b.Context(), keys...)
		}
		if err != nil {
			b.Log(err)
		}
	})
	return s
}

func benchPut(b *testing.B, s *Store, size int) {
	data := bytes.Repeat([]byte("weights "), size/8)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := range b.N {
		key := fmt.Sprintf("jobs/7/k%d", i)
		put(b, s, key, data)
		b.StopTimer() // The server must not fill up.
		if err := s.Delete(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func benchGet(b *testing.B, s *Store, size int) {
	key := fmt.Sprintf("jobs/7/get%d", b.N)
	put(b, s, key, bytes.Repeat([]byte("weights "), size/8))
	into := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r, err := s.Get(b.Context(), key)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r, into); err != nil {
			b.Fatal(err)
		}
		if n, err := r.Read(into); n != 0 || err != io.EOF {
			b.Fatal(n, err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := s.Delete(b.Context(), key); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{256, 64 << 10, modelBytes} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchPut(b, benchStore(b), size) })
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{256, 64 << 10, modelBytes} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchGet(b, benchStore(b), size) })
	}
}

// BenchmarkChunk is why chunks have the size that they have.
func BenchmarkChunk(b *testing.B) {
	for _, chunk := range []int{32 << 10, 64 << 10, 128 << 10, chunkBytes} {
		b.Run(fmt.Sprintf("put/%d", chunk), func(b *testing.B) {
			s := benchStore(b)
			s.chunk = chunk
			benchPut(b, s, modelBytes)
		})
		b.Run(fmt.Sprintf("get/%d", chunk), func(b *testing.B) {
			s := benchStore(b)
			s.chunk = chunk
			benchGet(b, s, modelBytes)
		})
	}
}

func BenchmarkSetStatus(b *testing.B) {
	s := benchStore(b)
	value := bytes.Repeat([]byte("s"), 200)
	for b.Loop() {
		if err := s.SetStatus(b.Context(), "jobs/7/r0", value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	s := benchStore(b)
	id := newID()
	log, head := fmt.Sprintf("jobs/%x", id[:]), store.Head{}
	payload := bytes.Repeat([]byte("e"), 300)
	for b.Loop() {
		next, err := s.Append(b.Context(), log, head, payload)
		if err != nil {
			b.Fatal(err)
		}
		head = next
	}
}
