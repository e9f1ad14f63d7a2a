// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// contents are what is published in these tests.
var contents = func() []byte {
	b := make([]byte, 600<<10)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}()

func published(urls ...string) File {
	sum := sha256.Sum256(contents)
	return File{Name: "file.bin", URLs: urls, Bytes: int64(len(contents)), SHA256: hex.EncodeToString(sum[:])}
}

// site is a server whose answers are scripted: the n-th request gets the n-th
// step, and the last one all that follow.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	steps    []http.HandlerFunc
	requests []*http.Request
}

func serve(t *testing.T, steps ...http.HandlerFunc) *site {
	t.Helper()
	s := &site{steps: steps}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		step := s.steps[min(len(s.requests), len(s.steps)-1)]
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		step(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) header(t *testing.T, request int, name string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if request >= len(s.requests) {
		t.Fatalf("%d requests only", len(s.requests))
	}
	return s.requests[request].Header.Get(name)
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// whole serves a file as the standard library does: with ranges.
func whole(b []byte, etag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// cut announces a whole file and breaks the connection after n bytes.
func cut(b []byte, n int, etag string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		send(w, b[:n])
		panic(http.ErrAbortHandler)
	}
}

func send(w http.ResponseWriter, b []byte) {
	_, _ = w.Write(b)
	w.(http.Flusher).Flush()
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// attempt fetches into an empty folder without real pauses, and reports them.
type attempt struct {
	Fetcher
	path   string
	pauses []time.Duration
}

func newAttempt(t *testing.T) *attempt {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	a := &attempt{path: filepath.Join(t.TempDir(), "sub", "file.bin")}
	a.Fetcher = Fetcher{
		Client: &http.Client{Transport: transport},
		Pause: func(ctx context.Context, d time.Duration) error {
			a.pauses = append(a.pauses, d)
			return ctx.Err()
		},
		Jitter: func() float64 { return 1 },
	}
	return a
}

// good checks that the file is there and nothing else.
func (a *attempt) good(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(a.path)
	if err != nil || !bytes.Equal(got, contents) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.only(t, "file.bin")
}

// only checks which files are there.
func (a *attempt) only(t *testing.T, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(a.path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

// bad checks the error and that no file has the final name.
func (a *attempt) bad(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range append(texts, "download file.bin: ") {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v; want %q in it", err, text)
		}
	}
	if _, err := os.Stat(a.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
}
