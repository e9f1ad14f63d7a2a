// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// respond makes a client whose worker reads one request after the other and
// writes these answers; after the last it hangs up. got receives the requests.
func respond(t *testing.T, payloadMax job.Bytes, got chan<- map[string]any, answers ...string) *ActionClient {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		reader := bufio.NewReader(theirs)
		for _, answer := range answers {
			req, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			var fields map[string]any
			_ = json.Unmarshal(body, &fields)
			fields["path"] = req.URL.Path
			if got != nil {
				got <- fields
			}
			_, _ = io.WriteString(theirs, answer)
		}
	}()
	dialled := false
	c := NewActionClient(func(context.Context) (net.Conn, error) {
		if dialled {
			return nil, errors.New("gone")
		}
		dialled = true
		return ours, nil
	}, payloadMax)
	t.Cleanup(func() { c.Close(); _ = ours.Close() })
	return c
}

func answered(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func TestActionClientRequests(t *testing.T) {
	got := make(chan map[string]any, 2)
	c := respond(t, 0, got, answered(200, "{}"), answered(200, `{"x":1}`))
	deadline := time.UnixMilli(1750000000000)
	if err := c.Init(t.Context(), InitRequest{Package: "p", Action: "a", Version: "0.0.1", Activation: "id", Deadline: deadline, Env: map[string]string{"K": "v"}}); err != nil {
		t.Fatal(err)
	}
	value := (<-got)["value"].(map[string]any)
	env := value["env"].(map[string]any)
	if value["name"] != "a" || value["main"] != "main" || value["binary"] != false || env["K"] != "v" || env["__OW_DEADLINE"] != "1750000000000" ||
		env["__OW_ACTION_NAME"] != "/guest/p/a" || env["__OW_ACTIVATION_ID"] != "id" {
		t.Errorf("/init got %v", value)
	}
	answer, err := c.Run(t.Context(), RunRequest{Package: "p", Action: "a", Version: "0.0.1", Activation: "id", Deadline: deadline, Params: json.RawMessage(`{"n":1}`)})
	if err != nil || answer.Kind != platform.Success || string(answer.Result) != `{"x":1}` {
		t.Fatalf("%+v, %v", answer, err)
	}
	run := <-got
	if run["path"] != "/run" || run["namespace"] != "guest" || run["action_name"] != "/guest/p/a" || run["deadline"] != "1750000000000" ||
		run["activation_id"] != "id" || run["action_version"] != "0.0.1" || run["value"].(map[string]any)["n"] != 1.0 {
		t.Errorf("/run got %v", run)
	}
}

func TestActionClientAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer  string
		kind    platform.Kind // "" for an error
		broken  bool
		message string
	}{
		"error null":        {answered(200, `{"error":null}`), platform.ApplicationError, false, "null"},
		"error object":      {answered(200, `{"error":{"code":1}}`), platform.ApplicationError, false, `{"code":1}`},
		"Error is no error": {answered(200, `{"Error":"x"}`), platform.Success, false, ""},
		"null":              {answered(200, `null`), platform.ApplicationError, true, "JSON object"},
		"empty":             {answered(200, ``), platform.ApplicationError, true, "JSON object"},
		"two objects":       {answered(200, `{}{}`), platform.ApplicationError, true, "JSON object"},
		"404":               {answered(404, `{"error":"no"}`), platform.ApplicationError, true, "no"},
		"500 text":          {answered(500, `oops`), platform.ApplicationError, true, "oops"},
		"500 object":        {answered(500, `{}`), platform.ApplicationError, true, "500"},
		"too large":         {answered(200, `{"x":"`+strings.Repeat("x", 100)+`"}`), platform.ApplicationError, false, "108 > 64"},
		"far too large":     {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{", platform.ApplicationError, true, "99999999999 > 64"},
		"no length":         {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "", true, "Content-Length"},
		"chunked":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "", true, "Content-Length"},
		"204":               {"HTTP/1.1 204 No\r\n\r\n", "", true, "Content-Length"},
		"cut off":           {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "", true, "EOF"},
		"no http":           {"hello\r\n\r\n", "", true, "malformed"},
		"endless header":    {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20000), "", true, "/run"},
		"nothing":           {"", "", true, "EOF"},
	} {
		client := respond(t, 64, nil, c.answer)
		answer, err := client.Run(t.Context(), RunRequest{Params: json.RawMessage(`{}`)})
		message := answer.Message
		if err != nil {
			message = err.Error()
			answer.Broken = true
			if errors.Is(err, ErrNotSent) || errors.Is(err, ErrAnswered) {
				t.Errorf("%s: error %v", name, err)
			}
		}
		if answer.Kind != c.kind || answer.Broken != c.broken || !strings.Contains(message, c.message) {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
		if c.kind == platform.ApplicationError && !strings.Contains(string(answer.Result), `"error":`) {
			t.Errorf("%s: result %s", name, answer.Result)
		}
	}
}

func TestActionClientGoesOnAfterALargeAnswer(t *testing.T) {
	c := respond(t, 64, nil, answered(200, strings.Repeat("x", 1<<20)), answered(200, `{"ok":true}`))
	for i, kind := range []platform.Kind{platform.ApplicationError, platform.Success} {
		answer, err := c.Run(t.Context(), RunRequest{Params: json.RawMessage(`{}`)})
		if err != nil || answer.Kind != kind || answer.Broken {
			t.Errorf("call %d: %+v, %v", i, answer, err)
		}
	}
	// The worker has hung up now, before it is sent anything.
	if _, err := c.Run(t.Context(), RunRequest{Params: json.RawMessage(`{}`)}); !errors.Is(err, ErrNotSent) {
		t.Errorf("after the end: %v", err)
	}
}

func TestActionClientStopsWithContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	c := NewActionClient(func(context.Context) (net.Conn, error) { return ours, nil }, 0)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, RunRequest{Params: json.RawMessage(`{}`)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// FuzzActionAnswer: whatever a worker sends, the client neither fails badly nor
// calls it a success without an object.
func FuzzActionAnswer(f *testing.F) {
	f.Add([]byte(answered(200, `{"x":1}`)))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := respond(t, 1024, nil, string(raw))
		answer, err := c.Run(t.Context(), RunRequest{Params: json.RawMessage(`{}`)})
		if err == nil && (len(answer.Result) == 0 || answer.Result[0] != '{') && strings.TrimSpace(string(answer.Result))[0] != '{' {
			t.Errorf("%+v", answer)
		}
	})
}
