// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/pool"
)

// status is how a call ended, as OpenWhisk counts.
type status int

const (
	statusSuccess status = iota
	statusApplication
	statusDeveloper
	statusWhisk
)

func (s status) String() string {
	return [...]string{"success", "application error", "action developer error", "whisk internal error"}[s]
}

// http is the status of the answer to a blocking call.
func (s status) http() int {
	return [...]int{http.StatusOK, http.StatusBadGateway, http.StatusBadGateway, http.StatusInternalServerError}[s]
}

// record is what is kept of a call; it never changes.
type record struct {
	id               platform.Activation
	namespace        string // that called
	pkg, name        string // of the action
	version          version
	annotations      []pair
	start, end       time.Time
	duration         time.Duration
	wait             time.Duration // from the request to start
	status           status
	result           json.RawMessage
	size             *int64 // of the container's answer; nil when there was none
	timedOut, isCold bool
	logs             []string
}

func (rec *record) bytes() job.Bytes {
	bytes := job.Bytes(len(rec.result)) + 512
	for _, line := range rec.logs {
		bytes += job.Bytes(len(line))
	}
	return bytes
}

// response is what came of a call.
func (rec *record) response() map[string]any {
	out := map[string]any{"result": rec.result, "status": rec.status.String(), "success": rec.status == statusSuccess}
	if rec.size != nil {
		out["size"] = *rec.size
	}
	return out
}

func (rec *record) common() map[string]any {
	return map[string]any{
		"namespace": rec.namespace, "name": rec.name, "version": rec.version.String(), "publish": false,
		"annotations": rec.annotations, "activationId": rec.id, "start": rec.start.UnixMilli(), "end": rec.end.UnixMilli(),
		"duration": rec.duration.Milliseconds(),
	}
}

// json is the whole record, with other logs if need be.
func (rec *record) json(logs []string) map[string]any {
	out := rec.common()
	out["subject"], out["response"], out["logs"] = rec.namespace, rec.response(), logs
	return out
}

// row is the record in a list.
func (rec *record) row() map[string]any {
	out := rec.common()
	out["statusCode"] = int(rec.status)
	return out
}

// makeRecord makes the record of a call that has ended; nil where OpenWhisk has
// none.
func (s *Server) makeRecord(act *activation, e pool.Ended) *record {
	if e.Reply != nil && e.Reply.Status == http.StatusServiceUnavailable && s.cfg.Generation >= V2 {
		return nil // a cold container that says so loses its call
	}
	now := time.Now()
	rec := &record{
		id: act.id, namespace: act.user.Namespace, pkg: act.action.pkg, name: act.action.name, version: act.action.version,
		timedOut: e.Outcome.Kind == platform.TimedOut, isCold: !e.InitBegan.IsZero(),
	}
	rec.status, rec.result = s.judge(act, e)
	if e.Reply != nil {
		rec.size = &e.Reply.Size
	}
	began, initTime := e.RunBegan, time.Duration(0)
	switch {
	case !e.InitBegan.IsZero() && !e.RunBegan.IsZero():
		initTime = e.RunBegan.Sub(e.InitBegan)
		began = e.InitBegan
	case !e.InitBegan.IsZero():
		initTime = e.Ended.Sub(e.InitBegan)
		began = e.InitBegan
	case began.IsZero():
		began = now
	}
	rec.start, rec.end = began, e.Ended
	if e.Ended.Before(began) {
		rec.end = began
	}
	rec.duration = rec.end.Sub(rec.start)

	note := func(key string, value any) {
		rec.annotations = append(rec.annotations, pair{Key: key, Value: encode(value)})
	}
	if act.binding != "" {
		note("binding", act.binding)
	}
	note("path", act.action.path())
	rec.wait = max(0, began.Sub(act.received))
	note("waitTime", rec.wait.Milliseconds())
	note("kind", act.action.exec.kind)
	note("timeout", rec.timedOut)
	note("limits", act.action.limits.json())
	if rec.isCold {
		note("initTime", initTime.Milliseconds())
	}
	rec.logs = makeLogs(act, e, rec.status)
	return rec
}

// Texts that actions' results consist of when they have none of their own.
const (
	textNoRun        = "The action did not produce a valid response and exited unexpectedly."
	textNoInit       = "The action did not initialize and exited unexpectedly."
	textNoMemory     = "The action exhausted its memory and was aborted."
	textNoProvision  = "Failed to provision resources to run the action."
	textServerClosed = "The server was stopped before the action had ended."
)

// judge says what came of a call, in OpenWhisk's words.
func (s *Server) judge(act *activation, e pool.Ended) (status, json.RawMessage) {
	outcome := e.Outcome.Kind
	if outcome == platform.OutOfMemory && s.cfg.Faults.HideMemory {
		outcome = platform.Lost
	}
	switch {
	case outcome == platform.TimedOut:
		text := "The action exceeded its time limits of " + milliseconds(act.function.Timeout)
		if e.Phase != pool.PhaseRun {
			text += " during initialization"
		}
		return statusDeveloper, errorResult(text + ".")
	case outcome == platform.OutOfMemory:
		return statusDeveloper, errorResult(textNoMemory)
	case outcome == platform.Cancelled:
		return statusWhisk, errorResult(textServerClosed)
	case e.Phase == pool.PhaseStart:
		return s.judgeStart(act, e.Err)
	case e.Reply == nil && e.Phase == pool.PhaseInit:
		return statusDeveloper, errorResult(textNoInit)
	case e.Reply == nil:
		return statusDeveloper, errorResult(textNoRun)
	case e.Reply.Size > int64(payloadMax):
		how := statusApplication
		if e.Phase == pool.PhaseInit {
			how = statusDeveloper
		}
		return how, errorResult("The action produced a response that exceeded the allowed length: " + formatInt(e.Reply.Size) + " > " +
			formatInt(int64(payloadMax)) + " bytes. The truncated response was: " + strings.ToValidUTF8(string(e.Reply.Body), "?"))
	case e.Phase == pool.PhaseInit:
		if text, ok := errorOf(e.Reply.Body); ok {
			return statusDeveloper, encode(map[string]json.RawMessage{"error": text})
		}
		return statusDeveloper, errorResult("The action failed during initialization: " + quote(e.Reply.Body))
	default:
		return s.judgeRun(e.Reply)
	}
}

// judgeStart is about a container that could not be started.
func (s *Server) judgeStart(act *activation, err error) (status, json.RawMessage) {
	user := act.action.exec.kind == blackbox
	switch {
	case is(err, pool.ErrProgram) && s.cfg.Generation >= V2:
		return statusDeveloper, errorResult("executable file not found in image " + act.action.exec.image)
	case is(err, pool.ErrImage) && user, is(err, pool.ErrProgram) && user:
		return statusDeveloper, errorResult("Failed to pull container image '" + act.action.exec.image + "'.")
	default:
		return statusWhisk, errorResult(textNoProvision)
	}
}

// judgeRun is about an answer to /run.
func (s *Server) judgeRun(r *pool.Reply) (status, json.RawMessage) {
	ok := r.Status == http.StatusOK
	body := json.RawMessage(strings.TrimSpace(string(r.Body)))
	if text, failed := errorOf(body); failed {
		if ok {
			return statusApplication, encode(map[string]json.RawMessage{"error": text})
		}
		return statusDeveloper, encode(map[string]json.RawMessage{"error": text})
	}
	arrays := s.cfg.Generation >= V2
	if ok && json.Valid(body) && (body[0] == '{' || body[0] == '[' && arrays) {
		return statusSuccess, body
	}
	text := "The action did not produce a valid JSON response"
	if arrays {
		text = "The action did not produce a valid JSON or JSON Array response"
	}
	if len(r.Body) == 0 {
		return statusDeveloper, errorResult(text + ".")
	}
	return statusDeveloper, errorResult(text + ": " + quote(r.Body))
}

// errorOf is the member "error" of a JSON object.
func errorOf(body []byte) (json.RawMessage, bool) {
	var o object
	if json.Unmarshal(body, &o) != nil {
		return nil, false
	}
	text, ok := o["error"]
	return text, ok
}

func errorResult(text string) json.RawMessage { return encode(map[string]string{"error": text}) }

// quoteMax bounds what a record shows of an answer that is no JSON.
const quoteMax = 64 << 10

func quote(body []byte) string {
	return strings.ToValidUTF8(string(body[:min(len(body), quoteMax)]), "?")
}

// makeLogs writes lines as OpenWhisk's logs have them.
func makeLogs(act *activation, e pool.Ended, how status) []string {
	logs := []string{}
	if act.action.limits.logs == 0 {
		return logs
	}
	var bytes job.Bytes
	for _, line := range e.Logs {
		stream := "stdout"
		if line.Stderr {
			stream = "stderr"
		}
		stamp := line.Time.UTC().Format("2006-01-02T15:04:05.000000000Z")
		text := stamp + strings.Repeat(" ", max(1, 31-len(stamp))) + stream + ": " + line.Text
		if bytes += job.Bytes(len(line.Text)); bytes > act.action.limits.logs {
			return append(logs, "Logs were truncated because the total bytes size exceeds the limit of "+formatInt(int64(act.action.limits.logs))+" bytes.")
		}
		logs = append(logs, text)
	}
	switch {
	case how >= statusDeveloper && e.Phase != pool.PhaseStart:
		logs = append(logs, "The action did not initialize or run as expected. Log data might be missing.")
	case act.function.Sentinels && e.Sentinels < 2 && e.Phase == pool.PhaseRun:
		logs = append(logs, "There was an issue while collecting your logs. Data might be missing.")
	}
	return logs
}

// records are the activations of all namespaces, oldest first.
type records struct {
	mu       sync.Mutex
	list     []*record
	byID     map[platform.Activation]*record
	bytes    job.Bytes
	countMax int
	bytesMax job.Bytes
}

func makeRecords(cfg Config) records {
	return records{byID: map[platform.Activation]*record{}, countMax: cfg.RecordMax, bytesMax: cfg.RecordBytesMax}
}

func (rs *records) add(rec *record) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.list = append(rs.list, rec)
	rs.byID[rec.id] = rec
	rs.bytes += rec.bytes()
	for len(rs.list) > rs.countMax || rs.bytes > rs.bytesMax && len(rs.list) > 1 {
		oldest := rs.list[0]
		rs.list[0] = nil
		rs.list = rs.list[1:]
		rs.bytes -= oldest.bytes()
		delete(rs.byID, oldest.id)
	}
}

func (rs *records) get(namespace string, id platform.Activation) *record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rec := rs.byID[id]; rec != nil && rec.namespace == namespace {
		return rec
	}
	return nil
}

// find returns records of a namespace, the newest start first.
func (rs *records) find(which func(*record) bool) []*record {
	rs.mu.Lock()
	var list []*record
	for _, rec := range slices.Backward(rs.list) {
		if which(rec) {
			list = append(list, rec)
		}
	}
	rs.mu.Unlock()
	slices.SortStableFunc(list, func(a, b *record) int { return b.start.Compare(a.start) })
	return list
}

// serveActivations serves what is below /namespaces/{namespace}/activations.
func (s *Server) serveActivations(r *request, namespace string, path []string) (reply, error) {
	if r.Method != http.MethodGet {
		return reply{}, noRoute()
	}
	if len(path) == 0 || len(path) == 1 && path[0] == "" {
		if namespace != r.user.Namespace {
			return reply{}, forbidden(namespace)
		}
		return s.listActivations(r)
	}
	id := path[0]
	switch {
	case len(id) != 32:
		return reply{}, rejection(http.StatusBadRequest, "Activation id length is %d but must be 32.", len(id))
	case strings.Trim(id, "0123456789abcdef") != "":
		return reply{}, rejection(http.StatusBadRequest, "The activation id is not valid.")
	case namespace != r.user.Namespace:
		return reply{}, forbidden(namespace + "/" + id)
	}
	part := strings.Join(path[1:], "/")
	if part != "" && part != "result" && part != "logs" {
		return reply{}, noRoute()
	}
	rec := s.records.get(namespace, platform.Activation(id))
	if rec == nil {
		return reply{}, notFound()
	}
	switch part {
	case "result":
		return done(rec.response())
	case "logs":
		return done(map[string][]string{"logs": rec.logs})
	default:
		return done(rec.json(rec.logs))
	}
}

func (s *Server) listActivations(r *request) (reply, error) {
	limit, skip, err := r.page("activations")
	if err != nil {
		return reply{}, err
	}
	count, err := r.boolean("count")
	if err != nil {
		return reply{}, err
	}
	docs, err := r.boolean("docs")
	if err != nil {
		return reply{}, err
	}
	if count && docs {
		return reply{}, failure(http.StatusBadRequest, "The parameter 'docs' is not permitted with 'count'.")
	}
	since, hasSince, err := r.instant("since")
	if err != nil {
		return reply{}, err
	}
	upto, hasUpto, err := r.instant("upto")
	if err != nil {
		return reply{}, err
	}
	pkg, name, packaged := strings.Cut(r.query.Get("name"), "/")
	if !packaged {
		pkg, name = "", pkg
	}
	list := s.records.find(func(rec *record) bool {
		start := rec.start.UnixMilli()
		return rec.namespace == r.user.Namespace && (name == "" || rec.name == name && rec.pkg == pkg) &&
			(!hasSince || start >= since.UnixMilli()) && (!hasUpto || start <= upto.UnixMilli())
	})
	if count {
		return done(map[string]int{"activations": max(0, len(list)-skip)})
	}
	rows := []map[string]any{}
	for _, rec := range cut(list, skip, limit) {
		if docs {
			rows = append(rows, rec.json(rec.logs))
		} else {
			rows = append(rows, rec.row())
		}
	}
	return done(rows)
}
