// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"disdel/internal/job"
)

// Contract 9.4 and 1.3: what is checked first.
func TestOrderOfChecks(t *testing.T) {
	inWorld(t, func(c *Config, _ *poolConfig) { c.Limits.PerMinute = 4 }, func(w *world) {
		w.deploy("a", `"annotations":[{"key":"final","value":true}],"parameters":[{"key":"p","value":1}]`)
		w.ask("POST", "actions/a$", "").want(400)                      // 1: syntax, before credentials
		w.ask("POST", "actions/a$", "", "Authorization", "").want(400) //
		w.ask("POST", "actions/a", "", "Authorization", "").want(401)  // 2
		w.ask("POST", "actions/nope/a", "").want(404)                  // 5: the package; first of the minute
		w.ask("POST", "actions/nope?blocking=maybe", "[1]").want(400)  // 7: query before body before action
		w.ask("POST", "actions/nope", "[1]").want(400)                 //
		w.ask("POST", "actions/a", `{"p":2}`).says(400, textFinal)     // 9: fourth of the minute
		throttled := w.ask("POST", "actions/nope/nope?blocking=maybe", "[1]", "Content-Type", "text/plain")
		throttled.says(429, "Too many requests in the last minute (count: 5, allowed: 4).") // 3: before existence
		if throttled.header.Get("Retry-After") != "" {
			t.Error("OpenWhisk tells no Retry-After")
		}
		w.ask("POST", "actions/a", "").says(429, "Too many requests in the last minute (count: 6, allowed: 4).")
		w.user(other).ask("POST", "actions/nope", "").want(404) // each namespace has its own count
		w.ask("GET", "actions", "").want(200)                   // only invocations are counted
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		w.ask("POST", "actions/a?blocking=true", "").want(200) // the next minute of the wall clock
	})
}

// Contract 9.4 and 2: the concurrency throttle.
func TestConcurrencyThrottle(t *testing.T) {
	inWorld(t, func(c *Config, _ *poolConfig) { c.Limits.Concurrent = 2 }, func(w *world) {
		w.deploy("a", `"limits":{"memory":128}`)
		for range 2 {
			w.ask("POST", "actions/a", `{"do":"10s"}`).want(202)
		}
		w.ask("POST", "actions/a", "").says(429, "Too many concurrent requests in flight (count: 2, allowed: 2).")
		w.user(other).ask("POST", "actions/nope", "").want(404)
		time.Sleep(11 * time.Second)
		w.ask("POST", "actions/a?blocking=true", "").want(200)
		w.ask("POST", "actions/nope", "").want(404) // what is not accepted gives its slot back
		w.ask("POST", "actions/nope", "").want(404)
		w.ask("POST", "actions/a?blocking=true", "").want(200)
	})
}

// Contract 9.4 and 1.7: waiting for an outcome.
func TestBlocking(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deploy("a", `"limits":{"timeout":120000}`)
		began := time.Now()
		accepted := w.ask("POST", "actions/a?result=true", `{"do":"10s"}`).want(202)
		if took := time.Since(began); took != 0 {
			t.Errorf("a call that is not blocking took %v", took)
		}
		id := text(accepted.object()["activationId"])
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || accepted.header.Get("x-openwhisk-activation-id") != id {
			t.Errorf("activation %q, header %v", id, accepted.header)
		}
		w.ask("GET", "activations/"+id, "").says(404, "The requested resource does not exist.") // Contract 0.2
		time.Sleep(11 * time.Second)
		w.ask("GET", "activations/"+id, "").want(200)
		w.user(other).ask("GET", "activations/"+id, "").want(404)

		began = time.Now()
		late := w.ask("POST", "actions/a?blocking=true&timeout=2000", `{"do":"10s"}`).want(202)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("waited %v, want 2s", took)
		}
		time.Sleep(9 * time.Second)
		if rec := w.record(late); at(t, rec, "response", "success") != true {
			t.Errorf("the action did not go on: %v", rec)
		}
		began = time.Now()
		w.ask("POST", "actions/a?blocking=true", `{"do":"100s"}`).want(202)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("waited %v, want 1m", took)
		}
		w.ask("POST", "actions/a?blocking=true&result=true", `{"x":1}`).want(200).is(`{"got":{"x":1}}`)
		whole := w.ask("POST", "actions/a?blocking=true", `{"print":"hello"}`).want(200)
		if logs := whole.object()["logs"].([]any); len(logs) != 0 {
			t.Errorf("an answer has the logs %v", logs)
		}
		if logs := w.record(whole)["logs"].([]any); len(logs) != 1 || !strings.HasSuffix(text(logs[0]), " stdout: hello") {
			t.Errorf("the record has the logs %v", logs)
		}
	})
}

// Contract 9.5 and 1.8: records.
func TestRecords(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("PUT", "packages/p", "{}").want(200)
		w.ask("PUT", "actions/p/a", `{`+actExec+`,"limits":{"memory":128}}`).want(200)
		w.deploy("b", "")
		cold := w.record(w.ask("POST", "actions/p/a?blocking=true", `{"do":"5ms"}`).want(200))
		if at(t, cold, "response", "status") != "success" || annotation(t, cold, "initTime") != 0.0 || annotation(t, cold, "waitTime") != 300.0 ||
			annotation(t, cold, "path") != "guest/p/a" || annotation(t, cold, "kind") != "blackbox" || annotation(t, cold, "timeout") != false ||
			cold["duration"] != 5.0 || cold["end"].(float64)-cold["start"].(float64) != 5 || cold["subject"] != "guest" || cold["version"] != "0.0.1" {
			t.Errorf("record of a cold call: %v", cold)
		}
		if string(encode(annotation(t, cold, "limits"))) != `{"concurrency":1,"logs":10,"memory":128,"timeout":60000}` {
			t.Errorf("limits: %v", annotation(t, cold, "limits"))
		}
		time.Sleep(time.Second)
		warm := w.record(w.ask("POST", "actions/p/a?blocking=true", "").want(200))
		if annotation(t, warm, "initTime") != nil || annotation(t, warm, "waitTime") != 0.0 {
			t.Errorf("record of a warm call: %v", warm)
		}
		time.Sleep(time.Second)
		w.ask("POST", "actions/b?blocking=true", "").want(200)
		synctest.Wait()

		id := text(cold["activationId"])
		w.ask("GET", "activations/"+id+"/result", "").want(200).is(string(encode(cold["response"])))
		w.ask("GET", "activations/"+id+"/logs", "").want(200).is(`{"logs":[]}`)
		w.ask("GET", "activations/"+id+"/nope", "").want(404)
		w.ask("DELETE", "activations/"+id, "").want(404)

		ids := func(query string) string {
			var names []string
			for _, row := range w.ask("GET", "activations?"+query, "").want(200).list() {
				names = append(names, fmt.Sprint(row["name"], row["statusCode"]))
			}
			return strings.Join(names, " ")
		}
		start := func(rec map[string]any) string { return fmt.Sprint(int64(rec["start"].(float64))) }
		for query, want := range map[string]string{
			"": "b0 a0 a0", "name=a": "", "name=b": "b0", "name=p/a": "a0 a0", "name=q/a": "", "limit=1": "b0", "limit=1&skip=2": "a0", "limit=0": "b0 a0 a0",
			"since=" + start(warm): "b0 a0", "upto=" + start(warm): "a0 a0", "since=" + start(warm) + "&upto=" + start(warm): "a0", "skip=9": "",
		} {
			if got := ids(query); got != want {
				t.Errorf("list with %q is %q, want %q", query, got, want)
			}
		}
		w.ask("GET", "activations?count=true", "").is(`{"activations":3}`)
		if row := w.ask("GET", "activations", "").list()[0]; row["response"] != nil || row["logs"] != nil {
			t.Errorf("a row has too much: %v", row)
		}
		full := w.ask("GET", "activations?docs=true&name=p/a", "").list()
		if !sameJSON(encode(full[1]), encode(cold)) || full[0]["statusCode"] != nil {
			t.Errorf("docs=true: %v", full)
		}
		if strangers := w.user(other).ask("GET", "activations", "").list(); len(strangers) != 0 {
			t.Errorf("a stranger sees %v", strangers)
		}
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.RecordMax = 2; c.Faults.RecordDelay = 100 * time.Millisecond }, func(w *world) {
		w.deploy("a", "")
		var answers []got
		for range 3 {
			answers = append(answers, w.ask("POST", "actions/a?blocking=true", ""))
			w.ask("GET", "activations/"+answers[len(answers)-1].header.Get("x-openwhisk-activation-id"), "").want(404)
			time.Sleep(time.Second)
		}
		w.ask("GET", "activations?count=true", "").is(`{"activations":2}`)
		w.ask("GET", "activations/"+answers[0].header.Get("x-openwhisk-activation-id"), "").want(404)
	})
}

// Contract 9.5, 0.16 and 0.19: where a record comes later than the answer, the
// container is busy for as long, and a call in that time starts another one.
func TestLateRecords(t *testing.T) {
	const late = 100 * time.Millisecond
	inWorld(t, func(c *Config, _ *poolConfig) { c.Faults.RecordDelay = late }, func(w *world) {
		w.deploy("a", `"limits":{"memory":128}`)
		cold := func() bool {
			t.Helper()
			return annotation(t, w.ask("POST", "actions/a?blocking=true", "").want(200).object(), "initTime") != nil
		}
		first, second := cold(), cold()
		if !first || !second {
			t.Error("a call right after an answer found a container that was still busy")
		}
		time.Sleep(late)
		first, second = cold(), cold()
		if third := cold(); first || second || !third {
			t.Error("after a while there are two containers, for two calls in a row, and no third")
		}
		time.Sleep(11 * time.Minute)
		if status, err := w.pool.Status(w.Context()); err != nil || status.Idle+status.Busy != 0 {
			t.Errorf("containers that were busy after their answer are kept for ever: %+v, %v", status, err)
		}
	})
}

// Contract 4.2 and 4.3: what a container is sent.
func TestWhatTheWorkerGets(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("PUT", "packages/p", `{"parameters":[{"key":"SECRET","value":"s3cr3t","init":true},{"key":"n","value":[1, 2],"init":true},{"key":"nil","value":null,"init":true},{"key":"q","value":7}]}`).want(200)
		w.ask("PUT", "actions/p/a", `{`+actExec+`,"annotations":[{"key":"provide-api-key","value":true}]}`).want(200)
		answer := w.ask("POST", "actions/p/a?blocking=true", `{"big":12345678901234567890,"html":"<&>"}`, "X-Request-ID", "my-transaction").want(200)
		if !strings.Contains(string(answer.body), "12345678901234567890") && !strings.Contains(string(answer.body), "12345678901234567000") {
			t.Errorf("a large number was changed: %s", answer.body)
		}
		b := w.driver.box(t, 0)
		env := at(t, b.inits[0], "env").(map[string]any)
		id := answer.header.Get("x-openwhisk-activation-id")
		for name, want := range map[string]string{
			"SECRET": "s3cr3t", "n": "[1,2]", "nil": "", "__OW_NAMESPACE": "guest", "__OW_ACTION_NAME": "/guest/p/a", "__OW_ACTION_VERSION": "0.0.1",
			"__OW_ACTIVATION_ID": id, "__OW_TRANSACTION_ID": "my-transaction", "__OW_API_KEY": guest.Key(),
		} {
			if env[name] != want {
				t.Errorf("%s is %v, want %s", name, env[name], want)
			}
		}
		if b.inits[0]["name"] != "a" || b.inits[0]["main"] != "main" || b.inits[0]["binary"] != false || b.inits[0]["code"] != nil {
			t.Errorf("/init: %v", b.inits[0])
		}
		run := b.runs[0]
		value := run["value"].(map[string]any)
		if run["namespace"] != "guest" || run["action_name"] != "/guest/p/a" || run["activation_id"] != id || run["api_key"] != guest.Key() ||
			run["transaction_id"] != "my-transaction" || value["SECRET"] != nil || value["q"] != 7.0 || value["html"] != "<&>" {
			t.Errorf("/run: %v", run)
		}
		deadline := text(run["deadline"])
		if want := fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()); deadline != want {
			t.Errorf("deadline %s, want %s", deadline, want)
		}
		w.ask("POST", "actions/p/a?blocking=true", "").want(200)
		if len(b.inits) != 1 || b.dials != 3 { // Contract 9.6: a fresh connection each
			t.Errorf("%d times /init, %d connections, want 1 and 3", len(b.inits), b.dials)
		}

		w.ask("PUT", "actions/m", `{"exec":{"kind":"test:1","code":"UEsDBA==","main":"m"}}`).want(200)
		w.ask("POST", "actions/m?blocking=true", "").want(200)
		init := w.driver.box(t, 1).inits[0]
		if init["code"] != "UEsDBA==" || init["binary"] != true || init["main"] != "m" || at(t, init, "env", "__OW_API_KEY") != nil {
			t.Errorf("/init: %v", init)
		}
	})
}

// Contract 9.6 and 4.8: which calls share a container, and how long it is kept.
func TestWarmReuse(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		cold := func() bool {
			t.Helper()
			answer := w.ask("POST", "actions/a?blocking=true", "").want(200)
			return annotation(t, answer.object(), "initTime") != nil
		}
		w.deploy("a", "")
		if !cold() || cold() {
			t.Error("want cold, then warm")
		}
		time.Sleep(9 * time.Second)
		w.ask("DELETE", "actions/a", "").want(200)
		w.deploy("a", "")
		if cold() {
			t.Error("an equal action after a deletion is cold")
		}
		w.ask("PUT", "actions/a?overwrite=true", "{}").want(200)
		if !cold() {
			t.Error("an update is warm")
		}
		if n := w.driver.box(t, 1).pauseCount(); n != 0 {
			t.Errorf("paused %d times within the grace", n)
		}
		time.Sleep(11 * time.Second)
		if n := w.driver.box(t, 1).pauseCount(); n != 1 {
			t.Errorf("paused %d times after the grace, want once", n)
		}
		if cold() {
			t.Error("a paused container was not used")
		}
		time.Sleep(11 * time.Minute)
		if !cold() {
			t.Error("a container outlived the idle timeout")
		}
		// An update leaves a running call alone.
		running := w.ask("POST", "actions/a", `{"do":"5s"}`).want(202)
		time.Sleep(time.Second)
		w.ask("PUT", "actions/a?overwrite=true", "{}").want(200)
		w.ask("DELETE", "actions/a", "").want(200)
		time.Sleep(5 * time.Second)
		if rec := w.record(running); at(t, rec, "response", "success") != true {
			t.Errorf("a running call of a deleted action: %v", rec)
		}
	})
}

// Contract 9.7, 0.8 and 6.2: the pool counts declared memory, queues in order,
// and evicts what is idle for longest.
func TestQueueAndEviction(t *testing.T) {
	inWorld(t, func(c *Config, p *poolConfig) {
		c.Limits.MemoryMax = 2048 * job.MB // more than the pool has, as in OpenWhisk
		p.PoolMemory = 512 * job.MB
	}, func(w *world) {
		w.deploy("small", `"limits":{"memory":128}`)
		w.deploy("half", `"limits":{"memory":256}`)
		w.deploy("all", `"limits":{"memory":512}`)
		w.deploy("huge", `"limits":{"memory":2000}`)
		w.ask("POST", "actions/half", `{"do":"10s"}`).want(202)
		time.Sleep(time.Second)
		w.ask("POST", "actions/all", `{"do":"1s"}`).want(202)
		// A small call would fit, and waits behind the large one.
		behind := w.ask("POST", "actions/small?blocking=true", "").want(200).object()
		if wait := annotation(t, behind, "waitTime").(float64); wait < 10000 {
			t.Errorf("a small call waited %v ms, want it behind the large one", wait)
		}
		if n := w.driver.count(); n != 3 {
			t.Errorf("%d containers, want 3: the idle ones were evicted", n)
		}
		// A call that never fits holds all back.
		w.ask("POST", "actions/huge", "").want(202)
		stuck := w.ask("POST", "actions/small?blocking=true", "").want(202)
		time.Sleep(time.Hour)
		w.ask("GET", "activations/"+stuck.header.Get("x-openwhisk-activation-id"), "").want(404)
	})
}

// Contract 9.7 and 5.1: stem cells serve calls of exactly their kind and memory.
func TestStemCells(t *testing.T) {
	inWorld(t, func(_ *Config, p *poolConfig) {
		p.StemCells = []stemCell{{Image: "test/managed:1", Memory: 256 * job.MB, Count: 2}}
		p.PoolMemory = 1024 * job.MB
	}, func(w *world) {
		time.Sleep(time.Second)
		if n := w.driver.count(); n != 2 {
			t.Fatalf("%d containers at the start, want 2", n)
		}
		const managed = `"exec":{"kind":"test:1","code":"x"}`
		w.ask("PUT", "actions/a", `{`+managed+`}`).want(200)
		w.ask("PUT", "actions/b", `{`+managed+`,"limits":{"memory":128}}`).want(200)
		w.deploy("c", "")
		first := w.ask("POST", "actions/a?blocking=true", "").want(200).object()
		if annotation(t, first, "waitTime") != 0.0 || annotation(t, first, "initTime") == nil {
			t.Errorf("a call of a stem cell: %v", first)
		}
		time.Sleep(time.Second)
		if n := w.driver.count(); n != 3 {
			t.Errorf("%d containers, want 3: the stem cell was replaced", n)
		}
		for _, name := range []string{"b", "c"} { // other memory, other image
			if rec := w.ask("POST", "actions/"+name+"?blocking=true", "").want(200).object(); annotation(t, rec, "waitTime") != 300.0 {
				t.Errorf("%s: waited %v ms, want the start of a container", name, annotation(t, rec, "waitTime"))
			}
		}
		time.Sleep(time.Hour)
		status, err := w.pool.Status(w.Context())
		if err != nil || status.Cells != 2 || status.Idle != 0 {
			t.Errorf("after an hour: %+v, %v; want the stem cells alone", status, err)
		}
	})
}

// Contract 9.10: a client that gave up, or was cut off, does not end a call; many
// at once are all answered.
func TestManyAndDropped(t *testing.T) {
	drop := false
	inWorld(t, func(c *Config, _ *poolConfig) {
		c.Faults.Request = func(*httpRequest) Fault { return Fault{Drop: drop} }
	}, func(w *world) {
		w.deploy("a", `"limits":{"memory":128}`)
		drop = true
		req := newRequest(w, "POST", "actions/a", `{"do":"1s"}`)
		if resp, err := w.client.Do(req); err == nil {
			t.Errorf("answered with %s, closing: %v", resp.Status, resp.Body.Close())
		}
		drop = false
		time.Sleep(2 * time.Second)
		w.ask("GET", "activations?count=true", "").is(`{"activations":1}`) // it ran all the same

		var wait sync.WaitGroup
		for i := range 50 {
			wait.Go(func() {
				answer := w.ask("POST", "actions/a?blocking=true&result=true", fmt.Sprintf(`{"i":%d}`, i))
				answer.want(200).is(fmt.Sprintf(`{"got":{"i":%d}}`, i))
			})
		}
		wait.Wait()
	})
	inWorld(t, func(c *Config, _ *poolConfig) {
		c.Faults.Request = func(r *httpRequest) Fault {
			switch r.URL.Query().Get("fault") {
			case "429":
				return Fault{Status: 429}
			case "503":
				return Fault{Status: 503}
			}
			return Fault{}
		}
	}, func(w *world) {
		w.deploy("a", "")
		w.ask("POST", "actions/a?fault=429", "").says(429, "Too many requests")
		w.ask("POST", "actions/a?fault=503", "").want(503)
		w.ask("GET", "activations?count=true", "").is(`{"activations":0}`)
	})
}
