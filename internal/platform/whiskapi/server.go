// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
)

// Server is an http.Handler that serves OpenWhisk's REST API.
type Server struct {
	cfg      Config
	accounts map[string]*account // by UUID in lower case
	entities entities
	records  records
	metrics  *metrics
	// large bounds how many large bodies are held at once.
	large chan struct{}
	// calls are the goroutines that wait for the pool.
	calls sync.WaitGroup
}

// account is a user with what is counted of him.
type account struct {
	User
	throttle throttle
}

// Bodies above the payload limit.
const (
	// largeMax is how many are held at once.
	largeMax = 4
	// largeWait is how long one waits for others to make room.
	largeWait = 10 * time.Second
	// largeGrace and largeRate, in bytes a second, bound how long one may take to
	// come, so that slow ones do not keep others waiting.
	largeGrace = 10 * time.Second
	largeRate  = job.MB
)

// New makes a server. The caller closes the pool, then calls Wait.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open server: %w", err)
	}
	s := &Server{
		cfg: cfg, accounts: map[string]*account{}, entities: makeEntities(cfg), records: makeRecords(cfg),
		large: make(chan struct{}, largeMax),
	}
	for _, u := range cfg.Users {
		s.accounts[strings.ToLower(u.UUID)] = &account{
			User: u, throttle: throttle{perMinute: cfg.Limits.PerMinute, concurrent: cfg.Limits.Concurrent},
		}
	}
	s.metrics = newMetrics(s)
	return s, nil
}

// Wait returns when all calls have their records. It ends after the pool has
// been closed and no request is served any more.
func (s *Server) Wait() { s.calls.Wait() }

// HTTP returns a server that serves s with the time limits that it needs.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		// Also a call that waits for its outcome reads, to see the client leave.
		ReadTimeout:    s.cfg.Limits.Wait + time.Minute,
		WriteTimeout:   s.cfg.Limits.Wait + s.cfg.Faults.BreakDelay + 2*time.Minute,
		IdleTimeout:    70 * time.Second,
		MaxHeaderBytes: 32 << 10,
		BaseContext:    func(net.Listener) context.Context { return context.Background() },
	}
}

// reply is an answer: JSON, or text when body is a string.
type reply struct {
	status     int
	body       any
	activation string
	// bare answers have no CORS headers.
	bare bool
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := Fault{}
	if s.cfg.Faults.Request != nil {
		fault = s.cfg.Faults.Request(r)
	}
	req := &request{Request: r, transaction: transactionOf(r), connection: http.NewResponseController(w)}
	var answer reply
	var err error
	if fault.Status != 0 {
		err = failure(fault.Status, "%s", faultText(fault.Status))
	} else {
		answer, err = s.serve(req, w)
	}
	if fault.Drop {
		panic(http.ErrAbortHandler) // documented to end the connection quietly
	}
	s.write(w, req, answer, err)
}

func faultText(status int) string {
	switch status {
	case http.StatusTooManyRequests:
		return "Too many requests"
	case http.StatusServiceUnavailable:
		return textUnavailable
	default:
		return textInternal
	}
}

func (s *Server) write(w http.ResponseWriter, r *request, answer reply, err error) {
	var problem *apiError
	switch {
	case errors.As(err, &problem):
	case err != nil:
		problem = &apiError{status: http.StatusInternalServerError, text: textInternal}
	}
	header := w.Header()
	if problem != nil {
		answer = reply{status: problem.status, body: map[string]string{"error": problem.text, "code": r.transaction}, bare: problem.rejection || r.user == nil}
		if problem.plain {
			answer.body = problem.text
			header.Set("Connection", "close")
		}
		if problem.status == http.StatusUnauthorized {
			header.Set("WWW-Authenticate", `Basic realm="OpenWhisk secure realm", charset="UTF-8"`)
		}
	}
	if problem == nil || !problem.plain {
		header.Set("X-Request-ID", r.transaction)
	}
	if !answer.bare {
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Allow-Headers", "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent")
		header.Set("Access-Control-Allow-Methods", "GET, DELETE, POST, PUT, HEAD")
	}
	if answer.activation != "" {
		header.Set("X-Openwhisk-Activation-Id", answer.activation)
	}
	s.metrics.answered(answer.status)
	var body []byte
	switch content := answer.body.(type) {
	case nil:
	case string:
		header.Set("Content-Type", "text/plain; charset=UTF-8")
		body = []byte(content)
	default:
		header.Set("Content-Type", "application/json")
		body = encode(content)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.status)
	_, _ = w.Write(body) // a client that has gone cannot be told
}

func done(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }

// serve finds who answers a request.
func (s *Server) serve(r *request, w http.ResponseWriter) (reply, error) {
	if len(r.RequestURI) > uriMax {
		return reply{}, &apiError{status: http.StatusRequestURITooLong, text: "URI length exceeds the configured limit of " + strconv.Itoa(uriMax) + " characters", plain: true}
	}
	r.Body = http.MaxBytesReader(w, r.Body, int64(bodyMax))
	path, err := splitPath(r.URL.EscapedPath())
	if err != nil {
		return reply{}, err
	}
	if r.query, err = parseQuery(r.URL.RawQuery); err != nil {
		return reply{}, err
	}
	isAPI := len(path) > 2 && path[0] == "api" && path[1] == "v1" && path[2] != ""
	if r.Method == http.MethodOptions && (isAPI || s.cfg.Generation >= V2) {
		return done("OK")
	}
	if isAPI {
		return s.serveAPI(r, path[2:])
	}
	return s.serveOpen(r, strings.Join(path, "/"), w)
}

// serveAPI serves what needs credentials. Names are checked before those.
func (s *Server) serveAPI(r *request, path []string) (_ reply, err error) {
	syntax := checkPath(path)
	if syntax != nil {
		return reply{}, syntax
	}
	if r.user, err = s.authenticate(r.Request); err != nil {
		return reply{}, err
	}
	if path[0] != "namespaces" {
		return reply{}, noRoute()
	}
	if len(path) == 1 || len(path) == 2 && path[1] == "" {
		if r.Method != http.MethodGet {
			return reply{}, noRoute()
		}
		return done([]string{r.user.Namespace})
	}
	if len(path) < 3 {
		return reply{}, noRoute()
	}
	namespace, rest := path[1], path[3:]
	if namespace == "_" {
		namespace = r.user.Namespace
	}
	switch path[2] {
	case "limits":
		if len(rest) > 0 || r.Method != http.MethodGet {
			return reply{}, noRoute()
		}
		if namespace != r.user.Namespace {
			return reply{}, forbidden(namespace)
		}
		return done(s.namespaceLimits())
	case "packages":
		return s.servePackages(r, namespace, rest)
	case "actions":
		return s.serveActions(r, namespace, rest)
	case "activations":
		return s.serveActivations(r, namespace, rest)
	case "triggers", "rules":
		if r.Method == http.MethodGet && strings.Join(rest, "") == "" {
			return s.listNothing(r, namespace, path[2]) // so that `wsk list` works
		}
		return reply{}, failure(http.StatusNotImplemented,
			"This server has no triggers and rules: it is disdel's embedded platform. Invoke the action itself.")
	default:
		return reply{}, noRoute()
	}
}

// listNothing lists what there is none of.
func (s *Server) listNothing(r *request, namespace, what string) (reply, error) {
	if namespace != r.user.Namespace {
		return reply{}, forbidden(namespace)
	}
	if _, _, err := r.page(what); err != nil {
		return reply{}, err
	}
	count, err := r.boolean("count")
	if err != nil {
		return reply{}, err
	}
	if count {
		return done(map[string]int{what: 0})
	}
	return done([]string{})
}

// checkPath refuses names that can be nobody's.
func checkPath(path []string) error {
	if path[0] != "namespaces" || len(path) < 2 || path[1] == "" {
		return nil
	}
	if err := checkNamespace(path[1]); err != nil {
		return err
	}
	if len(path) < 3 || path[2] == "activations" || path[2] == "limits" {
		return nil
	}
	for i, name := range path[3:] {
		if name == "" && i == len(path[3:])-1 {
			return nil // a trailing slash
		}
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}
