// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"disdel/internal/job"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

// talk has a worker speak ActionLoop about the calls and returns its lines.
func talk(t *testing.T, w *Worker, url string, ack bool, calls string) ([]string, error) {
	t.Helper()
	var answers bytes.Buffer
	err := w.loop(t.Context(), url, ack, strings.NewReader(calls), &answers)
	if closeErr := w.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	text := answers.String()
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("answers %q do not end with a line", text)
	}
	if text == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), err
}

// TestLoop: one line for each call, in order, and nothing else.
func TestLoop(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	var stdout bytes.Buffer
	w := New(Config{
		Stdout: &stdout, Container: "box", Peak: func() job.Bytes { return 7 },
		Open: func(context.Context, string) (store.Store, error) { return x.st, nil },
	})
	task := `{"value":{"role":"train","job":"job-1","plan":"` + x.keys.Plan + `","to":3},"activation_id":"a","deadline":"0"}`
	long := `{"value":{"role":"` + strings.Repeat("x", maxRequestBytes) + `"}}`
	lines, err := talk(t, w, "mem://", true, task+"\nthis is no JSON\n"+long+"\n{}\n"+`{"value":{"role":"dance"}}`)
	if err != nil || len(lines) != 6 || lines[0] != `{"ok":true}` {
		t.Fatalf("%d lines, %v: %q", len(lines), err, lines)
	}
	var done struct {
		Step int
		Self job.Self
	}
	if err := json.Unmarshal([]byte(lines[1]), &done); err != nil || done.Step != 3 || done.Self != (job.Self{Container: "box", Peak: 7}) {
		t.Errorf("task: %s, %v", lines[1], err)
	}
	for i, says := range map[int]string{2: "parameters", 3: "too large", 4: "parameters", 5: "dance"} {
		r, err := job.DecodeAnswer([]byte(lines[i]))
		if err != nil || !strings.Contains(r.Error, says) {
			t.Errorf("line %d: %s, %v; want one that says %q", i, lines[i], err, says)
		}
	}
	if stdout.Len() > 0 {
		t.Errorf("printed %q: the proxy ends the logs", &stdout)
	}
}

// TestLoop_Initialisation: the proxy is told at once whether the worker can
// serve, where it waits for that.
func TestLoop_Initialisation(t *testing.T) {
	for _, c := range []struct {
		url  string
		err  error
		ack  bool
		want string
		fail bool
	}{
		{"mem://", nil, true, `{"ok":true}`, false},
		{"mem://", nil, false, ``, false},
		{"mem://", fmt.Errorf("nobody there: %w", store.ErrUnavailable), true, `{"ok":true}`, false},
		{"mem://", errors.New("wrong kind"), true, `{"ok":false}`, true},
		{"mem://", errors.New("wrong kind"), false, ``, true},
		{"", nil, true, `{"ok":false}`, true},
	} {
		w := New(Config{Open: func(context.Context, string) (store.Store, error) { return mem.New(), c.err }})
		lines, err := talk(t, w, c.url, c.ack, "")
		if strings.Join(lines, "|") != c.want || (err != nil) != c.fail {
			t.Errorf("%+v: %q, %v", c, lines, err)
		}
	}
}

// TestAnswers_TellOfTheContainer, also where they are failures, and measure each
// call by itself.
func TestAnswers_TellOfTheContainer(t *testing.T) {
	peak, resets := job.Bytes(100), 0
	w := New(Config{
		Container: "box", Peak: func() job.Bytes { return peak }, ResetPeak: func() { resets++; peak = 10 },
		Open: func(context.Context, string) (store.Store, error) { return mem.New(), nil },
	})
	defer w.Close()
	if _, err := w.initialise(t.Context(), "mem://"); err != nil {
		t.Fatal(err)
	}
	for call, want := range []job.Bytes{100, 10, 10} {
		self, ok := job.SelfOf(w.serve(t.Context(), []byte(`{"role":"dance"}`)))
		if !ok || self != (job.Self{Container: "box", Peak: want}) || resets != call {
			t.Errorf("call %d: %+v, %v after %d resets, want a peak of %v", call, self, ok, resets, want)
		}
	}
}

// TestFence: a task ends soon after its controller has said so, and no other.
func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := mem.New()
		defer st.Close()
		w := New(Config{})
		w.store = st
		free, stopFree := w.fenced(t.Context(), "")
		other, stopOther := w.fenced(t.Context(), "jobs/7/fence/000001")
		fenced, stop := w.fenced(t.Context(), "jobs/7/fence/000000")
		defer stop()
		<-time.After(time.Minute)
		if fenced.Err() != nil {
			t.Fatalf("ended before it was: %v", context.Cause(fenced))
		}
		if err := st.SetStatus(t.Context(), "jobs/7/fence/000000", []byte("ended")); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * fenceInterval)
		if !errors.Is(context.Cause(fenced), errFenced) || other.Err() != nil || free.Err() != nil {
			t.Errorf("ended: %v, %v, %v", context.Cause(fenced), other.Err(), free.Err())
		}
		stopFree()
		stopOther()
		if free.Err() != nil || other.Err() == nil {
			t.Errorf("after stop: %v, %v", free.Err(), other.Err())
		}
	})
}
