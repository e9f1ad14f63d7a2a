// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// TestAwait_IsGentle: short calls are known soon after they end, long ones are
// not asked for often.
func TestAwait_IsGentle(t *testing.T) {
	for _, c := range []struct {
		takes, late time.Duration
		polls       int
	}{
		{50 * time.Millisecond, 200 * time.Millisecond, 3},
		{time.Second, 500 * time.Millisecond, 12},
		{30 * time.Second, 2600 * time.Millisecond, 60},
		{3 * time.Minute, 2600 * time.Millisecond, 150},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			w.script = func(int, json.RawMessage) script { return script{after: c.takes} }
			deploy(t, client, 128)
			at := time.Now()
			out, err := client.Await(t.Context(), invoke(t, client, "m128"))
			if err != nil || out.Kind != platform.Success || string(out.Result) != `{"n":1}` {
				t.Fatalf("%+v, %v", out, err)
			}
			if late := time.Since(at) - c.takes; late > c.late {
				t.Errorf("a call of %v is known %v late", c.takes, late)
			}
			if n := w.count("GET /api/v1/namespaces/_/activations/"); n > c.polls {
				t.Errorf("a call of %v is asked for %d times", c.takes, n)
			}
		})
	}
}

// TestAwait_Faults: while questions fail in whatever way, the waiting goes on, and
// it ends with the record or with the platform counting as unavailable.
func TestAwait_Faults(t *testing.T) {
	for name, answer := range map[string]reply{
		"503":         api(503, "The server is currently unavailable."),
		"429":         api(429, "Too many requests"),
		"a proxy's":   plain(502, "text/html", "<html>"),
		"another 404": plain(404, "text/html", "<html>nginx</html>"),
		"no JSON":     plain(200, "text/html", "<html>welcome</html>"),
		"wrong type":  plain(200, "application/octet-stream", "\x00\x01"),
		"truncated":   plain(200, "application/json", `{"activationId":"00000000000000000000000000000001","response":{"status":"succ`),
		"cut off": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", "999")
			plain(200, "application/json", `{"act`)(rw, r)
		},
		"another's":   plain(200, "application/json", `{"activationId":"00000000000000000000000000000009","response":{"status":"success","result":{}}}`),
		"no response": plain(200, "application/json", `{"activationId":"00000000000000000000000000000001"}`),
		"dropped":     dropped,
		"silent":      silent,
		"slow":        slowly(200),
	} {
		world(t, func(t *testing.T, w *whisk, c *Client) {
			deploy(t, c, 128)
			id := invoke(t, c, "m128")
			w.fail(http.MethodGet, "/activations/", answer)
			time.AfterFunc(100*time.Second, func() { w.set(func() { w.fault = nil }) })
			at := time.Now()
			if out, err := c.Await(t.Context(), id); err != nil || out.Kind != platform.Success {
				t.Errorf("%s: after the fault has passed: %+v, %v", name, out, err)
			}
			if took := time.Since(at); took < 100*time.Second || took > 140*time.Second {
				t.Errorf("%s: known after %v", name, took)
			}
			id = invoke(t, c, "m128")
			w.fail(http.MethodGet, "/activations/", answer)
			at = time.Now()
			out, err := c.Await(t.Context(), id)
			if !errors.Is(err, platform.ErrUnavailable) || platform.KindOf(err) != platform.Lost {
				t.Errorf("%s: without an end: %+v, %v", name, out, err)
			}
			if took := time.Since(at); took < outageMax || took > outageMax+2*time.Minute {
				t.Errorf("%s: given up after %v", name, took)
			}
			if n := w.count("POST"); n != 2 {
				t.Errorf("%s: %d calls for two", name, n)
			}
		})
	}
}

// TestAwait_RestartedForAnother: after a deployment lost everything another package
// may have the place of the call's, and the next call must not go there. All calls
// from before are known to be lost at once.
func TestAwait_RestartedForAnother(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, client *Client) {
		w.script = func(int, json.RawMessage) script { return script{after: time.Second} }
		if err := client.Deploy(t.Context(), familyPackage("a", 128)); err != nil {
			t.Fatal(err)
		}
		call := platform.Call{Package: "a", Action: "m128", Params: json.RawMessage(`{}`)}
		first, err := client.Invoke(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		second, err := client.Invoke(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		other := connect(t, w, Config{Image: "example/worker:1"})
		w.fail(http.MethodGet, "/activations/", dropped)
		time.AfterFunc(20*time.Second, func() {
			w.running.Wait()
			w.set(func() {
				w.fault = nil
				clear(w.packages)
				clear(w.actions)
				clear(w.records)
			})
			if err := other.Deploy(t.Context(), familyPackage("b", 128)); err != nil || other.place("b") != client.place("a") {
				t.Errorf("the other has %s, %v", other.place("b"), err)
			}
		})
		out, err := client.Await(t.Context(), first)
		if err != nil || out.Kind != platform.Lost {
			t.Errorf("%+v, %v", out, err)
		}
		if _, err := client.Invoke(t.Context(), call); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("a call in another's place: %v", err)
		}
		if err := client.Deploy(t.Context(), familyPackage("a", 128)); err != nil || client.place("a") == other.place("b") {
			t.Errorf("made again as %s, %v", client.place("a"), err)
		}
		began := time.Now()
		if out, err := client.Await(t.Context(), second); err != nil || out.Kind != platform.Lost || time.Since(began) > 0 {
			t.Errorf("%+v, %v after %v", out, err, time.Since(began))
		}
	})
}

// TestAwait_Restarted: a deployment that comes back without its database has lost
// the calls, which is known at once; one that comes back with it has not, and is
// waited for.
func TestAwait_Restarted(t *testing.T) {
	for name, c := range map[string]struct {
		forgets bool
		want    platform.Kind
		says    string
	}{
		"a standalone server": {true, platform.Lost, "has lost package p"},
		"its database stayed": {false, platform.Success, ""},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			w.script = func(int, json.RawMessage) script { return script{after: 50 * time.Second} }
			deploy(t, client, 128)
			id := invoke(t, client, "m128")
			pass(10 * time.Second)
			w.fail(http.MethodGet, "/activations/", dropped)
			time.AfterFunc(20*time.Second, func() {
				w.running.Wait()
				w.set(func() {
					w.fault = nil
					if c.forgets {
						clear(w.packages)
						clear(w.actions)
						clear(w.records)
					}
				})
			})
			at := time.Now()
			out, err := client.Await(t.Context(), id)
			if err != nil || out.Kind != c.want || !strings.Contains(out.Message, c.says) {
				t.Errorf("%s: %+v, %v; want %s that says %q", name, out, err, c.want, c.says)
			}
			if took := time.Since(at); took < 20*time.Second || took > 45*time.Second {
				t.Errorf("%s: known after %v", name, took)
			}
			_, err = client.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128", Params: json.RawMessage(`{}`)})
			if gone := errors.Is(err, platform.ErrNotFound); gone != c.forgets {
				t.Errorf("%s: the next call: %v", name, err)
			}
			deploy(t, client, 128)
			if out, err := client.Await(t.Context(), invoke(t, client, "m128")); err != nil || out.Kind != platform.Success {
				t.Errorf("%s: deployed anew: %+v, %v", name, out, err)
			}
		})
	}
}

// TestAwait_Hopeless: what asking again cannot mend ends the waiting at once.
func TestAwait_Hopeless(t *testing.T) {
	for name, c := range map[string]struct {
		answer reply
		want   error
	}{
		"key revoked": {api(401, "The supplied authentication is invalid"), platform.ErrUnauthorised},
		"refused":     {api(400, "The activation id is not valid."), platform.ErrRefused},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			deploy(t, client, 128)
			id := invoke(t, client, "m128")
			w.fail(http.MethodGet, "/activations/", c.answer)
			if out, err := client.Await(t.Context(), id); !errors.Is(err, c.want) {
				t.Errorf("%s: %+v, %v", name, out, err)
			}
		})
	}
}

// TestAwait_Oversized: a record beyond all bounds is an outcome, not an endless
// download.
func TestAwait_Oversized(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(int, json.RawMessage) script {
			return script{result: `{"padding":"` + strings.Repeat("x", recordMax) + `"}`}
		}
		deploy(t, c, 128)
		out, err := c.Await(t.Context(), invoke(t, c, "m128"))
		if err != nil || out.Kind != platform.Lost || !strings.Contains(out.Message, "too large") {
			t.Errorf("%s %s, %v", out.Kind, out.Message, err)
		}
	})
}

// TestAwait_Never: a call without a record is given up; one that is larger than
// all that ever ran is found to fit nowhere.
func TestAwait_Never(t *testing.T) {
	const bound = 2*time.Minute + lateness + 3*time.Minute
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(n int, _ json.RawMessage) script { return script{after: time.Second, never: n != 1} }
		deploy(t, c, 128, 256, 512)
		give := func(action string, kind platform.Kind, tooLarge bool, says string) {
			t.Helper()
			at := time.Now()
			out, err := c.Await(t.Context(), invoke(t, c, action))
			if err != nil || out.Kind != kind || out.TooLarge != tooLarge || !strings.Contains(out.Message, says) {
				t.Errorf("%s: %+v, %v; want %s that says %q", action, out, err, kind, says)
			}
			if took := time.Since(at); kind != platform.Success && (took < bound || took > bound+5*time.Second) {
				t.Errorf("%s: given up after %v, want %v", action, took, bound)
			}
		}
		give("m512", platform.Lost, false, "--memory")      // nothing has run yet
		give("m256", platform.Success, false, "")           // now there is room for 256 MB
		give("m512", platform.Refused, true, "user-memory") // and for no more
		give("m256", platform.Lost, false, "never started")
		give("m128", platform.Lost, false, "never started")
	})
}

// TestAwait_Twice gives the same, whatever ended the call.
func TestAwait_Twice(t *testing.T) {
	world(t, func(t *testing.T, _ *whisk, c *Client) {
		deploy(t, c, 128)
		id := invoke(t, c, "m128")
		first, err := c.Await(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		text := string(first.Result)
		clear(first.Result)
		if second, err := c.Await(t.Context(), id); err != nil || string(second.Result) != text || second.Usage != first.Usage {
			t.Errorf("second: %+v, %v; first: %+v", second, err, first)
		}
		if err := c.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if third, err := c.Await(t.Context(), id); err != nil || third.Kind != platform.Success {
			t.Errorf("after a cancel that came too late: %+v, %v", third, err)
		}
		if _, err := c.Await(t.Context(), "unknown"); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("unknown: %v", err)
		}
		if err := c.Cancel(t.Context(), "unknown"); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("cancel unknown: %v", err)
		}
	})
}

// TestAwait_GoneRecord: a record that was seen and can be had no more is given up
// as any other, with one question.
func TestAwait_GoneRecord(t *testing.T) {
	for name, c := range map[string]struct {
		answer reply
		says   string
	}{
		"deleted":   {api(404, missing), "no record"},
		"too large": {plain(200, "application/json", strings.Repeat(" ", recordMax+1)), "too large"},
	} {
		world(t, func(t *testing.T, w *whisk, client *Client) {
			deploy(t, client, 128)
			id := invoke(t, client, "m128")
			if out, err := client.Await(t.Context(), id); err != nil || out.Kind != platform.Success {
				t.Fatalf("%s: %+v, %v", name, out, err)
			}
			pass(time.Hour)
			before := w.count("GET /api/v1/namespaces/_/activations/")
			w.fail(http.MethodGet, "/activations/", c.answer)
			if out, err := client.Await(t.Context(), id); err != nil || out.Kind != platform.Lost || !strings.Contains(out.Message, c.says) {
				t.Errorf("%s: %+v, %v", name, out, err)
			}
			if n := w.count("GET /api/v1/namespaces/_/activations/") - before; n != 1 {
				t.Errorf("%s: %d questions", name, n)
			}
		})
	}
}

// TestCancel ends the waiting at once, and for good.
func TestCancel(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deploy(t, c, 128)
		w.script = func(int, json.RawMessage) script { return script{after: time.Minute} }
		id := invoke(t, c, "m128")
		ended := invoke(t, c, "m128")
		var wait sync.WaitGroup
		wait.Go(func() {
			at := time.Now()
			if out, err := c.Await(t.Context(), id); err != nil || out.Kind != platform.Cancelled || time.Since(at) != 10*time.Second {
				t.Errorf("%+v, %v after %v", out, err, time.Since(at))
			}
		})
		pass(10 * time.Second)
		for range 2 {
			if err := c.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		wait.Wait()
		pass(2 * time.Minute) // by now it has ended by itself
		if out, err := c.Await(t.Context(), id); err != nil || out.Kind != platform.Cancelled {
			t.Errorf("later: %+v, %v", out, err)
		}
		if err := c.Cancel(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Await(t.Context(), ended); err != nil || out.Kind != platform.Success {
			t.Errorf("cancelled after it had ended, which nobody had seen: %+v, %v", out, err)
		}
	})
}

// TestMany hammers a client: every call gets its own answer, with few questions
// at once.
func TestMany(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(_ int, params json.RawMessage) script {
			return script{after: 3 * time.Second, result: string(params)}
		}
		atOnce, most := 0, 0
		w.fault = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			if strings.Contains(r.URL.Path, "/activations/") {
				w.set(func() { atOnce++; most = max(most, atOnce) })
				pass(5 * time.Millisecond)
				w.set(func() { atOnce-- })
			}
			return false
		}
		deploy(t, c, 128, 256)
		var wait sync.WaitGroup
		for i := range 200 {
			wait.Go(func() {
				params := fmt.Sprintf(`{"i":%d}`, i)
				id, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: []string{"m128", "m256"}[i%2], Params: json.RawMessage(params)})
				if err != nil {
					t.Error(err)
					return
				}
				if out, err := c.Await(t.Context(), id); err != nil || string(out.Result) != params {
					t.Errorf("call %d: %s, %v", i, out.Result, err)
				}
			})
		}
		wait.Wait()
		if most > pollsAtOnce || most == 0 {
			t.Errorf("%d questions at once", most)
		}
	})
}

// TestSecrets_InRecords: what a worker prints or answers is shown without the
// secrets that it was given.
func TestSecrets_InRecords(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(n int, _ json.RawMessage) script {
			switch n {
			case 0:
				return script{
					status: statusDeveloper, result: `{"error":"` + textNoAnswer + `"}`,
					more: `"annotations":[],"duration":5,"logs":["2026-11-23T10:25:38.294381623Z stderr: cannot open ` + storeSecret + `"]`,
				}
			default:
				return script{status: statusApplication, result: `{"error":"no access with hunter2-and-more"}`}
			}
		}
		deploy(t, c, 128)
		var ids []platform.Activation
		for range 2 {
			id := invoke(t, c, "m128")
			ids = append(ids, id)
			out, err := c.Await(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if text := out.Message + string(out.Result); strings.Contains(text, "hunter2") || !strings.Contains(text, "[redacted]") {
				t.Errorf("%s: %s %s", out.Kind, out.Message, out.Result)
			}
		}
		lines, err := c.Logs(t.Context(), ids[0])
		if want := []string{"cannot open [redacted]"}; err != nil || !slices.Equal(lines, want) {
			t.Errorf("logs are %q, %v, want %q", lines, err, want)
		}
		if _, err := c.Logs(t.Context(), "unknown"); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("logs of an unknown call: %v", err)
		}
	})
}

// TestAwait_ContextEnds leaves the call alone.
func TestAwait_ContextEnds(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(int, json.RawMessage) script { return script{after: time.Minute} }
		deploy(t, c, 128)
		id := invoke(t, c, "m128")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Await(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await: %v", err)
		}
		if out, err := c.Await(t.Context(), id); err != nil || out.Kind != platform.Success || out.Usage.Limit != 128*job.MB {
			t.Errorf("again: %+v, %v", out, err)
		}
	})
}
