// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// realRecords reads testdata/records.txt by what each record is of.
func realRecords(t testing.TB) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("testdata/records.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, name := map[string]string{}, ""
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "# "); ok {
			name = title
		} else if line != "" {
			all[name] = line
		}
	}
	return all
}

// TestOutcome_OfRealRecords: what a real OpenWhisk answered becomes what the
// contract has for it.
func TestOutcome_OfRealRecords(t *testing.T) {
	ms := time.Millisecond
	type want struct {
		kind  platform.Kind
		says  string
		usage platform.Usage
		maybe bool
	}
	usage := func(wait, init, run time.Duration) platform.Usage {
		return platform.Usage{Limit: 128 * job.MB, Wait: wait * ms, Init: init * ms, Duration: run * ms, Cold: init > 0}
	}
	killed := usage(498, 58, 116)
	killed.Peak = 128 * job.MB
	records := realRecords(t)
	wants := map[string]want{
		"success, cold start": {platform.Success, "", usage(283, 4, 3), false},
		"success, warm":       {platform.Success, "", usage(51, 0, 2), false},
		"application error (container answered 200 with top-level error)":                   {platform.ApplicationError, "bad thing", usage(41, 0, 3), false},
		"developer error: `/run` answered 400 with an error object":                         {platform.ApplicationError, "e400", usage(45, 0, 3), false},
		"developer error: `/run` answered 500 with plain text (1.0.0 text)":                 {platform.ApplicationError, "plain text", usage(256, 4, 3), false},
		"developer error: chunked answer":                                                   {platform.Lost, "128 MB", usage(271, 4, 5), true},
		"developer error: process exits during `/run`":                                      {platform.Lost, "it last printed: before exit", usage(260, 3, 2), true},
		"developer error: out of memory, flag file readable":                                {platform.OutOfMemory, "memory limit of 128 MB", killed, false},
		"developer error: the same out of memory, flag file not readable":                   {platform.Lost, "it last printed: before oom", usage(267, 3, 71), true},
		"developer error: time limit in `/run`":                                             {platform.TimedOut, "time limit of 1s; it last printed: before sleep", usage(280, 3, 1002), false},
		"developer error: time limit in `/init`":                                            {platform.TimedOut, "during initialization", usage(313, 2005, 0), false},
		"developer error: `/init` refused with an error object":                             {platform.ApplicationError, "init says no", usage(312, 4, 0), false},
		"developer error: `/init` answered 502 with plain text":                             {platform.ApplicationError, "something plain", usage(296, 3, 0), false},
		"developer error: process exits in `/init` (standalone)":                            {platform.TimedOut, "a worker that dies there ends like this too", usage(224, 2056, 0), false},
		"developer error: chunked answer to `/init`":                                        {platform.Lost, "did not initialize", usage(298, 4, 0), true},
		"developer error: image cannot be pulled":                                           {platform.Refused, "'disdel/nothere:1'; check --image", usage(100, 0, 0), false},
		"whisk internal error: native image missing":                                        {platform.Lost, "could not be started", usage(61, 0, 0), false},
		"whisk internal error: container exits at once":                                     {platform.Lost, "could not be started", usage(294, 0, 0), false},
		"response too large (result shortened here after 120 characters, 1 MiB in reality)": {platform.ApplicationError, "exceeded the allowed length", usage(64, 0, 18), false},
		"trigger whose rule failed":                                                         {platform.Success, "", platform.Usage{Limit: 128 * job.MB}, false},
	}
	for name, text := range records {
		w, ok := wants[name]
		if !ok {
			t.Errorf("%s: the test knows no such record", name)
			continue
		}
		delete(wants, name)
		var r record
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := r.outcome(platform.Action{Name: "m128", Memory: 128 * job.MB, Timeout: time.Second})
		if got.Kind != w.kind || !strings.Contains(got.Message, w.says) || (got.Message == "") != (w.kind == platform.Success) {
			t.Errorf("%s: %s, %q; want %s that says %q", name, got.Kind, got.Message, w.kind, w.says)
		}
		if got.Usage != w.usage || got.MaybeMemory != w.maybe {
			t.Errorf("%s: usage %+v, maybe memory %v; want %+v, %v", name, got.Usage, got.MaybeMemory, w.usage, w.maybe)
		}
		var result map[string]any
		err := json.Unmarshal(got.Result, &result)
		switch got.Kind {
		case platform.Success:
			if err != nil || len(result) == 0 {
				t.Errorf("%s: result %s", name, got.Result)
			}
		case platform.ApplicationError:
			if err != nil || result["error"] == nil {
				t.Errorf("%s: result %s has no error", name, got.Result)
			}
		default:
			if got.Result != nil {
				t.Errorf("%s: result %s of an outcome that has none", name, got.Result)
			}
		}
	}
	for name := range wants {
		t.Errorf("%s: there is no such record", name)
	}
}

// TestOutcome_OfTexts: the texts that the real records do not have, of both
// generations.
func TestOutcome_OfTexts(t *testing.T) {
	for _, c := range []struct {
		status, result, more string
		kind                 platform.Kind
		says                 string
		maybe                bool
	}{
		// The proxies of Go runtimes, whose program was killed or died.
		{statusDeveloper, `{"error":"command exited"}`, ``, platform.Lost, "maybe for its memory limit of 256 MB", true},
		{statusDeveloper, `{"error":"no action defined yet"}`, ``, platform.Lost, "maybe", true},
		{statusDeveloper, `{"error":"Command exited abruptly during initialization."}`, ``, platform.Lost, "maybe", true},
		{statusDeveloper, `{"error":"cannot start action: command exited"}`, ``, platform.Lost, "maybe", true},
		{statusDeveloper, `{"error":"Cannot start action. Check logs for details."}`, ``, platform.ApplicationError, "GOARCH", false},
		{statusDeveloper, `{"error":"Execution environment version mismatch. See logs for details."}`, ``, platform.ApplicationError, "--kind", false},
		{statusDeveloper, `{"error":"The action did not produce a valid JSON or JSON Array response: plain"}`, ``, platform.ApplicationError, "plain", false},
		{statusDeveloper, `{"error":"executable file not found in image"}`, ``, platform.Refused, "processors", false},
		// The newer scheduler refuses in the queue what was accepted before.
		{statusDeveloper, `{"error":"Too many concurrent requests in flight."}`, ``, platform.Throttled, "in flight", false},
		// A time-out is known by its annotation, whatever the text says.
		{statusDeveloper, `{"error":"aborted"}`, `"annotations":[{"key":"timeout","value":true}],"duration":60000`, platform.TimedOut, "1m0s", false},
		{statusApplication, `{"error":"Action could not be found or may have been deleted."}`, ``, platform.Lost, "deleted", false},
		{statusApplication, `{"error":"memory size 1024 MB exceeds allowed threshold of 512 MB"}`, ``, platform.Refused, "512 MB", false},
		{statusApplication, `{"error":null}`, ``, platform.ApplicationError, "no reason", false},
		{statusApplication, `{"error":{"text":"no such shard","reason":"store"}}`, ``, platform.ApplicationError, "no such shard", false},
		{"whisk internal error", `{"error":"Action could not be fetched."}`, ``, platform.Lost, "fetched", false},
		{"something new", `{"error":"who knows"}`, ``, platform.Lost, "who knows", false},
		// A JSON array is a success since 2.0.0, and no answer of a worker.
		{statusSuccess, `[1,2]`, ``, platform.ApplicationError, "JSON object", false},
		{statusSuccess, `{}`, ``, platform.Success, "", false},
	} {
		more := c.more
		if more == "" {
			more = `"duration":5`
		}
		var r record
		text := `{"response":{"status":"` + c.status + `","result":` + c.result + `},` + more + `}`
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		got := r.outcome(platform.Action{Memory: 256 * job.MB, Timeout: time.Minute})
		if got.Kind != c.kind || !strings.Contains(got.Message, c.says) || got.MaybeMemory != c.maybe {
			t.Errorf("%s: %s, %q, maybe memory %v; want %s that says %q, %v", text, got.Kind, got.Message, got.MaybeMemory, c.kind, c.says, c.maybe)
		}
	}
}

// TestOutcome_Self: the record does not name the container, the worker does; what
// it tells is not believed beyond what can be.
func TestOutcome_Self(t *testing.T) {
	for result, want := range map[string]platform.Usage{
		`{"step":3,"self":{"container":"c-1","peak_bytes":1048576}}`:                           {Container: "c-1", Peak: job.MB},
		`{"error":{"text":"x","reason":"store","self":{"container":"c-2","peak_bytes":4096}}}`: {Container: "c-2", Peak: 4096},
		`{"self":{"container":"c-3","peak_bytes":9999999999}}`:                                 {Container: "c-3", Peak: 128 * job.MB},
		`{"self":{"container":"a b"}}`:                                                         {},
		`{"self":{"container":"c","peak_bytes":-1}}`:                                           {},
		`{"self":7}`:       {},
		`{"error":"self"}`: {},
	} {
		var r record
		if err := json.Unmarshal([]byte(`{"response":{"status":"success","result":`+result+`}}`), &r); err != nil {
			t.Fatal(err)
		}
		got := r.usage(platform.Action{Memory: 128 * job.MB})
		got.Limit = 0
		if got != want {
			t.Errorf("%s: %+v, want %+v", result, got, want)
		}
	}
}

func TestPrinted(t *testing.T) {
	for line, want := range map[string]string{
		"2026-11-23T10:24:39.444110835Z hello":         "hello",
		"2026-11-23T10:24:39.444110835Z  two spaces":   " two spaces",
		"2026-11-23T10:24:39.444110835Z stdout: hello": "hello",
		"2026-11-23T10:24:39.444Z       stderr: oh no": "oh no",
		"2026-11-23T10:24:39.444110835Z":               "",
		"no time":                                      "no time",
		"":                                             "",
		"There was an issue while collecting your logs. Data might": "There was an issue while collecting your logs. Data might",
	} {
		if got := printed(line); got != want {
			t.Errorf("printed(%q) is %q, want %q", line, got, want)
		}
	}
}

// FuzzOutcome: whatever a deployment sends, there is one outcome that keeps the
// contract.
func FuzzOutcome(f *testing.F) {
	for _, text := range realRecords(f) {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"response":{"status":"success","result":null},"annotations":[{"key":"waitTime","value":-1}],"duration":-5}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r record
		if json.Unmarshal(raw, &r) != nil || r.Response == nil {
			return
		}
		out := r.outcome(platform.Action{Name: "a", Memory: 128 * job.MB, Timeout: time.Minute})
		u := out.Usage
		if out.Kind == "" || (out.Message == "") != (out.Kind == platform.Success) || len(out.Message) > 6*quoteMax || strings.Contains(out.Message, "\n") {
			t.Errorf("%s, message %q", out.Kind, out.Message)
		}
		if u.Wait < 0 || u.Init < 0 || u.Duration < 0 || u.Peak < 0 || u.Peak > u.Limit {
			t.Errorf("usage %+v", u)
		}
		var object map[string]json.RawMessage
		if out.Kind == platform.Success || out.Kind == platform.ApplicationError {
			if err := json.Unmarshal(out.Result, &object); err != nil || object == nil {
				t.Errorf("%s with result %s", out.Kind, out.Result)
			}
		} else if out.Result != nil {
			t.Errorf("%s with result %s", out.Kind, out.Result)
		}
		if out.Kind == platform.ApplicationError && object["error"] == nil {
			t.Errorf("application error with result %s", out.Result)
		}
	})
}
