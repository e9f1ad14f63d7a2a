// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"disdel/internal/platform/openwhisk"
	"disdel/internal/worker"
)

const whiskKey = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"

func putFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhiskConfig: flags before the environment before the file, as in wsk.
func TestWhiskConfig(t *testing.T) {
	folder := t.TempDir()
	putFile(t, filepath.Join(folder, ".wskprops"), "APIHOST=home.example\nAUTH=home:key\nNAMESPACE=gone\nINSECURE_SSL=true\n")
	other := filepath.Join(folder, "other")
	putFile(t, other, "APIHOST=http://other.example\nAUTH=other:key\nAPIVERSION=v2\n")
	for name, c := range map[string]struct {
		env   map[string]string
		whisk whiskOptions
		want  openwhisk.Config
	}{
		"file":         {nil, whiskOptions{}, openwhisk.Config{Host: "home.example", Key: "home:key"}},
		"another file": {map[string]string{"WSK_CONFIG_FILE": other}, whiskOptions{}, openwhisk.Config{Host: "http://other.example", Key: "other:key", APIVersion: "v2"}},
		"no file":      {map[string]string{"WSK_CONFIG_FILE": ""}, whiskOptions{}, openwhisk.Config{}},
		"environment": {
			map[string]string{"WHISK_APIHOST": "env.example", "WHISK_AUTH": "env:key", "WHISK_APIVERSION": "v3", "__OW_API_KEY": "in:key"},
			whiskOptions{},
			openwhisk.Config{Host: "env.example", Key: "env:key", APIVersion: "v3"},
		},
		"inside an action": {
			map[string]string{"WSK_CONFIG_FILE": "", "__OW_API_HOST": "https://in.example", "__OW_API_KEY": "in:key"},
			whiskOptions{},
			openwhisk.Config{Host: "https://in.example", Key: "in:key"},
		},
		"flags": {
			map[string]string{"WHISK_APIHOST": "env.example", "WHISK_AUTH": "env:key"},
			whiskOptions{host: "flag.example", key: "flag:key", namespace: "/ns", kind: "go:1.20", insecure: true},
			openwhisk.Config{Host: "flag.example", Key: "flag:key", Namespace: "/ns", Kind: "go:1.20", Insecure: true},
		},
	} {
		c.env = mapWith(c.env, "HOME", folder)
		a := &app{
			getenv:    func(name string) string { return c.env[name] },
			lookupenv: func(name string) (string, bool) { value, ok := c.env[name]; return value, ok },
		}
		got, err := a.whiskConfig(&options{whisk: c.whisk})
		got.Worker = nil
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	missing := map[string]string{"HOME": folder, "WSK_CONFIG_FILE": filepath.Join(folder, "nowhere")}
	a := &app{getenv: func(name string) string { return missing[name] }}
	if _, err := a.whiskConfig(&options{}); !isUsage(err) || !strings.Contains(err.Error(), "WSK_CONFIG_FILE") {
		t.Errorf("a file that was named and is missing: %v", err)
	}
	missing["WSK_CONFIG_FILE"], missing["HOME"] = "", t.TempDir()
	if got, err := a.whiskConfig(&options{}); err != nil || got.Host != "" {
		t.Errorf("no file at home: %+v, %v", got, err)
	}
}

func mapWith(m map[string]string, name, value string) map[string]string {
	all := map[string]string{name: value}
	for k, v := range m {
		all[k] = v
	}
	return all
}

// TestOpenWhisk_Usage: what makes no sense is found before anybody is asked.
func TestOpenWhisk_Usage(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	d := newDesk(t)
	d.env["WHISK_APIHOST"], d.env["WHISK_AUTH"] = server.URL, whiskKey
	for line, says := range map[string][]string{
		"train digits --platform openwhisk":                      {"do not see the files of this machine", "--store redis://"},
		"infer digits --platform openwhisk":                      {"do not see the files"},
		"plan digits --platform openwhisk":                       {"do not see the files"},
		"platform check --platform openwhisk":                    {"do not see the files"},
		"plan digits --platform openwhisk --max-memory 3":        {"--max-memory needs --platform process or docker"},
		"plan digits --platform openwhisk --enforcement watched": {"--enforcement needs --platform process"},
		"plan digits --apihost h":                                {"--apihost needs --platform openwhisk"},
		"plan digits -i":                                         {"--insecure needs --platform openwhisk"},
		"plan digits -u a:b":                                     {"--auth needs --platform openwhisk"},
		"plan digits --image x":                                  {"--image needs --platform docker or openwhisk"},
		"plan digits --platform lambda":                          {"want process or docker or openwhisk"},
	} {
		d.run(strings.Fields(line)...).want(t, ExitUsage, says...)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

func TestAway(t *testing.T) {
	for _, c := range []struct {
		host, store string
		want        bool
	}{
		{"openwhisk.example", "redis://localhost", true},
		{"openwhisk.example", "redis://u:p@127.0.0.1:6379/1", true},
		{"http://172.17.0.1:3233", "redis://[::1]", true},
		{"http://127.0.0.1:3233", "redis://localhost", false},
		{"localhost:3233", "redis://localhost", false},
		{"openwhisk.example", "redis://store.example", false},
	} {
		if got := away(c.host, map[string]string{worker.StoreEnv: c.store}); got != c.want {
			t.Errorf("%s with %s: %v", c.host, c.store, got)
		}
	}
}

// TestWorkerProgram: OpenWhisk gets the worker alone.
func TestWorkerProgram(t *testing.T) {
	for folder, says := range map[string]string{programs: "", alone: "no disdel-worker"} {
		a := &app{program: func() (string, error) { return filepath.Join(folder, "disdel"), nil }}
		raw, err := a.workerProgram()
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) || err == nil && len(raw) < 1<<20 {
			t.Errorf("%s: %d bytes, %v", folder, len(raw), err)
		}
	}
}
