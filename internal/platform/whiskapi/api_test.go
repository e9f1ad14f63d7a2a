// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Contract 9.1 and 1.1: who may call, and what refusals look like.
func TestCredentials(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		missing := w.ask("GET", "actions", "", "Authorization", "")
		missing.says(401, "The resource requires authentication, which was not supplied with the request")
		if got := missing.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Basic realm="OpenWhisk secure realm"`) {
			t.Errorf("WWW-Authenticate is %q", got)
		}
		if missing.header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("a rejection has CORS headers")
		}
		for _, wrong := range []User{
			{UUID: guest.UUID, Secret: other.Secret}, {UUID: "nobody", Secret: guest.Secret}, {UUID: guest.UUID, Secret: "short"}, {},
		} {
			w.user(wrong).ask("GET", "actions", "").says(401, "The supplied authentication is invalid")
		}
		w.ask("GET", "actions", "", "Authorization", "Bearer x").says(401, "The supplied authentication is invalid")
		w.user(User{UUID: strings.ToUpper(guest.UUID), Secret: guest.Secret}).ask("GET", "actions", "").want(200)

		w.ask("GET", "/api/v1/namespaces", "").want(200).is(`["guest"]`) // Contract 1.4
		w.user(other).ask("GET", "/api/v1/namespaces", "").is(`["other"]`)
		w.deploy("a", "")
		own := w.ask("GET", "/api/v1/namespaces/guest/actions/a", "").want(200)
		w.ask("GET", "actions/a", "").is(string(own.body))
		if own.header.Get("Access-Control-Allow-Origin") != "*" || own.header.Get("Access-Control-Allow-Methods") != "GET, DELETE, POST, PUT, HEAD" {
			t.Errorf("CORS headers: %v", own.header)
		}
		foreign := w.user(other)
		foreign.ask("GET", "/api/v1/namespaces/guest/actions/a", "").says(403, "The supplied authentication is not authorized to access 'guest/a'.")
		foreign.ask("POST", "/api/v1/namespaces/guest/actions/a", "{}").want(403)
		foreign.ask("PUT", "/api/v1/namespaces/guest/actions/a", "{"+actExec+"}").want(403)
		foreign.ask("DELETE", "/api/v1/namespaces/guest/actions/a", "").want(403)
		foreign.ask("GET", "/api/v1/namespaces/guest/activations", "").want(403)
		foreign.ask("GET", "/api/v1/namespaces/guest/limits", "").want(403)
	})
}

// Contract 9.1 and 1.1: transactions, unknown paths, methods, content types.
func TestFrame(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, c := range []struct{ sent, want string }{{"mine", "mine"}, {"sid_mine", ""}, {"", ""}, {strings.Repeat("x", 300), ""}} {
			id := w.ask("GET", "actions", "", "X-Request-ID", c.sent).header.Get("X-Request-ID")
			if c.want != "" && id != c.want || c.want == "" && (len(id) != 32 || id == c.sent) {
				t.Errorf("transaction %.20q for %.20q", id, c.sent)
			}
		}
		const nowhere = "The requested resource could not be found."
		for _, c := range []struct{ method, path string }{
			{"GET", "/nowhere"},
			{"GET", "/api/v1/nowhere"},
			{"GET", "/api/v1/namespaces/_"},
			{"GET", "nowhere"},
			{"POST", "actions"},
			{"PATCH", "actions/a"},
			{"GET", "actions/p/a/b"},
			{"POST", "packages/p"},
			{"DELETE", "packages"},
			{"DELETE", "activations"},
			{"POST", "/api/v1/namespaces"},
		} {
			w.ask(c.method, c.path, "").says(404, nowhere)
		}
		w.ask("GET", "/api/v1/nowhere", "", "Authorization", "").want(401)
		w.ask("POST", "/ping", "").says(405, "HTTP method not allowed, supported methods: GET, OPTIONS")
		w.ask("PUT", "actions/a", "{}", "Content-Type", "text/plain").
			says(415, "The request's Content-Type [text/plain] is not supported. Expected:\napplication/json")
		w.ask("PUT", "actions/a", "{}", "Content-Type", "").
			says(415, "The request's Content-Type [application/octet-stream] is not supported. Expected:\napplication/json")
		options := w.ask("OPTIONS", "actions/a", "", "Authorization", "").want(200)
		if string(options.body) != "OK" || options.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("OPTIONS: %s %v", options.body, options.header)
		}
		if body := w.ask("GET", "/ping", "", "Authorization", "").want(200).body; string(body) != "pong" {
			t.Errorf("ping: %s", body)
		}
		w.ask("OPTIONS", "/", "", "Authorization", "").want(200)
		for _, c := range []struct {
			method, path, body string
			cors               bool
		}{
			{"GET", "/api/v1", "", true},
			{"GET", "/", "", false},
			{"GET", "actions/none", "", true},
			{"PUT", "actions/none", "{}", true},
			{"PUT", "actions/none", `{"exec":1}`, false},
			{"GET", "activations/123", "", false},
			{"GET", "activations/" + strings.Repeat("Z", 32), "", false},
			{"GET", "activations/" + strings.Repeat("a", 32), "", true},
		} {
			if got := w.ask(c.method, c.path, c.body).header.Get("Access-Control-Allow-Origin") != ""; got != c.cors {
				t.Errorf("%s %s: CORS headers: %v, want %v", c.method, c.path, got, c.cors)
			}
		}
		w.ask("GET", "/invokers/healthy/count", "", "Authorization", "").want(200).is("1")
		w.ask("GET", "triggers", "").want(200).is("[]")
		w.ask("GET", "rules?count=true", "").want(200).is(`{"rules":0}`)
		w.ask("POST", "triggers/t", "{}").want(501)
		w.ask("PUT", "rules/r", "{}").want(501)

		long := w.ask("GET", "actions?x="+strings.Repeat("x", 9000), "").want(414)
		if long.header.Get("X-Request-ID") != "" || !strings.HasPrefix(long.header.Get("Content-Type"), "text/plain") {
			t.Errorf("a URI that is too long: %v", long.header)
		}
	})
}

// What a real 1.0.0 answers outside /api/v1.
func TestFrame_V1(t *testing.T) {
	inWorld(t, func(c *Config, _ *poolConfig) { c.Generation = V1 }, func(w *world) {
		for _, c := range []struct{ method, path string }{{"POST", "/ping"}, {"OPTIONS", "/"}, {"OPTIONS", "/ping"}} {
			w.ask(c.method, c.path, "", "Authorization", "").says(405, "HTTP method not allowed, supported methods: GET")
		}
		w.ask("OPTIONS", "actions/a", "", "Authorization", "").want(200)
		if w.ask("GET", "/invokers", "").want(200).header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("CORS headers of /invokers")
		}
	})
}

// Contract 1.1: names, ids and query parameters, and their texts.
func TestSyntax(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		for _, c := range []struct{ method, path, text string }{
			{"GET", "actions/" + strings.Repeat("x", 300), "Name segement longer than allowed: 300 > 256."},
			{"GET", "actions/%20a", "The name of the entity contains illegal characters."},
			{"GET", "actions/a%2Fb", "The name of the entity contains illegal characters."},
			{"GET", "packages/a$", "The name of the entity contains illegal characters."},
			{"GET", "/api/v1/namespaces/a$/actions", "The namespace contains illegal characters."},
			{"GET", "activations/123", "Activation id length is 3 but must be 32."},
			{"GET", "activations/" + strings.Repeat("A", 32), "The activation id is not valid."},
			{"GET", "actions?limit=201", "The query parameter 'limit' was malformed:\nThe value '201' is not in the range of 0 to 200 for actions."},
			{"GET", "actions?limit=-1", "The query parameter 'limit' was malformed:\nThe value '-1' is not in the range of 0 to 200 for actions."},
			{"GET", "packages?skip=-1", "The query parameter 'skip' was malformed:\nThe value '-1' is not greater than or equal to 0 for packages."},
			{"GET", "packages?skip=x", "The query parameter 'skip' was malformed:\nThe value 'x' is not an integer for packages."},
			{"GET", "activations?since=abc", "The query parameter 'since' was malformed:\nParameter is not a valid value for epoch seconds: abc"},
			{"GET", "activations?docs=true&count=true", "The parameter 'docs' is not permitted with 'count'."},
			{"POST", "actions/a?blocking=maybe", "The query parameter 'blocking' was malformed:\n'maybe' is not a valid Boolean value"},
			{"POST", "actions/a?timeout=0", "The query parameter 'timeout' was malformed:\nTimeout must be number of milliseconds up to 60000."},
			{"POST", "actions/a?timeout=60001", "The query parameter 'timeout' was malformed:\nTimeout must be number of milliseconds up to 60000."},
			{"PUT", "packages/default", "Package name 'default' is reserved."},
		} {
			body := ""
			if c.method != "GET" {
				body = "{}"
			}
			w.ask(c.method, c.path, body).says(400, c.text)
		}
		for _, yes := range []string{"true", "YES", "on", "1"} {
			w.ask("POST", "actions/a?blocking="+yes, "").want(200)
		}
		for _, no := range []string{"false", "No", "off", "0", ""} {
			w.ask("POST", "actions/a?blocking="+no, "").want(202)
		}
	})
}

// Contract 1.2: bodies that are no JSON object, or too large.
func TestBodies(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		for _, body := range []string{"[1]", "null", "1", `"x"`} {
			w.ask("POST", "actions/a", body).says(400, "The request content was malformed:\nJSON object expected")
		}
		for _, body := range []string{"{", `{"a":}`, "{} {}", "\xff"} {
			if text := w.ask("POST", "actions/a", body).want(400).object()["error"].(string); !strings.HasPrefix(text, "The request content was malformed:\n") {
				t.Errorf("%q: %s", body, text)
			}
		}
		w.ask("PUT", "actions/b", "").says(400, "The request content was malformed:\nUnexpected end-of-input at input index 0 (line 1, position 1), expected JSON Value:\n\n^\n")
		const large = 1<<20 + 1
		payload := `{"x":"` + strings.Repeat("x", large-8) + `"}`
		w.ask("POST", "actions/a", payload).says(413, "Request larger than allowed: 1048577 > 1048576 bytes.")
		w.ask("POST", "actions/a?blocking=true", payload[:len(payload)-3]+`"}`).want(502) // its echo is too large

		// Chunked, the same limit holds.
		req, err := http.NewRequestWithContext(w.Context(), "POST", "http://whisk/api/v1/namespaces/_/actions/a", io.MultiReader(strings.NewReader(payload)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.SetBasicAuth(guest.UUID, guest.Secret)
		resp, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 413 || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("chunked and too large: %s %v", resp.Status, resp.Header)
		}
	})
}

// TestSlowUploads: large bodies that come slowly are ended, others are told to try
// again meanwhile, and small ones do not notice.
func TestSlowUploads(t *testing.T) {
	t.Parallel()
	inWorld(t, nil, func(w *world) {
		began := time.Now()
		large := `{` + actExec + `,"parameters":[{"key":"k","value":1` + strings.Repeat(" ", 2<<20) + `}]}`
		var wait sync.WaitGroup
		for i, length := range []int64{int64(len(large)), int64(len(large)), 50 << 20, -1} {
			content, stop := io.Pipe()
			defer stop.Close()
			req := newRequest(w, "PUT", fmt.Sprint("actions/slow", i), "x")
			req.Body, req.GetBody, req.ContentLength = content, nil, length
			go func() { // a byte a second
				for {
					if _, err := stop.Write([]byte(" ")); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
			wait.Go(func() {
				resp, err := w.client.Do(req)
				if err != nil {
					t.Errorf("%d bytes: %v", length, err)
					return
				}
				defer resp.Body.Close()
				if resp.StatusCode != http.StatusRequestTimeout {
					t.Errorf("%d bytes: %s", length, resp.Status)
				}
				if took, most := time.Since(began), time.Duration(12+48*(i/2))*time.Second; took < most || took > most+time.Second {
					t.Errorf("%d bytes: refused after %v, want %v", length, took, most)
				}
			})
		}
		synctest.Wait()
		w.deploy("small", "")
		if took := time.Since(began); took != 0 {
			t.Errorf("a small request waited %v", took)
		}
		w.ask("PUT", "actions/large", large).says(503, "Too many large requests are on their way: try again later.")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("refused after %v", took)
		}
		w.ask("PUT", "actions/large", large).want(200)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a large request waited %v for room", took)
		}
		wait.Wait()
		for i := range largeMax + 1 {
			w.ask("PUT", fmt.Sprint("actions/large", i), large).want(200)
		}
	})
}

// Contract 1.1: a body above 50 MiB is refused as text, before it is read.
func TestHugeBody(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn, err := w.client.Transport.(*http.Transport).DialContext(w.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req, _ := http.NewRequestWithContext(w.Context(), "PUT", "http://whisk/api/v1/namespaces/_/actions/a", http.NoBody)
		req.SetBasicAuth(guest.UUID, guest.Secret)
		if _, err := io.WriteString(conn, "PUT /api/v1/namespaces/_/actions/a HTTP/1.1\r\nHost: whisk\r\nContent-Type: application/json\r\nContent-Length: 52428801\r\nAuthorization: "+
			req.Header.Get("Authorization")+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 500 || string(body) != "Request too large" || !resp.Close || resp.Header.Get("X-Request-ID") != "" {
			t.Errorf("%s %q %v", resp.Status, body, resp.Header)
		}
	})
}

// Contract 9.3, 1.9 and 3.4: what clients learn about limits is what holds.
func TestLimitsAreTold(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		info := w.ask("GET", "/", "", "Authorization", "").want(200).object()
		for name, want := range map[string]float64{
			"actions_per_minute": 1000, "concurrent_actions": 100, "min_action_memory": 128 << 20, "max_action_memory": 512 << 20,
			"min_action_duration": 100, "max_action_duration": 300000, "max_action_logs": 10 << 20, "default_max_action_memory": 512 << 20,
		} {
			if got := at(t, info, "limits", name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		kinds := at(t, info, "runtimes", "test").([]any)
		if at(t, kinds[0], "kind") != "test:1" || at(t, kinds[0], "default") != true || at(t, info, "api_paths").([]any)[0] != "/api/v1" {
			t.Errorf("info: %v", info)
		}
		w.ask("GET", "limits", "").want(200).is(`{"invocationsPerMinute":1000,"concurrentInvocations":100,"firesPerMinute":0,
			"minActionMemory":128,"maxActionMemory":512,"minActionLogs":0,"maxActionLogs":10,"minActionTimeout":100,"maxActionTimeout":300000,
			"minActionConcurrency":1,"maxActionConcurrency":1,"maxActionInstances":100,"maxParameterSize":"1048576 B"}`)
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.Generation = V1 }, func(w *world) {
		w.ask("GET", "limits", "").want(200).is(`{"invocationsPerMinute":1000,"concurrentInvocations":100,"firesPerMinute":0}`)
		if _, there := w.ask("GET", "/", "").object()["limits"].(map[string]any)["default_max_action_memory"]; there {
			t.Error("1.0.0 tells no defaults of namespaces")
		}
	})
}

// The metrics are in Prometheus's text format and count what happened.
func TestMetrics(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		for _, do := range []string{"", "", `400 {"error":"x"}`} {
			w.ask("POST", "actions/a?blocking=true", string(encode(map[string]string{"do": do})))
		}
		page := w.ask("GET", "/metrics", "", "Authorization", "").want(200)
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(page.body))
		if err != nil {
			t.Fatalf("Prometheus's parser: %v", err)
		}
		for name, kind := range map[string]string{
			"disdel_activations_total": "COUNTER", "disdel_activation_run_seconds": "HISTOGRAM", "disdel_pool_containers": "GAUGE",
			"process_resident_memory_bytes": "GAUGE", "go_goroutines": "GAUGE",
		} {
			if f := families[name]; f == nil || f.GetType().String() != kind || f.GetHelp() == "" || len(f.GetMetric()) == 0 {
				t.Errorf("%s is parsed as %v, want a %s", name, f, kind)
			}
		}
		var total float64
		for _, metric := range families["disdel_activations_total"].GetMetric() {
			total += metric.GetCounter().GetValue()
		}
		if h := families["disdel_activation_run_seconds"].GetMetric()[0].GetHistogram(); total != 3 || h.GetSampleCount() != 3 || len(h.GetBucket()) < 5 {
			t.Errorf("%v activations, %v", total, h)
		}
		for _, line := range []string{
			`disdel_activations_total{start="cold",status="success"} 1`,
			`disdel_activations_total{start="warm",status="success"} 1`,
			`disdel_activations_total{start="warm",status="action developer error"} 1`,
			`disdel_activation_init_seconds_count 1`,
			`disdel_activation_run_seconds_count 3`,
			`disdel_http_requests_total{code="502"} 1`,
			`disdel_pool_containers{state="idle"} 0`,
		} {
			if !strings.Contains(string(page.body), "\n"+line+"\n") {
				t.Errorf("no line %s in\n%s", line, page.body)
			}
		}
	})
}
