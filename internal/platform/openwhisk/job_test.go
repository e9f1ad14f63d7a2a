// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"disdel/internal/control"
	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn/kernel"
	"disdel/internal/store"
	"disdel/internal/store/mem"
	"disdel/internal/worker"
)

// tiny is a data set of dark and light pictures.
var tiny = job.Dataset{
	Name: "tiny", Digest: "tiny", Height: 4, Width: 4, Channels: 1, Classes: 2, ClassNames: []string{"dark", "light"},
	Scale: 1.0 / 255, Train: 22, Test: 13, ShardRecords: 8,
}

func tinyStore(t *testing.T) *mem.Store {
	t.Helper()
	s := mem.New()
	for _, part := range []job.Part{job.TrainPart, job.TestPart} {
		for i := range tiny.Shards(part) {
			n := min(tiny.ShardRecords, tiny.Records(part)-i*tiny.ShardRecords)
			pixels, labels := make([]byte, n*int(tiny.RecordBytes())), make([]uint16, n)
			for p := range pixels {
				record := p / int(tiny.RecordBytes())
				labels[record] = uint16((i + record) % 2)
				pixels[p] = byte(100*int(labels[record]) + p%90)
			}
			header := shard.Header{Records: n, H: tiny.Height, W: tiny.Width, C: tiny.Channels, Classes: tiny.Classes}
			if _, err := s.PutIfAbsent(t.Context(), tiny.ShardKey(part, i), func(w io.Writer) error {
				return shard.Write(w, header, pixels, labels)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// response is an http.ResponseWriter for a handler that is called directly.
type response struct {
	header http.Header
	bytes.Buffer
}

func (r *response) Header() http.Header { return r.header }
func (*response) WriteHeader(int)       {}

// work has a real worker do a task at once; a probe, which measures time, is
// answered here.
func work(t *testing.T, s *mem.Store, params json.RawMessage) (answer string) {
	var task job.Task
	if err := json.Unmarshal(params, &task); err != nil {
		t.Error(err)
	}
	if want := (job.Keys{Job: "job"}).Fence(0); task.Fence != want {
		t.Errorf("a task's fence is %q, want %q", task.Fence, want)
	}
	task.Fence = "" // in virtual time nothing can go on for long
	if task.Role == job.RoleProbe {
		return string(mustJSON(job.TaskResult{Probe: &job.Probe{
			Version: "test", KernelSet: kernel.Generic().Name, Package: 9 * job.MB, Held: job.MB, FLOPS: 1e9, StoreRate: 1e8,
		}}))
	}
	if !task.Meet {
		task.Budget = 0 // in virtual time no step takes any
	}
	w := worker.New(worker.Config{
		Container: "c", Kernels: kernel.Generic(), Open: func(context.Context, string) (store.Store, error) { return s.Share(), nil },
	})
	defer func() { _ = w.Close() }()
	post := func(path, body string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
		}
		rw := &response{header: http.Header{}}
		w.Handler().ServeHTTP(rw, r)
		return rw.String()
	}
	post("/init", `{"value":{"env":{"`+worker.StoreEnv+`":"mem://"}}}`)
	return post("/run", string(mustJSON(map[string]job.Task{"value": task})))
}

// train runs a job through a client whose deployment goes wrong as faults say,
// and returns its record and how many calls were accepted.
func train(t *testing.T, fault func(w *whisk, n int) reply, outcome func(n int, s script) script) (record job.Record, calls int) {
	synctest.Test(t, func(t *testing.T) {
		s := tinyStore(t)
		w := newWhisk(t)
		t.Cleanup(w.running.Wait)
		w.script = func(n int, params json.RawMessage) script {
			answer := work(t, s, params)
			made := script{after: time.Second, result: answer}
			if strings.HasPrefix(answer, `{"error"`) {
				made.status = statusApplication
			}
			return outcome(n, made)
		}
		var posts atomic.Int32
		w.fault = func(rw http.ResponseWriter, r *http.Request, body []byte) bool {
			if r.Method != http.MethodPost {
				return false
			}
			answer := fault(w, int(posts.Add(1))-1)
			if answer == nil {
				return false
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			answer(rw, r)
			return true
		}
		c := connect(t, w, Config{Image: "example/worker:1"})
		spec := job.Spec{Kind: job.Train, Dataset: "tiny", Model: "cnn", Epochs: 2, LocalBatch: 4, Replicas: 2, Rounds: 3, Seed: 7}
		created := control.Created{Job: "job", Spec: spec.WithDefaults(), Dataset: tiny}
		var err error
		record, err = control.Run(t.Context(), control.Config{
			Platform: c, Store: s.Share(), Init: map[string]string{worker.StoreEnv: "mem://"},
		}, created)
		if err != nil {
			t.Error(err)
		}
		if _, err := s.Status(t.Context(), job.Keys{Job: "job"}.Fence(0)); err != nil {
			t.Errorf("tasks that may go on are not ended: %v", err)
		}
		calls = w.accepted
		if len(w.packages)+len(w.actions) != 0 {
			t.Errorf("left behind: %v, %v", w.packages, w.actions)
		}
	})
	return record, calls
}

// acceptAndDrop has the call run and its answer lost.
func acceptAndDrop(w *whisk) reply {
	return func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.t.Error(err)
		}
		w.set(func() { w.accept(body) })
		panic(http.ErrAbortHandler)
	}
}

// TestJob_SameModelThroughFaults: whatever a deployment does to calls, a job that
// succeeds gives the model that it gives without.
func TestJob_SameModelThroughFaults(t *testing.T) {
	none := func(*whisk, int) reply { return nil }
	as := func(_ int, s script) script { return s }
	want, calls := train(t, none, as)
	if want.Status != job.Succeeded || want.Model.Digest == "" || calls < 5 {
		t.Fatalf("without faults: %+v, %d calls", want, calls)
	}
	every := func(nth int, answer func(w *whisk) reply) func(*whisk, int) reply {
		return func(w *whisk, n int) reply {
			if n%nth != nth-1 {
				return nil
			}
			return answer(w)
		}
	}
	always := func(answer reply) func(*whisk) reply { return func(*whisk) reply { return answer } }
	for name, c := range map[string]struct {
		fault   func(*whisk, int) reply
		outcome func(int, script) script
	}{
		"dropped after it was accepted": {every(2, acceptAndDrop), as},
		"dropped before":                {every(2, always(dropped)), as},
		"throttled by rate":             {every(3, always(api(429, "Too many requests in the last minute (count: 61, allowed: 60)."))), as},
		"throttled by number":           {every(2, always(api(429, "Too many concurrent requests in flight (count: 30, allowed: 30)."))), as},
		"no invoker":                    {every(2, always(api(503, "The server is currently unavailable."))), as},
		"a proxy's 502":                 {every(2, always(plain(502, "text/html", "<html>"))), as},
		"accepted, answer unreadable":   {every(2, always(plain(202, "text/html", "<html>"))), as},
		"silent":                        {every(3, always(silent)), as},
		"records that never come":       {none, func(n int, s script) script { s.never = n%3 == 2; return s }},
		"late records":                  {none, func(n int, s script) script { s.after = time.Duration(n%4) * 20 * time.Second; return s }},
		"containers that die": {none, func(n int, s script) script {
			if n%3 == 2 {
				s.status, s.result = statusDeveloper, `{"error":"`+textNoAnswer+`"}`
			}
			return s
		}},
		"out of memory once": {none, func(n int, s script) script {
			if n == 4 {
				s.status, s.result = statusDeveloper, `{"error":"`+textMemory+`"}`
			}
			return s
		}},
		"time over once": {none, func(n int, s script) script {
			if n == 1 || n == 2 { // both replicas
				s.status, s.result, s.more = statusDeveloper, `{"error":"`+textTime+`60000 milliseconds."}`, `"annotations":[{"key":"timeout","value":true}],"duration":60000`
			}
			return s
		}},
		"results cut off": {none, func(n int, s script) script {
			if n%3 == 2 {
				s.result = `{"st":1}`
			}
			return s
		}},
	} {
		got, _ := train(t, c.fault, c.outcome)
		if got.Status != job.Succeeded || got.Model.Digest != want.Model.Digest || got.Accuracy != want.Accuracy {
			t.Errorf("%s: %s %s, model %s, accuracy %v; want %s, %v", name, got.Status, got.Error, got.Model.Digest, got.Accuracy, want.Model.Digest, want.Accuracy)
		}
	}
}

// TestJob_CallNeverStarted: a call is accepted and neither started nor recorded.
// The other replica waits for it; once it is older than its time limit another is
// made in its place, and all rounds stay in one invocation.
func TestJob_CallNeverStarted(t *testing.T) {
	as := func(_ int, s script) script { return s }
	want, _ := train(t, func(*whisk, int) reply { return nil }, as)
	for lost := 1; lost <= 2; lost++ { // 0 is the probe
		got, _ := train(t, func(_ *whisk, n int) reply {
			if n != lost {
				return nil
			}
			return plain(202, "application/json", `{"activationId":"00000000000000000000000000000bad"}`)
		}, as)
		if got.Status != job.Succeeded || got.Model.Digest != want.Model.Digest {
			t.Fatalf("%s %s, model %s; want %s", got.Status, got.Error, got.Model.Digest, want.Model.Digest)
		}
		count := map[string]int{}
		for _, a := range got.Actions {
			count[string(a.Role)]++
			count[a.Outcome]++
		}
		// The lost call and the one in its place; of the other replica one that goes
		// on, and those that waited for a time limit of 60 s in halves.
		if count["average"] != 0 || count["train"] != 5 || count["cancelled"] != 1 {
			t.Errorf("call %d lost: %v", lost, count)
		}
		if limit := 100.0; got.Metrics.DurationSeconds > limit {
			t.Errorf("call %d lost: it took %.0f s, want at most %.0f", lost, got.Metrics.DurationSeconds, limit)
		}
	}
}

// TestJob_DoubtfulDeathsGrow: a worker that dies again and again in a way that
// may be for its memory gets more of it.
func TestJob_DoubtfulDeathsGrow(t *testing.T) {
	var died atomic.Int32
	record, _ := train(t, func(*whisk, int) reply { return nil }, func(_ int, s script) script {
		if strings.Contains(s.result, `"step"`) && died.Add(1) <= 4 {
			return script{after: time.Second, status: statusDeveloper, result: `{"error":"command exited"}`}
		}
		return s
	})
	if record.Status != job.Succeeded {
		t.Fatalf("%s: %s", record.Status, record.Error)
	}
	grown := false
	for _, a := range record.Actions {
		grown = grown || a.MemoryLimit > 128*job.MB
	}
	if !grown {
		t.Errorf("after %d deaths the actions are %+v", min(died.Load(), 4), record.Actions)
	}
}

// TestJob_Hopeless: what a repeat cannot mend ends the job at once, and says what
// to do.
func TestJob_Hopeless(t *testing.T) {
	for name, c := range map[string]struct {
		result, says string
	}{
		"image": {`{"error":"Failed to pull container image 'example/worker:1'."}`, "check --image"},
		"init":  {`{"error":"init: parameter DISDEL_STORE is missing"}`, "DISDEL_STORE"},
	} {
		record, calls := train(t, func(*whisk, int) reply { return nil }, func(_ int, s script) script {
			s.status, s.result = statusDeveloper, c.result
			return s
		})
		if record.Status != job.Failed || !strings.Contains(record.Error, c.says) || calls != 1 {
			t.Errorf("%s: %s, %q after %d calls", name, record.Status, record.Error, calls)
		}
	}
	for name, c := range map[string]struct {
		answer reply
		says   string
	}{
		"key revoked":      {api(401, "The supplied authentication is invalid"), "--auth"},
		"kind not allowed": {api(403, "The supplied authentication is not authorized to access actions of kind 'blackbox'."), "blackbox"},
	} {
		record, calls := train(t, func(_ *whisk, n int) reply {
			if n == 0 {
				return nil
			}
			return c.answer
		}, func(_ int, s script) script { return s })
		if record.Status != job.Failed || !strings.Contains(record.Error, c.says) || calls > 3 {
			t.Errorf("%s: %s, %q after %d calls", name, record.Status, record.Error, calls)
		}
	}
}
