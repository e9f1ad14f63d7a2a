// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Contract 9.6, 9.8 and the table of 1.8: what becomes of what a container does.
func TestOutcomes(t *testing.T) {
	const (
		developer = "action developer error"
		noRun     = "The action did not produce a valid response and exited unexpectedly."
		noInit    = "The action did not initialize and exited unexpectedly."
	)
	for _, c := range []struct {
		do, init string // what /run and /init do
		status   int
		how      string
		result   string // of 2.0.0
		v1       string // of 1.0.0, where that differs
		size     any    // nil when there was no answer
		kept     bool
	}{
		{do: `200 {"x":1}`, status: 200, how: "success", result: `{"x":1}`, size: 7.0, kept: true},
		{do: `200 {"error":"bad thing","x":1}`, status: 502, how: "application error", result: `{"error":"bad thing"}`, size: 27.0, kept: true},
		{do: `200 {"error":null}`, status: 502, how: "application error", result: `{"error":null}`, size: 14.0, kept: true},
		{do: `200 {"error":{"code":7}}`, status: 502, how: "application error", result: `{"error":{"code":7}}`, size: 20.0, kept: true},
		{do: `400 {"error":"e400"}`, status: 502, how: developer, result: `{"error":"e400"}`, size: 16.0},
		{
			do: "500 plain text", status: 502, how: developer, size: 10.0,
			result: `{"error":"The action did not produce a valid JSON or JSON Array response: plain text"}`,
			v1:     `{"error":"The action did not produce a valid JSON response: plain text"}`,
		},
		{
			do: `201 {"x":1}`, status: 502, how: developer, size: 7.0,
			result: `{"error":"The action did not produce a valid JSON or JSON Array response: {\"x\":1}"}`,
			v1:     `{"error":"The action did not produce a valid JSON response: {\"x\":1}"}`,
		},
		{
			do: "200 ", status: 502, how: developer, size: 0.0,
			result: `{"error":"The action did not produce a valid JSON or JSON Array response."}`,
			v1:     `{"error":"The action did not produce a valid JSON response."}`,
		},
		{
			do: "200 7", status: 502, how: developer, size: 1.0,
			result: `{"error":"The action did not produce a valid JSON or JSON Array response: 7"}`,
			v1:     `{"error":"The action did not produce a valid JSON response: 7"}`,
		},
		{do: "chunked", status: 502, how: developer, result: `{"error":"` + noRun + `"}`},
		{do: "exit", status: 502, how: developer, result: `{"error":"` + noRun + `"}`},
		{do: "memory", status: 502, how: developer, result: `{"error":"The action exhausted its memory and was aborted."}`},
		{do: "10s", status: 502, how: developer, result: `{"error":"The action exceeded its time limits of 5000 milliseconds."}`},
		{init: "10s", status: 502, how: developer, result: `{"error":"The action exceeded its time limits of 5000 milliseconds during initialization."}`},
		{init: `502 {"error":"init says no"}`, status: 502, how: developer, result: `{"error":"init says no"}`, size: 24.0},
		{init: "502 something plain", status: 502, how: developer, result: `{"error":"The action failed during initialization: something plain"}`, size: 15.0},
		{init: "chunked", status: 502, how: developer, result: `{"error":"` + noInit + `"}`},
		{init: "exit", status: 502, how: developer, result: `{"error":"` + noInit + `"}`},
		{init: "201 {}", status: 502, how: developer, result: `{"error":"The action failed during initialization: {}"}`, size: 2.0},
	} {
		for _, generation := range []Generation{V1, V2} {
			inWorld(t, func(cfg *Config, _ *poolConfig) { cfg.Generation = generation }, func(w *world) {
				w.deploy("a", `"limits":{"timeout":5000},"parameters":[{"key":"INIT","value":"`+strings.ReplaceAll(c.init, `"`, `\"`)+`","init":true}]`)
				answer := w.ask("POST", "actions/a?blocking=true", string(encode(map[string]string{"do": c.do}))).want(c.status)
				want := c.result
				if generation == V1 && c.v1 != "" {
					want = c.v1
				}
				response := at(t, answer.object(), "response").(map[string]any)
				if response["status"] != c.how || response["success"] != (c.how == "success") || response["size"] != c.size || !sameJSON(encode(response["result"]), []byte(want)) {
					t.Errorf("%+v: response %s, want %s", c, encode(response), want)
				}
				rec := w.record(answer)
				if timed := strings.Contains(want, "time limits"); annotation(t, rec, "timeout") != timed || annotation(t, rec, "initTime") == nil {
					t.Errorf("%+v: annotations %v", c, rec["annotations"])
				}
				again := w.ask("POST", "actions/a?blocking=true", "")
				if warm := annotation(t, again.object(), "initTime") == nil; warm != c.kept {
					t.Errorf("%+v: the container was kept: %v, want %v", c, warm, c.kept)
				}
			})
		}
	}
}

// Contract 1.8 and 3.3: an answer that is too large is cut, and its container
// lives.
func TestLargeAnswer(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		answer := w.ask("POST", "actions/a?blocking=true", `{"do":"large"}`).want(502)
		response := at(t, answer.object(), "response").(map[string]any)
		const want = "The action produced a response that exceeded the allowed length: 1048584 > 1048576 bytes. The truncated response was: {\"x\":\"xxx"
		if got := text(at(t, response, "result", "error")); response["status"] != "application error" || !strings.HasPrefix(got, want) ||
			len(got) != len(want)-9+1<<20 || response["size"] != 1048584.0 {
			t.Errorf("%v, %.200s (%d)", response["status"], got, len(got))
		}
		if again := w.ask("POST", "actions/a?blocking=true", "").object(); annotation(t, again, "initTime") != nil {
			t.Error("the container was lost")
		}
	})
}

// Contract 1.8: results that are arrays.
func TestArrays(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		w.ask("POST", "actions/a?blocking=true", `{"do":"200 [1,2]"}`).want(200).is("[1,2]")
		rec := w.ask("GET", "activations?docs=true", "").list()[0]
		if string(encode(at(t, rec, "response", "result"))) != "[1,2]" {
			t.Errorf("record: %v", rec)
		}
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.Generation = V1 }, func(w *world) {
		w.deploy("a", "")
		w.ask("POST", "actions/a?blocking=true&result=true", `{"do":"200 [1,2]"}`).want(502).
			is(`{"error":"The action did not produce a valid JSON response: [1,2]"}`)
	})
}

// Contract 9.8, 0.12 and 6.1: a container that answers 503.
func TestShuttingDown(t *testing.T) {
	const busy = `{"do":"503 {\"error\":\"later\"}"}`
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		lost := w.ask("POST", "actions/a?blocking=true", busy).want(202) // a cold one loses its call
		time.Sleep(time.Hour)
		w.ask("GET", "activations/"+lost.header.Get("x-openwhisk-activation-id"), "").want(404)
		w.ask("POST", "actions/a?blocking=true", "").want(200)
		// A warm one is replaced and the call made again: by a cold one, which
		// then loses it.
		w.ask("POST", "actions/a?blocking=true", busy).want(202)
		if n := w.driver.count(); n != 3 {
			t.Errorf("%d containers, want 3", n)
		}
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.Generation = V1 }, func(w *world) {
		w.deploy("a", "")
		w.ask("POST", "actions/a?blocking=true&result=true", busy).want(502).is(`{"error":"later"}`)
	})
}

// Contract 1.8 and 5: containers that cannot be started.
func TestNoContainer(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, c := range []struct {
			image  string
			status int
			how    string
			text   string
		}{
			{"not/here:1", 502, "action developer error", "Failed to pull container image 'not/here:1'."},
			{"no/program:1", 502, "action developer error", "executable file not found in image no/program:1"},
			{"cannot/start:1", 500, "whisk internal error", "Failed to provision resources to run the action."},
		} {
			w.ask("PUT", "actions/a?overwrite=true", `{"exec":{"kind":"blackbox","image":"`+c.image+`"}}`).want(200)
			answer := w.ask("POST", "actions/a?blocking=true", "").want(c.status)
			response := at(t, answer.object(), "response").(map[string]any)
			if response["status"] != c.how || at(t, response, "result", "error") != c.text || response["size"] != nil {
				t.Errorf("%s: %v", c.image, response)
			}
			rec := w.record(answer)
			if annotation(t, rec, "initTime") != nil || rec["duration"] != 0.0 {
				t.Errorf("%s: %v", c.image, rec)
			}
		}
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.RunsImages, c.WorkerImages = false, []string{"disdel/worker"} }, func(w *world) {
		w.driver.images[""] = act
		for image, status := range map[string]int{"disdel/worker:7": 200, "disdel/worker": 200, "disdel/other": 502} {
			w.ask("PUT", "actions/a?overwrite=true", `{"exec":{"kind":"blackbox","image":"`+image+`"}}`).want(200)
			w.ask("POST", "actions/a?blocking=true", "").want(status)
		}
		w.ask("PUT", "actions/m", `{"exec":{"kind":"test:default","code":"x"}}`).want(200)
		w.ask("POST", "actions/m?blocking=true", "").want(200)
	})
}

// Contract 9.8, 4.5 and 4.6: how the same end looks on other deployments.
func TestDeployments(t *testing.T) {
	inWorld(t, func(c *Config, _ *poolConfig) { c.Faults.HideMemory, c.Faults.BreakDelay = true, 11*time.Second }, func(w *world) {
		w.deploy("a", "")
		answer := w.ask("POST", "actions/a?blocking=true", `{"do":"memory"}`).want(502)
		if got := at(t, answer.object(), "response", "result", "error"); got != textNoRun {
			t.Errorf("hidden out of memory: %v", got)
		}
		began := time.Now()
		answer = w.ask("POST", "actions/a?blocking=true", `{"do":"exit"}`).want(502)
		if took := time.Since(began); took < 11*time.Second || answer.object()["duration"].(float64) > 1000 {
			t.Errorf("answered after %v with the duration %v", took, answer.object()["duration"])
		}
	})
}

// Contract 9.9 and 4.4: managed kinds must end their output on both streams.
func TestSentinels(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("PUT", "actions/m", `{"exec":{"kind":"test:1","code":"x"}}`).want(200)
		w.deploy("b", "")
		for _, c := range []struct {
			name string
			kept bool
			last string
		}{{"m", false, "There was an issue while collecting your logs. Data might be missing."}, {"b", true, ""}} {
			w.ask("POST", "actions/"+c.name+"?blocking=true", "").want(200)
			rec := w.record(w.ask("POST", "actions/"+c.name+"?blocking=true", `{"do":"silent"}`).want(200))
			logs := rec["logs"].([]any)
			if annotation(t, rec, "initTime") != nil || c.last != "" && (len(logs) != 1 || logs[0] != c.last) || c.last == "" && len(logs) != 0 {
				t.Errorf("%s: logs %v", c.name, logs)
			}
			next := w.ask("POST", "actions/"+c.name+"?blocking=true", "").object()
			if kept := annotation(t, next, "initTime") == nil; kept != c.kept {
				t.Errorf("%s: the container was kept: %v", c.name, kept)
			}
		}
	})
}

// Logs: "logs": 0 keeps none, and init-only parameters are never shown.
func TestLogs(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("none", `"limits":{"logs":0}`)
		if logs := w.record(w.ask("POST", "actions/none?blocking=true", `{"print":"x"}`))["logs"].([]any); len(logs) != 0 {
			t.Errorf("logs: %v", logs)
		}
		w.deploy("a", `"parameters":[{"key":"S","value":"hunter22","init":true}]`)
		rec := w.record(w.ask("POST", "actions/a?blocking=true", `{"print":"it is hunter22"}`))
		if line := text(rec["logs"].([]any)[0]); line != "2000-01-01T00:00:00.600000000Z stdout: it is [redacted]" {
			t.Errorf("line %q", line)
		}
		// Nor in what a worker answers, JSON or not.
		for do, want := range map[string]string{
			`200 {"x":"hunter22"}`: `{"x":"[redacted]"}`, `500 {"error":"hunter22"}`: `{"error":"[redacted]"}`,
			"500 hunter22": `{"error":"The action did not produce a valid JSON or JSON Array response: [redacted]"}`,
		} {
			w.ask("POST", "actions/a?blocking=true&result=true", string(encode(map[string]string{"do": do}))).is(want)
		}
		if failed := w.record(w.ask("POST", "actions/a?blocking=true", `{"do":"exit"}`)); !slices.Contains(failed["logs"].([]any),
			any("The action did not initialize or run as expected. Log data might be missing.")) {
			t.Errorf("logs of a failure: %v", failed["logs"])
		}
	})
}

// A server whose pool was closed answers, and what was running has a record.
func TestClosing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", "")
		answer := w.ask("POST", "actions/a", `{"do":"10s"}`).want(202)
		time.Sleep(time.Second)
		if err := w.pool.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if rec := w.record(answer); at(t, rec, "response", "status") != "whisk internal error" {
			t.Errorf("record: %v", rec)
		}
		w.ask("POST", "actions/a", "").want(503)
	})
}

// Records that a real OpenWhisk 1.0.0 returned have the same members as ours.
func TestRecordsOfARealServer(t *testing.T) {
	text, err := os.ReadFile("testdata/records.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded []struct {
		Do, Init string
		Warm     bool
		Record   map[string]any
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	for _, c := range recorded {
		inWorld(t, func(cfg *Config, _ *poolConfig) { cfg.Generation = V1 }, func(w *world) {
			w.deploy("w", `"limits":{"memory":128,"timeout":`+string(encode(at(t, annotation(t, c.Record, "limits"), "timeout")))+`},
				"parameters":[{"key":"INIT","init":true,"value":`+string(encode(c.Init))+`}]`)
			if c.Warm {
				w.ask("POST", "actions/w?blocking=true", "")
			}
			rec := w.record(w.ask("POST", "actions/w?blocking=true", string(encode(map[string]string{"do": c.Do, "print": "hello"}))))
			if got, want := shape(rec), shape(c.Record); got != want {
				t.Errorf("%s %s: record\n%s\nwant\n%s", c.Do, c.Init, got, want)
			}
			if c.Record["response"].(map[string]any)["success"] == false && !sameJSON(encode(rec["response"]), encode(c.Record["response"])) {
				t.Errorf("%s %s: response %s, want %s", c.Do, c.Init, encode(rec["response"]), encode(c.Record["response"]))
			}
		})
	}
}

// shape lists the members of a record with what is the same in every run.
func shape(rec map[string]any) string {
	var lines []string
	for name := range rec {
		lines = append(lines, name)
	}
	slices.Sort(lines)
	for _, item := range rec["annotations"].([]any) {
		a := item.(map[string]any)
		line := "annotation " + text(a["key"])
		if key := a["key"]; key == "timeout" || key == "kind" || key == "limits" {
			line += " " + string(encode(a["value"]))
		}
		lines = append(lines, line)
	}
	response := rec["response"].(map[string]any)
	_, size := response["size"]
	return strings.Join(append(lines, text(response["status"]), map[bool]string{true: "size"}[size]), "\n")
}
