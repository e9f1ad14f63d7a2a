// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"disdel/internal/job"
	"disdel/internal/platform"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	testUser   = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502"
	testSecret = "123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"
	testKey    = testUser + ":" + testSecret
	// storeSecret is in the init-only parameters of the tests' packages.
	storeSecret = "redis://disdel:hunter2-and-more@store.example:6379"
)

// whisk answers as the contract's bytes say, in no more ways than the client
// needs, and goes wrong where a test says so.
type whisk struct {
	t *testing.T

	mu       sync.Mutex
	info     string // answer to GET /
	limits   string // answer to GET namespaces/_/limits
	packages map[string]json.RawMessage
	actions  map[string]json.RawMessage // by pkg/name
	versions map[string]int
	records  map[string]recorded
	accepted int            // calls
	running  sync.WaitGroup // those whose script is not known yet
	requests []string       // "METHOD path?query", in order
	// script says what becomes of a call, and may take its time; default: a success
	// after a second.
	script func(n int, params json.RawMessage) script
	// fault may answer a request in another way; true when it did.
	fault func(rw http.ResponseWriter, r *http.Request, body []byte) bool
}

// script is what becomes of a call.
type script struct {
	after  time.Duration
	never  bool
	status string
	result string // JSON
	more   string // more members of the record
}

type recorded struct {
	at   time.Time
	text string
}

const infoText = `{"api_paths":["/api/v1"],"description":"OpenWhisk","limits":{"actions_per_minute":60,"concurrent_actions":30,` +
	`"max_action_duration":300000,"max_action_logs":10485760,"max_action_memory":536870912,"min_action_duration":100,"min_action_logs":0,` +
	`"min_action_memory":134217728,"sequence_length":50,"triggers_per_minute":60},"runtimes":{"go":[{"attached":true,"default":false,` +
	`"deprecated":false,"image":"openwhisk/action-golang-v1.17:nightly","kind":"go:1.17","requireMain":false},{"attached":true,"default":true,` +
	`"deprecated":false,"image":"registry.example:5000/openwhisk/action-golang-v1.20:nightly","kind":"go:1.20","requireMain":false}],` +
	`"nodejs":[{"attached":true,"default":true,"deprecated":false,"image":"openwhisk/action-nodejs-v20:nightly","kind":"nodejs:20","requireMain":false}]},` +
	`"support":{"github":"https://github.com/apache/openwhisk/issues","slack":"http://slack.openwhisk.org"}}`

const limitsText = `{"concurrentInvocations":30,"firesPerMinute":60,"invocationsPerMinute":60}`

func newWhisk(t *testing.T) *whisk {
	return &whisk{
		t: t, info: infoText, limits: limitsText,
		packages: map[string]json.RawMessage{}, actions: map[string]json.RawMessage{}, versions: map[string]int{}, records: map[string]recorded{},
	}
}

func refuse(rw http.ResponseWriter, status int, text string) {
	respond(rw, status, fmt.Sprintf(`{"code":"F9WVec2Ps5xEGGHTn8BgTW9AjZLiquo5","error":%s}`, mustJSON(text)))
}

func respond(rw http.ResponseWriter, status int, body string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("X-Request-Id", "F9WVec2Ps5xEGGHTn8BgTW9AjZLiquo5")
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, body)
}

func (w *whisk) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.requests = append(w.requests, r.Method+" "+r.URL.RequestURI())
	fault := w.fault
	w.mu.Unlock()
	if fault != nil && fault(rw, r, body) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/" {
		respond(rw, http.StatusOK, w.info)
		return
	}
	if user, secret, _ := r.BasicAuth(); user != testUser || secret != testSecret {
		rw.Header().Set("WWW-Authenticate", `Basic realm="OpenWhisk secure realm",charset=UTF-8`)
		refuse(rw, http.StatusUnauthorized, "The supplied authentication is invalid")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/_/")
	parts := strings.Split(rest, "/")
	switch {
	case !ok:
		refuse(rw, http.StatusNotFound, "The requested resource could not be found.")
	case rest == "limits":
		respond(rw, http.StatusOK, w.limits)
	case rest == "packages" && r.Method == http.MethodGet:
		w.listPackages(rw, r)
	case parts[0] == "packages" && len(parts) == 2:
		w.servePackage(rw, r, parts[1], body)
	case parts[0] == "actions" && len(parts) == 3 && r.Method == http.MethodPost:
		w.serveInvoke(rw, parts[1]+"/"+parts[2], body)
	case parts[0] == "actions" && len(parts) == 3:
		w.serveAction(rw, r, parts[1], parts[1]+"/"+parts[2], body)
	case parts[0] == "activations" && r.Method == http.MethodGet:
		w.serveRecord(rw, parts[1:])
	default:
		refuse(rw, http.StatusNotFound, "The requested resource could not be found.")
	}
}

const missing = "The requested resource does not exist."

func (w *whisk) listPackages(rw http.ResponseWriter, r *http.Request) {
	names := slices.Sorted(maps.Keys(w.packages))
	skip, err := strconv.Atoi(r.URL.Query().Get("skip"))
	if err != nil {
		w.t.Error(err)
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		w.t.Error(err)
	}
	names = names[min(skip, len(names)):]
	rows := []any{}
	for _, name := range names[:min(limit, len(names))] {
		var view map[string]any
		if err := json.Unmarshal(w.packages[name], &view); err != nil {
			w.t.Error(err)
		}
		rows = append(rows, map[string]any{"name": name, "namespace": "guest", "annotations": view["annotations"], "binding": false})
	}
	respond(rw, http.StatusOK, string(mustJSON(rows)))
}

func (w *whisk) servePackage(rw http.ResponseWriter, r *http.Request, name string, body []byte) {
	found := w.packages[name]
	switch {
	case r.Method == http.MethodPut && found != nil && r.URL.Query().Get("overwrite") != "true":
		refuse(rw, http.StatusConflict, "resource already exists")
	case r.Method == http.MethodPut:
		w.packages[name] = body
		respond(rw, http.StatusOK, string(body))
	case found == nil:
		refuse(rw, http.StatusNotFound, missing)
	case r.Method == http.MethodGet:
		var view map[string]any
		if err := json.Unmarshal(found, &view); err != nil {
			w.t.Error(err)
		}
		view["binding"] = map[string]any{}
		actions := []any{}
		for full, raw := range w.actions {
			if pkg, short, _ := strings.Cut(full, "/"); pkg == name {
				var action map[string]any
				if err := json.Unmarshal(raw, &action); err != nil {
					w.t.Error(err)
				}
				actions = append(actions, map[string]any{"name": short, "version": "0.0.1", "annotations": action["annotations"]})
			}
		}
		view["actions"] = actions
		respond(rw, http.StatusOK, string(mustJSON(view)))
	case r.Method == http.MethodDelete:
		for full := range w.actions {
			if strings.HasPrefix(full, name+"/") {
				refuse(rw, http.StatusConflict, "Package not empty (contains 1 entity). Set force param or delete package contents.")
				return
			}
		}
		delete(w.packages, name)
		respond(rw, http.StatusOK, string(found))
	}
}

func (w *whisk) serveAction(rw http.ResponseWriter, r *http.Request, pkg, full string, body []byte) {
	found := w.actions[full]
	switch {
	case w.packages[pkg] == nil:
		refuse(rw, http.StatusNotFound, missing)
	case r.Method == http.MethodPut && found != nil && r.URL.Query().Get("overwrite") != "true":
		refuse(rw, http.StatusConflict, "resource already exists")
	case r.Method == http.MethodPut:
		w.actions[full] = body
		w.versions[full]++
		respond(rw, http.StatusOK, string(body))
	case found == nil:
		refuse(rw, http.StatusNotFound, missing)
	case r.Method == http.MethodGet:
		var view map[string]any
		if err := json.Unmarshal(found, &view); err != nil {
			w.t.Error(err)
		}
		if r.URL.Query().Get("code") == "false" {
			delete(view["exec"].(map[string]any), "code")
		}
		limits := view["limits"].(map[string]any)
		limits["concurrency"] = 1
		respond(rw, http.StatusOK, string(mustJSON(view)))
	case r.Method == http.MethodDelete:
		delete(w.actions, full)
		respond(rw, http.StatusOK, string(found))
	}
}

func (w *whisk) serveInvoke(rw http.ResponseWriter, full string, body []byte) {
	if w.actions[full] == nil {
		refuse(rw, http.StatusNotFound, missing)
		return
	}
	id := w.accept(body)
	rw.Header().Set("X-Openwhisk-Activation-Id", id)
	respond(rw, http.StatusAccepted, `{"activationId":"`+id+`"}`)
}

// accept takes a call. Its record is seen once its time has come.
func (w *whisk) accept(params []byte) (id string) {
	n := w.accepted
	w.accepted++
	id = fmt.Sprintf("%032x", n+1)
	w.running.Go(func() {
		s := script{after: time.Second}
		if w.script != nil {
			s = w.script(n, params)
		}
		rec := s.record(id)
		w.set(func() { w.records[id] = rec })
	})
	return id
}

func (s script) record(id string) recorded {
	if s.status == "" {
		s.status = statusSuccess
	}
	if s.result == "" {
		s.result = `{"n":1}`
	}
	if s.more == "" {
		s.more = `"annotations":[{"key":"waitTime","value":51},{"key":"initTime","value":4}],"duration":7,"logs":[]`
	}
	rec := recorded{at: time.Now().Add(s.after)}
	if s.never {
		rec.at = time.Now().Add(1000 * time.Hour)
	}
	rec.text = fmt.Sprintf(`{"activationId":%q,"name":"m","namespace":"guest","response":{"status":%q,"success":%t,"result":%s},%s}`,
		id, s.status, s.status == statusSuccess, s.result, s.more)
	return rec
}

func (w *whisk) serveRecord(rw http.ResponseWriter, parts []string) {
	rec, ok := w.records[parts[0]]
	if !ok || time.Now().Before(rec.at) {
		refuse(rw, http.StatusNotFound, missing)
		return
	}
	if len(parts) == 2 && parts[1] == "logs" {
		var r record
		if err := json.Unmarshal([]byte(rec.text), &r); err != nil {
			w.t.Error(err)
		}
		respond(rw, http.StatusOK, string(mustJSON(map[string]any{"logs": r.Logs})))
		return
	}
	respond(rw, http.StatusOK, rec.text)
}

// count is the number of requests so far that start with the text.
func (w *whisk) count(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (w *whisk) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// wire is a network in memory, so that time in it is virtual.
type wire struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *wire) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *wire) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (l *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// world runs a test in virtual time with a client of w over HTTP in memory.
func world(t *testing.T, test func(t *testing.T, w *whisk, c *Client)) {
	t.Helper()
	worldWith(t, Config{Image: "example/worker:1"}, test)
}

func worldWith(t *testing.T, cfg Config, test func(t *testing.T, w *whisk, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWhisk(t)
		t.Cleanup(w.running.Wait)
		c := connect(t, w, cfg)
		test(t, w, c)
	})
}

// connect opens a client of handler in the test's bubble.
func connect(t *testing.T, handler http.Handler, cfg Config) *Client {
	t.Helper()
	network := &wire{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	go func() { _ = server.Serve(network) }()
	transport := &http.Transport{DialContext: network.dial, MaxConnsPerHost: connectionsMax}
	cfg.Host, cfg.Key, cfg.Transport = "http://whisk.example", testKey, transport
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		transport.CloseIdleConnections()
		_ = server.Close()
	})
	return c
}

// deploy deploys package p with one action for each size in MB.
func deploy(t *testing.T, c *Client, sizes ...int) {
	t.Helper()
	pkg := platform.Package{Name: "p", Init: map[string]string{"DISDEL_STORE": storeSecret}}
	for _, size := range sizes {
		pkg.Actions = append(pkg.Actions, platform.Action{Name: fmt.Sprintf("m%d", size), Memory: job.Bytes(size) * job.MB, Timeout: time.Minute})
	}
	if err := c.Deploy(t.Context(), pkg); err != nil {
		t.Fatal(err)
	}
}

func invoke(t *testing.T, c *Client, action string) platform.Activation {
	t.Helper()
	id, err := c.Invoke(t.Context(), platform.Call{Package: "p", Action: action, Params: json.RawMessage(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// server is whisk on a real socket.
func server(t *testing.T, w *whisk, tls bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(w)
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}
