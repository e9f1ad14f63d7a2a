// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"disdel/internal/job"
)

// fuzzConfig is one that bodies are parsed for.
func fuzzConfig(generation Generation) *Config {
	cfg := Config{Generation: generation, Kinds: []Kind{{Name: "test:1", Default: true}, {Name: "test:0", Deprecated: true}}}.withDefaults()
	return &cfg
}

// refused checks that an error is an answer that a client may see.
func refused(t *testing.T, err error) {
	t.Helper()
	var problem *apiError
	if !errors.As(err, &problem) || problem.status < 400 || problem.status > 599 || problem.text == "" {
		t.Fatalf("error %#v is no answer", err)
	}
}

func FuzzActionPut(f *testing.F) {
	for _, seed := range []string{
		`{"exec":{"kind":"blackbox","image":"a/b:c"},"limits":{"memory":256,"timeout":1e3,"logs":null},"parameters":[{"key":"k","value":{"x":[1]},"init":true}]}`,
		`{"exec":{"kind":"test:default","code":"UEsDBA==","main":"m"},"annotations":[{"key":"k","value":null}],"delAnnotations":["x"],"version":"1.2.3","publish":true}`,
		`{"exec":{"kind":"test:0"}}`, `[]`, ``, `{"limits":{"memory":1e999}}`, `{"exec":null,"limits":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, generation := range []Generation{V1, V2} {
			cfg := fuzzConfig(generation)
			put, err := parseActionPut(body, cfg)
			if err != nil {
				refused(t, err)
				continue
			}
			a, err := put.apply(nil, actionEntity{namespace: "n", name: "a"}, cfg, false, epoch)
			if err != nil {
				refused(t, err)
				continue
			}
			l := cfg.Limits
			if a.limits.memory < l.MemoryMin || a.limits.memory > l.MemoryMax || a.limits.memory%job.MB != 0 ||
				a.limits.timeout < l.TimeoutMin || a.limits.timeout > l.TimeoutMax || a.limits.logs < 0 || a.limits.concurrency != 1 {
				t.Fatalf("limits %+v were accepted", a.limits)
			}
			if a.exec.kind != blackbox && a.exec.kind != "test:1" || (a.exec.kind == blackbox) == (a.exec.image == "") {
				t.Fatalf("exec %+v was accepted", a.exec)
			}
			// What was accepted can be written, and read again.
			if _, err := put.apply(a, actionEntity{}, cfg, true, epoch); err != nil {
				t.Fatalf("once more: %v", err)
			}
			if again, err := parseActionPut(encode(a.json(true, a.parameters)), cfg); err != nil || *again.exec != a.exec {
				t.Fatalf("%s cannot be put again: %v", encode(a.json(true, a.parameters)), err)
			}
		}
	})
}

func FuzzPackagePut(f *testing.F) {
	for _, seed := range []string{
		`{"binding":{"namespace":"_","name":"p"},"parameters":[{"key":"k","value":1}],"publish":true}`, `{"binding":{}}`, `{"binding":null}`,
		`{"binding":{"name":"/"}}`, `{"annotations":[{"key":"","value":1}]}`, `null`, `{"version":"0.0"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		put, err := parsePackagePut(body)
		if err != nil {
			refused(t, err)
			return
		}
		p, err := put.apply(nil, "n", "p", false, epoch)
		if err != nil {
			refused(t, err)
			return
		}
		if _, err := parsePackagePut(encode(p.json(p.parameters))); err != nil {
			t.Fatalf("%s cannot be put again: %v", encode(p.json(p.parameters)), err)
		}
	})
}

// FuzzRequest sends any method, path, query and body to a server without a pool
// to run anything: every answer is well formed.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][2]string{
		{"GET", "/api/v1/namespaces/_/actions?limit=1&skip=x"},
		{"PUT", "/api/v1/namespaces/_/packages/p?overwrite=true"},
		{"DELETE", "/api/v1/namespaces/guest/actions/p/a"},
		{"GET", "/api/v1/namespaces/_/activations/00000000000000000000000000000000/logs"},
		{"POST", "/api/v1/namespaces/_/actions/a%2f?blocking=true&timeout=-1"},
		{"OPTIONS", "/"},
		{"GET", "/%zz"},
		{"GET", "//api/v1//"},
		{"GET", "/api/v1/namespaces/_/activations?since=9999999999999999999&upto=-1&name=a/b/c"},
	} {
		f.Add(seed[0], seed[1], `{"exec":{"kind":"blackbox","image":"x"}}`)
	}
	server := &Server{cfg: *fuzzConfig(V2), accounts: map[string]*account{guest.UUID: {User: guest, throttle: throttle{perMinute: 1 << 30, concurrent: 1 << 30}}}, large: make(chan struct{}, 1)}
	server.records = makeRecords(server.cfg)
	server.metrics = newMetrics(server)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		server.entities = makeEntities(server.cfg)
		u, err := url.Parse(target)
		if err != nil || !strings.HasPrefix(target, "/") || strings.TrimSuffix(u.Path, "/") == "/metrics" {
			return // not what an HTTP server hands on, or a question to the pool
		}
		r := &http.Request{
			Method: method, URL: u, RequestURI: target, Header: http.Header{"Content-Type": {"application/json"}},
			Body: http.NoBody, ContentLength: int64(len(body)), Host: "whisk",
		}
		r.Body = newBody(body)
		r.SetBasicAuth(guest.UUID, guest.Secret)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 || w.Code == 500 && !strings.Contains(w.Body.String(), "too large") {
			t.Fatalf("%s %q: status %d: %s", method, target, w.Code, w.Body)
		}
		if w.Code >= 400 && w.Code != 414 && !strings.Contains(w.Body.String(), `"error":`) {
			t.Fatalf("%s %q: status %d: %s", method, target, w.Code, w.Body)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(`{"runtimes":{"test":[{"kind":"test:1","default":true,"image":{"prefix":"p","name":"n","tag":"t"},"stemCells":[{"initialCount":2,"memory":"256 MB"}]}]},"blackboxes":[]}`)
	f.Add(`{"runtimes":{}}`)
	f.Add(`{"runtimes":{"x":[{"stemCells":[{"count":-1,"memory":"1"}]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		kinds, cells, err := ParseManifest(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, cell := range cells {
			if cell.Count <= 0 || cell.Count > stemCellMax || cell.Memory < 0 {
				t.Fatalf("stem cells %+v", cell)
			}
		}
		if len(cells) > 0 && len(kinds) == 0 {
			t.Fatal("stem cells of no kind")
		}
	})
}

func FuzzCredentials(f *testing.F) {
	f.Add("Basic dXNlcjpwYXNz")
	f.Add("Bearer x")
	f.Add("Basic ")
	server := &Server{accounts: map[string]*account{guest.UUID: {User: guest}}}
	valid := &http.Request{Header: http.Header{}}
	valid.SetBasicAuth(guest.UUID, guest.Secret)
	f.Add(valid.Header.Get("Authorization"))
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		user, err := server.authenticate(r)
		if err != nil {
			refused(t, err)
			return
		}
		if id, secret, ok := r.BasicAuth(); !ok || !strings.EqualFold(id, user.UUID) || secret != user.Secret {
			t.Fatalf("%q was let in", header)
		}
	})
}
