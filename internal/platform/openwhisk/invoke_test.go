// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

type reply = func(rw http.ResponseWriter, r *http.Request)

// fail has every request of a method to paths with part answered by answer.
func (w *whisk) fail(method, part string, answer reply) {
	w.set(func() {
		w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.Method != method || !strings.Contains(r.URL.Path, part) {
				return false
			}
			answer(rw, r)
			return true
		}
	})
}

// plain answers as something does that is not OpenWhisk, api as it does itself.
func plain(status int, contentType, body string) reply {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", contentType)
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	}
}

func api(status int, text string) reply {
	return func(rw http.ResponseWriter, _ *http.Request) { refuse(rw, status, text) }
}

// slowly sends a byte every ten seconds, without end.
func slowly(status int) reply {
	return func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, " "); err != nil {
				return
			}
			if http.NewResponseController(rw).Flush() != nil {
				return
			}
			select {
			case <-time.After(10 * time.Second):
			case <-r.Context().Done():
			}
		}
	}
}

// dropped closes the connection without an answer, silent gives none.
func dropped(http.ResponseWriter, *http.Request)    { panic(http.ErrAbortHandler) }
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

// TestInvoke_Failures: whatever answers a call, its error is of the contract,
// says why, shows no secret, and the call was sent once.
func TestInvoke_Failures(t *testing.T) {
	for name, c := range map[string]struct {
		answer reply
		want   error
		says   string
	}{
		"wrong key":          {api(401, "The supplied authentication is invalid"), platform.ErrUnauthorised, "--auth"},
		"no rights":          {api(403, "The supplied authentication is not authorized to access actions of kind 'blackbox'."), platform.ErrUnauthorised, "blackbox"},
		"no action":          {api(404, missing), platform.ErrNotFound, "does not exist"},
		"too large":          {api(413, "Request larger than allowed: 2000000 > 1048576 bytes."), platform.ErrRefused, "2000000"},
		"final parameter":    {api(400, "Request defines parameters that are not allowed (e.g., reserved properties)."), platform.ErrRefused, "reserved"},
		"no invoker":         {api(503, "The server is currently unavailable."), platform.ErrThrottled, "no invoker"},
		"internal error":     {api(500, "There was an internal server error."), platform.ErrUnavailable, "internal server error"},
		"a proxy's 503":      {plain(503, "text/html", "<html>busy</html>"), platform.ErrUnavailable, "<html>busy"},
		"a proxy's 502":      {plain(502, "text/html", ""), platform.ErrUnavailable, "Bad Gateway"},
		"body over 50 MiB":   {plain(500, "text/plain", "Request too large"), platform.ErrUnavailable, "too large"},
		"accepted, no id":    {plain(202, "application/json", `{}`), platform.ErrUnavailable, "no activation"},
		"accepted, HTML":     {plain(202, "text/html", `<html>welcome</html>`), platform.ErrUnavailable, "welcome"},
		"accepted, cut off":  {plain(202, "application/json", `{"activationId":"0123`), platform.ErrUnavailable, "no activation"},
		"accepted, wrong id": {plain(202, "application/json", `{"activationId":"../../etc"}`), platform.ErrUnavailable, "no activation"},
		"echoes the key":     {plain(500, "text/plain", "bad: "+testKey+" and "+testSecret), platform.ErrUnavailable, "[redacted] and [redacted]"},
		"echoes the store":   {plain(500, "text/plain", "hunter2-and-more at "+storeSecret), platform.ErrUnavailable, "[redacted] at [redacted]"},
		"oversized":          {plain(500, "text/plain", strings.Repeat("x", answerMax+1)), platform.ErrUnavailable, "too large"},
		"dropped":            {dropped, platform.ErrUnavailable, "EOF"},
		"silent":             {silent, platform.ErrUnavailable, "no whole answer within 30s"},
		"slow":               {slowly(202), platform.ErrUnavailable, "no activation"},
		"slow failure":       {slowly(500), platform.ErrUnavailable, "no whole answer within 30s"},
		"sends on": {func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		}, platform.ErrRefused, "https://elsewhere.example"},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			deploy(t, client, 128)
			w.fail(http.MethodPost, "/actions/", c.answer)
			_, err := client.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128"})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v; want %v that says %q", name, err, c.want, c.says)
			}
			for _, secret := range []string{testSecret, "hunter2"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("%s: the error shows a secret: %v", name, err)
				}
			}
			if n := w.count("POST"); n != 1 {
				t.Errorf("%s: the call was sent %d times", name, n)
			}
		})
	}
}

// TestInvoke_Malformed: what can be known is refused without a request.
func TestInvoke_Malformed(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deploy(t, c, 128)
		for params, says := range map[string]string{
			`[]`: "object", `null`: "object", `{`: "object", `"x"`: "object",
			`{"a":"` + strings.Repeat("x", 1<<20) + `"}`: "put data into the store",
		} {
			_, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128", Params: json.RawMessage(params)})
			if !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), says) {
				t.Errorf("%.20s: %v", params, err)
			}
		}
		if _, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: "m256"}); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("an action that was not deployed: %v", err)
		}
		if n := w.count("POST"); n != 0 {
			t.Errorf("%d calls were sent", n)
		}
	})
}

// TestInvoke_DroppedAfterAccept: the call runs, and nobody knows its name; with
// the name in the header it is known.
func TestInvoke_DroppedAfterAccept(t *testing.T) {
	for _, named := range []bool{false, true} {
		world(t, func(t *testing.T, w *whisk, c *Client) {
			deploy(t, c, 128)
			accepted := ""
			w.fail(http.MethodPost, "/actions/", func(rw http.ResponseWriter, _ *http.Request) {
				w.set(func() { accepted = w.accept(nil) })
				if named {
					rw.Header().Set("X-Openwhisk-Activation-Id", accepted)
					rw.Header().Set("Content-Length", "100")
					rw.WriteHeader(http.StatusAccepted)
					_, _ = io.WriteString(rw, `{"acti`)
					_ = http.NewResponseController(rw).Flush()
				}
				panic(http.ErrAbortHandler)
			})
			id, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128"})
			switch {
			case !named && platform.KindOf(err) != platform.Lost:
				t.Errorf("%q, %v; want an outcome that is not known", id, err)
			case named && (err != nil || string(id) != accepted):
				t.Errorf("%q, %v; want %s", id, err, accepted)
			}
			if w.accepted != 1 || w.count("POST") != 1 {
				t.Errorf("%d calls were accepted, %d sent", w.accepted, w.count("POST"))
			}
		})
	}
}

// TestInvoke_WaitsForTheNextMinute: a refusal by rate tells until when, by the
// server's clock, and until then nothing is sent that would count as well.
func TestInvoke_WaitsForTheNextMinute(t *testing.T) {
	const rate = "Too many requests in the last minute (count: 61, allowed: 60)."
	for _, c := range []struct {
		text string
		skew time.Duration // of the server's clock
		into time.Duration // the minute of the server's clock
		want time.Duration
	}{
		{rate, 0, 20 * time.Second, 40*time.Second + minuteSlack},
		{rate, 0, 0, time.Minute + minuteSlack},
		{rate, 25 * time.Second, 59 * time.Second, time.Second + minuteSlack},
		{"Too many concurrent requests in flight (count: 30, allowed: 30).", 0, 20 * time.Second, fullPause},
		{"Too many requests", 0, 20 * time.Second, fullPause},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			deploy(t, client, 128)
			now := time.Now().Add(c.skew)
			pass(now.Truncate(time.Minute).Add(time.Minute + c.into).Sub(now))
			w.fail(http.MethodPost, "/actions/", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
				refuse(rw, http.StatusTooManyRequests, c.text)
			})
			at := time.Now()
			_, err := client.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128"})
			var throttle *platform.Throttle
			if !errors.Is(err, platform.ErrThrottled) || !errors.As(err, &throttle) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%s: %v", c.text, err)
			}
			if got := throttle.Until.Sub(at); got != c.want {
				t.Errorf("%s, %v into the minute: wait %v, want %v", c.text, c.into, got, c.want)
			}
			if _, err := client.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128"}); !errors.Is(err, platform.ErrThrottled) {
				t.Errorf("a second call: %v", err)
			}
			if n := w.count("POST"); n != 1 {
				t.Errorf("%d calls were sent", n)
			}
			w.set(func() { w.fault = nil })
			pass(c.want)
			invoke(t, client, "m128")
		})
	}
}

// TestInvoke_ForgetsTheOldest: what a client remembers is bounded.
func TestInvoke_ForgetsTheOldest(t *testing.T) {
	c, err := Open(Config{Host: "h", Key: testKey, Image: "i"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range callsMax + 10 {
		c.remember(platform.Activation(fmt.Sprint(i)), &call{})
	}
	if len(c.calls) != callsMax || len(c.order) != callsMax || c.calls["9"] != nil || c.calls["10"] == nil {
		t.Errorf("%d calls are remembered", len(c.calls))
	}
}

// TestLimits of both generations, of deployments that tell less, and of keys
// that are wrong.
func TestLimits(t *testing.T) {
	newer := `{"concurrentInvocations":10,"invocationsPerMinute":600,"firesPerMinute":60,"maxActionConcurrency":1,"maxActionInstances":10,` +
		`"maxActionLogs":10,"maxActionMemory":256,"maxActionTimeout":120000,"maxParameterSize":"1048576 B","minActionConcurrency":1,` +
		`"minActionLogs":0,"minActionMemory":64,"minActionTimeout":1000}`
	for name, c := range map[string]struct {
		info, limits string
		want         func(*platform.Limits)
	}{
		"1.0.0": {infoText, limitsText, func(*platform.Limits) {}},
		"2.0.0, narrower": {infoText, newer, func(l *platform.Limits) {
			l.MemoryMin, l.MemoryMax, l.MemoryDefault = 64*job.MB, 256*job.MB, 256*job.MB
			l.TimeoutMin, l.TimeoutMax, l.CallsPerMinute, l.Concurrency = time.Second, 2*time.Minute, 600, 10
		}},
		"raised by its operator": {
			strings.Replace(infoText, `"max_action_memory":536870912`, `"max_action_memory":2147483648`, 1), limitsText,
			func(l *platform.Limits) { l.MemoryMax = 2 * job.GB },
		},
		"a proxy at the root": {`<html>welcome</html>`, limitsText, func(*platform.Limits) {}},
		"numbers as text":     {infoText, `{"invocationsPerMinute":"120","concurrentInvocations":null}`, func(l *platform.Limits) { l.CallsPerMinute = 120 }},
		"odd":                 {`{"limits":[],"runtimes":7}`, `{"invocationsPerMinute":{}}`, func(*platform.Limits) {}},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			w.info, w.limits = c.info, c.limits
			want := platform.Limits{
				MemoryMin: 128 * job.MB, MemoryMax: 512 * job.MB, MemoryStep: job.MB, MemoryDefault: 256 * job.MB,
				TimeoutMin: 100 * time.Millisecond, TimeoutMax: 5 * time.Minute, TimeoutDefault: time.Minute,
				PoolMemory: 1024 * job.MB, Processors: 4, Assumed: true, Concurrency: 30, CallsPerMinute: 60, PayloadMax: job.MB,
				NoCancel: true, Enforcement: "openwhisk",
			}
			c.want(&want)
			for range 2 {
				if got, err := client.Limits(t.Context()); err != nil || got != want {
					t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
				}
			}
			if n := w.count("GET"); n != 2 {
				t.Errorf("%s: %d requests", name, n)
			}
		})
	}
	for name, c := range map[string]struct {
		answer reply
		want   error
	}{
		"wrong key":   {api(401, "The supplied authentication is invalid"), platform.ErrUnauthorised},
		"no such API": {plain(404, "text/html", "<html>nginx</html>"), platform.ErrNotFound},
		"no JSON":     {plain(200, "text/html", "<html>nginx</html>"), platform.ErrUnavailable},
		"forbidden":   {plain(200, "application/json", `{"invocationsPerMinute":0}`), platform.ErrUnavailable},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			w.fail(http.MethodGet, "/limits", c.answer)
			if _, err := client.Limits(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
			w.set(func() { w.fault = nil })
			if _, err := client.Limits(t.Context()); err != nil {
				t.Errorf("%s: afterwards: %v", name, err)
			}
		})
	}
}

// TestClient_DeadContext: nothing is sent for a caller who has gone.
func TestClient_DeadContext(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deploy(t, c, 128)
		id := invoke(t, c, "m128")
		before := len(w.requests)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, errInvoke := c.Invoke(ctx, platform.Call{Package: "p", Action: "m128"})
		_, errAwait := c.Await(ctx, id)
		for what, err := range map[string]error{
			"invoke": errInvoke, "await": errAwait, "cancel": c.Cancel(ctx, id), "remove": c.Remove(ctx, "p"),
			"deploy": c.Deploy(ctx, platform.Package{Name: "q"}),
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(w.requests) != before {
			t.Errorf("sent %v", w.requests[before:])
		}
	})
}
