// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"disdel/internal/job"
	"disdel/internal/nn/kernel"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

// service is a worker behind the action interface.
type service struct {
	t              *testing.T
	url            string
	client         *http.Client
	stdout, stderr *bytes.Buffer
}

func newService(t *testing.T, open func(context.Context, string) (store.Store, error)) *service {
	t.Helper()
	s := &service{t: t, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	w := New(Config{Stdout: s.stdout, Stderr: s.stderr, Open: open})
	server := httptest.NewServer(w.Handler())
	s.url, s.client = server.URL, server.Client()
	t.Cleanup(func() {
		server.Close()
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func openMem(st *mem.Store) func(context.Context, string) (store.Store, error) {
	return func(context.Context, string) (store.Store, error) { return st.Share(), nil }
}

// post makes a call, checks what every answer must be like, and returns it.
func (s *service) post(path, body string) (status int, answer map[string]any) {
	s.t.Helper()
	before := s.stdout.Len()
	response, err := s.client.Post(s.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if got := response.Header.Get("Content-Length"); got != strconv.Itoa(len(raw)) || len(response.TransferEncoding) > 0 {
		s.t.Errorf("POST %s: Content-Length %q, encoding %v for %d bytes; want the length and no chunks", path, got, response.TransferEncoding, len(raw))
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		s.t.Errorf("POST %s: Content-Type %q", path, got)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		s.t.Errorf("POST %s: the answer %q is no JSON object: %v", path, raw, err)
	}
	if got := s.stdout.String()[before:]; got != sentinel || s.stdout.String() != s.stderr.String() {
		s.t.Errorf("POST %s: printed %q and %q; want one sentinel on each", path, got, s.stderr)
	}
	return response.StatusCode, answer
}

// want checks the status and the error of an answer.
func (s *service) want(path, body string, status int, says string) {
	s.t.Helper()
	got, answer := s.post(path, body)
	text, _ := failureOf(answer)
	if got != status || (says == "") != (text == "") || !strings.Contains(text, says) {
		s.t.Errorf("POST %s %.80s: status %d, %v; want %d and an error that says %q", path, body, got, answer, status, says)
	}
}

// failureOf is the error of an answer: a text alone where the call was refused, else
// what a failed task says.
func failureOf(answer map[string]any) (text string, reason job.Reason) {
	switch e := answer["error"].(type) {
	case string:
		return e, ""
	case map[string]any:
		text, _ = e["text"].(string)
		r, _ := e["reason"].(string)
		return text, job.Reason(r)
	}
	return "", ""
}

const initBody = `{"value":{"env":{"DISDEL_STORE":"mem://"}}}`

func TestServer_Init(t *testing.T) {
	s := newService(t, openMem(mem.New()))
	s.want("/run", `{"value":{"role":"probe"}}`, http.StatusForbidden, "not been initialized")
	s.want("/init", `{"value":`, http.StatusBadRequest, "request body")
	s.want("/init", ``, http.StatusBadRequest, "request body")
	s.want("/init", `[]`, http.StatusBadRequest, "request body")
	s.want("/init", `{"value":{}}`, http.StatusBadRequest, "DISDEL_STORE")
	s.want("/init", `{"value":{"env":{"DISDEL_STORE":""}}}`, http.StatusBadRequest, "DISDEL_STORE")
	// None of these was an initialisation.
	s.want("/init", initBody, http.StatusOK, "")
	s.want("/init", initBody, http.StatusForbidden, "more than once")
}

// TestServer_InitFails: an initialisation that failed can be made again.
func TestServer_InitFails(t *testing.T) {
	down := true
	s := newService(t, func(context.Context, string) (store.Store, error) {
		if down {
			return nil, errors.New("store: nobody there")
		}
		return mem.New(), nil
	})
	s.want("/init", initBody, http.StatusBadGateway, "nobody there")
	s.want("/run", `{"value":{}}`, http.StatusForbidden, "not been initialized")
	down = false
	s.want("/init", initBody, http.StatusOK, "")
}

// TestServer_StoreComesLater: a store that does not answer yet is no reason to
// give a container up.
func TestServer_StoreComesLater(t *testing.T) {
	opened, down := 0, true
	s := newService(t, func(context.Context, string) (store.Store, error) {
		if opened++; down {
			return nil, fmt.Errorf("nobody there: %w", store.ErrUnavailable)
		}
		return mem.New(), nil
	})
	s.want("/init", initBody, http.StatusOK, "")
	s.want("/init", initBody, http.StatusForbidden, "more than once")
	for range 2 {
		status, answer := s.post("/run", `{"value":{"role":"dance"}}`)
		text, reason := failureOf(answer)
		if status != http.StatusOK || reason != job.StoreFailed || !strings.Contains(text, "nobody there") {
			t.Errorf("status %d, %v; want 200 with reason %s", status, answer, job.StoreFailed)
		}
	}
	down = false
	for range 2 {
		_, answer := s.post("/run", `{"value":{"role":"dance"}}`)
		if _, reason := failureOf(answer); reason != job.BadTask {
			t.Errorf("%v; want the task's own failure", answer)
		}
	}
	if opened != 4 {
		t.Errorf("opened the store %d times; want 4", opened)
	}
}

// TestServer_UnreachableStores: what cannot be reached may be there later, so
// that the calls say what is wrong, without the password.
func TestServer_UnreachableStores(t *testing.T) {
	for url, says := range map[string]string{
		"dir:///proc/nowhere":               "/proc/nowhere",
		"redis://user:secret@127.0.0.1:1/0": "127.0.0.1:1",
	} {
		s := newService(t, nil)
		s.want("/init", `{"value":{"env":{"DISDEL_STORE":"`+url+`"}}}`, http.StatusOK, "")
		s.want("/run", `{"value":{"role":"probe","job":"p"}}`, http.StatusOK, says)
		_, answer := s.post("/run", `{"value":{"role":"probe","job":"p"}}`)
		if _, reason := failureOf(answer); strings.Contains(fmt.Sprint(answer), "secret") || reason != job.StoreFailed {
			t.Errorf("%v; want reason %s and no password", answer, job.StoreFailed)
		}
	}
}

// TestServer_UnsupportedStores: the worker's own way to open stores.
func TestServer_UnsupportedStores(t *testing.T) {
	s := newService(t, nil)
	for url, says := range map[string]string{
		"mem://":         "mem",
		"relative/path":  "dir:///",
		"dir://relative": "absolute",
		"dir:///a\x00b":  "NUL",
	} {
		body, err := json.Marshal(map[string]any{"value": map[string]any{"env": map[string]string{StoreEnv: url}}})
		if err != nil {
			t.Fatal(err)
		}
		s.want("/init", string(body), http.StatusBadGateway, says)
	}
}

func TestServer_Run(t *testing.T) {
	s := newService(t, openMem(mem.New()))
	s.want("/init", initBody, http.StatusOK, "")
	s.want("/run", `{"value":`, http.StatusBadRequest, "request body")
	s.want("/run", `{"value":"`+strings.Repeat("x", maxRequestBytes)+`"}`, http.StatusBadRequest, "too large")
	for body, says := range map[string]string{
		`{}`:                                  "parameters",
		`{"value":null}`:                      `role ""`,
		`{"value":[]}`:                        "parameters",
		`{"value":{"role":7}}`:                "parameters",
		`{"value":{"role":"dance"}}`:          `role "dance"`,
		`{"value":{"role":"train"}}`:          "job id",
		`{"value":{"role":"probe","job":""}}`: "job id",
	} {
		status, answer := s.post("/run", body)
		text, reason := failureOf(answer)
		if status != http.StatusOK || reason != job.BadTask || !strings.Contains(text, says) {
			t.Errorf("%s: status %d, %v; want 200 with reason %s and an error that says %q", body, status, answer, job.BadTask, says)
		}
		if len(answer) != 1 {
			t.Errorf("%s: %v; want an error alone, since OpenWhisk keeps nothing else", body, answer)
		}
	}
}

// TestServer_NothingElse: other methods and paths are refused, and do not count
// as calls.
func TestServer_NothingElse(t *testing.T) {
	s := newService(t, openMem(mem.New()))
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/init", http.StatusMethodNotAllowed},
		{http.MethodPut, "/run", http.StatusMethodNotAllowed},
		{http.MethodPost, "/", http.StatusNotFound},
		{http.MethodPost, "/run/", http.StatusNotFound},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, s.url+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s %s: status %d; want %d", c.method, c.path, response.StatusCode, c.status)
		}
	}
	if s.stdout.Len() > 0 {
		t.Errorf("printed %q", s.stdout)
	}
}

// TestServer_Task: a task goes through the interface and comes back.
func TestServer_Task(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	s := newService(t, func(context.Context, string) (store.Store, error) { return x.st, nil })
	s.want("/init", initBody, http.StatusOK, "")
	body := `{"value":{"role":"train","job":"job-1","plan":"` + x.keys.Plan + `","to":3},"activation_id":"a","deadline":"0"}`
	status, answer := s.post("/run", body)
	if status != http.StatusOK || answer["step"] != 3.0 || answer["records"] != 9.0 || answer["error"] != nil {
		t.Errorf("status %d, %v; want step 3 after 9 records", status, answer)
	}
}

// TestProbe measures something, says what, and leaves nothing behind.
func TestProbe(t *testing.T) {
	st := mem.New()
	w := New(Config{})
	w.store = st
	for _, id := range []job.ID{"job-1", job.ID(strings.Repeat("x", job.MaxIDLength))} {
		// What tests before this one took is not the probe's.
		debug.FreeOSMemory()
		resetPeak()
		result, err := w.Do(t.Context(), job.Task{Role: job.RoleProbe, Job: id, Allocate: 3 << 20, Busy: 1})
		if err != nil {
			t.Fatal(err)
		}
		p := result.Probe
		switch {
		case p == nil:
			t.Fatal("no probe")
		case p.KernelSet != kernel.Best().Name || len(p.Binary) != 64 || p.Version == "":
			t.Errorf("probe is %+v; want the kernel set, the program and its version", p)
		case p.FLOPS < 1e5 || p.FLOPS > 1e13 || p.StoreRate < 1e4 || p.StoreRate > 1e12 || p.StoreSeconds <= 0 || p.StoreSeconds > 10:
			t.Errorf("rates are %v and %v, an operation takes %v s", p.FLOPS, p.StoreRate, p.StoreSeconds)
		case p.Package < 1<<20 || p.Package > 1<<33 || p.Held < 100<<10 || p.Held > 10<<20:
			t.Errorf("memory is %v and %v", p.Package, p.Held)
		}
	}
	if left, err := st.List(t.Context(), ""); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestProbe_Interrupted: what a probe leaves that ends in its middle is in the
// job's scratch space, which its controller clears.
func TestProbe_Interrupted(t *testing.T) {
	st := mem.New()
	w := New(Config{})
	w.store = undeletable{st}
	if _, err := w.Do(t.Context(), job.Task{Role: job.RoleProbe, Job: "job-1"}); err == nil {
		t.Fatal("no error of the store")
	}
	left, err := st.List(t.Context(), "")
	if err != nil || len(left) == 0 {
		t.Fatalf("left %v, %v; want objects, so that the test sees something", left, err)
	}
	for _, key := range left {
		if !strings.HasPrefix(key, job.Keys{Job: "job-1"}.Scratch()) {
			t.Errorf("left %s outside the job's scratch space", key)
		}
	}
}

// undeletable is a store that deletes nothing, as after a kill.
type undeletable struct{ store.Store }

func (undeletable) Delete(context.Context, ...string) error { return errors.New("killed") }

func TestTakeMemory_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := takeMemory(ctx, job.GB); !errors.Is(err, context.Canceled) {
		t.Errorf("take memory: %v", err)
	}
	if err := takeTime(ctx, 1<<62); !errors.Is(err, context.Canceled) {
		t.Errorf("take time: %v", err)
	}
}
