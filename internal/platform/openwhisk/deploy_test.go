// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// TestDeploy_WritesWhatTheContractSays: a package with init-only parameters, one
// action for each memory size without any, annotations on both.
func TestDeploy_WritesWhatTheContractSays(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deploy(t, c, 128, 256)
		var pkg packageBody
		if err := json.Unmarshal(w.packages["p"], &pkg); err != nil {
			t.Fatal(err)
		}
		if len(pkg.Parameters) != 1 || pkg.Parameters[0].Key != "DISDEL_STORE" || !pkg.Parameters[0].Init ||
			string(pkg.Parameters[0].Value) != string(mustJSON(storeSecret)) || pkg.Publish {
			t.Errorf("package is %s", w.packages["p"])
		}
		for name, memory := range map[string]int64{"p/m128": 128, "p/m256": 256} {
			var action actionBody
			if err := json.Unmarshal(w.actions[name], &action); err != nil {
				t.Fatal(err)
			}
			want := actionLimits{Timeout: 60000, Memory: memory, Logs: 1}
			if action.Limits != want || len(action.Parameters) != 0 || action.Exec != (exec{Kind: "blackbox", Image: "example/worker:1"}) {
				t.Errorf("%s is %s", name, w.actions[name])
			}
			for _, list := range [][]keyValue{action.Annotations, pkg.Annotations} {
				if _, ours := marked(list); !ours || !strings.Contains(string(find(list, "description")), "disdel") ||
					string(find(list, "provide-api-key")) != "false" {
					t.Errorf("%s has the annotations %s", name, mustJSON(list))
				}
			}
			if strings.Contains(string(w.actions[name]), "hunter2") {
				t.Errorf("%s holds the store's credential: %s", name, w.actions[name])
			}
		}
	})
}

// TestDeploy_IsIdempotent: an update would make the next calls cold.
func TestDeploy_IsIdempotent(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deploy(t, c, 128)
		puts := w.count("PUT")
		deploy(t, c, 128)
		if got := w.count("PUT"); got != puts {
			t.Errorf("the same again wrote %d entities", got-puts)
		}
		deploy(t, c, 128, 256)
		if got := w.count("PUT"); got != puts+1 {
			t.Errorf("one more action wrote %d entities", got-puts)
		}
		err := c.Deploy(t.Context(), platform.Package{Name: "p", Init: map[string]string{"DISDEL_STORE": "redis://other"}})
		if err != nil || w.count("PUT") != puts+2 || !strings.Contains(string(w.packages["p"]), "redis://other") {
			t.Errorf("another parameter: %v, %d entities written, %s", err, w.count("PUT")-puts-1, w.packages["p"])
		}
		if len(w.actions) != 2 || w.versions["p/m128"] != 1 {
			t.Errorf("actions are %v", w.versions)
		}
	})
}

// TestDeploy_TouchesOnlyItsOwn: what others made is neither changed nor deleted.
func TestDeploy_TouchesOnlyItsOwn(t *testing.T) {
	theirs := `{"annotations":[{"key":"description","value":"mine"}],"parameters":[],"limits":{"memory":256},"exec":{"kind":"nodejs:20"}}`
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.set(func() { w.packages["p"] = json.RawMessage(theirs) })
		pkg := platform.Package{Name: "p", Actions: []platform.Action{{Name: "a", Memory: 128 * job.MB, Timeout: time.Minute}}}
		if err := c.Deploy(t.Context(), pkg); !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), "did not make") {
			t.Errorf("deploy into a package of others: %v", err)
		}
		if err := c.Remove(t.Context(), "p"); !errors.Is(err, platform.ErrRefused) {
			t.Errorf("remove a package of others: %v", err)
		}
		w.set(func() { delete(w.packages, "p") })
		deploy(t, c, 128)
		w.set(func() { w.actions["p/a"] = json.RawMessage(theirs) })
		if err := c.Deploy(t.Context(), pkg); !errors.Is(err, platform.ErrRefused) {
			t.Errorf("deploy over an action of others: %v", err)
		}
		if err := c.Remove(t.Context(), "p"); !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), "[a]") {
			t.Errorf("remove a package with an action of others: %v", err)
		}
		if string(w.actions["p/a"]) != theirs || w.packages["p"] == nil || w.actions["p/m128"] != nil {
			t.Errorf("left are %v", w.actions)
		}
	})
}

// TestDeploy_RefusedLeavesNothing: a refusal that the client could not foresee is
// taken back, and its limit is learned, from the texts of both generations.
func TestDeploy_RefusedLeavesNothing(t *testing.T) {
	for text, want := range map[string]func(platform.Limits) bool{
		"The request content was malformed:\nrequirement failed: memory 512 MB exceeds allowed threshold of 402653184 B": func(l platform.Limits) bool { return l.MemoryMax == 384*job.MB },
		"requirement failed: memory size 512 MB exceeds allowed threshold of 384 MB":                                     func(l platform.Limits) bool { return l.MemoryMax == 384*job.MB },
		"requirement failed: memory size 512 MB below allowed threshold of 1024 MB":                                      func(l platform.Limits) bool { return l.MemoryMin == 1024*job.MB },
		"requirement failed: duration 60000 milliseconds exceeds allowed threshold of 30000 milliseconds":                func(l platform.Limits) bool { return l.TimeoutMax == 30*time.Second },
		"requirement failed: duration 60000 milliseconds below allowed threshold of 90000 milliseconds":                  func(l platform.Limits) bool { return l.TimeoutMin == 90*time.Second },
		"The requested resource is odd": func(l platform.Limits) bool { return l.MemoryMax == 512*job.MB },
	} {
		world(t, func(t *testing.T, w *whisk, c *Client) {
			w.set(func() {
				w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
					if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/m512") {
						refuse(rw, http.StatusBadRequest, text)
						return true
					}
					return false
				}
			})
			err := c.Deploy(t.Context(), platform.Package{Name: "p", Actions: []platform.Action{
				{Name: "m128", Memory: 128 * job.MB, Timeout: time.Minute}, {Name: "m512", Memory: 512 * job.MB, Timeout: time.Minute},
			}})
			if !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), strings.Fields(text)[len(strings.Fields(text))-1]) {
				t.Errorf("%s: %v", text, err)
			}
			if len(w.packages)+len(w.actions) != 0 {
				t.Errorf("%s: left %v, %v", text, w.packages, w.actions)
			}
			if limits, err := c.Limits(t.Context()); err != nil || !want(limits) {
				t.Errorf("%s: limits are %+v, %v", text, limits, err)
			}
		})
	}
}

// TestDeploy_Conflict: somebody else writes at the same time.
func TestDeploy_Conflict(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.set(func() {
			w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == http.MethodPut {
					refuse(rw, http.StatusConflict, "Concurrent modification to resource detected.")
				}
				return r.Method == http.MethodPut
			}
		})
		err := c.Deploy(t.Context(), platform.Package{Name: "p"})
		if !errors.Is(err, platform.ErrUnavailable) {
			t.Errorf("conflict is %v; want one that may pass", err)
		}
	})
}

// TestDeploy_Zip: on a Go runtime the worker goes as a zip that names the
// runtime that it is for.
func TestDeploy_Zip(t *testing.T) {
	program := append([]byte("\x7fELF"), bytes.Repeat([]byte("worker"), 1000)...)
	for _, c := range []struct {
		kind, info, environment, code, says string
		program                             []byte
	}{
		{kind: "", info: infoText, program: program, environment: "openwhisk/action-golang-v1.20\n"},
		{kind: "go:1.17", info: infoText, program: program, environment: "openwhisk/action-golang-v1.17\n"},
		{kind: "go:1.24", info: `<html>not told</html>`, program: program, environment: "openwhisk/action-golang-v1.24\n"},
		{kind: "go:default", info: `{}`, program: program},
		{kind: "go:1.99", info: infoText, program: program, says: "go:1.17, go:1.20, nodejs:20"},
		{kind: "go:default", info: infoText, program: []byte("\xcf\xfa\xed\xfe"), says: "GOOS=linux"},
		{kind: "", info: `{"runtimes":{"disdel":[{"kind":"disdel:1","image":"x","default":true}]}}`, code: builtIn},
		{kind: "disdel:default", info: `{"runtimes":{"disdel":[{"kind":"disdel:1","image":"x","default":true}]}}`, code: builtIn},
		{kind: "disdel:default", info: infoText, says: "--image"},
	} {
		worldWith(t, Config{Kind: c.kind, Worker: func() ([]byte, error) { return c.program, nil }}, func(t *testing.T, w *whisk, client *Client) {
			w.info = c.info
			err := client.Deploy(t.Context(), platform.Package{Name: "p", Actions: []platform.Action{{Name: "a", Memory: 128 * job.MB, Timeout: time.Minute}}})
			if c.says != "" {
				if !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want one that says %q", c.kind, err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var action actionBody
			if err := json.Unmarshal(w.actions["p/a"], &action); err != nil {
				t.Fatal(err)
			}
			if c.code != "" {
				if action.Exec.Code != c.code || action.Exec.Kind != "disdel:default" {
					t.Errorf("%s: exec is %+v", c.kind, action.Exec)
				}
				return
			}
			files := unzip(t, action.Exec.Code)
			if !bytes.Equal(files["exec"], c.program) || string(files["exec.env"]) != c.environment || len(action.Exec.Code)%4 != 0 {
				t.Errorf("%s: the zip holds %d bytes and %q, want %d and %q", c.kind, len(files["exec"]), files["exec.env"], len(c.program), c.environment)
			}
		})
	}
	first, err := zipWorker(program, "x")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := zipWorker(program, "x"); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same program gives other bytes, %v", err)
	}
}

func unzip(t *testing.T, code string) map[string][]byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(code)
	if err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range r.File {
		if executable := f.Mode()&0o111 != 0; executable != (f.Name == "exec") {
			t.Errorf("%s has the mode %v", f.Name, f.Mode())
		}
		content, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(content); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestRemove deletes all of a package, once, and ends the waiting for its calls.
func TestRemove(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.script = func(int, json.RawMessage) script { return script{never: true} }
		deploy(t, c, 128, 256)
		id := invoke(t, c, "m128")
		done := make(chan platform.Outcome, 1)
		go func() {
			out, err := c.Await(t.Context(), id)
			if err != nil {
				t.Error(err)
			}
			done <- out
		}()
		pass(10 * time.Second)
		for range 2 {
			if err := c.Remove(t.Context(), "p"); err != nil {
				t.Fatal(err)
			}
		}
		if out := <-done; out.Kind != platform.Cancelled {
			t.Errorf("outcome is %+v", out)
		}
		if len(w.packages)+len(w.actions) != 0 {
			t.Errorf("left %v, %v", w.packages, w.actions)
		}
		if _, err := c.Await(t.Context(), id); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("await of a removed package's call: %v", err)
		}
		if _, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: "m128"}); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("invoke in a removed package: %v", err)
		}
	})
}

func TestEnvironmentOf(t *testing.T) {
	for image, want := range map[string]string{
		"openwhisk/action-golang-v1.20:nightly":                  "openwhisk/action-golang-v1.20",
		"openwhisk/action-golang-v1.20":                          "openwhisk/action-golang-v1.20",
		"registry:5000/openwhisk/action-golang-v1.24:a@sha256:b": "openwhisk/action-golang-v1.24",
		"local-golang:1": "local-golang",
		"":               "",
	} {
		if got := environmentOf(runtime{Image: image}); got != want {
			t.Errorf("environmentOf(%q) is %q, want %q", image, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "_", "disdel-20261123-140259-4f2a91", "a b", "A@x.&-", strings.Repeat("x", nameMax)} {
		if err := checkName("package", name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "-a", " a", "a ", "a/b", "ä", "a\n", ".", strings.Repeat("x", nameMax+1)} {
		if err := checkName("package", name); !errors.Is(err, platform.ErrRefused) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
