// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"disdel/internal/job"
)

var namePattern = regexp.MustCompile(`\A([\w]|[\w][\w@ .&-]{0,254}[\w@.&-])\z`)

// call is one request on its way through the server.
type request struct {
	*http.Request
	transaction string
	user        *account
	query       url.Values
	// connection is what the body comes through.
	connection *http.ResponseController
}

// splitPath returns a path's decoded segments. A trailing slash makes an empty
// last one.
func splitPath(escaped string) ([]string, error) {
	segments := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	for i, segment := range segments {
		text, err := url.PathUnescape(segment)
		if err != nil {
			return nil, rejection(http.StatusBadRequest, "The path segment '%s' cannot be decoded.", segment)
		}
		segments[i] = text
	}
	return segments, nil
}

// checkName refuses what is no name of an entity.
func checkName(name string) error {
	switch {
	case len(name) > nameMax:
		return rejection(http.StatusBadRequest, "Name segement longer than allowed: %d > %d.", len(name), nameMax)
	case !namePattern.MatchString(name):
		return rejection(http.StatusBadRequest, "The name of the entity contains illegal characters.")
	}
	return nil
}

func checkNamespace(name string) error {
	if len(name) > nameMax || !namePattern.MatchString(name) {
		return rejection(http.StatusBadRequest, "The namespace contains illegal characters.")
	}
	return nil
}

// authenticate finds the user of a request.
func (s *Server) authenticate(r *http.Request) (*account, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, rejection(http.StatusUnauthorized, textNoCredentials)
	}
	id, secret, ok := r.BasicAuth()
	user := s.accounts[strings.ToLower(id)]
	if !ok || user == nil {
		return nil, rejection(http.StatusUnauthorized, textBadCredential)
	}
	if subtle.ConstantTimeCompare([]byte(secret), []byte(user.Secret)) != 1 {
		return nil, rejection(http.StatusUnauthorized, textBadCredential)
	}
	return user, nil
}

// transactionOf returns the id that a client gave its request, or a new one.
func transactionOf(r *http.Request) string {
	id := r.Header.Get("X-Request-ID")
	if id == "" || strings.HasPrefix(id, "sid_") || len(id) > nameMax {
		return (rand.Text() + rand.Text())[:32]
	}
	return id
}

// parseQuery reads the query; of a name that is there twice the first counts.
func parseQuery(raw string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, rejection(http.StatusBadRequest, "The query string was malformed: %v", err)
	}
	return values, nil
}

// boolean reads a query parameter; absent and empty are false.
func (r *request) boolean(name string) (bool, error) { return r.booleanOr(name, false) }

func (r *request) booleanOr(name string, absent bool) (bool, error) {
	text := r.query.Get(name)
	switch strings.ToLower(text) {
	case "":
		return absent, nil
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	default:
		return false, badQuery(name, "'%s' is not a valid Boolean value", text)
	}
}

// page reads limit and skip of a list of what.
func (r *request) page(what string) (limit, skip int, err error) {
	limit = listDefault
	if text := r.query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return 0, 0, badQuery("limit", "The value '%s' is not an integer for %s.", text, what)
		case n < 0 || n > listMax:
			return 0, 0, badQuery("limit", "The value '%d' is not in the range of 0 to %d for %s.", n, listMax, what)
		case n == 0:
			n = listMax
		}
		limit = n
	}
	if text := r.query.Get("skip"); text != "" {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return 0, 0, badQuery("skip", "The value '%s' is not an integer for %s.", text, what)
		case n < 0:
			return 0, 0, badQuery("skip", "The value '%d' is not greater than or equal to 0 for %s.", n, what)
		}
		skip = n
	}
	return limit, skip, nil
}

// instant reads a time in milliseconds.
func (r *request) instant(name string) (at time.Time, ok bool, err error) {
	text := r.query.Get(name)
	if text == "" {
		return at, false, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || ms > maxInstant {
		return at, false, badQuery(name, "Parameter is not a valid value for epoch seconds: %s", text)
	}
	return time.UnixMilli(ms), true, nil
}

// maxInstant is far in the future, and small enough for a time.
const maxInstant = 1 << 50

// readBody reads a request's body: JSON of at most limit bytes, or nothing. What
// is larger than limit is refused as field; what is larger than any body may be,
// as OpenWhisk's HTTP server does.
func (r *request) readBody(limit job.Bytes, field string) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > int64(bodyMax) {
		return nil, &apiError{status: http.StatusInternalServerError, text: "Request too large", plain: true}
	}
	if field != "" && r.ContentLength > int64(limit) {
		return nil, tooLarge(field, r.ContentLength, int64(limit))
	}
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, text: "EntityStreamSizeException: incoming entity size exceeded size limit", plain: true}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, rejection(http.StatusRequestTimeout, "The request body did not come in time.")
	case err != nil:
		return nil, rejection(http.StatusBadRequest, "The request body could not be read: %v", err)
	case job.Bytes(len(body)) > limit && field == "":
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, text: "EntityStreamSizeException: incoming entity size exceeded size limit", plain: true}
	case job.Bytes(len(body)) > limit:
		return nil, tooLarge(field, int64(len(body)), int64(limit))
	}
	return body, nil
}

func checkContentType(text string) error {
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && kind == "application/json" {
		return nil
	}
	if text == "" {
		kind = "application/octet-stream"
	} else if err != nil {
		kind = text
	}
	return rejection(http.StatusUnsupportedMediaType, "The request's Content-Type [%s] is not supported. Expected:\napplication/json", kind)
}

// object is a JSON object whose members are not looked into.
type object map[string]json.RawMessage

// parseObject reads a body that must be a JSON object.
func parseObject(body []byte) (object, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, malformed("Unexpected end-of-input at input index 0 (line 1, position 1), expected JSON Value:\n\n^\n")
	}
	if !json.Valid(body) {
		return nil, malformed("the text is not JSON: %v", json.Unmarshal(body, new(any)))
	}
	if bytes.TrimSpace(body)[0] != '{' {
		return nil, malformed("JSON object expected")
	}
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, malformed("JSON object expected: %v", err)
	}
	return o, nil
}

// has reports whether a member is there and not null.
func (o object) has(name string) bool {
	raw, ok := o[name]
	return ok && !isNull(raw)
}

// quoted is JSON as a message repeats it.
func quoted(raw json.RawMessage) string {
	const most = 100
	text := string(compact(raw))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// text reads a member that must be a string.
func (o object) text(name string) (string, bool) {
	var text string
	if !o.has(name) || json.Unmarshal(o[name], &text) != nil {
		return "", false
	}
	return text, true
}

// encode writes JSON without escaping what only HTML needs escaped.
func encode(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(fmt.Sprintf("BUG: an answer cannot be written as JSON: %v", err))
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}
