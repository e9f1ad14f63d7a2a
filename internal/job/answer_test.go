// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"disdel/internal/job"
)

// TestAnswer: what a worker sends is what a controller reads, even after
// OpenWhisk has thrown away all but the member "error".
func TestAnswer(t *testing.T) {
	self := job.Self{Container: "box-1", Peak: 5}
	for _, r := range []job.TaskResult{
		{},
		{Step: 3, Records: 7, LossSum: 1.5, Reason: job.NeedTime},
		{Probe: &job.Probe{Version: "v", Package: 9}},
		{Error: "no such shard", Reason: job.StoreFailed},
		{Error: "odd"},
	} {
		raw, err := job.EncodeAnswer(r, self)
		if err != nil {
			t.Fatal(err)
		}
		if r.Error != "" {
			var object map[string]json.RawMessage
			if err := json.Unmarshal(raw, &object); err != nil || len(object) != 1 || object["error"] == nil {
				t.Errorf("%s holds more than an error, %v", raw, err)
			}
		}
		if got, err := job.DecodeAnswer(raw); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s is read as %+v, %v; want %+v", raw, got, err, r)
		}
		if got, ok := job.SelfOf(raw); !ok || got != self {
			t.Errorf("%s tells of %+v, %v", raw, got, ok)
		}
	}
	for text, want := range map[string]string{
		`{"error":"plain"}`: "plain", `{"error":null}`: "", `{"error":{}}`: "no reason", `{"error":""}`: "no reason", `{"step":1}`: "",
	} {
		r, err := job.DecodeAnswer([]byte(text))
		if err != nil || (want == "") != (r.Error == "") || !strings.Contains(r.Error, want) {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
	for _, text := range []string{``, `[]`, `{"error":7}`, `{"error":[1]}`, `{"step":"x"}`} {
		if r, err := job.DecodeAnswer([]byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
	for _, container := range []string{"", "a b", "a\nb", "ä", strings.Repeat("x", 200)} {
		raw, err := job.EncodeAnswer(job.TaskResult{Step: 1}, job.Self{Container: container})
		if err != nil || strings.Contains(string(raw), "self") {
			t.Errorf("%q: %s, %v; want nothing about the container", container, raw, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"error":{"text":"x","reason":"store","self":{"container":"c"}}}`))
	f.Add([]byte(`{"step":3,"self":{"container":"c","peak_bytes":9}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if self, ok := job.SelfOf(raw); ok && !self.Valid() {
			t.Errorf("%q tells of %+v", raw, self)
		}
		r, err := job.DecodeAnswer(raw)
		if err != nil {
			return
		}
		again, err := job.EncodeAnswer(r, job.Self{})
		if err != nil {
			t.Fatal(err)
		}
		if second, err := job.DecodeAnswer(again); err != nil || second.Error != r.Error {
			t.Errorf("%q, written again, is %q: %v", raw, again, err)
		}
	})
}
