// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFetch_Good(t *testing.T) {
	s, a := serve(t, whole(contents, "")), newAttempt(t)
	var told []int64
	a.Progress = func(f File, done int64) {
		if f.Name != "file.bin" {
			t.Errorf("progress of %q", f.Name)
		}
		told = append(told, done)
	}
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if !slices.IsSorted(told) || told[0] != 0 || told[len(told)-1] != int64(len(contents)) {
		t.Errorf("progress %v", told)
	}
	if got := s.header(t, 0, "Accept-Encoding"); got != "identity" {
		t.Errorf("Accept-Encoding %q", got)
	}
	// A second call replaces the file.
	if err := os.WriteFile(a.path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
}

func TestFetch_DefaultsAreReady(t *testing.T) {
	s := serve(t, whole(contents, ""))
	path := filepath.Join(t.TempDir(), "file.bin")
	f := Fetcher{}.withDefaults()
	if f.Client.Transport.(*http.Transport).Proxy == nil || f.Jitter() < 0 || f.Jitter() > 1 {
		t.Error("no proxy, or a jitter out of range")
	}
	t.Cleanup(f.Client.CloseIdleConnections)
	if err := f.Fetch(t.Context(), published(s.URL), path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := f.Pause(ctx, time.Microsecond); err != nil {
		t.Error(err)
	}
	cancel()
	if err := f.Pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("pause: %v", err)
	}
}

func TestFetch_ResumesATruncatedAnswer(t *testing.T) {
	s, a := serve(t, cut(contents, 200<<10, `"v1"`), whole(contents, `"v1"`)), newAttempt(t)
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if got, want := s.header(t, 1, "Range"), fmt.Sprintf("bytes=%d-", 200<<10); got != want {
		t.Errorf("Range %q, want %q", got, want)
	}
	if got := s.header(t, 1, "If-Range"); got != `"v1"` {
		t.Errorf("If-Range %q", got)
	}
}

func TestFetch_WeakETagsAreNoValidators(t *testing.T) {
	s, a := serve(t, cut(contents, 200<<10, `W/"v1"`), whole(contents, `W/"v1"`)), newAttempt(t)
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if got := s.header(t, 1, "If-Range"); got != "" {
		t.Errorf("If-Range %q", got)
	}
}

func TestFetch_NoRangeSupport(t *testing.T) {
	all := func(w http.ResponseWriter, _ *http.Request) { send(w, contents) }
	s, a := serve(t, cut(contents, 200<<10, ""), all), newAttempt(t)
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if s.count() != 2 {
		t.Errorf("%d requests", s.count())
	}
}

func TestFetch_FileChangesDuringResume(t *testing.T) {
	old := bytes.Clone(contents)
	old[5] ^= 1
	t.Run("with a validator", func(t *testing.T) {
		// If-Range makes the server send the new file from its start.
		s, a := serve(t, cut(old, 200<<10, `"old"`), whole(contents, `"new"`)), newAttempt(t)
		a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
		if s.count() != 2 {
			t.Errorf("%d requests", s.count())
		}
	})
	t.Run("without", func(t *testing.T) {
		// The mixture is found by its checksum, and all is fetched again.
		s, a := serve(t, cut(old, 200<<10, ""), whole(contents, "")), newAttempt(t)
		a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
		if s.count() != 3 || s.header(t, 2, "Range") != "" {
			t.Errorf("%d requests, the last from %q", s.count(), s.header(t, 2, "Range"))
		}
	})
	t.Run("to another size", func(t *testing.T) {
		s, a := serve(t, cut(contents, 200<<10, ""), whole(append(bytes.Clone(contents), 1), "")), newAttempt(t)
		a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), `the server sends "bytes 204800-614400/614401"`)
	})
	t.Run("for ever", func(t *testing.T) {
		// Each try breaks off and goes on with other bytes: bounded all the same.
		var steps []http.HandlerFunc
		for range maxRestarts + 1 {
			steps = append(steps, cut(old, 200<<10, ""), whole(old, ""))
		}
		s, a := serve(t, steps...), newAttempt(t)
		err := a.Fetch(t.Context(), published(s.URL), a.path)
		a.bad(t, err, "other contents than published")
		if !errors.Is(err, ErrChecksum) || s.count() > len(steps)+1 {
			t.Errorf("%v after %d requests", err, s.count())
		}
		a.only(t)
	})
}

func TestFetch_GoesOnWithWhatAnEarlierCallLeft(t *testing.T) {
	for _, c := range []struct {
		name  string
		left  []byte
		first string // the first request's range
	}{
		{"the start", contents[:200<<10], "bytes=204800-"},
		{"something else", bytes.Repeat([]byte{7}, 200<<10), "bytes=204800-"},
		{"more than all", append(bytes.Clone(contents), 1), ""},
		{"all, damaged", bytes.Repeat([]byte{7}, len(contents)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, a := serve(t, whole(contents, "")), newAttempt(t)
			if err := os.MkdirAll(filepath.Dir(a.path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(a.path+PartSuffix, c.left, 0o600); err != nil {
				t.Fatal(err)
			}
			a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
			if got := s.header(t, 0, "Range"); got != c.first {
				t.Errorf("Range %q, want %q", got, c.first)
			}
		})
	}
	t.Run("all of it", func(t *testing.T) {
		s, a := serve(t, whole(contents, "")), newAttempt(t)
		if err := os.MkdirAll(filepath.Dir(a.path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.path+PartSuffix, contents, 0o600); err != nil {
			t.Fatal(err)
		}
		a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
		if s.count() != 0 {
			t.Errorf("%d requests", s.count())
		}
	})
}

func TestFetch_Corrupt(t *testing.T) {
	wrong := bytes.Clone(contents)
	wrong[len(wrong)-1] ^= 1
	s, a := serve(t, whole(wrong, "")), newAttempt(t)
	err := a.Fetch(t.Context(), published(s.URL), a.path)
	a.bad(t, err, s.URL, "other contents than published: SHA-256 ")
	if !errors.Is(err, ErrChecksum) || s.count() != 1 {
		t.Errorf("%v after %d requests", err, s.count())
	}
	a.only(t)

	mirror, a := serve(t, whole(contents, "")), newAttempt(t)
	a.good(t, a.Fetch(t.Context(), published(s.URL, mirror.URL), a.path))
}

func TestFetch_WrongSize(t *testing.T) {
	for name, b := range map[string][]byte{"short": contents[:100], "long": append(bytes.Clone(contents), 1)} {
		s, a := serve(t, whole(b, "")), newAttempt(t)
		a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), fmt.Sprintf("the file there has %d bytes, want %d", len(b), len(contents)))
		if s.count() != 1 {
			t.Errorf("%s: %d requests", name, s.count())
		}
		a.only(t)
	}
	// Without a length that is told, no more than the right size is written.
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			send(w, contents)
		}
	}
	s, a := serve(t, endless), newAttempt(t)
	a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), "the server sends more than 614400 bytes")
	a.only(t)
}

func TestFetch_Statuses(t *testing.T) {
	t.Run("404", func(t *testing.T) {
		s, a := serve(t, status(http.StatusNotFound)), newAttempt(t)
		a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), s.URL+": the server answers 404 Not Found")
		if s.count() != 1 || len(a.pauses) != 0 {
			t.Errorf("%d requests, pauses %v", s.count(), a.pauses)
		}
		a.only(t)
	})
	t.Run("404, then a mirror", func(t *testing.T) {
		s, mirror, a := serve(t, status(http.StatusNotFound)), serve(t, whole(contents, "")), newAttempt(t)
		a.good(t, a.Fetch(t.Context(), published(s.URL, mirror.URL), a.path))
	})
	t.Run("5xx, then good", func(t *testing.T) {
		s, a := serve(t, status(503), status(500), status(429), whole(contents, "")), newAttempt(t)
		a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
		if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(a.pauses, want) {
			t.Errorf("pauses %v, want %v", a.pauses, want)
		}
	})
	t.Run("5xx for ever", func(t *testing.T) {
		s, mirror, a := serve(t, status(503)), serve(t, status(502)), newAttempt(t)
		a.Jitter = func() float64 { return 0 }
		a.bad(t, a.Fetch(t.Context(), published(s.URL, mirror.URL), a.path),
			s.URL+": the server answers 503 Service Unavailable; "+mirror.URL+": the server answers 502 Bad Gateway")
		if s.count()+mirror.count() != DefaultTries || s.count() != mirror.count() {
			t.Errorf("%d and %d requests", s.count(), mirror.count())
		}
		if want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 7500 * time.Millisecond}; !slices.Equal(a.pauses, want) {
			t.Errorf("pauses %v, want %v", a.pauses, want)
		}
	})
	t.Run("a part that was not asked for", func(t *testing.T) {
		s, a := serve(t, status(http.StatusPartialContent)), newAttempt(t)
		a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), "206 Partial Content")
	})
}

func TestFetch_Redirects(t *testing.T) {
	target := serve(t, whole(contents, ""))
	hop := func(to *string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, *to, http.StatusFound) }
	}
	s, a := serve(t, hop(&target.URL)), newAttempt(t)
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))

	var self string
	loop, a := serve(t, hop(&self)), newAttempt(t)
	self = loop.URL
	a.bad(t, a.Fetch(t.Context(), published(loop.URL), a.path), "refused redirect: more than 5 of them")
	if loop.count() != maxRedirects+1 {
		t.Errorf("%d requests", loop.count())
	}
	a.only(t)

	elsewhere := "file:///etc/passwd"
	s, a = serve(t, hop(&elsewhere)), newAttempt(t)
	a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), "refused redirect: from http to file")

	secure := httptest.NewTLSServer(hop(&target.URL))
	t.Cleanup(secure.Close)
	a = newAttempt(t)
	a.Client = secure.Client()
	a.bad(t, a.Fetch(t.Context(), published(secure.URL), a.path), "refused redirect: from https to http")
}

func TestFetch_Stalls(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	halfway := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(contents)))
		send(w, contents[:200<<10])
		<-r.Context().Done()
	}
	s, a := serve(t, hang, halfway, whole(contents, "")), newAttempt(t)
	a.Stall = 200 * time.Millisecond
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if got := s.header(t, 2, "Range"); got != "bytes=204800-" {
		t.Errorf("Range %q", got)
	}

	s, a = serve(t, hang), newAttempt(t)
	a.Stall, a.Tries = 20*time.Millisecond, 2
	a.bad(t, a.Fetch(t.Context(), published(s.URL), a.path), "nothing arrived for 20ms")
}

// A slow line is no stall: something always arrives in time.
func TestFetch_Slow(t *testing.T) {
	const pieces = 20
	slow := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(contents)))
		size := len(contents)/pieces + 1
		for rest := contents; len(rest) > 0 && r.Context().Err() == nil; rest = rest[min(size, len(rest)):] {
			send(w, rest[:min(size, len(rest))])
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	s, a := serve(t, slow), newAttempt(t)
	a.Stall = 300 * time.Millisecond
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if s.count() != 1 {
		t.Errorf("%d requests", s.count())
	}
}

// A line that breaks again and again but brings something each time is
// followed further than one that brings nothing.
func TestFetch_ProgressEarnsTries(t *testing.T) {
	piece := func(w http.ResponseWriter, r *http.Request) {
		var from int
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		to := min(from+len(contents)/20, len(contents))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(contents)-1, len(contents)))
			w.Header().Set("Content-Length", fmt.Sprint(len(contents)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(contents)))
		}
		send(w, contents[from:to])
		if to < len(contents) {
			panic(http.ErrAbortHandler)
		}
	}
	s, a := serve(t, piece), newAttempt(t)
	a.Tries = 2
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if s.count() < 20 {
		t.Errorf("%d requests", s.count())
	}
}

func TestFetch_CancelLeavesAResumablePart(t *testing.T) {
	halfway := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(contents)))
		send(w, contents[:200<<10])
		<-r.Context().Done()
	}
	s, a := serve(t, halfway, whole(contents, "")), newAttempt(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.Progress = func(_ File, done int64) {
		if done == 200<<10 {
			cancel()
		}
	}
	err := a.Fetch(ctx, published(s.URL), a.path)
	a.bad(t, err)
	if !errors.Is(err, context.Canceled) || s.count() != 1 {
		t.Errorf("%v after %d requests", err, s.count())
	}
	a.only(t, "file.bin"+PartSuffix)
	if part, err := os.ReadFile(a.path + PartSuffix); err != nil || !bytes.Equal(part, contents[:200<<10]) {
		t.Errorf("%d bytes are left, %v", len(part), err)
	}
	a.Progress = nil
	a.good(t, a.Fetch(t.Context(), published(s.URL), a.path))
	if got := s.header(t, 1, "Range"); got != "bytes=204800-" {
		t.Errorf("Range %q", got)
	}

	dead, kill := context.WithCancel(t.Context())
	kill()
	if err := a.Fetch(dead, published(s.URL), a.path); !errors.Is(err, context.Canceled) || s.count() != 2 {
		t.Errorf("with a dead context: %v after %d requests", err, s.count())
	}
}

func TestFetch_CancelDuringAPause(t *testing.T) {
	s, a := serve(t, status(503)), newAttempt(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.Pause = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	if err := a.Fetch(ctx, published(s.URL), a.path); !errors.Is(err, context.Canceled) || s.count() != 1 {
		t.Errorf("%v after %d requests", err, s.count())
	}
	a.only(t)
}

func TestFetch_NoFolder(t *testing.T) {
	s, a := serve(t, whole(contents, "")), newAttempt(t)
	if err := os.WriteFile(filepath.Dir(a.path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Fetch(t.Context(), published(s.URL), a.path); err == nil || s.count() != 0 {
		t.Errorf("%v after %d requests", err, s.count())
	}
	if err := newAttempt(t).Fetch(t.Context(), published(), a.path); err == nil {
		t.Error("a file without URLs")
	}
}

func TestFetch_BadURLs(t *testing.T) {
	for _, url := range []string{"://", "gopher://127.0.0.1/", "http://127.0.0.1:1/"} {
		a := newAttempt(t)
		a.bad(t, a.Fetch(t.Context(), published(url), a.path), url)
	}
}

// A name that nobody knows is not asked for again: most often there is no
// network.
func TestFetch_UnknownHost(t *testing.T) {
	a := newAttempt(t)
	a.Client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "example.org", IsNotFound: true}
	})
	a.bad(t, a.Fetch(t.Context(), published("http://example.org/a", "http://example.org/b"), a.path), "http://example.org/a: lookup example.org: no such host; http://example.org/b: ")
	if len(a.pauses) != 0 {
		t.Errorf("pauses %v", a.pauses)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Two at once: the second does not wait and does not disturb the first.
func TestFetch_TwoAtOnce(t *testing.T) {
	gate := make(chan struct{})
	slow := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(contents)))
		send(w, contents[:200<<10])
		<-gate
		send(w, contents[200<<10:])
	}
	s, a := serve(t, slow, whole(contents, "")), newAttempt(t)
	started := make(chan struct{})
	first := a.Fetcher
	var once sync.Once
	first.Progress = func(_ File, done int64) {
		if done > 0 {
			once.Do(func() { close(started) })
		}
	}
	done := make(chan error)
	go func() { done <- first.Fetch(t.Context(), published(s.URL), a.path) }()
	<-started
	err := a.Fetch(t.Context(), published(s.URL), a.path)
	a.only(t, "file.bin", "file.bin"+PartSuffix)
	close(gate)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	a.good(t, nil)
}
