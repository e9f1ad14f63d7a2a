// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// The tests speak HTTP to the server from outside, over connections in memory
// and in virtual time. "Contract n.m" in their comments is a section of the
// project's description of OpenWhisk's interfaces, "9.n" an item of its list of
// what a faithful server does.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// poolConfig is short for the pool's configuration.
type poolConfig = pool.Config

// images are what actions of the tests run, by image.
type images map[string]func(b *box) http.Handler

// driver makes containers out of handlers.
type driver struct {
	images    images
	startTime time.Duration

	mu    sync.Mutex
	boxes []*box
}

func (d *driver) Facts() pool.Facts { return pool.Facts{Name: "memory", Processors: 1} }
func (d *driver) Close() error      { return nil }

func (d *driver) Start(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	handler, ok := d.images[spec.Image]
	switch {
	case spec.Image == "no/program:1":
		return nil, pool.ErrProgram
	case spec.Image == "cannot/start:1":
		return nil, errors.New("engine says no")
	case !ok:
		return nil, pool.ErrImage
	}
	select {
	case <-time.After(d.startTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b := &box{spec: spec, listener: newPipes(), done: make(chan struct{})}
	b.client = pool.NewActionClient(func(ctx context.Context) (net.Conn, error) {
		b.mu.Lock()
		b.dials++
		b.mu.Unlock()
		return b.listener.dial(ctx)
	}, 0)
	b.server = &http.Server{Handler: handler(b)}
	go func() { _ = b.server.Serve(b.listener) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boxes = append(d.boxes, b)
	return b, nil
}

func (d *driver) box(t *testing.T, i int) *box {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if i >= len(d.boxes) {
		t.Fatalf("there are only %d containers", len(d.boxes))
	}
	return d.boxes[i]
}

func (d *driver) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.boxes)
}

// box is one container.
type box struct {
	spec     pool.Spec
	listener *pipes
	server   *http.Server
	client   *pool.ActionClient
	end      sync.Once
	done     chan struct{}
	exit     pool.Exit

	mu          sync.Mutex
	logs        []pool.Line
	sentinels   int
	dials       int
	pauses      int
	inits, runs []map[string]any
}

func (b *box) Init(ctx context.Context, req pool.InitRequest) error {
	defer b.client.Close()
	return b.client.Init(ctx, req)
}

func (b *box) Run(ctx context.Context, req pool.RunRequest) (pool.Answer, error) {
	defer b.client.Close()
	answer, err := b.client.Run(ctx, req)
	b.mu.Lock()
	defer b.mu.Unlock()
	answer.Logs, answer.Sentinels = b.logs, b.sentinels
	b.logs, b.sentinels = nil, 0
	return answer, err
}

func (b *box) Grow(context.Context, job.Bytes) (job.Bytes, error) { return b.spec.Memory, nil }
func (b *box) Done() <-chan struct{}                              { return b.done }
func (b *box) Pause() error                                       { b.mu.Lock(); defer b.mu.Unlock(); b.pauses++; return nil }
func (b *box) Resume() error                                      { return nil }

func (b *box) pauseCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pauses
}

func (b *box) Kill() pool.Exit {
	b.die(pool.Exit{})
	return b.exit
}

func (b *box) die(exit pool.Exit) {
	b.end.Do(func() {
		b.exit = exit
		_ = b.server.Close()
		_ = b.listener.Close()
		b.client.Close()
		close(b.done)
	})
}

// print is what a worker does that ends its output as it should.
func (b *box) print(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if line != "" {
		b.logs = append(b.logs, pool.Line{Time: time.Now(), Text: line})
	}
	b.sentinels = 2
}

// act is the action of most tests: it does what its parameters say.
func act(b *box) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /init", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Value map[string]any }
		_ = json.NewDecoder(r.Body).Decode(&body)
		b.mu.Lock()
		b.inits = append(b.inits, body.Value)
		b.mu.Unlock()
		env, _ := body.Value["env"].(map[string]any)
		b.perform(w, r, text(env["INIT"]), env)
	})
	mux.HandleFunc("POST /run", func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		b.mu.Lock()
		b.runs = append(b.runs, body)
		b.mu.Unlock()
		params, _ := body["value"].(map[string]any)
		b.print(text(params["print"]))
		b.perform(w, r, text(params["do"]), params)
	})
	return mux
}

func text(v any) string { s, _ := v.(string); return s }

// perform does what is asked for; "a duration" takes that long, "400 text"
// answers so.
func (b *box) perform(w http.ResponseWriter, r *http.Request, what string, params map[string]any) {
	say := func(status int, body string) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	switch what {
	case "":
		body, _ := json.Marshal(map[string]any{"got": params})
		say(200, string(body))
	case "exit":
		b.die(pool.Exit{Status: "exit status 1"})
	case "memory":
		b.die(pool.Exit{OutOfMemory: true})
	case "chunked":
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "{}")
	case "silent":
		b.mu.Lock()
		b.sentinels = 0
		b.mu.Unlock()
		say(200, "{}")
	case "large":
		say(200, `{"x":"`+strings.Repeat("x", int(payloadMax))+`"}`)
	default:
		if d, err := time.ParseDuration(what); err == nil {
			select {
			case <-time.After(d):
				say(200, `{"slept":true}`)
			case <-r.Context().Done():
			}
			return
		}
		status, body, _ := strings.Cut(what, " ")
		code, _ := strconv.Atoi(status)
		say(code, body)
	}
}

// The tests' users.
var (
	guest = User{Namespace: "guest", UUID: "11111111-2222-3333-4444-555555555555", Secret: strings.Repeat("g", 64)}
	other = User{Namespace: "other", UUID: "22222222-2222-3333-4444-555555555555", Secret: strings.Repeat("o", 64)}
)

// world is a server with its clients.
type world struct {
	*testing.T
	server *Server
	driver *driver
	pool   *pool.Pool
	client *http.Client
	as     User
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, change func(*Config, *pool.Config), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &driver{startTime: 300 * time.Millisecond, images: images{"test/act:1": act, "test/managed:1": act}}
		cfg := Config{
			Users: []User{guest, other}, RunsImages: true,
			Kinds:  []Kind{{Name: "test:1", Image: "test/managed:1", Default: true}, {Name: "test:0", Image: "test/managed:1", Deprecated: true}},
			Limits: Limits{PerMinute: 1000, Concurrent: 100},
		}
		poolConfig := pool.Config{PoolMemory: 1024 * job.MB}
		if change != nil {
			change(&cfg, &poolConfig)
		}
		p, err := pool.Open(t.Context(), poolConfig, d)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Pool = p
		server, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		listener := newPipes()
		h := server.HTTP()
		go func() { _ = h.Serve(listener) }()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.dial(ctx) }}
		w := &world{T: t, server: server, driver: d, pool: p, client: &http.Client{Transport: transport}, as: guest}
		defer func() {
			if err := p.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			transport.CloseIdleConnections()
			_ = h.Close()
			server.Wait()
			time.Sleep(time.Minute) // the HTTP server closes connections slowly
		}()
		test(w)
	})
}

// got is an answer.
type got struct {
	*world
	status int
	header http.Header
	body   []byte
}

// ask sends a request to a path below the caller's namespace, or to an absolute
// one.
func (w *world) ask(method, path, body string, headers ...string) got {
	w.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/api/v1/namespaces/_/" + path
	}
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(w.Context(), method, "http://whisk"+path, content)
	if err != nil {
		w.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth(w.as.UUID, w.as.Secret)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatalf("%s %s: %v", method, path, err)
	}
	return got{w, resp.StatusCode, resp.Header, raw}
}

func (w *world) user(u User) *world { c := *w; c.as = u; return &c }

func (g got) want(status int) got {
	g.Helper()
	if g.status != status {
		g.Fatalf("status %d, want %d: %s", g.status, status, g.body)
	}
	return g
}

// says checks an error of the API: its whole text, and a code.
func (g got) says(status int, text string) got {
	g.Helper()
	g.want(status)
	var body struct {
		Error string
		Code  string
	}
	if err := json.Unmarshal(g.body, &body); err != nil || body.Error != text {
		g.Errorf("error is %q, want %q (%s)", body.Error, text, g.body)
	}
	if body.Code == "" || body.Code != g.header.Get("X-Request-ID") {
		g.Errorf("code %q, X-Request-ID %q: want the same", body.Code, g.header.Get("X-Request-ID"))
	}
	return g
}

func (g got) object() map[string]any {
	g.Helper()
	var o map[string]any
	if err := json.Unmarshal(g.body, &o); err != nil {
		g.Fatalf("%v: %s", err, g.body)
	}
	return o
}

func (g got) list() []map[string]any {
	g.Helper()
	var l []map[string]any
	if err := json.Unmarshal(g.body, &l); err != nil {
		g.Fatalf("%v: %s", err, g.body)
	}
	return l
}

// is compares with JSON.
func (g got) is(want string) got {
	g.Helper()
	if !sameJSON(g.body, []byte(want)) {
		g.Errorf("body %s, want %s", g.body, want)
	}
	return g
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

// at follows a path of names in an object.
func at(t testing.TB, o any, path ...string) any {
	t.Helper()
	for _, name := range path {
		m, ok := o.(map[string]any)
		if !ok {
			t.Fatalf("%v: %v is no object", path, o)
		}
		o = m[name]
	}
	return o
}

// annotation finds one of a record or an entity.
func annotation(t testing.TB, o map[string]any, key string) any {
	t.Helper()
	list, _ := o["annotations"].([]any)
	for _, item := range list {
		if at(t, item, "key") == key {
			return at(t, item, "value")
		}
	}
	return nil
}

const actExec = `"exec":{"kind":"blackbox","image":"test/act:1"}`

// deploy makes an action of the image act; more is the rest of the body.
func (w *world) deploy(name, more string) {
	w.Helper()
	if more != "" {
		more = "," + more
	}
	w.ask("PUT", "actions/"+name, "{"+actExec+more+"}").want(200)
}

// record waits for the record of an answer's activation.
func (w *world) record(g got) map[string]any {
	w.Helper()
	synctest.Wait()
	id := g.header.Get("x-openwhisk-activation-id")
	return w.ask("GET", "activations/"+id, "").want(200).object()
}

type (
	httpRequest = http.Request
	stemCell    = pool.StemCell
)

func newRequest(w *world, method, path, body string) *http.Request {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, "http://whisk/api/v1/namespaces/_/"+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(w.as.UUID, w.as.Secret)
	return req
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newBody(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }
