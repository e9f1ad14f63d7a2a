// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"disdel/internal/image"
	"disdel/internal/platform/whiskapi"
)

// lines is where a command prints that goes on: whole lines can be waited for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serveAt starts a server and returns its address; end ends it.
func (d *desk) serveAt(args ...string) (address string, end func() outcome) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	var stdout, stderr lines
	a := &app{
		stdout: &stdout, stderr: &stderr, getenv: func(name string) string { return d.env[name] },
		program: func() (string, error) { return d.program, nil },
	}
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, append([]string{"platform", "serve", "--listen", "127.0.0.1:0"}, args...)) }()
	end = sync.OnceValue(func() outcome {
		cancel()
		return outcome{<-code, stdout.String(), stderr.String()}
	})
	d.t.Cleanup(func() { end() })
	eventually(d.t, "the server", func() bool {
		select {
		case c := <-code:
			code <- c
			d.t.Fatalf("the server ended with %d: %s", c, stderr.String())
		default:
		}
		return strings.Contains(stdout.String(), "\n")
	})
	return strings.TrimSpace(stdout.String()), end
}

// key reads a key file.
func (d *desk) key(path string) (id, secret string) {
	d.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "AUTH=")
	key, _, _ := strings.Cut(rest, "\n")
	id, secret, _ = strings.Cut(key, ":")
	return id, secret
}

// A key is made once and is its owner's alone; the file names the address.
func TestServe_KeyFile(t *testing.T) {
	d := newDesk(t)
	path := filepath.Join(d.env["HOME"], ".config", "disdel", "wskprops")
	address, end := d.serveAt()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	id, secret := d.key(path)
	text, _ := os.ReadFile(path)
	if len(id) != 36 || len(secret) != 64 || !strings.Contains(string(text), "\nAPIHOST="+address+"\n") {
		t.Errorf("key file %q, address %s", text, address)
	}
	first := end().want(t, ExitOK, "a new key was made", path)
	if strings.Contains(first.stdout+first.stderr, secret) {
		t.Error("the key was printed")
	}
	again, end := d.serveAt()
	if id2, secret2 := d.key(path); id2 != id || secret2 != secret {
		t.Error("the second start made another key")
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "APIHOST="+again+"\n") || strings.Count(string(text), "APIHOST") != 1 {
		t.Errorf("key file after the second start: %s", text)
	}
	if said := end().want(t, ExitOK).stderr; strings.Contains(said, "new key") {
		t.Errorf("said %s", said)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	d.run("platform", "serve", "--listen", "127.0.0.1:0").want(t, ExitFailed, "may be read by others", "chmod 600")
	if err := errors.Join(os.WriteFile(path, []byte("AUTH=x\n"), 0o600), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	d.run("platform", "serve", "--listen", "127.0.0.1:0").want(t, ExitFailed, "is missing or no key")
}

// The worker serves blackbox actions of its image and its managed kind, and a
// call that is waited for while the server ends is answered.
func TestServe_Actions(t *testing.T) {
	d := newDesk(t)
	manifest := filepath.Join(d.folder, "manifest.json")
	if err := os.WriteFile(manifest, []byte(d.run("image", "runtime-manifest", "team/worker:1", "--stem-cells", "1", "--memory", "128").want(t, ExitOK).stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(d.folder, "keys")
	address, end := d.serveAt("--key-file", keys, "--manifest", manifest, "--concurrent", "2", "--max-memory", "256")
	id, secret := d.key(keys)
	ask := func(method, path, body string) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, address+"/api/v1/namespaces/_/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(id, secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var answer map[string]any
		_ = json.Unmarshal(raw, &answer) // lists are not looked at
		return resp.StatusCode, answer
	}
	defer http.DefaultClient.CloseIdleConnections()
	params := `"parameters":[{"key":"DISDEL_STORE","value":"dir://` + d.store() + `","init":true}]`
	for name, exec := range map[string]string{
		"black": `{"kind":"blackbox","image":"disdel/worker:7"}`, "managed": `{"kind":"disdel:default","code":"x"}`,
	} {
		if status, answer := ask("PUT", "actions/"+name, `{"exec":`+exec+`,"limits":{"memory":128},`+params+`}`); status != 200 {
			t.Fatalf("%s: %d %v", name, status, answer)
		}
		// A task without a job makes no sense; that the worker says so shows that it ran.
		if status, answer := ask("POST", "actions/"+name+"?blocking=true&result=true", `{"role":"probe"}`); status != 502 || !strings.Contains(string(mustJSON(answer)), "bad_task") {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	if status, answer := ask("PUT", "actions/large", `{"exec":{"kind":"blackbox","image":"disdel/worker"},"limits":{"memory":512}}`); status != 400 || !strings.Contains(answer["error"].(string), "256 MB") {
		t.Errorf("above --max-memory: %d %v", status, answer)
	}
	if _, limits := ask("GET", "limits", ""); limits["concurrentInvocations"] != 2.0 || limits["invocationsPerMinute"] != 60.0 {
		t.Errorf("limits: %v", limits)
	}
	end().want(t, ExitOK)
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return raw
}

func TestServe_Usage(t *testing.T) {
	d := newDesk(t)
	for args, says := range map[string]string{
		"--generation 3":                    "want 1 or 2",
		"--listen nowhere":                  "want HOST:PORT",
		"--manifest " + d.folder + "x":      "--manifest",
		"--image x":                         "--image needs --platform docker",
		"--folder /x":                       "--folder needs --platform docker",
		"--platform openwhisk":              "want process or docker",
		"--min-memory 512 --max-memory 128": "maximum memory",
	} {
		d.run(append([]string{"platform", "serve"}, strings.Fields(args)...)...).want(t, ExitUsage, says)
	}
	d.env["DOCKER_HOST"] = "unix://" + filepath.Join(d.folder, "none.sock")
	d.exec("platform", "serve", "--platform", "docker").want(t, ExitFailed, "Docker engine")
	d.program = filepath.Join(alone, "disdel")
	d.run("train", "digits", "--platform", "docker").want(t, ExitFailed, "disdel-worker", "--image")
}

// The image of the real worker is the same every time, and at most 12 MB.
func TestImage_Build(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var first []byte
	for _, name := range []string{"a.tar", "b.tar"} {
		path := filepath.Join(d.folder, name)
		built := d.exec("image", "build", "--output", path, "--json").want(t, ExitOK).object(t)
		if packed, unpacked := field[float64](t, built, "packed_bytes"), field[float64](t, built, "unpacked_bytes"); packed > 12<<20 || unpacked > 20<<20 {
			t.Errorf("image of %v bytes packed, %v unpacked", packed, unpacked)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = raw
		} else if !bytes.Equal(first, raw) {
			t.Error("two builds differ")
		}
	}
	d.run("image", "build", "--worker", "/etc/passwd", "--output", filepath.Join(d.folder, "c.tar")).want(t, ExitFailed, "not a program for an image")
	if _, err := os.Stat(filepath.Join(d.folder, "c.tar")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed build left a file: %v", err)
	}
	d.run("image", "push", "Bad Name").want(t, ExitUsage, "not the name of an image")
	d.run("image", "push").want(t, ExitUsage, "want the name of one image")
	d.program = filepath.Join(alone, "disdel")
	d.run("image", "build").want(t, ExitFailed, "there is no disdel-worker beside this program")
}

// What is printed for operators is what the server reads.
func TestImage_RuntimeManifest(t *testing.T) {
	d := newDesk(t)
	out := d.run("image", "runtime-manifest", "r.example/team/worker:7", "--stem-cells", "3", "--memory", "128").want(t, ExitOK)
	kinds, cells, err := whiskapi.ParseManifest(strings.NewReader(out.stdout))
	if err != nil || len(kinds) != 1 || kinds[0].Name != workerKind || kinds[0].Image != "r.example/team/worker:7" || !kinds[0].Default ||
		len(cells) != 1 || cells[0].Count != 3 || cells[0].Memory.String() != "128 MB" || cells[0].Image != kinds[0].Image {
		t.Errorf("%+v %+v %v", kinds, cells, err)
	}
	if err := image.CheckReference(kinds[0].Image); err != nil {
		t.Error(err)
	}
}
