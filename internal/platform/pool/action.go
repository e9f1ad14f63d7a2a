// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// ActionClient speaks OpenWhisk's action interface to one worker, over one
// connection that it keeps. Drivers use it whatever the connection is. Init and
// Run must not be called at once; Close may be called at any time.
//
// What becomes of a bad answer follows OpenWhisk: an answer that cannot be
// delimited (none, broken off, chunked, without Content-Length) counts as if
// the worker had died and is an error; a status other than 200, or what is no
// JSON object, is an application error that costs the container; an answer that
// is too large is an application error, and a result with a member "error" is
// one that leaves the container alone.
type ActionClient struct {
	dial       func(ctx context.Context) (net.Conn, error)
	payloadMax job.Bytes

	mu     sync.Mutex // guards conn against Close
	conn   net.Conn
	limit  io.LimitedReader
	reader *bufio.Reader
}

// NewActionClient makes a client that connects when it must. An answer's body
// is at most payloadMax; 0 means 1 MB.
func NewActionClient(dial func(ctx context.Context) (net.Conn, error), payloadMax job.Bytes) *ActionClient {
	setDefault(&payloadMax, job.MB)
	return &ActionClient{dial: dial, payloadMax: payloadMax}
}

const (
	headerMax = 64 << 10
	// drainMax bounds what is read and thrown away of an answer that is too
	// large, to keep its container.
	drainMax = 16 << 20
	// quoteMax bounds what an error shows of an answer.
	quoteMax = 400
)

// Init sends /init, see Container.Init.
func (c *ActionClient) Init(ctx context.Context, req InitRequest) error {
	env := map[string]string{}
	for name, value := range req.Env {
		env[name] = value
	}
	env["__OW_NAMESPACE"] = cmp.Or(req.Namespace, namespace)
	env["__OW_ACTION_NAME"] = cmp.Or(req.Path, actionName(req.Package, req.Action))
	env["__OW_ACTION_VERSION"] = req.Version
	env["__OW_ACTIVATION_ID"] = string(req.Activation)
	env["__OW_TRANSACTION_ID"] = cmp.Or(req.Transaction, string(req.Activation))
	env["__OW_DEADLINE"] = deadlineText(req.Deadline)
	value := map[string]any{"name": req.Action, "main": cmp.Or(req.Main, "main"), "binary": req.Binary, "env": env}
	if req.Code != "" {
		value["code"] = req.Code
	}
	body, err := json.Marshal(map[string]any{"value": value})
	if err != nil {
		return fmt.Errorf("encode /init: %w", err)
	}
	answer, err := c.post(ctx, "/init", body)
	switch {
	case err != nil:
		return err
	case answer.oversize:
		return &ReplyError{answer.reply(), answer.oversizeText(c.payloadMax)}
	case answer.status != http.StatusOK:
		return &ReplyError{answer.reply(), fmt.Sprintf("/init status %d: %s", answer.status, answer.errorText())}
	}
	return nil
}

// Run sends /run, see Container.Run. It fills in Kind, Result, Message and
// Broken of the answer.
func (c *ActionClient) Run(ctx context.Context, req RunRequest) (Answer, error) {
	body, err := json.Marshal(struct {
		Value       json.RawMessage `json:"value"`
		Namespace   string          `json:"namespace"`
		Action      string          `json:"action_name"`
		Version     string          `json:"action_version"`
		Activation  string          `json:"activation_id"`
		Transaction string          `json:"transaction_id"`
		Deadline    string          `json:"deadline"`
		APIKey      string          `json:"api_key,omitempty"`
	}{
		req.Params, cmp.Or(req.Namespace, namespace), cmp.Or(req.Path, actionName(req.Package, req.Action)), req.Version,
		string(req.Activation), cmp.Or(req.Transaction, string(req.Activation)), deadlineText(req.Deadline), req.APIKey,
	})
	if err != nil {
		return Answer{}, fmt.Errorf("encode /run: %w", err)
	}
	answer, err := c.post(ctx, "/run", body)
	if err != nil {
		return Answer{}, err
	}
	result := func(a Answer) (Answer, error) {
		a.Reply = answer.reply()
		return a, nil
	}
	fail := func(message string, broken bool) (Answer, error) {
		return result(Answer{Kind: platform.ApplicationError, Message: message, Result: errorResult(message), Broken: broken})
	}
	if answer.oversize {
		return fail(answer.oversizeText(c.payloadMax), !answer.drained)
	}
	if req.Arrays && answer.status == http.StatusOK && isArray(answer.body) {
		return result(Answer{Kind: platform.Success, Result: answer.body})
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(answer.body, &object) != nil || object == nil {
		return fail(fmt.Sprintf("worker did not answer with a JSON object (status %d): %s", answer.status, quote(answer.body)), true)
	}
	_, failed := object["error"]
	switch {
	case answer.status != http.StatusOK && !failed:
		return fail(fmt.Sprintf("worker answered with status %d: %s", answer.status, quote(answer.body)), true)
	case failed:
		return result(Answer{
			Kind: platform.ApplicationError, Message: answer.errorText(), Result: answer.body,
			Broken: answer.status != http.StatusOK,
		})
	}
	return result(Answer{Kind: platform.Success, Result: answer.body})
}

func isArray(text []byte) bool {
	text = bytes.TrimSpace(text)
	return len(text) > 0 && text[0] == '[' && json.Valid(text)
}

// Close ends the connection.
func (c *ActionClient) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // nothing is to be sent any more
		c.conn = nil
	}
}

type httpAnswer struct {
	status   int
	body     []byte
	length   int64
	oversize bool // body is the beginning
	drained  bool // with oversize: the connection can be used further
}

func (a httpAnswer) reply() Reply { return Reply{Status: a.status, Body: a.body, Size: a.length} }

func (a httpAnswer) oversizeText(limit job.Bytes) string {
	return fmt.Sprintf("worker's answer exceeded the allowed length: %d > %d bytes: put data into the store", a.length, int64(limit))
}

// errorText is the answer's member "error" as text, else the answer.
func (a httpAnswer) errorText() string {
	var object map[string]json.RawMessage
	if json.Unmarshal(a.body, &object) != nil || object["error"] == nil {
		return quote(a.body)
	}
	var text string
	var failure struct{ Text string }
	if json.Unmarshal(object["error"], &text) == nil && text != "" {
		return quote([]byte(text))
	}
	if json.Unmarshal(object["error"], &failure) == nil && failure.Text != "" {
		return quote([]byte(failure.Text)) // disdel's worker, see job.EncodeAnswer
	}
	return quote(object["error"])
}

// post sends one request and reads its answer. The connection is given up after
// any error.
func (c *ActionClient) post(ctx context.Context, path string, body []byte) (_ httpAnswer, err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return httpAnswer{}, fmt.Errorf("%s: %w: %w", path, ErrNotSent, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() || err != nil {
			c.Close()
		}
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%s: %w", path, ctx.Err())
		}
	}()

	var request bytes.Buffer
	fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: action\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n",
		path, len(body))
	request.Write(body)
	if n, err := conn.Write(request.Bytes()); n == 0 && err != nil {
		return httpAnswer{}, fmt.Errorf("%s: %w: %w", path, ErrNotSent, err)
	} else if err != nil {
		return httpAnswer{}, fmt.Errorf("send %s: %w", path, err)
	}
	c.limit.N = headerMax
	resp, err := http.ReadResponse(c.reader, &http.Request{Method: http.MethodPost})
	if err != nil {
		return httpAnswer{}, fmt.Errorf("no answer to %s: %w", path, err)
	}
	if resp.ContentLength < 0 || resp.Header.Get("Content-Length") == "" {
		return httpAnswer{}, fmt.Errorf("answer to %s has no Content-Length: the action interface wants one, and no chunks", path)
	}
	answer := httpAnswer{status: resp.StatusCode, length: resp.ContentLength}
	c.limit.N = resp.ContentLength
	if resp.ContentLength > int64(c.payloadMax) {
		answer.oversize = true
		answer.body = make([]byte, c.payloadMax)
		n, err := io.ReadFull(resp.Body, answer.body)
		answer.body = answer.body[:n]
		if resp.ContentLength > drainMax {
			c.Close() // too large, whether it all comes or not
			return answer, nil
		}
		if err != nil {
			return httpAnswer{}, fmt.Errorf("read answer to %s: %w", path, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return httpAnswer{}, fmt.Errorf("read answer to %s: %w", path, err)
		}
		answer.drained = true
		return answer, nil
	}
	answer.body = make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, answer.body); err != nil {
		return httpAnswer{}, fmt.Errorf("read answer to %s: %w", path, err)
	}
	if resp.Close {
		c.Close()
	}
	return answer, nil
}

func (c *ActionClient) connect(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	c.limit = io.LimitedReader{R: conn}
	c.reader = bufio.NewReader(&c.limit)
	return conn, nil
}

const namespace = "guest"

func actionName(pkg, action string) string { return "/" + namespace + "/" + pkg + "/" + action }

func deadlineText(deadline time.Time) string { return strconv.FormatInt(deadline.UnixMilli(), 10) }

func errorResult(message string) json.RawMessage {
	result, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		panic("BUG: a string cannot be encoded: " + err.Error())
	}
	return result
}

// quote shortens what a worker said to one line for a message.
func quote(text []byte) string {
	if len(text) > quoteMax {
		text = append(bytes.Clone(text[:quoteMax]), "..."...)
	}
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")
	if line == "" {
		return "(empty)"
	}
	return line
}
